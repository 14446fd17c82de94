"""Exports as rows become files."""

from __future__ import annotations

import io
import json
from typing import Any
from uuid import uuid4

import pytest
import srt

from asr.errors import ChildTimeout
from asr.types import Recognition, Segment, Word
from jobs import actions, claims, engines, exports, finishing, setbacks
from jobs.exports import CONTENT_TYPES, NotCompletedError, export
from jobs.models import Chunk, Job, JobGoneError
from jobs.results import load_results
from tests import factories

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis_is_empty")]


def exported(job: Job) -> dict[str, Any]:
    return dict(json.loads(export(job.pk, "json").content))


def heard(*words: tuple[str, float | None], speaker: str | None = None) -> Recognition:
    timed = tuple(
        Word(text=text, start=float(n), end=n + 0.5, confidence=confidence)
        for n, (text, confidence) in enumerate(words)
    )
    text = " ".join(text for text, _ in words)
    segment = Segment(text=text, start=0.0, end=float(len(words)), words=timed, speaker=speaker)
    return Recognition(segments=(segment,), engine="scripted", model="m", language="en")


def finished(*chunks: Recognition, seconds: float = 4.0) -> Job:
    job = factories.make_job(len(chunks))
    for index, recognition in enumerate(chunks):
        claims.record_result(factories.attempt(factories.claim(job, index), seconds), recognition)
    assert finishing.finish_job(job.pk)
    job.refresh_from_db()
    return job


@pytest.mark.parametrize("file_format", CONTENT_TYPES)
def test_a_completed_job_is_exported_in_every_format(file_format):
    job = factories.make_completed_job("hello", "world", title="Monday: 9/11?")
    file = export(job.pk, file_format)
    assert file.name == f"Monday 9 11.{file_format}"
    assert file.content_type == CONTENT_TYPES[file_format]
    start = {"docx": b"PK", "pdf": b"%PDF-", "vtt": b"WEBVTT", "txt": b"hello world\n"}
    assert file.content.startswith(start.get(file_format, b""))
    assert export(job.pk, file_format) == file, "equal rows make equal files"


@pytest.mark.parametrize("file_format", CONTENT_TYPES)
def test_a_failed_job_is_exported_in_every_format_with_its_gaps(file_format):
    job = factories.make_failed_job("hello", None, "world")
    content = export(job.pk, file_format).content
    if file_format in {"txt", "srt", "vtt"}:
        assert "[missing: part 2, length unknown, invalid_audio]" in " ".join(
            content.decode().split()
        )
    if file_format == "json":
        assert json.loads(content)["gaps"] == load_results([job.pk])[job.pk]["gaps"]
    assert content


def test_json_holds_the_result_and_everything_about_its_words():
    job = finished(heard(("Good", 0.9), ("mourning", 0.2)), heard(("all", 0.8), speaker="Ann"))
    body = exported(job)
    result = load_results([job.pk])[job.pk]
    assert {key: body[key] for key in result} == result
    assert body["confidence"] == pytest.approx((0.9 + 0.2 + 0.8) / 3)
    assert body["speakers"] == ["Ann"]
    assert body["segments"][1] == {
        "text": "all",
        "start": 4.0,
        "end": 5.0,
        "confidence": None,
        "speaker": "Ann",
        "words": [{"text": "all", "start": 4.0, "end": 4.5, "confidence": 0.8, "speaker": None}],
    }
    assert body["uncertainBelow"] == 0.5
    assert body["uncertain"] == [
        {"index": 0, "start": 1.0, "end": 1.5, "text": "mourning", "confidence": 0.2}
    ]


def test_the_setting_says_what_is_uncertain(settings):
    job = finished(heard(("sure", 0.95), ("maybe", 0.7)))
    assert exported(job)["uncertain"] == []
    settings.UNCERTAIN_BELOW = 0.9
    (span,) = exported(job)["uncertain"]
    assert span["text"] == "maybe"


def test_the_last_word_of_24_odd_chunks_lies_where_it_does_in_the_joined_audio():
    job = factories.make_job(24)
    lengths = [1.0 + n / 7 for n in range(24)]
    for index, seconds in enumerate(lengths):
        claimed = factories.attempt(factories.claim(job, index), seconds)
        claims.record_result(claimed, heard((f"Number{index}.", 0.9)))
    assert finishing.finish_job(job.pk)
    last = list(srt.parse(export(job.pk, "srt").content.decode(), ignore_errors=False))[-1]
    assert last.content == "Number23."
    assert last.start.total_seconds() == pytest.approx(sum(lengths[:-1]), abs=0.001)
    assert exported(job)["segments"][-1]["words"][-1]["start"] == pytest.approx(
        sum(lengths[:-1]), abs=0.001
    )


def test_seconds_are_shown_in_whole_milliseconds():
    job = factories.make_job(3)
    for index, seconds in enumerate((3.48, 2.72, 2.67)):  # which are 8.870000000000001
        claimed = factories.attempt(factories.claim(job, index), seconds)
        claims.record_result(claimed, heard(("one", 0.9), ("two", 0.9)))
    assert finishing.finish_job(job.pk)
    body = exported(job)
    assert [chunk["startTime"] for chunk in body["chunks"]] == [0.0, 3.48, 6.2]
    assert body["durationSeconds"] == 8.87
    assert [word["end"] for word in body["segments"][2]["words"]] == [6.7, 7.7]
    shown = load_results([job.pk])[job.pk]
    assert shown["durationSeconds"] == 8.87
    for chunk in shown["chunks"]:
        assert chunk["processingSeconds"] == round(chunk["processingSeconds"], 3)


def test_seconds_of_gaps_are_shown_in_whole_milliseconds():
    job = factories.make_job(4)
    for index, seconds in enumerate((3.48, 2.72, 2.67)):
        claimed = factories.attempt(factories.claim(job, index), seconds)
        claims.record_result(claimed, heard(("one", 0.9)))
    failed = factories.attempt(factories.claim(job, 3), 0.1 + 0.2)
    setbacks.record_error(failed, factories.permanent())
    assert finishing.finish_job(job.pk)
    (gap,) = load_results([job.pk])[job.pk]["gaps"]
    assert (gap["startTime"], gap["durationSeconds"]) == (8.87, 0.3)


@pytest.mark.parametrize("texts", [("",), (None,), (None, None, None)])
def test_a_job_without_words_is_exported(texts):
    job = factories.make_failed_job(*texts)
    for file_format in CONTENT_TYPES:
        assert export(job.pk, file_format).name == f"transcript-{job.pk}.{file_format}"


def test_what_runs_was_cancelled_or_is_retried_cannot_be_exported():
    running = factories.make_job()
    cancelled = factories.make_job()
    actions.cancel(cancelled.pk)
    retried = factories.make_failed_job(None)
    actions.retry(retried.pk)
    for job in (running, cancelled, retried):
        with pytest.raises(NotCompletedError):
            export(job.pk, "txt")


def test_a_job_retried_while_it_is_read_is_not_completed(monkeypatch):
    job = factories.make_failed_job("hello", None)
    chunks = Chunk.objects.without_words

    def retry_first():
        actions.retry(job.pk)
        return chunks()

    monkeypatch.setattr(Chunk.objects, "without_words", retry_first)
    with pytest.raises(NotCompletedError):
        export(job.pk, "txt")


def test_a_deleted_job_is_gone():
    job = factories.make_completed_job("hello")
    actions.delete(job.pk)
    with pytest.raises(JobGoneError):
        export(job.pk, "txt")


def test_word_and_pdf_are_made_by_a_child_within_its_limit(monkeypatch):
    job = factories.make_completed_job("hello")
    monkeypatch.setattr(exports, "RENDER_SECONDS", 0.0)
    for file_format in ("docx", "pdf"):
        with pytest.raises(ChildTimeout):
            export(job.pk, file_format)
    assert export(job.pk, "txt").content == b"hello\n"
    assert engines._pools


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("", "transcript-{id}"),
        ("..", "transcript-{id}"),
        ("../../etc/passwd", "etc passwd"),
        ("a\\b\r\nc\x7fd", "a b c d"),
        ("Встреча — 1", "Встреча — 1"),
        ("会" * 200, "会" * 66),
        ("x" * 196 + ". . y", "x" * 196),
        (' "quoted" <name>|? ', "quoted name"),
    ],
)
def test_a_title_becomes_a_name_that_every_system_takes(title, name):
    job_id = uuid4()
    assert exports._stem(title, job_id) == name.replace("{id}", str(job_id))


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Monday", "Monday"),
        ("Café 1", "Cafe 1"),
        ("a\uff0fb\uff02c", "a b c"),
        ("Встреча", "transcript-{id}"),
        ("会議 ー", "transcript-{id}"),
    ],
)
def test_a_title_has_a_name_in_ascii_too(title, name):
    job = factories.make_completed_job("hello", title=title)
    assert export(job.pk, "txt").ascii_name == f"{name}.txt".replace("{id}", str(job.pk))


def test_a_vendors_numbers_for_speakers_read_as_speakers_and_stay_as_they_are_in_json():
    import docx
    from pypdf import PdfReader

    job = finished(heard(("Hello.", 0.9), speaker="0"))
    assert export(job.pk, "txt").content.decode() == "Speaker 0: Hello.\n"
    assert export(job.pk, "srt").content.decode().endswith("\nSpeaker 0: Hello.\n")
    assert export(job.pk, "vtt").content.decode().endswith("\n<v Speaker 0>Hello.\n")
    document = docx.Document(io.BytesIO(export(job.pk, "docx").content))
    assert [paragraph.text for paragraph in document.paragraphs][2:] == ["0:00 Speaker 0", "Hello."]
    page = PdfReader(io.BytesIO(export(job.pk, "pdf").content)).pages[0]
    assert "0:00 Speaker 0" in page.extract_text()
    assert exported(job)["speakers"] == [exported(job)["segments"][0]["speaker"]] == ["0"]


def test_the_same_transcript_comes_out_of_word_and_pdf():
    import docx
    from pypdf import PdfReader

    job = finished(heard(("Good", 0.9), ("morning.", 0.9)), heard(("Bye.", 0.8), speaker="Ann"))
    document = docx.Document(io.BytesIO(export(job.pk, "docx").content))
    lines = [paragraph.text for paragraph in document.paragraphs]
    assert lines[2:] == ["0:00", "Good morning.", "0:04 Ann", "Bye."]
    page = PdfReader(io.BytesIO(export(job.pk, "pdf").content)).pages[0]
    shown = [line.strip() for line in page.extract_text().splitlines()]
    assert shown == [*lines, "1"]
