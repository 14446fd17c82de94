"""What a browser is told, who is believed, and that the production settings are clean."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from tests import factories
from tests.helpers import client_of
from transcription_site.asgi import Application
from transcription_site.env import BASE_DIR, Environment

PRODUCTION = {
    "DATABASE_URL": "postgres://verbatim:word@127.0.0.1:1/verbatim",
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "ALLOWED_HOSTS": "transcripts.example.org",
    "HTTPS_ONLY": "True",
}


def check_deploy(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """`manage.py check --deploy`, with nothing from this process's environment."""
    ours = {field.upper() for field in Environment.model_fields}
    environ = {name: value for name, value in os.environ.items() if name not in ours}
    environ |= {"VAR_DIR": str(folder), "AUDIO_ROOT": str(folder), **variables}
    command = [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    return subprocess.run(
        command, cwd=BASE_DIR, env=environ, capture_output=True, text=True, timeout=100, check=False
    )


def test_the_settings_of_production_are_clean(tmp_path: Path) -> None:
    done = check_deploy(tmp_path, **PRODUCTION, SECRET_KEY=secrets.token_hex(32))
    assert done.returncode == 0, done.stderr
    assert "no issues" in done.stdout


def test_what_is_missing_in_production_is_said(tmp_path: Path) -> None:
    plain = {name: value for name, value in PRODUCTION.items() if name != "HTTPS_ONLY"}
    done = check_deploy(tmp_path, **plain, SECRET_KEY="short")
    assert done.returncode == 1
    for check in ("W004", "W008", "W009", "W012", "W016"):
        assert f"security.{check}" in done.stderr


# --- HTTPS ---


@pytest.fixture
def https_only(settings: Any) -> None:
    """As HTTPS_ONLY=True sets it."""
    settings.SECURE_SSL_REDIRECT = True
    settings.SECURE_HSTS_SECONDS = 31536000
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = True


@pytest.mark.usefixtures("https_only", "db")
def test_plain_http_is_sent_to_https_whatever_the_caller_claims() -> None:
    for claims in ({}, {"X-Forwarded-Proto": "https"}, {"X-Forwarded-Ssl": "on"}):
        answer = client_of().get("/schema", headers=claims)
        assert (answer.status_code, answer["Location"]) == (301, "https://testserver/schema")


@pytest.mark.usefixtures("https_only")
@pytest.mark.parametrize(("proxy", "status"), [("127.0.0.1", 200), ("10.0.0.9", 301)])
def test_of_https_only_a_trusted_proxy_is_believed(
    transactional_db: None, proxy: str, status: int
) -> None:
    served: Any = ProxyHeadersMiddleware(Application(), trusted_hosts="127.0.0.1")

    async def ask() -> int:
        transport = httpx2.ASGITransport(app=served, client=(proxy, 1))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return (await client.get("/schema", headers={"X-Forwarded-Proto": "https"})).status_code

    assert asyncio.run(ask()) == status


@pytest.mark.usefixtures("https_only", "db")
def test_what_asks_from_within_is_answered_by_plain_http() -> None:
    assert [client_of().get(address).status_code for address in ("/healthz", "/readyz")] == [
        200
    ] * 2


@pytest.mark.usefixtures("https_only", "db")
def test_by_https_browsers_are_told_to_stay_there_and_cookies_are_kept_to_it() -> None:
    client = client_of()
    answer = client.get("/admin/login/", secure=True)
    assert answer["Strict-Transport-Security"] == "max-age=31536000"
    assert answer.cookies["csrftoken"]["secure"]
    client.force_login(factories.make_user("alice"))
    assert client.cookies["sessionid"]["secure"]


@pytest.mark.django_db
def test_on_a_machine_of_ones_own_plain_http_is_enough() -> None:
    answer = client_of().get("/schema")
    assert answer.status_code == 200
    assert "Strict-Transport-Security" not in answer


# --- headers of every answer ---


@pytest.mark.django_db
@pytest.mark.parametrize(
    "address", ["/docs", "/admin/login/", "/schema", "/healthz", "/nothing", "/transcript/search"]
)
def test_every_answer_says_what_a_browser_may_do_with_it(address: str) -> None:
    answer = client_of().get(address)
    policy = answer["Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == "'self'"
    assert rules["frame-ancestors"] == rules["base-uri"] == "'none'"
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["X-Frame-Options"] == "DENY"
    assert answer["Referrer-Policy"] == "same-origin"
    assert answer["X-Request-ID"]


@pytest.mark.django_db
def test_media_may_come_from_this_service() -> None:
    rules = client_of().get("/docs")["Content-Security-Policy"].split("; ")
    assert "media-src 'self' blob:" in rules


# --- other sites ---

ELSEWHERE = "https://app.example.org"


def ask_from(origin: str, method: str = "get", **headers: str) -> Any:
    return getattr(client_of(), method)("/transcript/search", HTTP_ORIGIN=origin, **headers)


@pytest.mark.django_db
def test_other_sites_may_ask_nothing_by_default() -> None:
    assert "Access-Control-Allow-Origin" not in ask_from(ELSEWHERE)


@pytest.mark.django_db
def test_sites_that_were_named_may_ask_with_a_token_and_without_cookies(settings: Any) -> None:
    settings.CORS_ALLOWED_ORIGINS = [ELSEWHERE]
    answer = ask_from(ELSEWHERE)
    assert answer["Access-Control-Allow-Origin"] == ELSEWHERE
    assert "X-Request-ID" in answer["Access-Control-Expose-Headers"]
    assert "Access-Control-Allow-Credentials" not in answer
    asked = {"HTTP_ACCESS_CONTROL_REQUEST_METHOD": "POST"}
    before = ask_from(ELSEWHERE, "options", **asked)
    assert before.status_code == 200
    allowed = before["Access-Control-Allow-Headers"]
    assert "authorization" in allowed
    assert "idempotency-key" in allowed
    for other in ("https://app.example.org.evil", "http://app.example.org", "null"):
        assert "Access-Control-Allow-Origin" not in ask_from(other)
