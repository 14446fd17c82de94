"""Who is calling: a token, checked in one SQL statement, or a browser session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

from django.contrib.auth.models import User
from django.db.models import Expression
from django.db.models.expressions import Combinable
from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from knox.auth import TokenAuthentication as KnoxTokenAuthentication
from knox.crypto import hash_token
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from jobs.models import AuthToken


class AsksWithToken(Protocol):
    """A view that wants more from the statement that checks the token."""

    def token_annotations(self) -> Mapping[str, Expression | Combinable]: ...


class TokenAuthentication(KnoxTokenAuthentication):  # type: ignore[misc]  # knox has no types
    """Knox's tokens, found by their whole digest.

    Stock knox looks for the token's first characters, then asks for all tokens of the user: two
    statements. A view with `token_annotations` gets these expressions as attributes of
    `request.auth`, from the same statement.
    """

    _annotations: Mapping[str, Any] = {}

    def authenticate(self, request: Request) -> tuple[User, AuthToken] | None:
        view = request.parser_context.get("view") if request.parser_context else None
        ask = getattr(view, "token_annotations", None)
        self._annotations = ask() if ask else {}
        return cast("tuple[User, AuthToken] | None", super().authenticate(request))

    def authenticate_credentials(self, token: bytes) -> tuple[User, AuthToken]:
        try:
            digest = hash_token(token.decode())
        except UnicodeDecodeError:
            raise AuthenticationFailed("Invalid token.") from None
        found = (
            AuthToken.objects.filter(digest=digest)
            .select_related("user")
            .annotate(**self._annotations)
            .first()
        )
        if found is None or (found.expiry is not None and found.expiry < timezone.now()):
            raise AuthenticationFailed("Invalid token.")
        return cast("tuple[User, AuthToken]", self.validate_user(found))


@dataclass(frozen=True)
class Caller:
    """Whose data a request may touch."""

    username: str
    is_service: bool

    @classmethod
    def of(cls, request: Request) -> Caller:
        """The caller of an authenticated request; a staff member's session counts as service."""
        token = request.auth
        if isinstance(token, AuthToken):
            return cls(username=request.user.get_username(), is_service=token.is_service)
        return cls(
            username=request.user.get_username(),
            is_service=bool(getattr(request.user, "is_staff", False)),
        )

    def may_see(self, user_id: str) -> bool:
        return self.is_service or self.username == user_id


class TokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How the OpenAPI document shows the token."""

    target_class = TokenAuthentication
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "description": "`Token <token>`, from `manage.py issue_token`.",
        }
