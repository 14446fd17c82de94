"""`manage.py redrive`: dead letters run again, exactly those that were asked for."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from typing import Any
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from rich.console import Console

from jobs import actions, tasks
from jobs.management.commands import redrive
from jobs.management.commands.redrive import Command
from jobs.models import Chunk, Job, JobEvent, Transcript
from jobs.sweeper import DueChunk, sweep
from tests import factories
from tests.dead_letters import make_dead_job, statuses
from tests.helpers import WorkerInTest, broker, together, wait_until
from tests.scripted import ScriptedEngine

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("redis_is_empty", "script"),
]

HOUR = timedelta(hours=1)


def run(*arguments: str) -> str:
    output = StringIO()
    call_command("redrive", *arguments, stdout=output)
    return output.getvalue()


def rows(printed: str) -> list[list[str]]:
    """The cells of the table, without its frame."""
    cut = (re.split(r"\s*[│┃|]\s*", line.strip()) for line in printed.splitlines())
    return [cells[1:-1] for cells in cut if len(cells) > 2]


def queued() -> int:
    return int(broker().do_qsize("chunks"))


def everything() -> list[Any]:
    models = (Job, Chunk, JobEvent, Transcript)
    return [list(model.objects.order_by("pk").values()) for model in models]


def test_by_default_all_recoverable_ones_run_again_and_nothing_else() -> None:
    mixed = make_dead_job("engine_error", "invalid_audio", None)
    old = make_dead_job("engine_error", "worker_crashed", ended=99 * HOUR, user_id="bob")
    permanent = make_dead_job("invalid_audio")

    printed = run()

    assert rows(printed) == [
        ["Code", "Class", "Chunks", "Jobs", "Retried"],
        ["engine_error", "recoverable", "2", "2", "2"],
        ["worker_crashed", "recoverable", "1", "1", "1"],
        ["total", "", "3", "", "3"],
    ]
    assert "Left out, as they would fail again: invalid_audio (2); --code takes them." in printed
    assert "broker is away" not in printed
    assert statuses(mixed) == ["pending", "failed", "completed"]
    assert statuses(old) == ["pending", "pending"]
    assert statuses(permanent) == ["failed"]
    assert queued() == 3
    assert not Chunk.objects.filter(redrives__gt=0).exists()


def test_a_named_code_takes_exactly_that_code_also_when_it_is_permanent() -> None:
    job = make_dead_job("engine_error", "invalid_audio", "audio_too_long")
    printed = run("--code", "invalid_audio", "--code", "audio_too_long")
    assert rows(printed)[1:] == [
        ["audio_too_long", "permanent", "1", "1", "1"],
        ["invalid_audio", "permanent", "1", "1", "1"],
        ["total", "", "2", "", "2"],
    ]
    assert "Left out" not in printed
    assert statuses(job) == ["failed", "pending", "pending"]
    assert queued() == 2


def test_age_and_user_narrow_it_down() -> None:
    old = make_dead_job("engine_error", ended=3 * HOUR)
    new = make_dead_job("engine_error", ended=HOUR)
    bobs = make_dead_job("engine_error", ended=3 * HOUR, user_id="bob")
    printed = run("--older-than", "2h", "--user", "alice")
    assert rows(printed)[1:] == [["engine_error", "recoverable", "1", "1", "1"]]
    assert [statuses(job) for job in (old, new, bobs)] == [["pending"], ["failed"], ["failed"]]


def test_a_dry_run_shows_the_table_and_changes_nothing() -> None:
    make_dead_job("engine_error", "engine_error", "invalid_audio", ended=3 * HOUR)
    make_dead_job("engine_timeout")
    before = everything()
    printed = run("--dry-run")
    assert rows(printed) == [
        ["Code", "Class", "Chunks", "Jobs"],
        ["engine_error", "recoverable", "2", "1"],
        ["engine_timeout", "recoverable", "1", "1"],
        ["total", "", "3", ""],
    ]
    assert "Nothing was changed" in printed
    assert everything() == before
    assert queued() == 0


def test_without_dead_letters_it_says_so() -> None:
    factories.make_completed_job("x")
    job = make_dead_job("invalid_audio")
    assert "No dead letters are selected." in run()
    assert "invalid_audio (1)" in run("--user", "alice")
    factories.make_job(1, user_id="bob")
    assert run("--user", "bob") == "No dead letters are selected.\n"
    assert run("--code", "engine_error") == "No dead letters are selected.\n"
    assert statuses(job) == ["failed"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--code", "engine_eror"), "no chunk fails with 'engine_eror'; the codes are audio_not"),
        (("--code", "engine_error", "--code", ""), "no chunk fails with ''"),
        (("--user", "alcie"), "There are no jobs of a user 'alcie'."),
        (("--older-than", "2"), "'2' is no age; write a number and s, m, h or d, as in 2h"),
        (("--older-than", "h"), "'h' is no age"),
        (("--older-than", "-2h"), "expected one argument"),
        (("--older-than=-2h",), "'-2h' is no age"),
        (("--older-than", "two hours"), "'two hours' is no age"),
        (("--older-than", "1e3h"), "'1e3h' is no age"),
        (("--older-than", "9999999999d"), "'9999999999d' is more than 36500 days"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line_and_nothing_runs(
    arguments: tuple[str, ...], complaint: str
) -> None:
    job = make_dead_job("engine_error", ended=99 * HOUR)
    with pytest.raises(CommandError) as caught:
        run(*arguments)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.returncode != 0
    assert statuses(job) == ["failed"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1.5d", 129_600), ("0h", 0)]
)
def test_an_age_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert redrive.age(text).total_seconds() == seconds


def test_a_code_that_chunks_died_of_is_known_though_no_list_has_it() -> None:
    job = make_dead_job("engine_exploded")
    run("--code", "engine_exploded")
    assert statuses(job) == ["pending"]


def test_with_the_broker_away_jobs_are_retried_and_the_sweeper_sends_them(
    redis_elsewhere: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [make_dead_job("engine_error") for _ in range(3)]
    asked: list[UUID] = []
    dispatch = tasks.dispatch

    def counted(job_id: UUID) -> bool:
        asked.append(job_id)
        return dispatch(job_id)

    monkeypatch.setattr(tasks, "dispatch", counted)
    redis_elsewhere("redis://127.0.0.1:1/0")
    printed = run()
    assert "The broker is away: what was retried starts when it is back." in printed
    assert [statuses(job) for job in jobs] == [["pending"]] * 3
    assert asked == [jobs[0].pk], "a broker that is away is asked once"
    sent: list[DueChunk] = []
    sweep(sent.append, everything=True)
    assert {chunk.job_id for chunk in sent} == {job.pk for job in jobs}


def test_what_was_retried_before_an_interruption_runs_and_the_rest_is_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs = [make_dead_job("engine_error", "engine_error") for _ in range(3)]
    retry = actions.retry

    def interrupted_at_the_third(job_id: Any, **options: Any) -> list[Chunk]:
        if job_id == jobs[2].pk:
            raise KeyboardInterrupt
        return retry(job_id, **options)

    monkeypatch.setattr(actions, "retry", interrupted_at_the_third)
    output = StringIO()
    with pytest.raises(CommandError, match="Interrupted") as caught:
        call_command("redrive", stdout=output)
    assert caught.value.returncode == 130
    assert rows(output.getvalue())[1:] == [["engine_error", "recoverable", "6", "3", "4"]]
    assert [statuses(job) for job in jobs] == [["pending"] * 2, ["pending"] * 2, ["failed"] * 2]
    assert queued() == 4
    monkeypatch.setattr(actions, "retry", retry)
    run()
    assert statuses(jobs[2]) == ["pending"] * 2
    assert queued() == 6


def test_a_terminal_shows_a_bar_when_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = StringIO()
    terminal = Console(file=screen, force_terminal=True, width=80, _environ={})
    monkeypatch.setattr(redrive, "Console", lambda **options: terminal)
    monkeypatch.setattr(redrive, "MANY", 3)
    make_dead_job("engine_error", "engine_error")
    bar = redrive.progress_bar(2)
    assert bar.disable
    make_dead_job("engine_error")
    with monkeypatch.context() as patch:
        patch.setattr(Command, "_show", lambda *args: None)  # the table's console is another
        run()
    assert "3/3" in screen.getvalue()


def test_a_database_that_is_away_is_one_line(database_down: Callable[[], Any]) -> None:
    with database_down(), pytest.raises(CommandError, match="The database cannot be used"):
        run()


def test_three_at_once_retry_each_chunk_once() -> None:
    for _ in range(4):
        make_dead_job("engine_error", "engine_error")
    outputs = together(*[run] * 3)
    assert all(isinstance(output, str) for output in outputs), outputs
    retried = sum(
        int(row[-1]) for output in outputs for row in rows(output) if row[0] == "engine_error"
    )
    assert retried == 8
    assert JobEvent.objects.filter(type="chunk.pending").count() == 8
    assert queued() == 8


def test_a_redriven_job_completes(worker: WorkerInTest, script: ScriptedEngine) -> None:
    job = make_dead_job("engine_error", None)
    factories.put_audio("alice/00.wav")
    script.otherwise = "now it works"
    worker.start()
    run()
    wait_until(lambda: Job.objects.get(pk=job.pk).status == "completed")
    assert Transcript.objects.get(job=job).text == "now it works kept"
