"""Who may watch what: tokens, sessions and their origin, caps, and access that ends."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.http import HttpResponse
from django.utils import timezone
from websockets.exceptions import InvalidStatus

from jobs import actions
from jobs.api import socket_entry, sockets
from jobs.models import AuthToken, Job
from tests import factories
from tests.helpers import client_of, wait_until
from tests.jobs.api.socket_clients import Service, service

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("redis_is_empty"),
]


@pytest.fixture
def web() -> Iterator[Service]:
    with service() as running:
        yield running


def address(job: Job) -> str:
    return f"/ws/transcript/{job.pk}"


def session_of(name: str, **columns: Any) -> dict[str, str]:
    """The headers of a browser in which that user is signed in."""
    browser = client_of()
    browser.force_login(factories.make_user(name, **columns))
    return {"Cookie": f"sessionid={browser.cookies['sessionid'].value}"}


# --- tokens ---


def test_a_token_goes_in_the_subprotocols_and_is_not_sent_back(web: Service) -> None:
    token = factories.make_token("alice")
    with web.watch(address(factories.make_job(1)), token, first="") as caller:
        assert caller.read()["type"] == "snapshot"
        assert caller.socket.subprotocol == "token"


def test_a_program_may_send_the_header_of_every_other_call(web: Service) -> None:
    headers = {"Authorization": f"Token {factories.make_token('alice')}"}
    job = factories.make_job(1)
    with web.watch(address(job), first="", additional_headers=headers) as caller:
        assert caller.read()["type"] == "snapshot"


def test_a_token_in_the_address_counts_for_nothing_and_is_not_logged(
    web: Service, caplog: pytest.LogCaptureFixture
) -> None:
    token = factories.make_token("alice")
    path = f"{address(factories.make_job(1))}?token={token}"
    with caplog.at_level(logging.INFO), web.watch(path) as caller:
        assert caller.end() == (4401, "not_authenticated")
    assert "/ws/transcript/" in caplog.text
    assert token not in caplog.text


@pytest.mark.parametrize("token", [None, "wrong", "x" * 64])
def test_without_sign_in_nothing_is_shown(web: Service, token: str | None) -> None:
    for path in (address(factories.make_job(1)), "/ws/transcripts"):
        with web.watch(path, token) as caller:
            assert caller.end()[0] == 4401
    assert web.open == 0


def test_tokens_that_are_over_and_users_who_may_not_any_more_are_refused(web: Service) -> None:
    job = factories.make_job(1)
    expired = factories.make_token("alice", expiry=timedelta(seconds=-1))
    inactive = factories.make_token("alice")
    with web.watch(address(job), expired) as caller:
        assert caller.end()[0] == 4401
    user = factories.make_user("alice")
    user.is_active = False
    user.save()
    with web.watch(address(job), inactive) as caller:
        assert caller.end()[0] == 4401


def test_anothers_job_is_as_one_that_does_not_exist(web: Service) -> None:
    bobs = factories.make_job(1, user_id="bob")
    for job_id in (bobs.pk, uuid4()):
        with web.watch(f"/ws/transcript/{job_id}", factories.make_token("alice")) as caller:
            assert caller.end() == (4404, "not_found")
    with web.watch(address(bobs), factories.make_token("robot", service=True), first="") as caller:
        assert caller.read()["transcript"]["userId"] == "bob"


def test_a_job_that_was_erased_is_gone_for_its_owner_only(web: Service) -> None:
    job = factories.make_job(1)
    actions.delete(job.pk)
    for name, code in (("alice", 4410), ("bob", 4404)):
        with web.watch(address(job), factories.make_token(name)) as caller:
            assert caller.end()[0] == code


@pytest.mark.parametrize(
    "path", ["/ws", "/", "/ws/transcript/", "/ws/transcript/1", "/ws/transcripts/", "/healthz"]
)
def test_an_address_that_does_not_exist_has_a_code_too(web: Service, path: str) -> None:
    with web.watch(path, factories.make_token("alice")) as caller:
        assert caller.end() == (4404, "not_found")


def test_a_token_costs_one_statement(
    django_assert_num_queries: Any,
) -> None:
    job, token = factories.make_job(1), factories.make_token("alice")
    with django_assert_num_queries(1):
        caller, stamp = socket_entry.enter_job(socket_entry.Credentials(token=token), job.pk)
    assert (caller.username, stamp.sequence) == ("alice", 1)


# --- sessions ---


def test_a_page_of_this_host_is_signed_in_by_its_session(web: Service) -> None:
    path, headers = address(factories.make_job(1)), session_of("alice")
    own = f"http://localhost:{web.port}"
    with web.watch(path, first="", additional_headers=headers, origin=own) as caller:
        assert caller.read()["type"] == "snapshot"
        assert caller.socket.subprotocol is None


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "https://localhost:{}", "http://localhost", "null", None]
)
def test_a_page_of_another_host_does_not_use_it(web: Service, origin: str | None) -> None:
    path, headers = address(factories.make_job(1)), session_of("alice")
    said = origin and origin.format(web.port)
    with web.watch(path, additional_headers=headers, origin=said) as caller:
        assert caller.end() == (4401, "not_authenticated")


def test_a_trusted_origin_is_named_by_the_operator(
    web: Service, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.CSRF_TRUSTED_ORIGINS = ["https://pages.example"]
    # As a process that starts with these: Django keeps what it has read.
    monkeypatch.setattr(socket_entry, "_origins", socket_entry.OriginCheck(HttpResponse))
    path, headers = address(factories.make_job(1)), session_of("alice")
    page = "https://pages.example"
    with web.watch(path, first="", additional_headers=headers, origin=page) as caller:
        assert caller.read()["type"] == "snapshot"


def test_a_token_may_come_from_any_page(web: Service) -> None:
    token = factories.make_token("alice")
    job = factories.make_job(1)
    with web.watch(address(job), token, first="", origin="http://evil.example") as caller:
        assert caller.read()["type"] == "snapshot"


def test_a_staff_members_session_sees_all_and_others_their_own(web: Service) -> None:
    job, origin = factories.make_job(1), f"http://localhost:{web.port}"
    staff = session_of("root", is_staff=True)
    with web.watch(address(job), first="", additional_headers=staff, origin=origin) as caller:
        assert caller.read()["type"] == "snapshot"
    bob = session_of("bob")
    with web.watch(address(job), additional_headers=bob, origin=origin) as caller:
        assert caller.end()[0] == 4404


def test_where_only_https_is_served_a_plain_socket_is_refused(web: Service, settings: Any) -> None:
    settings.SECURE_SSL_REDIRECT = True
    job, token = factories.make_job(1), factories.make_token("alice")
    with web.watch(address(job), token) as caller:
        assert caller.end() == (4403, "permission_denied")
    proxied = {"X-Forwarded-Proto": "https"}
    with web.watch(address(job), token, first="", additional_headers=proxied) as caller:
        assert caller.read()["type"] == "snapshot"


# --- caps ---


def test_a_user_has_so_many_sockets_and_may_close_one_for_another(
    web: Service, settings: Any
) -> None:
    settings.SOCKETS_PER_USER = 2
    job = factories.make_job(1)
    with web.watch_job(job), web.watch("/ws/transcripts", factories.make_token("alice")) as second:
        second.read()
        wait_until(lambda: web.open == 2)
        with web.watch_job(job, first=None) as third:
            assert third.end() == (4429, "too_many_sockets")
        bobs = factories.make_job(1, user_id="bob")
        with web.watch_job(bobs, "bob") as another:
            assert another.read()["type"] == "snapshot"
        second.socket.close()
        wait_until(lambda: web.open == 1)
        with web.watch_job(job) as third:
            assert third.read()["type"] == "snapshot"


def test_service_tokens_have_no_cap(web: Service, settings: Any) -> None:
    settings.SOCKETS_PER_USER = 1
    path, token = address(factories.make_job(1)), factories.make_token("robot", service=True)
    with web.watch(path, token, first="") as one, web.watch(path, token, first="") as other:
        assert one.read()["type"] == other.read()["type"] == "snapshot"


def test_to_open_one_counts_as_a_call(web: Service, settings: Any) -> None:
    settings.RATE_LIMIT = (1, 60)
    path, token = address(factories.make_job(1)), factories.make_token("alice")
    with web.watch(path, token, first="") as one:
        assert one.read()["type"] == "snapshot"
        with web.watch(path, token, first="") as other:
            assert other.end() == (4429, "throttled")


# --- access that ends ---


def test_a_token_that_is_revoked_ends_its_sockets_and_no_others(
    web: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "CHECK_SECONDS", 0.05)
    job, stays = factories.make_job(1), factories.make_token("alice")
    with (
        web.watch_job(job) as one,
        web.watch(address(job), stays, first="") as other,
    ):
        assert one.read()["type"] == other.read()["type"] == "snapshot"
        AuthToken.objects.exclude(token_key=stays[:15]).delete()
        assert one.end() == (4401, "authentication_failed")
        factories.claim(job)
        assert other.read()["sequence"] == 2
        wait_until(lambda: web.open == 1)


def test_a_token_that_expires_and_a_session_that_is_signed_out_end_theirs(
    web: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "CHECK_SECONDS", 0.05)
    job, origin = factories.make_job(1), f"http://localhost:{web.port}"
    browser = client_of()
    browser.force_login(factories.make_user("alice"))
    headers = {"Cookie": f"sessionid={browser.cookies['sessionid'].value}"}
    with (
        web.watch_job(job) as one,
        web.watch(address(job), first="", additional_headers=headers, origin=origin) as page,
    ):
        assert one.read()["type"] == page.read()["type"] == "snapshot"
        AuthToken.objects.update(expiry=timezone.now() - timedelta(seconds=1))
        assert one.end()[0] == 4401
        browser.logout()
        assert page.end()[0] == 4401


def test_the_websocket_of_a_caller_who_is_no_websocket_is_refused(web: Service) -> None:
    with pytest.raises(InvalidStatus), web.watch("/x", additional_headers={"Upgrade": "h2c"}):
        pass
