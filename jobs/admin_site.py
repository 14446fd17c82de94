"""The admin site: Django's, whose front page says whether all is well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from django.contrib.admin import AdminSite, ModelAdmin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import unquote
from django.core.exceptions import ValidationError
from django.db.models import Field
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from jobs.admin_front import front
from jobs.sign_in import limited


class VerbatimAdminSite(AdminSite):
    """Takes the place of `admin.site`; every app registers its models here."""

    site_header = "Verbatim"
    site_title = "Verbatim"
    index_title = "Is it well?"

    def index(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        """The front page: what needs a look, and the figures of the last 24 hours."""
        return super().index(request, {**(extra_context or {}), **front(request.user)})

    def login(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Django's, with bounded tries."""
        return cast("HttpResponse", limited(super().login)(request, extra_context))

    def password_change(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        """Django's, likewise: it asks for the old password."""
        bounded = limited(super().password_change, lambda asked: asked.user.get_username())
        return cast("TemplateResponse", bounded(request, extra_context))

    def admin_view(self, view: Any, cacheable: bool = False) -> Any:
        """Django's, but an id that cannot be one is an address that does not exist."""
        page = getattr(view, "__self__", None)
        if isinstance(page, ModelAdmin):
            view = _for_possible_ids(page.opts.pk, view)
        return super().admin_view(view, cacheable)


def _for_possible_ids(key: Field[Any, Any], view: Callable[..., Any]) -> Callable[..., Any]:
    """The page's view; it would fail at an id, in the address or among the ticked, that is none."""

    def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        named = request.POST.getlist(ACTION_CHECKBOX_NAME)
        if isinstance(object_id := kwargs.get("object_id"), str):
            named = [*named, unquote(object_id)]
        if not all(_may_be(key, text) for text in named):
            raise Http404
        return view(request, *args, **kwargs)

    return checked


def _may_be(key: Field[Any, Any], text: str) -> bool:
    try:
        key.run_validators(key.to_python(text))
    except ValidationError:
        return False
    return "\0" not in text  # which PostgreSQL does not take
