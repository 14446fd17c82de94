"""`manage.py issue_token`: make a token, and its user if need be."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any, Final

from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import make_password
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from jobs.models import AuthToken, validate_user_id

MAX_DAYS: Final = 36_500


class Command(BaseCommand):
    help = (
        "Makes the user if need be, makes a token and prints it and nothing else; it is shown once."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username", help="the user; an ordinary token's userId is this name")
        parser.add_argument(
            "--service",
            action="store_true",
            help="the token may name any userId and any path inside the audio root",
        )
        parser.add_argument(
            "--expires",
            type=float,
            metavar="DAYS",
            help="days until the token ends (default: it lives until it is revoked)",
        )

    def handle(
        self, *, username: str, service: bool, expires: float | None, **options: Any
    ) -> None:
        try:
            validate_user_id(username)
        except ValidationError as error:
            raise CommandError(f"{username!r} is no user name: {error.messages[0]}") from None
        if expires is not None and not 0 < expires <= MAX_DAYS:
            raise CommandError(f"--expires: more than 0 and at most {MAX_DAYS} days")
        user, _ = get_user_model().objects.get_or_create(
            username=username, defaults={"password": make_password(None)}
        )
        if not user.is_active:
            raise CommandError(f"{username!r} is not active; its tokens would be refused")
        expiry = None if expires is None else timedelta(days=expires)
        _, token = AuthToken.objects.create(user=user, expiry=expiry, is_service=service)
        self.stdout.write(token)
