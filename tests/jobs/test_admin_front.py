"""The admin's front page: its answer, its figures, and who may see what of it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from html import unescape
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.db.models.functions import Now
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from asr.breaker import FAILURES_TO_OPEN
from jobs import actions, breakers, engines, figures, tasks
from jobs.models import (
    EVERYBODY,
    SWEEPER,
    CallOutcome,
    Chunk,
    EngineCall,
    Job,
    SpendingMeter,
    UsageDay,
    UserLimits,
    WorkerProcess,
    database_time,
    from_now,
)
from jobs.storage import local
from tests import factories
from tests.dead_letters import make_dead_job
from tests.helpers import broker, wait_until
from tests.scripted import ScriptedEngine

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("redis_is_empty")]
FRONT = reverse("admin:index")
WELL = "Yes, all is well."


@pytest.fixture(autouse=True)
def workers(db: None) -> None:
    """One process that serves all queues, so that all is well."""
    WorkerProcess.objects.create(
        id=uuid4(),
        hostname="h",
        pid=1,
        pid_started=1,
        queues=",".join([*engines.QUEUES, SWEEPER]),
        started_time=Now(),
        last_seen=Now(),
    )


class Front:
    """The front page as its reader has it."""

    def __init__(self, client: Client) -> None:
        answer = client.get(FRONT)
        assert answer.status_code == 200
        self.html = answer.content.decode()

    def section(self, name: str) -> str:
        found = re.search(rf'<section[^>]* id="{name}".*?</section>', self.html, re.DOTALL)
        return found[0] if found else ""

    def text(self, name: str) -> str:
        """What stands in a card, without the figures that are folded away."""
        return text_of(re.sub(r"<details>.*?</details>", "", self.section(name), flags=re.DOTALL))

    def table(self, name: str) -> list[list[str]]:
        """The figures that are folded away in a card."""
        folded = self.section(name).partition("<details>")[2]
        rows = re.findall(r"<tr>(.*?)</tr>", folded, re.DOTALL)
        return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows[1:]]

    def findings(self) -> list[str]:
        items = re.findall(r"<li>(.*?)</li>", self.section("verdict"), re.DOTALL)
        assert (self.text("verdict") == WELL) == (not items)
        return [text_of(item) for item in items]

    def links(self) -> list[str]:
        return [unescape(link) for link in re.findall(r'href="([^"]*)"', self.section("verdict"))]


def text_of(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def make_calls(number: int, outcome: str, age: timedelta = timedelta(0), **columns: Any) -> None:
    values = {"index": 0, "user_id": "alice", "engine": "openai", "audio_seconds": 1.0}
    made = EngineCall.objects.bulk_create(
        EngineCall(**{"job_id": uuid4(), **values, **columns}, outcome=outcome)
        for _ in range(number)
    )
    keys = [call.pk for call in made]
    EngineCall.objects.filter(pk__in=keys).update(started_time=from_now(-age))


def spend(price: str, user: str = "alice") -> None:
    day = {"user_id": user, "engine": "openai", "day": database_time().date()}
    UsageDay.objects.create(**day, calls=1, price_usd=Decimal(price))


def make_waiting(age: timedelta, chunks: int = 1) -> Job:
    job = factories.make_job(chunks)
    Chunk.objects.filter(job=job).update(not_before=from_now(-age))
    return job


# --- is it well? ---


def test_all_is_well(admin_client: Client) -> None:
    factories.make_completed_job("words")
    make_waiting(timedelta(minutes=9))
    make_calls(50, CallOutcome.ANSWERED)
    page = Front(admin_client)
    assert (page.findings(), page.text("verdict")) == ([], WELL)


def test_a_queue_without_workers_is_told_until_it_has_one(admin_client: Client) -> None:
    WorkerProcess.objects.update(queues="chunks,control,sweeper")
    page = Front(admin_client)
    assert page.findings() == ["No worker serves local, webhooks: what is sent there waits."]
    assert page.links() == [reverse("admin:jobs_workerprocess_changelist")]
    WorkerProcess.objects.update(queues="chunks,control,local,webhooks,sweeper")
    assert Front(admin_client).findings() == []


def test_a_system_that_nobody_sweeps_is_told(admin_client: Client) -> None:
    WorkerProcess.objects.update(queues=",".join(engines.QUEUES))
    page = Front(admin_client)
    lost = "what a dead worker or Redis loses is not found again."
    assert page.findings() == [f"No sweeper runs: {lost}"]
    assert page.links() == [reverse("admin:jobs_workerprocess_changelist")]


def test_a_broker_that_is_away_is_told_and_does_not_hold_the_page_up(
    admin_client: Client, redis_elsewhere: Callable[[str], None], settings: Any
) -> None:
    make_waiting(timedelta(0), 2)
    url = settings.BROKER_URL
    redis_elsewhere("redis://127.0.0.1:1/0")
    began = time.monotonic()
    page = Front(admin_client)
    assert time.monotonic() - began < 3
    assert page.findings() == ["The broker does not answer.", "The cache does not answer."]
    assert set(page.links()) == {reverse("readyz")}
    assert page.text("queues").count("broker away") == len(engines.QUEUES)
    assert "Breaker not known" in page.text("engine-openai") or not page.section("engine-openai")
    assert "under 1 minute 2" in page.text("waiting")
    redis_elsewhere(url)
    assert Front(admin_client).findings() == []


def test_storage_that_is_away_or_full_is_told(
    admin_client: Client, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = settings.AUDIO_ROOT
    settings.AUDIO_ROOT = root / "gone"
    (told,) = Front(admin_client).findings()
    assert told == (
        "The storage of audio cannot be reached (the audio root is not there: see AUDIO_ROOT)."
    )
    settings.AUDIO_ROOT = root
    assert Front(admin_client).findings() == []
    monkeypatch.setattr(local, "LITTLE_ROOM_BYTES", 1 << 62)
    monkeypatch.setattr(local, "LITTLE_ROOM_SHARE", 1.0)
    assert Front(admin_client).findings() == ["The storage of audio has hardly any room left."]


def test_a_chunk_that_waits_too_long_is_told_until_it_is_taken(admin_client: Client) -> None:
    job = make_waiting(timedelta(hours=3, minutes=1))
    page = Front(admin_client)
    assert page.findings() == ["A chunk has been waiting for 3 h 1 min."]
    assert page.links() == [reverse("admin:jobs_job_change", args=[job.pk])]
    factories.claim(job)
    assert Front(admin_client).findings() == []


def test_an_engine_that_is_down_is_told_until_it_is_back(
    admin_client: Client, settings: Any, script: Any
) -> None:
    name = settings.ASR_ENGINE
    for _ in range(FAILURES_TO_OPEN):
        with breakers.admit(name) as call:
            call.failed()
    page = Front(admin_client)
    assert page.findings() == [
        f"The engine {name} failed again and again: its chunks wait until a trial succeeds."
    ]
    assert "Breaker open" in page.text(f"engine-{name}")
    state, _ = breakers.store().read(name)
    breakers.store().swap(name, state, type(state)())
    page = Front(admin_client)
    assert page.findings() == []
    assert "Breaker closed" in page.text(f"engine-{name}")


def test_an_engine_that_is_not_configured_is_told_beside_another_that_is_down(
    admin_client: Client, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, settings.ASR_ENGINE = settings.ASR_ENGINE, "openai"
    get = engines.get
    monkeypatch.setattr(engines, "get", lambda of: ScriptedEngine() if of == name else get(of))
    told = ["The engine openai, which ASR_ENGINE names, is not configured."]
    assert Front(admin_client).findings() == told
    for _ in range(FAILURES_TO_OPEN):
        with breakers.admit(name) as call:
            call.failed()
    told += [f"The engine {name} failed again and again: its chunks wait until a trial succeeds."]
    assert Front(admin_client).findings() == told


@pytest.mark.parametrize(
    ("failed", "answered", "minutes", "told"),
    [
        (5, 45, 0, ["10% of the calls of openai failed in this hour and the one before."]),
        (4, 0, 0, []),
        (5, 46, 0, []),
        (50, 0, 121, []),
    ],
)
def test_an_engine_that_fails_often_is_told(
    admin_client: Client, failed: int, answered: int, minutes: int, told: list[str]
) -> None:
    make_calls(failed - 1, CallOutcome.FAILED, timedelta(minutes=minutes))
    make_calls(1, CallOutcome.REFUSED, timedelta(minutes=minutes))
    make_calls(answered, CallOutcome.ANSWERED, timedelta(minutes=minutes))
    make_calls(9, CallOutcome.UNKNOWN)
    page = Front(admin_client)
    assert page.findings() == told
    for link in page.links():
        listed = admin_client.get(link).context["cl"].result_list
        assert {call.outcome for call in listed} == {"failed", "refused"}


def test_dead_letters_are_told_unless_the_audio_is_at_fault(admin_client: Client) -> None:
    make_dead_job("engine_error", ended=timedelta(hours=25))
    make_dead_job("invalid_audio", "audio_too_long")
    assert Front(admin_client).findings() == []
    job = make_dead_job("engine_error", "worker_crashed")
    page = Front(admin_client)
    assert page.findings() == ["2 chunks failed for good within 24 hours, not for bad audio."]
    assert page.links() == [reverse("admin:jobs_deadletter_changelist") + "?age=day"]
    assert admin_client.get(page.links()[0]).status_code == 200
    actions.retry(job.pk)
    assert Front(admin_client).findings() == []


def test_caps_that_are_near_or_reached_are_told(admin_client: Client, settings: Any) -> None:
    spend("7.99")
    settings.SPENDING_CAP_USD_PER_MONTH = Decimal("10.00")
    assert Front(admin_client).findings() == []
    spend("0.51", "bob")
    page = Front(admin_client)
    assert page.findings() == ["The month's cap on spending is near: 8.50 of 10.00 USD."]
    assert page.links() == [reverse("admin:jobs_usageday_changelist")]
    settings.SPENDING_CAP_USD_PER_MONTH = Decimal("8.50")
    (told,) = Front(admin_client).findings()
    assert told == "The month's cap on spending, 8.50 USD, is reached: calls with a price wait."


def test_caps_of_single_users_are_told(admin_client: Client) -> None:
    spend("8.5")
    UserLimits.objects.create(user_id="alice", spending_per_month_usd=Decimal("9.00"))
    month = database_time().date().replace(day=1)
    SpendingMeter.objects.create(scope=EVERYBODY, month=month, warned_at_usd=Decimal(10))
    SpendingMeter.objects.create(scope="alice", month=month, warned_at_usd=Decimal("9.00"))
    page = Front(admin_client)
    assert page.findings() == ["The cap of alice is near: 8.50 of 9.00 USD."]
    assert page.links() == [reverse("admin:jobs_usageday_changelist") + "?q=alice"]
    UserLimits.objects.update(spending_per_month_usd=Decimal("8.50"))
    (told,) = Front(admin_client).findings()
    assert told == "The cap of alice, 8.50 USD, is reached: calls with a price wait."


def test_several_things_are_told_at_once(admin_client: Client) -> None:
    WorkerProcess.objects.all().delete()
    make_waiting(timedelta(days=2))
    make_calls(5, CallOutcome.FAILED)
    assert len(Front(admin_client).findings()) == 4


# --- the figures ---


@pytest.fixture
def hour_that_lasts() -> None:
    """What is counted by hour lies in the hour that the page is of."""
    twenty_seconds = timedelta(seconds=20)
    wait_until(lambda: (database_time() + twenty_seconds).hour == database_time().hour, 60)


@pytest.mark.usefixtures("hour_that_lasts")
def test_jobs_are_counted_by_hour_and_status(admin_client: Client) -> None:
    factories.make_completed_job("words")
    factories.make_failed_job(None)
    factories.make_job()
    hours = {2: factories.make_job(), 23: factories.make_job(), 25: factories.make_job()}
    for age, job in hours.items():
        Job.objects.filter(pk=job.pk).update(submitted_time=from_now(-timedelta(hours=age)))
    page = Front(admin_client)
    assert "In Progress 3 Completed 1 Failed 1 Cancelled 0" in page.text("jobs")
    rows = page.table("jobs")
    now = database_time()
    assert [row[0] for row in rows] == [f"{h:%Y-%m-%d %H:%M}" for h in figures.hours_of_day(now)]
    assert rows[-1][1:] == ["1", "1", "1", "0"]
    assert [n for n, row in enumerate(rows) if row[1] == "1"] == [1, 22, 24]
    assert page.section("jobs").count("<rect") == 5
    for status in ("in_progress", "completed", "failed", "cancelled"):
        link = reverse("admin:jobs_job_changelist") + f"?status__exact={status}&age=day"
        assert link in unescape(page.section("jobs"))


def test_chunks_are_counted_by_how_long_they_wait(admin_client: Client) -> None:
    job = make_waiting(timedelta(hours=3), 2)
    for minutes, chunks in {0: 1, 9: 2, 59: 3, 600: 4, -5: 5}.items():
        make_waiting(timedelta(minutes=minutes), chunks)
    factories.claim(factories.make_job())
    page = Front(admin_client)
    ages = ["under 1 minute 1", "1 to 10 minutes 2", "10 to 60 minutes 3", "1 to 6 hours 2"]
    assert " ".join([*ages, "longer 4", "not due yet 5"]) in page.text("waiting")
    assert "Waits longest 10 h 0 min In progress 1" in page.text("waiting")
    assert str(job.pk) not in page.section("waiting")


def test_a_backlog_is_counted_no_further_than_its_oldest(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "COUNTED", 3)
    make_waiting(timedelta(hours=1, minutes=1), 2)
    make_waiting(timedelta(0), 5)
    assert "under 1 minute 1 " in Front(admin_client).text("waiting")
    assert "1 to 6 hours 2" in Front(admin_client).text("waiting")


def test_queues_show_messages_and_workers(admin_client: Client) -> None:
    tasks.dispatch(factories.make_job(2, engine="pocketsphinx").pk)
    page = Front(admin_client)
    assert "chunks 0 1 local 2 1 control 0 1 webhooks 0 1" in page.text("queues")
    assert "nothing waits" not in page.text("waiting")
    Chunk.objects.all().delete()
    assert "Waits longest nothing waits" in Front(admin_client).text("waiting")


@pytest.mark.usefixtures("hour_that_lasts")
def test_errors_are_shown_by_engine_and_hour(admin_client: Client) -> None:
    make_calls(3, CallOutcome.ANSWERED)
    make_calls(1, CallOutcome.FAILED)
    make_calls(4, CallOutcome.ANSWERED, timedelta(hours=5))
    make_calls(7, CallOutcome.FAILED, timedelta(hours=25))
    make_calls(2, CallOutcome.ANSWERED, engine="<b>evil")
    page = Front(admin_client)
    assert "<b>evil" not in page.html
    assert "12% Calls that ended 8" in page.text("engine-openai")
    rows = page.table("engine-openai")
    assert rows[-1][1:] == ["3", "1", "25%"]
    assert rows[-6][1:] == ["4", "0", "0%"]
    assert "at most 25%, the picture ends at 25%" in page.text("engine-openai")
    assert "0% Calls that ended 0 Breaker closed" in page.text("engine-pocketsphinx")


@pytest.mark.usefixtures("hour_that_lasts")
def test_dead_letters_are_counted_by_class(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_dead_job("engine_error", "worker_crashed", "invalid_audio", "engine_refused")
    make_dead_job("engine_error", "invalid_audio", ended=timedelta(days=2))
    Chunk.objects.filter(error_code="engine_refused").update(error_recoverable=False)
    page = Front(admin_client)
    assert "Recoverable 2 Permanent 1 Permanent: bad audio 1" in page.text("dead-letters")
    assert "All that there are: 3 recoverable , 3 permanent" in page.text("dead-letters")
    assert page.table("dead-letters")[-1][1:] == ["2", "1", "1"]
    monkeypatch.setattr(figures, "COUNTED_DEAD", 2)
    assert "2 or more recoverable" in Front(admin_client).text("dead-letters")


@pytest.mark.usefixtures("hour_that_lasts")
def test_spending_is_drawn_against_the_cap(admin_client: Client, settings: Any) -> None:
    page = Front(admin_client)
    assert "Spent, in USD 0.00 Cap none" in page.text("spending")
    assert 'class="level"' not in page.section("spending")
    spend("2.5")
    settings.SPENDING_CAP_USD_PER_MONTH = Decimal("10.00")
    page = Front(admin_client)
    assert "Spent, in USD 2.50 Cap 10.00" in page.text("spending")
    assert 'class="level" x1="0" y1="0.00"' in page.section("spending")
    assert 'y="120.00"' in page.section("spending")
    day = f"{database_time():%Y-%m-%d}"
    assert page.table("spending")[-1] == [day, "2.5000", "2.5000"]


def test_every_picture_says_what_it_shows(admin_client: Client) -> None:
    page = Front(admin_client)
    pictures = re.findall(r"<svg[^>]*>", page.html.partition('id="now"')[2].partition("<footer")[0])
    assert len(pictures) > 10
    for picture in pictures:
        if 'viewBox="0 0 720 160"' in picture:
            assert re.search(r'role="img" aria-label="[^"]{20,}"', picture)
    bars = page.section("waiting") + page.section("queues")
    assert bars.count("<svg") == bars.count('aria-hidden="true"')


# --- who sees what ---

CARDS = {
    "view_job": {"jobs"},
    "view_chunk": {"waiting", "dead-letters"},
    "view_workerprocess": {"queues"},
    "view_enginecall": {"engine-openai", "engine-pocketsphinx"},
    "view_usageday": {"spending"},
}


@pytest.fixture
def trouble(settings: Any) -> UUID:
    """Something wrong of every kind."""
    settings.SPENDING_CAP_USD_PER_MONTH = Decimal("1.00")
    spend("5.55")
    make_calls(5, CallOutcome.FAILED)
    make_dead_job("engine_error")
    WorkerProcess.objects.all().delete()
    return make_waiting(timedelta(days=1)).pk


@pytest.fixture
def operator(client: Client) -> Callable[..., Client]:
    def make(*permissions: str) -> Client:
        user = User.objects.create_user(f"reader-{uuid4()}", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        client.force_login(user)
        return client

    return make


@pytest.mark.parametrize("permission", ["", *CARDS])
def test_an_operator_sees_what_the_permissions_allow(
    operator: Callable[..., Client], trouble: UUID, permission: str
) -> None:
    client = operator(permission)
    page = Front(client)
    cards = set(re.findall(r'<section class="card" id="([^"]*)"', page.html))
    assert cards == CARDS.get(permission, set())
    told = " ".join(page.findings())
    assert "No worker serves" in told, "which /readyz tells everybody"
    assert ("A chunk has been waiting" in told) == (permission == "view_job")
    assert ("failed for good" in told) == (permission == "view_chunk")
    assert ("of the calls of openai" in told) == (permission == "view_enginecall")
    assert ("cap on spending" in told) == (permission == "view_usageday")
    assert "on pages that your account may not see" in told
    assert (str(trouble) in page.html) == (permission == "view_job")
    assert ("5.55" in page.html) == (permission == "view_usageday")
    for link in page.links():
        assert client.get(link).status_code == 200


def test_who_may_see_all_is_not_told_of_more(admin_client: Client, trouble: UUID) -> None:
    assert "may not see" not in Front(admin_client).text("verdict")


def test_strangers_are_led_to_the_door(client: Client) -> None:
    answer = client.get(FRONT)
    assert answer.status_code == 302
    assert urlsplit(answer["Location"]).path == reverse("admin:login")


# --- what it costs ---

PAST = """
WITH made AS (
  INSERT INTO jobs_job (id, user_id, status, title, engine, vocabulary, diarize, submitted_time,
                        completed_time, deadline, delay_reason, sequence)
  SELECT ('01900000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, 'user' || n %% 50,
         CASE WHEN n %% 100 = 0 THEN 'failed' ELSE 'completed' END, '', 'openai', '[]', false,
         now() - n * interval '1 minute', now(), now() + interval '1 day', '', 1
  FROM generate_series(1, %s) AS n RETURNING id, user_id, status, submitted_time
)
INSERT INTO jobs_chunk (job_id, index, audio_path, uploaded, status, attempts, errors, crashes,
                        not_before, resend_time, dispatches, ended_time, duration_seconds, engine,
                        model, text, segments, error_code, error_detail, error_recoverable)
SELECT id, index, 'a.wav', false, status, 1, 0, 0, submitted_time, submitted_time, 0,
       submitted_time, 1, 'openai', '', '', '[]',
       CASE status WHEN 'failed' THEN 'engine_error' ELSE '' END, '',
       CASE status WHEN 'failed' THEN index %% 2 = 0 END
FROM made, generate_series(0, 2) AS index"""
CALLS = """
INSERT INTO jobs_enginecall (job_id, index, user_id, engine, model, audio_seconds, started_time,
                             outcome, error_code)
SELECT gen_random_uuid(), 0, 'alice', 'openai', '', 1, now() - n * interval '1 minute',
       CASE WHEN n %% 50 = 0 THEN 'failed' ELSE 'answered' END, ''
FROM generate_series(1, %s) AS n"""
MANY = 20_000  # a minute apart: two weeks


def test_among_many_rows_no_table_is_read_whole(admin_client: Client) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has no such plans")
    make_waiting(timedelta(hours=1), 20)
    with connection.cursor() as cursor:
        cursor.execute(PAST, [MANY])
        cursor.execute(CALLS, [MANY])
        cursor.execute("ANALYZE")
    with CaptureQueriesContext(connection) as queries:
        page = Front(admin_client)
    assert "Completed 142" in page.text("jobs")
    large = re.compile(r'FROM "jobs_(job|chunk|enginecall)"')
    asked = [query["sql"] for query in queries if large.search(query["sql"])]
    assert len(asked) == 8
    with connection.cursor() as cursor:
        for statement in asked:
            cursor.execute(f"EXPLAIN (FORMAT JSON) {statement}")
            plan = json.dumps(cursor.fetchone())
            assert "Seq Scan" not in plan, f"{statement}\n{plan}"


def test_however_much_there_is_it_takes_as_many_statements(admin_client: Client) -> None:
    broker().client.flushdb()
    with CaptureQueriesContext(connection) as few:
        Front(admin_client)
    for _ in range(3):
        make_waiting(timedelta(0), 3)
        make_dead_job("engine_error")
        make_calls(3, CallOutcome.FAILED)
    with CaptureQueriesContext(connection) as many:
        Front(admin_client)
    assert len(many) == len(few)
