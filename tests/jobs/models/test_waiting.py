"""Who waits for an engine."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from jobs import actions
from jobs.models import Chunk, from_now, users_waiting
from tests import factories

pytestmark = pytest.mark.django_db


def test_nobody_waits_where_there_is_nothing() -> None:
    assert users_waiting("scripted") == []


def test_each_user_with_a_chunk_due_is_named_once() -> None:
    for name in ("bob", "alice", "bob", "Zoë", "100%"):
        factories.make_job(3, user_id=name)
    factories.make_job(1, user_id="elsewhere", engine="other")
    with CaptureQueriesContext(connection) as queries:
        assert sorted(users_waiting("scripted")) == ["100%", "Zoë", "alice", "bob"]
    assert len(queries) == 1
    assert users_waiting("other") == ["elsewhere"]


def test_nobody_waits_whose_chunks_run_or_rest_or_have_ended() -> None:
    running, resting, ended, known = (
        factories.make_job(1, user_id=name) for name in ("running", "resting", "ended", "known")
    )
    factories.claim(running)
    Chunk.objects.filter(job=resting).update(not_before=from_now(timedelta(seconds=60)))
    actions.cancel(ended.pk)
    factories.complete(factories.claim(known))
    assert users_waiting("scripted") == []
    factories.make_due(resting.pk)
    assert users_waiting("scripted") == ["resting"]
