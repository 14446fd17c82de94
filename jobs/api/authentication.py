"""Who is calling: a token, checked in one SQL statement, or a browser session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

from django.contrib.auth.models import User
from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from knox.auth import TokenAuthentication as KnoxTokenAuthentication
from knox.crypto import hash_token
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from jobs.models import AuthToken


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What a view wants to know from the statement that checks the token.

    A table that is joined as `beside`, and its columns by the attributes of `request.auth` that
    they become. The condition may name the token's `account`, and takes `value`.
    """

    table: str
    condition: str
    value: Any
    columns: Mapping[str, str]


class AsksWithToken(Protocol):
    """A view that wants more from the statement that checks the token."""

    def beside_token(self) -> Beside: ...


# In the order of the model's fields, as `from_db` wants them.
_ACCOUNT: Final = ("id", "is_superuser", "username", "is_staff", "is_active")
# By hand: Django takes three times as long to make this statement as PostgreSQL to answer it.
_CHECK: Final = f"""\
SELECT token.digest, token.token_key, token.expiry, token.is_service, token.user_id
       {"".join(f", account.{name} AS account_{name}" for name in _ACCOUNT)}{{columns}}
FROM jobs_authtoken AS token JOIN auth_user AS account ON account.id = token.user_id {{join}}
WHERE token.digest = %s
"""  # noqa: S608  (names of our own)


class TokenAuthentication(KnoxTokenAuthentication):  # type: ignore[misc]  # knox has no types
    """Knox's tokens, found by their whole digest.

    Stock knox looks for the token's first characters, then asks for all tokens of the user: two
    statements. A view with `beside_token` gets more from the one that is asked here.
    """

    _beside: Beside | None = None

    def authenticate(self, request: Request) -> tuple[User, AuthToken] | None:
        view = request.parser_context.get("view") if request.parser_context else None
        ask = getattr(view, "beside_token", None)
        self._beside = ask() if ask else None
        return cast("tuple[User, AuthToken] | None", super().authenticate(request))

    def check(self, token: str, beside: Beside | None = None) -> tuple[User, AuthToken]:
        """Whose token that is, and in the token's attributes what was asked beside.

        Raises:
            AuthenticationFailed: nobody's any more.
        """
        self._beside = beside
        return self.authenticate_credentials(token.encode(errors="replace"))

    def authenticate_credentials(self, token: bytes) -> tuple[User, AuthToken]:
        try:
            digest = hash_token(token.decode())
        except UnicodeDecodeError:
            raise AuthenticationFailed("Invalid token.") from None
        found = next(iter(AuthToken.objects.raw(*self._statement(digest))), None)
        if found is None or (found.expiry is not None and found.expiry < timezone.now()):
            raise AuthenticationFailed("Invalid token.")
        values = [getattr(found, f"account_{name}") for name in _ACCOUNT]
        found.user = User.from_db(None, _ACCOUNT, values)
        return cast("tuple[User, AuthToken]", self.validate_user(found))

    def _statement(self, digest: str) -> tuple[str, list[Any]]:
        if self._beside is None:
            return _CHECK.format(columns="", join=""), [digest]
        columns = "".join(f", beside.{c} AS {name}" for name, c in self._beside.columns.items())
        join = f"LEFT JOIN {self._beside.table} AS beside ON {self._beside.condition}"
        return _CHECK.format(columns=columns, join=join), [self._beside.value, digest]


@dataclass(frozen=True)
class Caller:
    """Whose data a request may touch."""

    username: str
    is_service: bool

    @classmethod
    def of(cls, request: Request) -> Caller:
        """The caller of an authenticated request; a staff member's session counts as service."""
        return cls.known_by(request.user, request.auth)

    @classmethod
    def known_by(cls, user: Any, auth: object) -> Caller:
        """The caller with that token, or signed in by session where it is none."""
        is_service = auth.is_service if isinstance(auth, AuthToken) else user.is_staff
        return cls(username=user.get_username(), is_service=bool(is_service))

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
