"""`manage.py issue_token`: prints a token that works, and nothing else."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.utils import timezone

from jobs.models import AuthToken
from tests import factories
from tests.helpers import client_of

pytestmark = pytest.mark.django_db


def issue(*arguments: str) -> str:
    output = StringIO()
    call_command("issue_token", *arguments, stdout=output)
    return output.getvalue()


def test_it_makes_the_user_and_prints_the_token_alone() -> None:
    printed = issue("alice")
    assert printed == printed.strip() + "\n"
    assert client_of(printed.strip()).get("/transcript/search").status_code == 200
    user = User.objects.get()
    assert (user.username, user.is_staff, user.has_usable_password()) == ("alice", False, False)
    token = AuthToken.objects.get()
    assert (token.user, token.is_service, token.expiry) == (user, False, None)


def test_a_second_token_makes_no_second_user() -> None:
    assert issue("alice") != issue("alice")
    assert User.objects.count() == 1
    assert AuthToken.objects.count() == 2


def test_a_service_token_is_marked() -> None:
    token = issue("robot", "--service").strip()
    assert AuthToken.objects.get().is_service
    job = factories.make_completed_job("x", user_id="alice")
    assert client_of(token).get(f"/transcript/{job.pk}").status_code == 200


def test_a_token_may_be_given_an_end() -> None:
    issue("alice", "--expires", "1.5")
    expiry = AuthToken.objects.get().expiry
    assert abs(expiry - timezone.now() - timedelta(days=1.5)) < timedelta(minutes=1)


@pytest.mark.parametrize("name", ["..", ".", "a/b", "", "x" * 151, "a b", "a\n"])
def test_a_name_that_is_no_user_is_refused(name: str) -> None:
    with pytest.raises(CommandError):
        issue(name)
    assert not User.objects.exists()


@pytest.mark.parametrize("days", ["0", "-1", "nan", "inf", "1e12"])
def test_an_end_that_is_none_is_refused(days: str) -> None:
    with pytest.raises(CommandError):
        issue("alice", "--expires", days)
    assert not AuthToken.objects.exists()
    assert not User.objects.exists()


def test_an_inactive_user_gets_no_token() -> None:
    factories.make_user("alice", is_active=False)
    with pytest.raises(CommandError, match="not active"):
        issue("alice")
    assert not AuthToken.objects.exists()
