"""The rate limit of the API, and the headers that tell a caller how much of it is left."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from jobs.api.authentication import Caller
from jobs.models import AuthToken
from jobs.rate_limits import Allowance, take


class RateLimit(BaseThrottle):
    """Limits each token, and each user who is signed in by session; nobody unless it is set."""

    _allowance: Allowance | None = None

    def allow_request(self, request: Request, view: Any) -> bool:
        rate = settings.RATE_LIMIT
        if rate is None or not request.user.is_authenticated or Caller.of(request).is_service:
            return True
        limit, seconds = rate
        http: Any = request._request
        # A view that waited for a job is called twice for one call.
        self._allowance = getattr(http, "allowance", None) or take(
            counted_as(request.user, request.auth), limit, seconds
        )
        http.allowance = self._allowance
        if self._allowance is None:
            return True
        # The view puts these on its answer, whatever becomes of the call.
        view.headers["RateLimit-Limit"] = str(limit)
        view.headers["RateLimit-Remaining"] = str(self._allowance.remaining)
        view.headers["RateLimit-Reset"] = str(self._allowance.reset_seconds)
        return self._allowance.allowed

    def wait(self) -> float | None:
        return None if self._allowance is None else max(1, self._allowance.retry_seconds)


def counted_as(user: Any, auth: object) -> str:
    """Under which name calls with that token are counted, or those of a user signed in."""
    return f"token:{auth.pk}" if isinstance(auth, AuthToken) else f"user:{user.pk}"
