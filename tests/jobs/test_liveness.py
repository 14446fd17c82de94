"""A process says that it lives, and the dead are buried."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.db.utils import InterfaceError, OperationalError

from jobs import liveness
from jobs.models import WorkerProcess, from_now
from tests.helpers import wait_until

pytestmark = pytest.mark.django_db


def row(pid: int, started: int, **columns: object) -> WorkerProcess:
    values = {"pid_space": liveness.pid_space(), "last_seen": Now()} | columns
    return WorkerProcess.objects.create(
        id=uuid4(), hostname="h", pid=pid, pid_started=started, started_time=Now(), **values
    )


def test_a_process_has_one_row_however_often_it_starts() -> None:
    first = liveness.start("chunks")
    assert liveness.start("other") is first
    worker = WorkerProcess.objects.get()
    assert (worker.pk, worker.pid, worker.queues) == (first.worker_id, os.getpid(), "chunks")
    assert worker.pid_started == liveness.pid_started(os.getpid())
    assert WorkerProcess.objects.alive().exists()


def test_leaving_in_order_removes_the_row_and_a_new_start_is_another_worker() -> None:
    first = liveness.start()
    liveness.stop()
    assert not WorkerProcess.objects.exists()
    assert liveness.start().worker_id != first.worker_id


def test_a_row_that_was_removed_comes_back_with_the_next_beat() -> None:
    heartbeat = liveness.start("chunks")
    WorkerProcess.objects.all().delete()
    heartbeat._beat()
    assert WorkerProcess.objects.get().pk == heartbeat.worker_id


def test_a_beat_renews_only_its_own_row() -> None:
    other = row(1, liveness.pid_started(1) or 0, last_seen=from_now(-timedelta(seconds=20)))
    heartbeat = liveness.start()
    WorkerProcess.objects.update(last_seen=from_now(-timedelta(seconds=20)))
    heartbeat._beat()
    alive = list(WorkerProcess.objects.alive().values_list("pk", flat=True))
    assert alive == [heartbeat.worker_id]
    assert other.pk not in alive


@pytest.mark.parametrize("fault", [OperationalError, InterfaceError, RuntimeError])
@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_heart_goes_on_beating_whatever_a_beat_met(
    monkeypatch: pytest.MonkeyPatch, fault: type[Exception]
) -> None:
    beats: list[int] = []

    def beat(self: liveness.Heartbeat) -> None:
        beats.append(1)
        if len(beats) in {2, 3}:
            raise fault

    monkeypatch.setattr(liveness, "RENEW_EVERY_SECONDS", 0.01)
    monkeypatch.setattr(liveness.Heartbeat, "_beat", beat)
    heartbeat = liveness.Heartbeat("chunks")
    wait_until(lambda: len(beats) >= 5, seconds=5)
    heartbeat._stopped.set()


@pytest.mark.django_db(transaction=True)
def test_the_heart_beats_while_every_connection_of_the_pool_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has no pool of connections")
    monkeypatch.setattr(liveness, "RENEW_EVERY_SECONDS", 0.1)
    heartbeat = liveness.start("chunks")
    first = heartbeat._last_beat
    wait_until(lambda: heartbeat._last_beat > first)
    pool, over = cast("Any", connection).pool, threading.Event()

    def take() -> None:
        with suppress(OperationalError):  # there is none for the last
            connection.ensure_connection()
            over.wait(30)
        connection.close()

    threads = [threading.Thread(target=take) for _ in range(pool.max_size)]
    for thread in threads:
        thread.start()
    wait_until(lambda: pool.get_stats()["requests_waiting"])
    before = heartbeat._last_beat
    wait_until(lambda: heartbeat._last_beat > before + 1, 3)
    over.set()
    for thread in threads:
        thread.join()


def test_a_worker_that_boots_without_a_database_registers_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    renew = liveness.Heartbeat._renew

    def away(self: liveness.Heartbeat) -> None:
        raise OperationalError

    monkeypatch.setattr(liveness.Heartbeat, "_renew", away)
    heartbeat = liveness.start("chunks")
    with pytest.raises(OperationalError):
        heartbeat.registered()
    monkeypatch.setattr(liveness.Heartbeat, "_renew", renew)
    assert heartbeat.registered() == heartbeat.worker_id
    assert WorkerProcess.objects.get().queues == "chunks"


def test_a_heart_is_steady_only_when_no_beat_was_late_for_longer_than_the_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    monkeypatch.setattr(liveness, "_uptime", lambda: now[0])
    monkeypatch.setattr(liveness, "RENEW_EVERY_SECONDS", 5.0)
    heartbeat = liveness.Heartbeat("")
    heartbeat._stopped.set()
    steady = []
    for seconds in (5, 5, 5, 5, 11, 5, 5, 5, 5):
        now[0] += seconds
        steady.append(heartbeat.is_steady())
        heartbeat._stopped.clear()
        heartbeat._beat()
        heartbeat._stopped.set()
    now[0] += 60  # no beat came through: the database is away, or this machine was asleep
    steady.append(heartbeat.is_steady())
    assert steady == [False, False, False, True, False, False, False, False, True, False]


def test_a_process_that_is_gone_is_buried_at_once_and_a_living_one_is_not() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    pid, started = gone.pid, liveness.pid_started(gone.pid) or 0
    gone.wait()
    dead = row(pid, started)
    reused = row(os.getpid(), 1)
    me = row(os.getpid(), liveness.pid_started(os.getpid()) or 0)
    assert liveness.bury_the_dead() == 2
    assert list(WorkerProcess.objects.values_list("pk", flat=True)) == [me.pk]
    assert not WorkerProcess.objects.filter(pk__in=[dead.pk, reused.pk]).exists()


def test_a_zombie_is_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    stat = Path(f"/proc/{child.pid}/stat")
    wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "Z")
    assert liveness.pid_started(child.pid) is None
    child.wait()


def test_processes_of_other_machines_are_judged_by_silence_only() -> None:
    row(1, 1, pid_space="another-boot:pid:[1]")
    row(2, 2, pid_space="")
    assert liveness.bury_the_dead() == 0
    assert WorkerProcess.objects.alive().count() == 2


def test_where_pids_cannot_be_told_apart_nobody_is_buried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "pid_space", lambda: "")
    row(1, 1, pid_space="")
    assert liveness.bury_the_dead() == 0


def test_a_forked_child_gets_a_heart_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    parent = liveness.start()
    monkeypatch.setattr(liveness, "_owner_pid", os.getpid() + 1)
    child = liveness.start()
    assert child.worker_id != parent.worker_id
    parent._stopped.set()
