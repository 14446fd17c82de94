"""Editing: nothing is overwritten unseen, nothing that a person wrote is lost."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.db.models import Sum
from django.db.models.functions import Length, Now

from asr.types import Recognition, Segment, Word
from jobs import actions, cache, claims, editing, finishing
from jobs.models import (
    Chunk,
    Job,
    JobEvent,
    JobGoneError,
    Recording,
    RevisedText,
    Revision,
    Transcript,
    changing,
    from_now,
)
from jobs.recordings import fail_uncut
from jobs.results import load_results
from jobs.words import words_between
from tests import factories
from tests.helpers import together

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("redis_is_empty")]


def save(
    job: Job,
    seen: int,
    texts: Mapping[int, str | None],
    *,
    editor: str = "alice",
) -> dict[str, Any]:
    return editing.save(job.pk, editor=editor, seen=seen, texts=texts, speakers={})


def rename(job: Job, seen: int, names: Mapping[str, str | None]) -> dict[str, Any]:
    return editing.save(job.pk, editor="alice", seen=seen, texts={}, speakers=names)


def restore(job: Job, number: int, seen: int | None = None) -> dict[str, Any]:
    return editing.restore(job.pk, number, editor="alice", seen=seen)


def texts_of(shown: dict[str, Any]) -> list[str]:
    return [chunk["text"] for chunk in shown["chunks"]]


def numbers(job: Job) -> list[int]:
    return list(
        Revision.objects.filter(job=job).order_by("number").values_list("number", flat=True)
    )


def let_a_minute_pass(job: Job) -> None:
    Revision.objects.filter(job=job).update(begun_time=from_now(-timedelta(seconds=61)))


def diarized(**said: str) -> Recognition:
    """One segment for each speaker."""
    segments = tuple(
        Segment(
            text=text,
            start=float(n),
            end=n + 1.0,
            words=tuple(Word(text=word, start=float(n), end=n + 0.5) for word in text.split()),
            speaker=speaker,
        )
        for n, (speaker, text) in enumerate(said.items())
    )
    return Recognition(segments=segments, engine="scripted", model="m", language="en")


def a_job_with_speakers(*said: dict[str, str] | None) -> Job:
    """None: a chunk that failed for good."""
    job = factories.make_job(len(said))
    for index, texts in enumerate(said):
        claimed = factories.claim(job, index)
        if texts is None:
            factories.fail(claimed, factories.permanent())
        else:
            claims.record_result(factories.attempt(claimed, 5.0), diarized(**texts))
    finishing.finish_job(job.pk)
    return Job.objects.get(pk=job.pk)


def test_a_save_makes_the_transcript_anew_and_leaves_what_was_recognised() -> None:
    job = factories.make_completed_job("hello word", "good by")
    before = list(Chunk.objects.filter(job=job).order_by("index").values())
    shown = save(job, 0, {0: "hello world"})
    assert shown == editing.read(job.pk)
    assert shown == {
        "jobId": str(job.pk),
        "revision": 1,
        "chunks": [
            {"index": 0, "text": "hello world", "recognisedText": "hello word", "edited": True},
            {"index": 1, "text": "good by", "recognisedText": "good by", "edited": False},
        ],
        "speakers": {},
    }
    result = load_results([job.pk])[job.pk]
    assert (result["transcription"], result["revision"]) == ("hello world good by", 1)
    assert [chunk["edited"] for chunk in result["chunks"]] == [True, False]
    assert result["jobStatus"] == "completed"
    assert list(Chunk.objects.filter(job=job).order_by("index").values()) == before


def test_a_save_is_an_event_and_is_in_the_cache_at_once(
    django_assert_num_queries: Callable[[int], Any],
) -> None:
    job = factories.make_completed_job("hello word")
    save(job, 0, {0: "hello world"})
    event = JobEvent.objects.filter(job=job).latest("sequence")
    assert (event.type, event.data, event.sequence) == (
        "job.edited",
        {"revision": 1},
        job.sequence + 1,
    )
    assert Job.objects.get(pk=job.pk).sequence == event.sequence
    with django_assert_num_queries(0):
        result = cache.read_results({job.pk: event.sequence})[job.pk]
    assert result == load_results([job.pk])[job.pk]
    assert b"hello world" in (cache.read_body(job.pk, event.sequence) or b"")


def test_who_has_not_seen_the_newest_revision_writes_nothing() -> None:
    job = factories.make_completed_job("a", "b")
    save(job, 0, {0: "mine"})
    for late in (
        lambda: save(job, 0, {1: "theirs"}, editor="bob"),
        lambda: restore(job, 0, seen=0),
    ):
        with pytest.raises(editing.RevisionConflictError, match="1"):
            late()
    assert texts_of(editing.read(job.pk)) == ["mine", "b"]
    assert numbers(job) == [1]


def test_of_two_who_save_at_once_one_wins_and_the_other_is_told() -> None:
    for _ in range(5):
        job = factories.make_completed_job("a", "b")
        results = together(
            partial(save, job, 0, {0: "mine"}), partial(save, job, 0, {0: "theirs"}, editor="bob")
        )
        won = [result for result in results if isinstance(result, dict)]
        lost = [r for r in results if isinstance(r, editing.RevisionConflictError)]
        assert (len(won), len(lost)) == (1, 1), results
        assert editing.read(job.pk) == won[0]
        assert numbers(job) == [1]


def test_what_changes_nothing_makes_no_revision() -> None:
    job = factories.make_completed_job("a", "b")
    sequence = Job.objects.get(pk=job.pk).sequence
    assert save(job, 0, {0: "a", 1: None})["revision"] == 0
    assert restore(job, 0)["revision"] == 0
    assert Job.objects.get(pk=job.pk).sequence == sequence
    save(job, 0, {0: "x"})
    assert save(job, 1, {0: "x"})["revision"] == 1
    assert restore(job, 1)["revision"] == 1


def test_null_and_the_recognised_text_take_an_edit_back() -> None:
    job = factories.make_completed_job("a", "b")
    save(job, 0, {0: "x", 1: "y"})
    shown = save(job, 1, {0: None, 1: "b"})
    assert [chunk["edited"] for chunk in shown["chunks"]] == [False, False]
    assert texts_of(shown) == ["a", "b"]
    assert not RevisedText.objects.current().exists()


def test_what_one_editor_saves_within_a_minute_is_one_version() -> None:
    job = factories.make_completed_job("a", "b")
    for seen, text in enumerate(("x", "xy", "xyz")):
        save(job, seen, {0: text})
    save(job, 3, {1: "z"})
    assert numbers(job) == [4]
    assert Revision.objects.get(job=job).changed == [0, 1]
    assert RevisedText.objects.filter(job=job).count() == 2
    save(job, 4, {1: "zz"}, editor="bob")  # somebody else's is another
    save(job, 5, {1: "zzz"}, editor="bob")
    assert numbers(job) == [4, 6]
    let_a_minute_pass(job)
    save(job, 6, {0: "last"}, editor="bob")
    assert numbers(job) == [4, 6, 7]
    assert texts_of(restore(job, 4)) == ["xyz", "z"]
    assert texts_of(restore(job, 6)) == ["xyz", "zzz"]


def test_a_version_that_was_brought_back_stays_in_the_list() -> None:
    job = factories.make_completed_job("a")
    save(job, 0, {0: "x"})
    restore(job, 0)
    save(job, 2, {0: "y"})
    assert list(Revision.objects.filter(job=job).values_list("number", "restores")) == [
        (3, None),
        (2, 0),
        (1, None),
    ]
    with pytest.raises(editing.UnknownRevisionError):
        restore(job, 4)


@pytest.mark.parametrize("seed", range(3))
def test_every_version_comes_back_as_it_was(seed: int) -> None:
    """Against a list of whole copies."""
    choose = random.Random(seed)
    job = factories.make_completed_job("a", "b", "c")
    copies: dict[int, list[str]] = {0: ["a", "b", "c"]}
    revision = 0
    for _ in range(40):
        if choose.random() < 0.3:
            let_a_minute_pass(job)
        if choose.random() < 0.2:
            number = choose.choice([0, *numbers(job)])
            shown = restore(job, number)
            assert texts_of(shown) == copies[number]
        else:
            texts = {n: choose.choice([None, "x", "y", "z"]) for n in choose.sample(range(3), 2)}
            shown = save(job, revision, texts, editor=choose.choice(["alice", "alice", "bob"]))
        revision = shown["revision"]
        copies[revision] = texts_of(shown)
        assert editing.read(job.pk) == shown
    for number in numbers(job):
        assert texts_of(restore(job, number)) == copies[number]
    text = Transcript.objects.get(pk=job.pk).text
    assert text == " ".join(copies[number])


def test_an_hour_of_saves_of_two_hours_of_text_stays_small() -> None:
    page = "some words that were said " * 150  # 4 kB
    job = factories.make_completed_job(*[page] * 3)
    for minute in range(60):
        for second in range(3):
            seen = minute * 3 + second
            save(job, seen, {minute % 3: f"{page}{seen}"})
        let_a_minute_pass(job)
    assert len(numbers(job)) == 60
    stored = RevisedText.objects.filter(job=job).aggregate(sum=Sum(Length("text")))["sum"]
    assert stored < 62 * (len(page) + 5)  # a page a minute, where copies would be all of them


@pytest.mark.parametrize("ended", ["failed", "cancelled", "completed"])
def test_a_job_that_ended_in_any_way_can_be_edited_and_no_other(ended: str) -> None:
    job = factories.make_job(1)
    with pytest.raises(editing.NotEndedError):
        editing.read(job.pk)
    with pytest.raises(editing.NotEndedError):
        save(job, 0, {0: "x"})
    with pytest.raises(editing.NotEndedError):
        restore(job, 0)
    if ended == "cancelled":
        actions.cancel(job.pk)
    else:
        job = (
            factories.make_completed_job("a")
            if ended == "completed"
            else factories.make_failed_job(None)
        )
    assert texts_of(save(job, 0, {0: "x"})) == ["x"]
    assert load_results([job.pk])[job.pk]["jobStatus"] == ended
    assert load_results([job.pk])[job.pk]["gaps"] == []


def test_what_a_person_wrote_survives_a_retry_and_the_rest_is_recognised() -> None:
    job = factories.make_failed_job("zero", None, None)
    save(job, 0, {0: "nought", 1: "by hand"})
    result = load_results([job.pk])[job.pk]
    assert (result["transcription"], [g["index"] for g in result["gaps"]]) == (
        "nought by hand",
        [2],
    )
    actions.retry(job.pk)
    retried = load_results([job.pk])[job.pk]
    assert (retried["transcription"], retried["revision"]) == (None, 1)
    assert [chunk["edited"] for chunk in retried["chunks"]] == [True, True, False]
    with pytest.raises(editing.NotEndedError):
        save(job, 1, {0: "x"})
    for index in (1, 2):
        factories.complete(factories.claim(job, index), "heard")
    finishing.finish_job(job.pk)
    result = load_results([job.pk])[job.pk]
    assert result["transcription"] == "nought by hand heard"
    assert (result["jobStatus"], result["gaps"]) == ("completed", [])
    assert texts_of(restore(job, 0)) == ["zero", "heard", "heard"]


def test_names_are_given_for_the_whole_and_survive_a_retry() -> None:
    job = a_job_with_speakers({"0": "hello there", "1": "hi"}, None)
    assert editing.read(job.pk)["speakers"] == {"0": None, "1": None}
    assert rename(job, 0, {"0": "Anna"})["speakers"] == {"0": "Anna", "1": None}
    assert {w["speaker"] for w in words_between(job.pk, 0, None)["words"]} == {"Anna", "1"}
    with pytest.raises(editing.UnknownSpeakerError):
        rename(job, 1, {"7": "Bob"})
    actions.retry(job.pk)
    claims.record_result(factories.attempt(factories.claim(job, 1), 5.0), diarized(**{"0": "yes"}))
    finishing.finish_job(job.pk)
    # Now that two chunks speak, nobody knows whether "0" of one is "0" of the other.
    assert editing.read(job.pk)["speakers"] == {"1-0": "Anna", "1-1": None, "2-0": None}
    assert rename(job, 1, {"1-0": None, "2-0": "Ben"})["speakers"]["1-0"] is None
    assert {w["speaker"] for w in words_between(job.pk, 0, None)["words"]} == {"1-0", "1-1", "Ben"}


def test_a_transcript_from_before_there_were_names_has_speakers() -> None:
    job = a_job_with_speakers({"0": "hello there", "1": "hi"})
    Transcript.objects.filter(pk=job.pk).update(speakers=None)
    assert editing.read(job.pk)["speakers"] == {"0": None, "1": None}


def test_a_recording_that_could_not_be_cut_has_no_chunk_to_write() -> None:
    job = factories.make_job(0)
    due = {"not_before": Now(), "resend_time": Now()}
    Recording.objects.create(job=job, audio_path="alice/long.wav", **due)
    with changing(job.pk) as change:
        fail_uncut(change, "invalid_audio", "not audio", recoverable=False)
    finishing.finish_job(job.pk)
    assert editing.read(job.pk)["chunks"] == []
    with pytest.raises(editing.UnknownChunkError):
        save(job, 0, {0: "x"})
    assert len(load_results([job.pk])[job.pk]["gaps"]) == 1


def test_words_say_whose_they_are_and_a_span_parts_them() -> None:
    job = factories.make_completed_job("one two", "three")
    Chunk.objects.filter(job=job).update(duration_seconds=2.0)
    save(job, 0, {0: "one 2"})
    everything = words_between(job.pk, 0, None)
    assert everything["revision"] == 1
    assert [(w["text"], w["start"], w["index"], w["edited"]) for w in everything["words"]] == [
        ("one", 0.0, 0, False),
        ("2", 1.0, 0, True),
        ("three", 2.0, 1, False),
    ]
    first, rest = words_between(job.pk, 0, 1.0), words_between(job.pk, 1.0, 9.0)
    assert first["words"] + rest["words"] == everything["words"]


def test_words_of_an_older_transcript_find_their_chunk_by_time() -> None:
    job = factories.make_completed_job("one", "two")
    transcript = Transcript.objects.get(pk=job.pk)
    for segment in transcript.segments:
        del segment["index"]
    transcript.save()
    assert [word["index"] for word in words_between(job.pk, 0, None)["words"]] == [0, 1]


def test_a_deleted_job_takes_its_revisions_along() -> None:
    job = factories.make_completed_job("a")
    save(job, 0, {0: "secret"})
    other = factories.make_completed_job("a")
    save(other, 0, {0: "kept"})
    removed = actions.delete_all([job.pk])
    assert (removed["revisions"], removed["revisedTexts"]) == (1, 1)
    assert {row.job_id for row in Revision.objects.all()} == {other.pk}
    assert RevisedText.objects.get().text == "kept"
    with pytest.raises(JobGoneError):
        editing.read(job.pk)
    with pytest.raises(JobGoneError):
        save(job, 1, {0: "x"})
