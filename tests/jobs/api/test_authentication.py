"""Who is calling: tokens in one statement, and browser sessions with CSRF."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from rest_framework.test import APIClient

from jobs.models import AuthToken, Job
from tests import factories
from tests.helpers import client_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis_is_empty")]
SEARCH = "/transcript/search"


def refused(client: APIClient, code: str = "authentication_failed") -> None:
    response = client.get(SEARCH)
    assert response.status_code == 401
    assert response["WWW-Authenticate"] == "Token"
    (error,) = response.json()["errors"]
    assert error["code"] == code
    assert response.json()["type"] == "client_error"


def test_a_token_is_checked_in_one_statement(django_assert_num_queries: Any) -> None:
    client = client_of(factories.make_token("alice"))
    for _ in range(5):
        factories.make_token("alice")
    with django_assert_num_queries(1):
        assert client.post("/transcribe", {"color": 1}).status_code == 400
    with django_assert_num_queries(1):
        refused(client_of("0" * 64))


def test_a_token_is_stored_hashed() -> None:
    token = factories.make_token("alice")
    row = AuthToken.objects.values().get()
    assert token not in str(row)
    assert not any(str(value).startswith(token[:20]) for value in row.values())


def test_a_token_lives_until_it_is_revoked() -> None:
    client = client_of(factories.make_token("alice"))
    assert AuthToken.objects.get().expiry is None
    assert client.get(SEARCH).status_code == 200
    AuthToken.objects.all().delete()
    refused(client)


def test_a_token_that_has_expired_is_refused() -> None:
    refused(client_of(factories.make_token("alice", expiry=-timedelta(seconds=1))))
    assert client_of(factories.make_token("alice", expiry=timedelta(days=1))).get(SEARCH)


def test_the_token_of_an_inactive_user_is_refused() -> None:
    client = client_of(factories.make_token("alice"))
    user = factories.make_user("alice")
    user.is_active = False
    user.save(update_fields=["is_active"])
    refused(client)


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("Token", "authentication_failed"),
        ("Token ", "authentication_failed"),
        ("Token a b", "authentication_failed"),
        ("Token \xff\xfe", "authentication_failed"),
        ("Token " + "x" * 10_000, "authentication_failed"),
        ("Token %s%s", "authentication_failed"),
        ("Bearer x", "not_authenticated"),
        ("", "not_authenticated"),
        ("x", "not_authenticated"),
    ],
)
def test_a_malformed_header_is_refused(header: str, code: str) -> None:
    factories.make_token("alice")
    client = client_of()
    client.credentials(HTTP_AUTHORIZATION=header)
    refused(client, code)


def test_the_first_characters_of_a_token_are_not_the_token() -> None:
    token = factories.make_token("alice")
    for part in (token[:-1], token[:15], token + "0", token.upper() + "x"):
        refused(client_of(part))


def test_the_word_token_may_be_written_in_any_case() -> None:
    client = client_of()
    client.credentials(HTTP_AUTHORIZATION=f"token {factories.make_token('alice')}")
    assert client.get(SEARCH).status_code == 200


def test_the_mark_is_the_tokens_and_not_the_users() -> None:
    ordinary = factories.make_token("alice")
    marked = factories.make_token("alice", service=True)
    job = factories.make_completed_job("x", user_id="bob")
    assert client_of(ordinary).get(f"/transcript/{job.pk}").status_code == 404
    assert client_of(marked).get(f"/transcript/{job.pk}").status_code == 200


def test_a_staff_members_ordinary_token_stays_ordinary() -> None:
    factories.make_user("root", is_staff=True, is_superuser=True)
    job = factories.make_completed_job("x", user_id="bob")
    assert client_of(factories.make_token("root")).get(f"/transcript/{job.pk}").status_code == 404


def in_session(name: str, **columns: Any) -> APIClient:
    client = client_of(enforce_csrf_checks=True)
    client.force_login(factories.make_user(name, **columns))
    return client


def test_a_session_reads_its_own_and_a_staff_members_reads_all() -> None:
    job = factories.make_completed_job("x", user_id="bob")
    codes = {
        name: in_session(name, is_staff=staff).get(f"/transcript/{job.pk}").status_code
        for name, staff in (("bob", False), ("alice", False), ("root", True))
    }
    assert codes == {"bob": 200, "alice": 404, "root": 200}
    assert len(in_session("root").get(SEARCH).json()["results"]) == 1
    assert in_session("alice").get(SEARCH).json()["results"] == []
    assert in_session("alice").get(f"{SEARCH}?userId=bob").status_code == 403


def test_a_session_that_writes_needs_its_csrf_token() -> None:
    factories.put_audio("alice/a.wav")
    client = in_session("alice")
    body = {"audioChunkPaths": ["alice/a.wav"]}
    response = client.post("/transcribe", body)
    assert response.status_code == 403
    assert response.json()["type"] == "client_error"
    assert response.json()["errors"][0]["code"] == "permission_denied"
    assert not Job.objects.exists()
    client.get("/admin/login/")
    client.cookies["csrftoken"] = "a" * 32
    accepted = client.post("/transcribe", body, HTTP_X_CSRFTOKEN="a" * 32)
    assert accepted.status_code == 202, accepted.content


def test_a_token_needs_no_csrf_token_even_beside_a_session() -> None:
    factories.put_audio("alice/a.wav")
    client = in_session("bob")
    client.credentials(HTTP_AUTHORIZATION=f"Token {factories.make_token('alice')}")
    response = client.post("/transcribe", {"audioChunkPaths": ["alice/a.wav"]})
    assert response.status_code == 202
    assert Job.objects.get().user_id == "alice"


@pytest.mark.parametrize("address", ["/healthz", "/readyz", "/schema", "/docs", "/redoc"])
def test_health_and_documentation_need_no_sign_in(address: str) -> None:
    assert client_of().get(address).status_code == 200


@pytest.mark.parametrize(
    ("method", "address"),
    [
        ("get", "/transcript/search"),
        ("post", "/transcribe"),
        ("get", "/transcript/01890000-0000-7000-8000-000000000000"),
        ("delete", "/transcript/01890000-0000-7000-8000-000000000000"),
        ("post", "/transcript/01890000-0000-7000-8000-000000000000/cancel"),
        ("post", "/transcript/01890000-0000-7000-8000-000000000000/retry"),
    ],
)
def test_everything_else_needs_one(method: str, address: str) -> None:
    response = getattr(client_of(), method)(address)
    assert response.status_code == 401
    assert response.json()["errors"][0]["code"] == "not_authenticated"
