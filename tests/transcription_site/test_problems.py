"""What cannot be answered: a page for a browser, JSON for a program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from tests import factories

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"  # as Chromium asks


@pytest.mark.parametrize("accept", ["*/*", "application/json", "image/png", ""])
def test_a_program_is_told_in_json_that_there_is_nothing(client: Client, accept: str) -> None:
    answer = client.get("/nowhere", headers={"Accept": accept} if accept else {})
    assert answer.status_code == 404
    assert answer.json()["errors"][0]["code"] == "not_found"
    assert "Accept" in answer["Vary"]


def test_a_person_is_shown_a_page_instead(client: Client) -> None:
    answer = client.get("/nowhere", headers={"Accept": BROWSER})
    assert answer.status_code == 404
    assert "Accept" in answer["Vary"]
    assert answer["Content-Type"].startswith("text/html")
    assert "<h1>There is nothing here.</h1>" in answer.content.decode()


@pytest.mark.django_db(transaction=True)
def test_without_the_database_a_person_is_asked_for_a_moment(
    database_down: Callable[[], Any],
) -> None:
    client = Client(raise_request_exception=False)
    client.force_login(factories.make_user("alice"))
    with database_down():
        answer = client.get("/", headers={"Accept": BROWSER})
    assert answer.status_code == 503
    assert int(answer["Retry-After"]) > 0
    assert "Try again in a moment." in answer.content.decode()


@pytest.mark.django_db
@pytest.mark.parametrize(("accept", "is_page"), [(BROWSER, True), ("application/json", False)])
def test_a_form_that_was_open_for_too_long_says_so(accept: str, is_page: bool) -> None:
    client = Client(enforce_csrf_checks=True)
    answer = client.post("/sign-in", {"username": "x"}, headers={"Accept": accept})
    assert answer.status_code == 403
    assert ("open for too long" in answer.content.decode()) is is_page
    if not is_page:
        assert answer.json()["errors"][0]["code"] == "permission_denied"
