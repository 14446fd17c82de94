"""AuthToken: knox's token with the service mark."""

from __future__ import annotations

from django.db import models
from knox.models import AbstractAuthToken


class AuthToken(AbstractAuthToken):  # type: ignore[misc]  # knox has no types
    """A token, stored hashed: an ordinary one speaks for its user, a service token for all."""

    is_service = models.BooleanField(
        "service token", default=False, help_text="May name any userId and any path."
    )

    class Meta:
        verbose_name = "token"

    def __str__(self) -> str:
        return f"{self.token_key}… of {self.user}"
