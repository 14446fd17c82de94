"""What the cache holds, written as a response is: a result's bytes can be sent as they are."""

from __future__ import annotations

import json
from typing import Any

from django_redis.serializers.base import BaseSerializer
from rest_framework.renderers import JSONRenderer


class CompactJSONSerializer(BaseSerializer):  # type: ignore[misc]  # django-redis has no types
    """JSON by REST framework's own renderer. Escaped, Chinese would take twice the room."""

    def dumps(self, value: Any) -> bytes:
        """Raises TypeError or ValueError for what JSON does not know."""
        rendered: bytes = JSONRenderer().render(value)
        return rendered

    def loads(self, value: bytes) -> Any:
        """Raises ValueError for what is no JSON."""
        return json.loads(value)
