"""The page of a transcript that is gone, or was never there: as the API tells it."""

from __future__ import annotations

from uuid import uuid4

import pytest
from rest_framework.test import APIClient

from jobs import actions, erasure
from tests import factories
from tests.helpers import client_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis_is_empty")]


def session(name: str, *, is_staff: bool = False) -> APIClient:
    client = client_of()
    client.force_login(factories.make_user(name, is_staff=is_staff))
    return client


def test_a_deleted_or_erased_one_is_410_to_the_owner_and_staff_and_404_to_others() -> None:
    readers = {"alice": session("alice"), "root": session("root", is_staff=True)}
    bob = session("bob")
    deleted, erased = factories.make_completed_job("x"), factories.make_completed_job("x")
    actions.delete_all([deleted.pk])
    for _ in range(2):  # the second time it stands there under a pseudonym
        for name, reader in readers.items():
            answer = reader.get(f"/t/{deleted.pk}")
            assert (name, answer.status_code) == (name, 410)
            assert b"This transcript was deleted." in answer.content
        assert bob.get(f"/t/{deleted.pk}").status_code == 404
        erasure.erase("alice")
    assert [reader.get(f"/t/{erased.pk}").status_code for reader in readers.values()] == [410, 410]
    assert bob.get(f"/t/{erased.pk}").status_code == 404


def test_one_that_never_was_is_404_to_all() -> None:
    for reader in (session("alice"), session("root", is_staff=True)):
        answer = reader.get(f"/t/{uuid4()}")
        assert answer.status_code == 404
        assert b"There is nothing here." in answer.content
