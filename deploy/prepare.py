"""Before a start: migrate the database; make the user and the token that the launcher prints.

`python -m deploy.prepare admin` makes a superuser and a service token, any other name an ordinary
user and token. Both are kept in VAR_DIR/credentials.json and made again only when the database
does not know them.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from io import StringIO
from pathlib import Path


def main(username: str) -> None:
    """Exits with one line when the database or the broker does not answer."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "transcription_site.settings")
    import django

    django.setup()
    import redis
    from django.conf import settings
    from django.core.management import call_command
    from django.db import OperationalError

    from asr.errors import EngineMisconfigured
    from jobs import engines, storage
    from jobs.storage.local import LocalAudioStorage

    if os.environ.get("BUNDLED_REDIS") == "false":
        try:
            redis.Redis.from_url(settings.BROKER_URL, socket_timeout=5, retry=None).ping()
        except redis.RedisError as error:
            sys.exit(f"verbatim: the server at REDIS_URL does not answer: {error}")
    try:
        engines.prepare()
    except EngineMisconfigured as error:
        sys.exit(f"verbatim: {error.detail}")
    try:
        call_command("migrate", verbosity=0, interactive=False)
    except OperationalError as error:
        sys.exit(f"verbatim: the database does not answer: {str(error).splitlines()[0]}")
    is_local = isinstance(storage.audio_files(), LocalAudioStorage)
    if is_local and not settings.AUDIO_ROOT.is_dir():
        sys.exit(f"verbatim: AUDIO_ROOT is no folder: {settings.AUDIO_ROOT}")
    try:
        storage.audio_files().look()
    except storage.StorageAwayError as error:
        sys.exit(f"verbatim: {error.advice}")
    _keep(settings.VAR_DIR / "credentials.json", username)


def _keep(path: Path, username: str) -> None:
    kept: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    wanted = {"username": username, **kept}
    if username == "admin":
        wanted["password"] = _admin_password(kept.get("password"))
    if not _is_valid(kept.get("token")):
        wanted["token"] = _new_token(username)
    if wanted != kept:
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(wanted, file, indent=2)


def _admin_password(kept: str | None) -> str:
    """The password of the superuser `admin`; '' when it is not of our making."""
    from django.contrib.auth import get_user_model

    if get_user_model().objects.filter(username="admin").exists():
        return kept or ""
    password = kept or secrets.token_urlsafe(12)
    get_user_model().objects.create_superuser("admin", password=password)
    return password


def _is_valid(token: str | None) -> bool:
    from rest_framework.exceptions import AuthenticationFailed

    from jobs.api.authentication import TokenAuthentication

    try:
        return bool(token and TokenAuthentication().authenticate_credentials(token.encode()))
    except AuthenticationFailed:
        return False


def _new_token(username: str) -> str:
    from django.core.management import call_command

    printed = StringIO()
    call_command("issue_token", username, service=username == "admin", stdout=printed)
    return printed.getvalue().strip()


if __name__ == "__main__":
    main(sys.argv[1])
