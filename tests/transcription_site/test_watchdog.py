"""The watchdog: what it takes for a reason to end, and that real worker processes end of it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from configparser import RawConfigParser
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import dramatiq
import pytest
import redis
from django.conf import settings
from django.db import connection
from dramatiq.worker import Worker

from deploy.system import CONFIG, MARK, System, die_with_parent
from jobs import engines, tasks
from jobs.models import Chunk, Job, WorkerProcess
from jobs.redis_clients import impatient_client
from tests import factories
from tests.asr.vendor import Vendor, serving
from tests.helpers import WorkerInTest, broker, wait_until
from tests.servers import start_redis
from tests.transcription_site.deadly import strike
from transcription_site import env as environment
from transcription_site import watchdog
from transcription_site.watchdog import Judge, Sight, Watchdog

UNTOUCHED = ("pending", 0, 0, 0)


# --- the reasons ---


def verdicts(*sights: tuple[float, bool]) -> list[str | None]:
    judge = Judge()
    return [judge.reason_to_end(Sight(at=at, broker_answers=there)) for at, there in sights]


def test_a_sound_process_goes_on() -> None:
    assert verdicts((0, True), (1, True), (1000, True)) == [None] * 3


def test_it_ends_when_the_broker_is_back_after_more_than_10_seconds_and_not_before() -> None:
    *before, after = verdicts((0, True), (1, False), (6, False), (60, False), (61, True))
    assert before == [None] * 4
    assert after == "the broker was away for 60 s"


def test_an_outage_of_10_seconds_is_lived_through() -> None:
    assert verdicts((0, True), (1, False), (11, True), (12, True)) == [None] * 4


def test_outages_do_not_add_up() -> None:
    looks = [(float(n), n % 10 == 0) for n in range(40)]
    assert verdicts(*looks) == [None] * 40


def test_a_broker_that_was_away_from_the_first_look_on_was_away() -> None:
    assert verdicts((5, False), (15.5, True)) == [None, "the broker was away for 10 s"]


def test_a_process_that_slept_itself_saw_no_outage() -> None:
    assert verdicts((0, True), (3600, True)) == [None, None]


def test_dead_threads_and_a_dead_master_are_reasons_at_once_also_without_broker() -> None:
    reason = Judge().reason_to_end(
        Sight(at=0, broker_answers=False, dead_threads=("a worker thread", "the consumer of x"))
    )
    assert reason == "a thread has died: a worker thread, the consumer of x"
    reason = Judge().reason_to_end(Sight(at=0, broker_answers=False, orphaned=True))
    assert reason == "its master process has died"


# --- a worker in this process ---


@pytest.fixture
def watched(worker: WorkerInTest) -> Iterator[tuple[Worker, Watchdog, list[str]]]:
    """A real worker, and a watchdog over it that only says that it would end the process."""
    worker.start(threads=2, queues={"control"})
    inner = worker._worker
    assert inner is not None
    reasons: list[str] = []
    dog = Watchdog(inner, impatient_client(settings.BROKER_URL), reasons.append)
    yield inner, dog, reasons
    dog.stop()


def test_a_sound_worker_shows_nothing(watched: tuple[Worker, Watchdog, list[str]]) -> None:
    _, dog, _ = watched
    sight = dog.look()
    assert (sight.broker_answers, sight.dead_threads, sight.orphaned) == (True, (), False)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    ("victim", "name"),
    [
        (lambda worker: worker.workers[1], "a worker thread"),
        (lambda worker: worker.consumers["control"], "the consumer of control"),
        (lambda worker: worker.consumers["control.DQ"], "the consumer of control.DQ"),
    ],
)
def test_a_thread_that_died_is_seen_and_barked_at_once(
    watched: tuple[Worker, Watchdog, list[str]],
    monkeypatch: pytest.MonkeyPatch,
    victim: Callable[[Worker], Any],
    name: str,
) -> None:
    monkeypatch.setattr(watchdog, "LOOK_EVERY_SECONDS", 0.05)
    worker, dog, reasons = watched
    dog.start()
    strike(victim(worker))
    wait_until(lambda: reasons)
    assert reasons == [f"a thread has died: {name}"]


def test_a_worker_that_stops_in_order_is_not_barked_at(
    worker: WorkerInTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "LOOK_EVERY_SECONDS", 0.01)
    worker.start(threads=2)
    inner = worker._worker
    assert inner is not None
    reasons: list[str] = []
    dog = Watchdog(inner, impatient_client(settings.BROKER_URL), reasons.append)
    dog.start()
    dog.stop()
    worker.stop()
    assert len(watchdog.dead_threads(inner)) == len(inner.workers) + len(inner.consumers)
    assert reasons == []


def test_a_redis_that_is_away_is_seen(worker: WorkerInTest) -> None:
    worker.start(threads=1)
    assert worker._worker is not None
    nowhere = impatient_client("redis://127.0.0.1:1/0")
    assert not Watchdog(worker._worker, nowhere, print).look().broker_answers


def test_a_worker_inside_another_program_is_not_watched(worker: WorkerInTest) -> None:
    worker.start(threads=1)
    assert worker._worker is not None
    before = signal.getsignal(signal.SIGTERM)
    watchdog.stop_only_once()
    assert signal.getsignal(signal.SIGTERM) is before
    assert watchdog.start(worker._worker, broker().client, limit=1) is None
    assert not watchdog.is_orphan()


def test_a_process_that_does_not_stop_in_order_ends_anyhow() -> None:
    code = (
        "import signal, time; from transcription_site.watchdog import end_process; "
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); end_process('of old age', 0.1); "
        "time.sleep(60)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=environment.BASE_DIR,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == watchdog.EXIT_CODE
    assert done.stderr.rstrip().endswith("a sound one is to take its place: of old age")


def test_the_supervisor_starts_a_worker_again_whatever_it_ended_with() -> None:
    config = RawConfigParser()
    config.read(CONFIG)
    for queue in engines.WORKERS:
        # Not "unexpected": a worker that stopped in order ends with 0.
        assert config[f"program:worker-{queue}"]["autorestart"] == "true"


# --- worker processes under Dramatiq's master, as the supervisor starts them ---

of_processes = [pytest.mark.system, pytest.mark.timeout(300)]
DEADLY = "tests.transcription_site.deadly"


class Workers:
    """Starts masters with their processes on this run's database; sees who lives."""

    def __init__(self, folder: Path, vendor: Vendor) -> None:
        self._system = System(environment.load(), folder)
        self._log = folder / "worker.log"
        self._environ = {
            **os.environ,
            MARK: str(folder),
            "DATABASE_URL": url_of_the_test_database(),
            "ASR_ENGINE": "openai",
            "OPENAI_API_KEY": "k",
            "OPENAI_BASE_URL": vendor.url,
            "OPENAI_MODEL": "m",
            "ENGINE_DEADLINE_SECONDS": "300",
            "WORKER_PROCESSES": "2",
            "WORKER_THREADS": "2",
            "DJANGO_SETTINGS_MODULE": "transcription_site.settings",
        }

    def start(self, *command: str, **variables: str) -> subprocess.Popen[bytes]:
        """Start a master: by default that of the remote engines' chunks."""
        command = command or ("manage.py", "run_worker", "chunks")
        with self._log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, *command],
                cwd=environment.BASE_DIR,
                env=self._environ | variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=die_with_parent,  # noqa: PLW1509
            )

    def start_deadly(self) -> subprocess.Popen[bytes]:
        """Start a master of one process whose threads can be struck down."""
        options = "--processes 1 --threads 2 --queues control --worker-shutdown-timeout 60000"
        modules = ("django_dramatiq.setup", "jobs.tasks", DEADLY)
        return self.start("-m", "dramatiq", *modules, *options.split())

    def alive(self) -> set[int]:
        return set(self._system.family())

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def reasons(self) -> list[str]:
        """Why processes ended, as the log has it."""
        lines = [line for line in self.log().splitlines() if "This worker process ends" in line]
        assert all("CRITICAL" in line for line in lines)
        return [line.rpartition("to take its place: ")[2] for line in lines]

    def kill(self) -> None:
        for pid in self.alive():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def url_of_the_test_database() -> str:
    name = str(connection.settings_dict["NAME"])
    if connection.vendor == "sqlite":
        return f"sqlite:///{name}"
    return urlunsplit(urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}"))


@pytest.fixture
def vendor() -> Iterator[Vendor]:
    """An engine that thinks until the test ends, or has it answer."""
    with serving() as server:

        def think(handler: Any) -> None:
            server.stop.wait(300)

        server.answer = think
        yield server


@pytest.fixture
def workers(
    transactional_db: None, redis_is_empty: None, tmp_path: Path, vendor: Vendor
) -> Iterator[Workers]:
    running = Workers(tmp_path, vendor)
    yield running
    running.kill()
    wait_until(lambda: not running.alive())


def job_under_way(chunks: int = 2) -> Job:
    """A job whose chunks are all being recognised, by the processes that run."""
    job = factories.make_job(chunks, engine="openai")
    for index in range(chunks):
        factories.put_audio(f"alice/{index:02d}.wav", factories.wav(1.0, fill=index + 1))
    assert tasks.dispatch(job.pk)
    wait_until(lambda: statuses(job) == {"in_progress"}, 60)
    return job


def statuses(job: Job) -> set[str]:
    return set(Chunk.objects.filter(job=job).values_list("status", flat=True))


def cost(job: Job) -> list[tuple[Any, ...]]:
    rows = Chunk.objects.filter(job=job)
    return list(rows.values_list("status", "attempts", "errors", "crashes"))


class TestProcesses:
    pytestmark = of_processes

    def test_processes_whose_master_was_killed_end_and_give_their_claims_back(
        self, workers: Workers
    ) -> None:
        master = workers.start()
        job = job_under_way(4)
        assert len(workers.alive()) > 2

        master.kill()
        master.wait()
        wait_until(lambda: not workers.alive(), 45)

        assert cost(job) == [UNTOUCHED] * 4
        assert workers.reasons() == ["its master process has died"] * 2
        assert not WorkerProcess.objects.exists(), "they took their leave"

    def test_workers_are_recycled_when_redis_is_back_and_not_while_it_is_away(
        self,
        workers: Workers,
        vendor: Vendor,
        tmp_path: Path,
        redis_elsewhere: Callable[[str], None],
    ) -> None:
        with ExitStack() as stack:
            url = start_redis(stack, tmp_path)
            redis_elsewhere(url)
            master = workers.start(REDIS_URL=url)
            job = job_under_way(4)
            pid = redis.Redis.from_url(url).info("server")["process_id"]
            os.kill(pid, signal.SIGSTOP)
            try:
                stalled = time.monotonic()
                while time.monotonic() < stalled + 16:
                    assert master.poll() is None
                    assert workers.reasons() == []
                    assert statuses(job) == {"in_progress"}
                    time.sleep(0.2)
            finally:
                os.kill(pid, signal.SIGCONT)

            assert master.wait(120) == 0, "the supervisor starts it again whatever it ends with"
            assert not workers.alive()
            assert cost(job) == [UNTOUCHED] * 4
            assert workers.reasons()
            for reason in workers.reasons():  # the first to end takes the others along
                assert re.fullmatch(r"the broker was away for [1-9]\d s", reason)
            assert "Killing worker process" not in workers.log()

            vendor.says(200, {"text": "word"})
            workers.start(REDIS_URL=url)
            wait_until(lambda: Job.objects.filter(pk=job.pk, status="completed").exists(), 60)
            assert cost(job) == [("completed", 1, 0, 0)] * 4

    def test_a_second_sigterm_does_not_cut_an_orderly_stop_short(self, workers: Workers) -> None:
        master = workers.start()
        job = job_under_way(4)
        for _ in range(2):  # the master passes each one on
            master.terminate()
            time.sleep(0.2)  # two signals that wait for the same process are one
        assert master.wait(60) == 0
        assert cost(job) == [UNTOUCHED] * 4
        assert workers.log().count("Stopping worker process") == 2
        assert not workers.alive()

    @pytest.mark.parametrize(
        ("kind", "name"), [("worker", "a worker thread"), ("consumer", "the consumer of control")]
    )
    def test_a_process_that_lost_a_thread_ends_and_its_master_with_it(
        self, workers: Workers, kind: str, name: str
    ) -> None:
        master = workers.start_deadly()
        message: dramatiq.Message[None] = dramatiq.Message(
            queue_name="control", actor_name="strike_down", args=(kind,), kwargs={}, options={}
        )
        broker().enqueue(message)
        assert master.wait(60) == 0
        assert workers.reasons() == [f"a thread has died: {name}"]
        assert not workers.alive()
        assert broker().client.hlen("dramatiq:control.msgs") == 0
