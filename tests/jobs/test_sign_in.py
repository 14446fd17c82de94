"""Signing in: how often somebody may try, at each page that asks for a password."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import redis
from django.http import HttpResponse
from rest_framework.test import APIClient

from jobs import rate_limits, sign_in
from tests import factories
from tests.helpers import client_of, together

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis_is_empty", "alice_and_root")]

PAGES = ["/sign-in", "/admin/login/", "/api-auth/login/"]
HERE, ELSEWHERE = "203.0.113.7", "203.0.113.8"


@pytest.fixture
def alice_and_root(db: None, settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # a fast one
    for name, is_staff in (("alice", False), ("root", True)):
        user = factories.make_user(name, is_staff=is_staff)
        user.set_password(f"word of {name}")
        user.save()


def try_in(
    page: str = "/sign-in",
    *,
    name: str = "alice",
    password: str = "wrong",
    address: str = HERE,
    client: APIClient | None = None,
) -> HttpResponse:
    fields = {"username": name, "password": password}
    asked = client or client_of()
    answer: HttpResponse = asked.post(page, fields, format="multipart", REMOTE_ADDR=address)
    return answer


def statuses(number: int, call: Callable[[], HttpResponse]) -> list[int]:
    return [call().status_code for _ in range(number)]


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("name", ["root", "nobody-of-that-name"])
def test_after_ten_tries_the_eleventh_is_refused_whoever_it_is(page: str, name: str) -> None:
    assert statuses(10, partial(try_in, page, name=name)) == [200] * 10
    refused = try_in(page, name=name)
    assert refused.status_code == 429
    assert 60 < int(refused["Retry-After"]) <= 90
    assert b"Wait 2 minutes, then try again." in refused.content
    right = try_in(page, name=name, password=f"word of {name}")
    assert right.status_code == 429, "the right word must not be told from a wrong one"


def test_all_pages_share_one_count() -> None:
    codes = [try_in(page, name="root").status_code for page in PAGES * 4]
    assert codes == [200] * 10 + [429] * 2


def test_nobody_is_locked_out_from_elsewhere_nor_another_name_here() -> None:
    statuses(11, try_in)
    assert try_in(password="word of alice", address=ELSEWHERE).status_code == 302
    assert try_in(name="root", password="word of root").status_code == 302


def test_a_sign_in_begins_the_count_anew() -> None:
    statuses(9, try_in)
    assert try_in(password="word of alice").status_code == 302
    assert statuses(11, try_in) == [200] * 10 + [429]


def test_who_is_signed_in_already_does_not_reset_anothers_count() -> None:
    eve = client_of()
    eve.force_login(factories.make_user("eve", is_staff=True))
    assert statuses(10, partial(try_in, name="root")) == [200] * 10
    assert try_in("/sign-in", name="eve", client=eve).status_code == 302
    assert try_in("/admin/login/", name="root", client=eve).status_code == 429


def test_many_names_from_one_address_are_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sign_in, "TRIES_OF_ADDRESS", 20)
    for number in range(20):
        assert try_in(name=f"name-{number}").status_code == 200
    assert try_in(name="alice", password="word of alice").status_code == 429
    assert try_in(name="alice", password="word of alice", address=ELSEWHERE).status_code == 302


def test_tries_that_an_exhausted_address_refuses_do_not_count_for_the_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sign_in, "TRIES_OF_ADDRESS", 1)
        assert try_in(name="bob").status_code == 200
        assert statuses(20, try_in) == [429] * 20
    rate_limits.forget(f"sign-in:{HERE}")
    assert try_in(password="word of alice").status_code == 302


def test_the_old_password_cannot_be_guessed_where_it_is_changed() -> None:
    root = client_of()
    root.force_login(factories.make_user("root", is_staff=True))
    fields = {"old_password": "wrong", "new_password1": "x", "new_password2": "x"}
    change = partial(root.post, "/admin/password_change/", fields, format="multipart")
    assert statuses(11, change) == [200] * 10 + [429]


def test_sign_ins_do_not_use_an_address_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sign_in, "TRIES_OF_ADDRESS", 20)
    for _ in range(30):
        assert try_in(password="word of alice").status_code == 302


def test_of_ipv6_a_network_counts_as_one() -> None:
    """Whoever has one address of it has 2^64."""
    for number in range(10):
        assert try_in(address=f"2001:db8:0:1::{number}").status_code == 200
    assert try_in(address="2001:db8:0:1:ffff::").status_code == 429
    assert try_in(address="2001:db8:0:2::").status_code == 200
    assert try_in(address="::ffff:203.0.113.7").status_code == 200
    assert try_in(address="").status_code == 200


def test_equal_spellings_of_a_name_are_one() -> None:
    spelt = ["alice", " alice ", "\uff41lice"] * 4
    assert [try_in(name=name).status_code for name in spelt] == [200] * 10 + [429] * 2


def test_tries_at_the_same_moment_are_all_counted(transactional_db: None) -> None:
    codes = [answer.status_code for answer in together(*[try_in] * 14)]
    assert sorted(codes) == [200] * 10 + [429] * 4


def test_the_names_that_are_tried_are_not_kept_in_clear(raw_cache: redis.Redis) -> None:
    """People type passwords into the wrong field."""
    try_in(name="a-secret-word")
    keys = raw_cache.keys("*sign-in*")
    assert len(keys) == 2
    assert not any(b"a-secret-word" in key for key in keys)


def test_while_redis_is_away_people_sign_in(redis_elsewhere: Any) -> None:
    redis_elsewhere("redis://127.0.0.1:1/0")
    assert statuses(12, try_in) == [200] * 12
    assert try_in(password="word of alice").status_code == 302
