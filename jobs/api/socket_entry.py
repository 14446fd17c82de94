"""Who opens a socket, and what it may show: looked at once when it is opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from io import BytesIO
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.contrib.auth import get_user
from django.core.exceptions import ValidationError
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest
from django.middleware.csrf import CsrfViewMiddleware
from rest_framework import status
from rest_framework.exceptions import (
    APIException,
    NotAuthenticated,
    PermissionDenied,
    Throttled,
)

from jobs.api.authentication import Beside, Caller, TokenAuthentication
from jobs.api.errors import AnotherUser
from jobs.api.throttling import counted_as
from jobs.api.visibility import JobStamp, beside_token, visible_job
from jobs.models import AuthToken
from jobs.models.job import validate_user_id
from jobs.rate_limits import take

SUBPROTOCOL: Final = "token"


class InvalidUserId(APIException):
    """A userId that nobody can have."""

    status_code = status.HTTP_400_BAD_REQUEST
    default_code = "invalid_user_id"


class OriginCheck(CsrfViewMiddleware):
    """Django's own: this host, or one of CSRF_TRUSTED_ORIGINS."""

    def is_trusted(self, request: HttpRequest) -> bool:
        """Whether a page of ours opened it; a browser always says which page did."""
        return "HTTP_ORIGIN" in request.META and bool(self._origin_verified(request))  # type: ignore[attr-defined]


_origins: Final = OriginCheck(lambda _: None)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Credentials:
    """What a socket is opened with: a token, or the key of a browser's session; '' for none."""

    token: str = field(default="", repr=False)
    session_key: str = field(default="", repr=False)

    @classmethod
    def of(cls, scope: Any) -> Credentials:
        """By the sub-protocols, the header `Authorization`, or a page's cookie, in this order.

        Any page of the world may open a socket to here, and the browser sends the cookie along: it
        counts for pages of our own only. A token is not sent unless somebody means it.
        """
        protocols: list[str] = scope.get("subprotocols") or []
        if len(protocols) > 1 and protocols[0] == SUBPROTOCOL:
            return cls(token=protocols[1])
        scheme = "https" if scope.get("scheme") == "wss" else "http"
        as_http = {**scope, "type": "http", "method": "GET", "scheme": scheme, "query_string": b""}
        request = ASGIRequest(as_http, BytesIO())
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "token":
            return cls(token=token.strip())
        if _origins.is_trusted(request):
            return cls(session_key=request.COOKIES.get(settings.SESSION_COOKIE_NAME, ""))
        return cls()


def sign_in(credentials: Credentials, beside: Beside | None = None) -> tuple[Any, AuthToken | None]:
    """The user, and the token where it is one.

    Raises:
        APIException: 401: nobody is signed in by this, or not any more.
    """
    if credentials.token:
        return TokenAuthentication().check(credentials.token, beside)
    if credentials.session_key:
        request = HttpRequest()
        store: Any = import_module(settings.SESSION_ENGINE).SessionStore
        request.session = store(credentials.session_key)
        user = get_user(request)
        if user.is_authenticated:
            return user, None
    raise NotAuthenticated


def enter_job(credentials: Credentials, job_id: UUID) -> tuple[Caller, JobStamp]:
    """The caller, who may see the job; with a token it takes one statement.

    Raises:
        APIException: 401, 404, 410, or 429 of the rate limit.
    """
    user, auth = sign_in(credentials, beside_token(job_id))
    caller = _counted(user, auth)
    return caller, visible_job(job_id, caller, auth)


def enter_user(credentials: Credentials, asked: str | None) -> tuple[Caller, str]:
    """The caller, and the userId whose jobs are shown: the caller's own, or that asked for.

    Raises:
        APIException: 400, 401, 403, or 429 of the rate limit.
    """
    user, auth = sign_in(credentials)
    caller = _counted(user, auth)
    if asked is None:
        return caller, caller.username
    try:
        validate_user_id(asked)
    except ValidationError:
        raise InvalidUserId from None
    if not caller.may_see(asked):
        raise AnotherUser
    return caller, asked


def refuse_plain(scope: Any) -> None:
    """As HTTP is: what is sent without TLS can be read on the way. Raises APIException: 403."""
    if settings.SECURE_SSL_REDIRECT and scope.get("scheme") != "wss":
        raise PermissionDenied


def _counted(user: Any, auth: AuthToken | None) -> Caller:
    caller = Caller.known_by(user, auth)
    if settings.RATE_LIMIT is not None and not caller.is_service:
        allowance = take(counted_as(user, auth), *settings.RATE_LIMIT)
        if allowance is not None and not allowance.allowed:
            raise Throttled(allowance.retry_seconds)
    return caller
