"""What all our calls share: a query parameter that a call does not know is refused."""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.request import Request
from rest_framework.settings import api_settings
from rest_framework.viewsets import GenericViewSet

from jobs.api.serializers import printable

PAGE: Final = [
    OpenApiParameter("limit", {"type": "integer", "minimum": 1, "maximum": 100}),
    OpenApiParameter("cursor", OpenApiTypes.STR, description="As in `next` and `previous`."),
]


class ApiViewSet(GenericViewSet[Any]):
    """A view of the API. What it documents as its parameters is what it takes."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Refuse what would be ignored: a filter with a typo filters nothing.

        Raises:
            ValidationError
        """
        super().initial(request, *args, **kwargs)
        schema = getattr(getattr(self, self.action or "", None), "kwargs", {}).get("schema")
        if not request.GET or schema is None:
            return
        described = schema()
        described.view = self
        documented = described.get_override_parameters()
        known = {each.name for each in documented if each.location == OpenApiParameter.QUERY}
        if unknown := set(request.GET) - known - {api_settings.URL_FORMAT_OVERRIDE}:
            wrong = ErrorDetail("There is no such parameter.", "unknown_field")
            raise ValidationError({printable(name): [wrong] for name in sorted(unknown)})
