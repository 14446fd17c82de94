"""The admin's dead letters: what operators see of them, and how they bring them back."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from jobs import actions, admin_dead_letters, finishing
from jobs.models import Chunk, Job, JobEvent
from tests import factories
from tests.dead_letters import die, make_dead_job, statuses
from tests.helpers import broker

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("redis_is_empty", "script"),
]

LIST = "admin:jobs_deadletter_changelist"
HOUR = timedelta(hours=1)


def text_of(page: Any) -> str:
    """What a reader sees of a page."""
    assert page.status_code == 200
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", page.content.decode())).split())


def listed(client: Client, **query: str) -> set[str]:
    page = client.get(reverse(LIST), query)
    assert page.status_code == 200, page
    return {str(chunk) for chunk in page.context["cl"].result_list}


def names(job: Job, *indexes: int) -> set[str]:
    return {f"{job.pk}, part {index + 1}" for index in indexes}


def retry(client: Client, *chunks: Chunk, **more: str) -> str:
    """Retry these; what the page then says."""
    data = {"action": "retry", "_selected_action": [str(chunk.pk) for chunk in chunks], **more}
    page = client.post(reverse(LIST), data, follow=True)
    assert page.status_code == 200
    return " | ".join(str(message) for message in page.context["messages"])


def chunks_of(job: Job) -> list[Chunk]:
    return list(job.chunks.order_by("index"))


# --- the list ---


def test_the_list_shows_dead_letters_alone_and_why_each_one_died(admin_client: Client) -> None:
    job = make_dead_job("engine_error", None, "invalid_audio")
    Chunk.objects.filter(job=job, index=0).update(crashes=1, redrives=2)
    running = factories.make_job(2, user_id="bob")
    die(running, 0, "engine_error")
    factories.make_completed_job("x", user_id="bob")

    page = admin_client.get(reverse(LIST))

    assert {str(chunk) for chunk in page.context["cl"].result_list} == names(job, 0, 2)
    text = text_of(page)
    ended = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    of_first = f"{job.pk} 1 alice recoverable engine_error because of engine_error 1 4 1 2"
    of_third = f"{job.pk} 3 alice permanent invalid_audio because of invalid_audio 1 4 0 0"
    assert re.search(rf"{re.escape(of_first)} {ended}", text)
    assert re.search(rf"{re.escape(of_third)} {ended}", text)
    assert reverse("admin:jobs_job_change", args=[job.pk]) in page.content.decode()


def test_the_newest_stand_first(admin_client: Client) -> None:
    jobs = [make_dead_job("engine_error", ended=hours * HOUR) for hours in (5, 1, 9)]
    page = admin_client.get(reverse(LIST))
    assert [chunk.job_id for chunk in page.context["cl"].result_list] == [
        jobs[position].pk for position in (1, 0, 2)
    ]


def test_dead_letters_are_filtered_by_class_code_age_and_engine(admin_client: Client) -> None:
    fresh = make_dead_job("engine_error", "invalid_audio")
    of_today = make_dead_job("engine_timeout", ended=5 * HOUR)
    old = make_dead_job("engine_error", "audio_too_long", ended=50 * HOUR)
    Job.objects.filter(pk=old.pk).update(engine="openai")

    assert listed(admin_client, **{"class": "recoverable"}) == (
        names(fresh, 0) | names(of_today, 0) | names(old, 0)
    )
    assert listed(admin_client, **{"class": "permanent"}) == names(fresh, 1) | names(old, 1)
    assert listed(admin_client, error_code="engine_error") == names(fresh, 0) | names(old, 0)
    assert listed(admin_client, age="hour") == names(fresh, 0, 1)
    assert listed(admin_client, age="day") == names(fresh, 0, 1) | names(of_today, 0)
    assert listed(admin_client, age="older") == names(old, 0, 1)
    assert listed(admin_client, job__engine="openai") == names(old, 0, 1)
    assert listed(admin_client, job__engine="openai", **{"class": "recoverable"}) == names(old, 0)
    assert listed(admin_client, error_code="engine_error", age="hour") == names(fresh, 0)


def test_the_filters_offer_what_dead_letters_have(admin_client: Client) -> None:
    make_dead_job("engine_error", None)
    Chunk.objects.filter(status="completed").update(error_code="of_no_dead_letter")
    text = text_of(admin_client.get(reverse(LIST)))
    assert "By classification All Recoverable Permanent" in text
    assert "By error code All engine_error By age" in text
    assert "By engine All scripted" in text


def test_dead_letters_are_found_by_the_beginning_of_id_user_and_path(admin_client: Client) -> None:
    alices = make_dead_job("engine_error", "invalid_audio")
    bobs = make_dead_job("engine_error", user_id="bob.b")
    at_the_root = make_dead_job("engine_error", "engine_error", user_id="carol")
    Chunk.objects.filter(job=at_the_root, index=1).update(audio_path="meeting one.flac")

    assert listed(admin_client, q=str(alices.pk)) == names(alices, 0, 1)
    assert listed(admin_client, q=f" {alices.pk} ".upper()) == names(alices, 0, 1)
    assert listed(admin_client, q="bob.") == names(bobs, 0)
    assert listed(admin_client, q="alice/01") == names(alices, 1)
    assert listed(admin_client, q="meeting one") == names(at_the_root, 1)
    assert listed(admin_client, q="carol") == names(at_the_root, 0, 1)
    assert listed(admin_client, q="nobody") == set()


def test_the_list_takes_as_many_queries_for_many_as_for_one(admin_client: Client) -> None:
    make_dead_job("engine_error")
    with CaptureQueriesContext(connection) as for_one:
        admin_client.get(reverse(LIST))
    for _ in range(4):
        make_dead_job("engine_error", "invalid_audio")
    with CaptureQueriesContext(connection) as for_many:
        assert len(listed(admin_client)) == 9
    assert len(for_many) == len(for_one)


# --- a dead letter's page ---


def test_its_page_shows_the_error_and_every_attempt_of_this_chunk_alone(
    admin_client: Client,
) -> None:
    job = factories.make_job(2)
    factories.fail(factories.claim(job, 0))
    die(job, 0, "engine_timeout")
    die(job, 1, "worker_crashed")
    assert finishing.finish_job(job.pk)
    chunk = job.chunks.get(index=0)
    address = reverse("admin:jobs_deadletter_change", args=[chunk.pk])

    text = text_of(admin_client.get(address))

    for shown in (str(job.pk), "alice/00.wav", "scripted", "recoverable", "engine_timeout"):
        assert shown in text
    time = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}"
    assert re.search(
        rf"\d+ {time} chunk\.started "
        rf"\d+ {time} chunk\.pending engine_error: the engine stumbled \S+Z "
        rf"\d+ {time} chunk\.started "
        rf"\d+ {time} chunk\.failed engine_timeout: because of engine_timeout",
        text,
    ), text
    assert "worker_crashed" not in text
    assert admin_client.post(address, {"status": "pending"}).status_code == 403
    assert admin_client.post(reverse("admin:jobs_deadletter_add")).status_code == 403
    delete = reverse("admin:jobs_deadletter_delete", args=[chunk.pk])
    assert admin_client.post(delete, {"post": "yes"}).status_code == 403
    assert statuses(job) == ["failed", "failed"]


def test_its_page_shows_the_newest_events_of_a_long_history(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_dead_letters, "EVENTS_SHOWN", 1)
    job = make_dead_job("engine_error")
    chunk = job.chunks.get()
    text = text_of(admin_client.get(reverse("admin:jobs_deadletter_change", args=[chunk.pk])))
    assert "chunk.failed" in text
    assert "chunk.started" not in text


# --- retrying ---


def test_retry_takes_the_selected_chunks_and_no_others(admin_client: Client) -> None:
    mixed = make_dead_job("engine_error", "engine_error", "invalid_audio", None)
    other = make_dead_job("invalid_audio")
    untouched = make_dead_job("engine_error")
    first, _, third, _ = chunks_of(mixed)
    (permanent,) = chunks_of(other)

    assert retry(admin_client, first, third, permanent) == "3 retried."

    assert statuses(mixed) == ["pending", "failed", "pending", "completed"]
    assert statuses(other) == ["pending"]
    assert statuses(untouched) == ["failed"]
    assert int(broker().do_qsize("chunks")) == 3
    assert {entry.object_id for entry in LogEntry.objects.all()} == {
        str(chunk.pk) for chunk in (first, third, permanent)
    }
    assert not Chunk.objects.filter(redrives__gt=0).exists()


def test_retry_skips_what_is_no_dead_letter_any_more_and_says_so(admin_client: Client) -> None:
    retried, deleted, dead = (make_dead_job("engine_error") for _ in range(3))
    chunks = [*chunks_of(retried), *chunks_of(deleted), *chunks_of(dead)]
    actions.retry(retried.pk)
    actions.delete(deleted.pk)
    assert retry(admin_client, *chunks) == (
        "1 retried; skipped: 2 no longer among the dead letters."
    )
    assert statuses(dead) == ["pending"]
    assert JobEvent.objects.filter(job=retried, type="job.retried").count() == 1


def test_retry_skips_what_somebody_else_retries_at_this_moment(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make_dead_job("engine_error", "engine_error"), make_dead_job("engine_error")
    real = actions.retry

    def somebody_else_is_first(job_id: Any, **options: Any) -> list[Chunk]:
        if job_id == first.pk:
            real(job_id)
        return real(job_id, **options)

    monkeypatch.setattr(actions, "retry", somebody_else_is_first)
    assert retry(admin_client, *chunks_of(first), *chunks_of(second)) == (
        "1 retried; skipped: 2 no longer among the dead letters."
    )
    assert JobEvent.objects.filter(job=first, type="job.retried").count() == 1


def test_all_that_a_filter_leaves_can_be_retried_at_once(admin_client: Client) -> None:
    jobs = [make_dead_job("engine_error", "invalid_audio") for _ in range(3)]
    data = {
        "action": "retry",
        "_selected_action": [str(chunks_of(jobs[0])[0].pk)],
        "select_across": "1",
    }
    page = admin_client.post(f"{reverse(LIST)}?class=recoverable", data, follow=True)
    assert [str(message) for message in page.context["messages"]] == ["3 retried."]
    assert [statuses(job) for job in jobs] == [["pending", "failed"]] * 3


def test_more_chunks_than_one_request_can_do_are_skipped(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_dead_letters, "ACTED_ON_AT_ONCE", 2)
    job = make_dead_job("engine_error", "engine_error", "engine_error")
    assert retry(admin_client, *chunks_of(job)) == "2 retried; skipped: 1 beyond 2 at once."
    assert statuses(job) == ["pending", "pending", "failed"]


def test_retry_while_the_broker_is_away_says_when_the_chunks_start(
    admin_client: Client, redis_elsewhere: Callable[[str], None]
) -> None:
    jobs = [make_dead_job("engine_error") for _ in range(2)]
    redis_elsewhere("redis://127.0.0.1:1/0")
    said = retry(admin_client, *[chunk for job in jobs for chunk in chunks_of(job)])
    assert said.startswith("2 retried. | The broker is away")
    assert [statuses(job) for job in jobs] == [["pending"]] * 2


def test_who_may_see_chunks_sees_dead_letters_and_retries_none(client: Client) -> None:
    job = make_dead_job("engine_error")
    user = User.objects.create_user("reader", is_staff=True)
    client.force_login(user)
    assert client.get(reverse(LIST)).status_code == 403
    user.user_permissions.add(Permission.objects.get(codename="view_chunk"))
    assert listed(client) == names(job, 0)
    address = reverse("admin:jobs_deadletter_change", args=[chunks_of(job)[0].pk])
    assert "because of engine_error" in text_of(client.get(address))
    retry(client, *chunks_of(job))
    assert statuses(job) == ["failed"]
    user.user_permissions.add(Permission.objects.get(codename="change_job"))
    assert retry(client, *chunks_of(job)) == "1 retried."
    assert statuses(job) == ["pending"]
