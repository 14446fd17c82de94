"""Signing in, and what every page has."""

from __future__ import annotations

from typing import Any, Final

from django.contrib.auth.mixins import LoginRequiredMixin
from django.contrib.auth.views import LoginView
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import cache_control
from django.views.generic import TemplateView
from django.views.i18n import JavaScriptCatalog

ERASED: Final = "erased"  # of what was there once, in a page's Http404


# The pages' words in the reader's language, for their scripts: the same for everybody.
catalogue = cache_control(max_age=3600)(JavaScriptCatalog.as_view(packages=["jobs"]))


def not_found(
    request: HttpRequest, shown: dict[str, Any] | None = None, status: int = 404
) -> HttpResponse:
    """A page that says that there is nothing."""
    return render(request, "web/not_found.html", shown, status=status)


class SignIn(LoginView):
    """For all accounts that have a password; who is signed in already is led on."""

    template_name = "web/sign_in.html"
    redirect_authenticated_user = True


class Page(LoginRequiredMixin, TemplateView):
    """A page of the person who is signed in, and of nobody else."""

    here = ""

    @property
    def user_id(self) -> str:
        """Whose things it shows."""
        return str(self.request.user.get_username())

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """The page, or one that says that there is nothing; a caller of the API gets JSON."""
        try:
            return super().get(request, *args, **kwargs)
        except Http404 as error:
            erased = str(error) == ERASED
            shown = {"erased": erased, "user_id": self.user_id, "job_id": kwargs.get("job_id")}
            return not_found(request, shown, status=410 if erased else 404)

    def get_context_data(self, **context: Any) -> dict[str, Any]:
        return super().get_context_data(here=self.here, user_id=self.user_id, **context)
