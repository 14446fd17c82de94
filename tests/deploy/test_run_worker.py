"""`manage.py run_worker`: which process it becomes."""

from __future__ import annotations

import os

import pytest
from django.core.management import CommandError, call_command

from jobs import engines
from transcription_site.env import BASE_DIR

PREFETCH = ("dramatiq_queue_prefetch", "dramatiq_delay_queue_prefetch")


class BecameAnotherProcessError(Exception):
    """What os.execvp raises here instead of never coming back."""


@pytest.fixture
def become(monkeypatch):
    """Run the command; the program that it becomes, its arguments and its prefetch variables."""

    def execvp(program: str, arguments: list[str]) -> None:
        raise BecameAnotherProcessError(program, arguments)

    def run(queue: str) -> tuple[list[str], tuple[str, ...]]:
        with pytest.raises(BecameAnotherProcessError) as caught:
            call_command("run_worker", queue)
        return caught.value.args[1], tuple(os.environ[name] for name in PREFETCH)

    monkeypatch.setattr(os, "execvp", execvp)
    for name in PREFETCH:
        monkeypatch.setenv(name, "")
    return run


def option(arguments: list[str], name: str) -> str:
    return arguments[arguments.index(f"--{name}") + 1]


@pytest.mark.parametrize(
    ("queue", "processes", "threads"), [("chunks", 3, 50), ("local", 1, 7), ("control", 1, 8)]
)
def test_each_queue_has_its_size(settings, become, queue, processes, threads):
    settings.WORKER_PROCESSES, settings.WORKER_THREADS, settings.LOCAL_THREADS = 3, 50, 7
    arguments, prefetch = become(queue)
    assert option(arguments, "queues") == queue
    assert option(arguments, "processes") == str(processes)
    assert option(arguments, "threads") == str(threads)
    assert prefetch == (str(threads), str(4 * threads))


def test_the_project_is_found_from_any_folder(become, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, _ = become("control")
    assert option(arguments, "path") == str(BASE_DIR)
    assert "jobs.tasks" in arguments


def test_what_is_being_written_has_a_minute_to_end(become):
    assert option(become("chunks")[0], "worker-shutdown-timeout") == "60000"


def test_every_queue_has_a_worker_and_its_meaning(become, capsys):
    served: list[str] = []
    for worker, queues in engines.WORKERS.items():
        arguments, _ = become(worker)
        at = arguments.index("--queues") + 1
        assert arguments[at : at + len(queues)] == list(queues)
        served += queues
    assert sorted(served) == sorted(engines.QUEUES) == ["chunks", "control", "local", "webhooks"]
    with pytest.raises(SystemExit):
        call_command("run_worker", "--help")
    shown = capsys.readouterr().out
    assert all(f"{worker}: " in shown for worker in engines.WORKERS)


def test_a_worker_that_cannot_reach_audio_starts_and_says_so(become, settings, tmp_path, caplog):
    settings.AUDIO_ROOT = tmp_path / "unmounted"
    for queue in engines.WORKERS:
        become(queue)
    said = [record.getMessage() for record in caplog.records if record.name == "jobs.storage"]
    line = "Audio cannot be reached: the audio root is not there: see AUDIO_ROOT"
    assert said == [line] * 2  # who stitches needs none


def test_an_unknown_queue_is_refused(become):
    with pytest.raises(CommandError, match="invalid choice"):
        call_command("run_worker", "media")
