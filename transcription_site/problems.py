"""What cannot be answered: a page where a person's browser asks, the API's JSON for all else."""

from __future__ import annotations

from typing import Final

from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.cache import patch_vary_headers
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from jobs.api import errors

_UNEXPECTED: Final = gettext_lazy("Something went wrong here. It is logged.")
_SAID: Final = {
    400: gettext_lazy("This request cannot be read."),
    403: gettext_lazy("You may not do this."),
    404: gettext_lazy("There is nothing here."),
    413: gettext_lazy("This is larger than may be sent."),
    503: gettext_lazy("The service cannot answer just now. Try again in a moment."),
    507: gettext_lazy("There is no room for this; nothing was stored."),
}


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """For `handler400`."""
    return _shown(request, errors.bad_request(request, exception))


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """For `handler403`."""
    return _shown(request, errors.permission_denied(request, exception))


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """For `handler404`."""
    return _shown(request, errors.not_found(request, exception))


def server_error(request: HttpRequest) -> HttpResponse:
    """For `handler500`."""
    return _shown(request, errors.server_error(request))


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """For `CSRF_FAILURE_VIEW`."""
    answer = errors.csrf_failure(request, reason)
    if request.path.startswith(reverse("admin:index")):
        return answer
    return _shown(request, answer, _("This page was open for too long. Load it and try again."))


def _shown(request: HttpRequest, answer: HttpResponse, said: str = "") -> HttpResponse:
    """The answer itself, or a page that says the same, as the caller would rather have it."""
    if request.get_preferred_type(["application/json", "text/html"]) == "text/html":
        said = said or str(_SAID.get(answer.status_code, _UNEXPECTED))
        # Without the request, as to ask who is signed in would take the database.
        page = render_to_string("web/problem.html", {"said": said})
        kept = {name: answer[name] for name in ("Retry-After",) if name in answer}
        answer = HttpResponse(page, status=answer.status_code, headers=kept)
    patch_vary_headers(answer, ["Accept"])
    return answer
