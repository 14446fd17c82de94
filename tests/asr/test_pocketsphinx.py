"""Real recognition of the project's samples."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest

from asr import registry
from asr.child_pool import ChildPool
from asr.errors import AudioRejected, ChildTimeout
from asr.service import TranscriptionService
from asr.types import Recognition
from tests.asr import cases
from tests.asr.sounds import (
    MANIFEST,
    RATE,
    encode,
    noise,
    request,
    sample,
    samples_of,
    silence,
    tone,
)

# Measured: 0 of 88 words wrong. The margin is for another version of a library.
WORD_ERROR_RATE = 0.1


@pytest.fixture
def engine(pool: ChildPool) -> TranscriptionService:
    return registry.build("pocketsphinx", pool=pool, options={})


def heard(engine: TranscriptionService, index: int) -> Recognition:
    return engine.transcribe(request(sample(index), seconds=MANIFEST[index]["seconds"]))


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def errors(reference: list[str], hypothesis: list[str]) -> int:
    """Words to insert, delete or replace (Levenshtein)."""
    row = list(range(len(hypothesis) + 1))
    for i, expected in enumerate(reference, start=1):
        previous, row = row, [i]
        for j, got in enumerate(hypothesis, start=1):
            row.append(min(previous[j - 1] + (expected != got), previous[j] + 1, row[-1] + 1))
    return row[-1]


def test_of_a_long_file_the_text_so_far_is_heard_before_the_end(
    engine: TranscriptionService,
) -> None:
    sound = np.concatenate([samples_of(sample(1)), silence(60.0), samples_of(sample(2))])
    texts: list[str] = []
    asked = request(encode(sound, "flac"), seconds=len(sound) / RATE, hear=texts.append)
    recognition = engine.transcribe(asked)
    assert texts
    assert texts[0] == heard(engine, 1).text
    assert recognition.text.startswith(f"{texts[-1]} ")
    assert recognition == engine.transcribe(replace(asked, hear=None))


def test_the_samples_are_understood(engine: TranscriptionService) -> None:
    wrong = total = 0
    for index, entry in enumerate(MANIFEST):
        recognition = heard(engine, index)
        reference = words_of(entry["text"])
        wrong += errors(reference, words_of(recognition.text))
        total += len(reference)
        assert (recognition.engine, recognition.model) == ("pocketsphinx", "en-us")
        assert recognition.language == "en"
        assert 0 < (recognition.confidence or 0) <= 1
        times = [t for s in recognition.segments for w in s.words for t in (w.start, w.end)]
        assert times == sorted(times)
        assert times[0] >= 0
        assert times[-1] <= entry["seconds"]
    assert wrong / total <= WORD_ERROR_RATE


def test_segments_are_their_words_and_a_pause_ends_one(engine: TranscriptionService) -> None:
    sound = np.concatenate([samples_of(sample(1)), silence(1.5), samples_of(sample(5))])
    recognition = engine.transcribe(request(encode(sound, "flac"), seconds=len(sound) / 16_000))
    assert len(recognition.segments) >= 2
    for segment in recognition.segments:
        assert segment.text == " ".join(word.text for word in segment.words)
        assert (segment.start, segment.end) == (segment.words[0].start, segment.words[-1].end)
    for before, after in itertools.pairwise(recognition.segments):
        assert after.start - before.end >= 0.5


def test_what_was_heard_before_changes_nothing() -> None:
    pool = ChildPool(1)
    engine = registry.build("pocketsphinx", pool=pool, options={})
    first, _ = heard(engine, 4), heard(engine, 1)
    assert heard(engine, 4) == first
    pool.close()


@pytest.mark.parametrize(
    "sound",
    [silence(3.0), silence(0.1), noise(3.0), tone(3.0), tone(3.0, 50.0), silence(0.0)],
    ids=["silence", "hardly any", "noise", "tone", "hum", "nothing"],
)
def test_no_words_are_heard_where_there_are_none(
    engine: TranscriptionService, sound: object
) -> None:
    assert isinstance(sound, np.ndarray)
    recognition = engine.transcribe(request(encode(sound, "flac"), seconds=len(sound) / 16_000))
    assert (recognition.segments, recognition.text, recognition.confidence) == ((), "", None)


def test_in_a_long_recording_only_the_speech_is_recognised(engine: TranscriptionService) -> None:
    sound = np.concatenate([samples_of(sample(0)), silence(55.0), samples_of(sample(5))])
    recognition = engine.transcribe(request(encode(sound, "flac"), seconds=len(sound) / 16_000))
    first, second = (words_of(MANIFEST[index]["text"]) for index in (0, 5))
    assert errors(first + second, words_of(recognition.text)) <= 2
    words = [word for segment in recognition.segments for word in segment.words]
    assert words[len(first) - 1].end <= MANIFEST[0]["seconds"] + 0.3
    assert words[len(first) + 1].start >= MANIFEST[0]["seconds"] + 54.7
    assert words[-1].end <= len(sound) / 16_000


def test_a_sound_without_pauses_is_cut_at_quiet_frames() -> None:
    from asr.speech_gate import _pieces

    sound = tone(65.0)
    sound[15 * 16_000 : 15 * 16_000 + 800] = 0
    pieces = list(_pieces(sound, 0, len(sound)))
    assert pieces[0][1] == pytest.approx(15 * 16_000, abs=800)
    assert all(end - start <= 20 * 16_000 for start, end in pieces)
    assert [start for start, _ in pieces[1:]] == [end for _, end in pieces[:-1]]
    assert (pieces[0][0], pieces[-1][1]) == (0, len(sound))


def test_errors_are_those_of_the_pool_and_the_decoder(engine: TranscriptionService) -> None:
    with pytest.raises(AudioRejected):
        engine.transcribe(request(b"no sound", seconds=1.0))
    with pytest.raises(ChildTimeout):
        engine.transcribe(request(sample(0), seconds=5.0, deadline_seconds=0.05))


@pytest.mark.parametrize(
    ("language", "vocabulary", "diarize", "refused"),
    [
        (None, (), False, None),
        ("en", (), False, None),
        ("en-US", (), False, None),
        ("EN_gb", (), False, None),
        ("de", (), False, "language"),
        ("english", (), False, "language"),
        ("de", ("x",), True, "language"),
        (None, ("Kubernetes",), True, "vocabulary"),
        (None, (), True, "diarize"),
    ],
)
def test_what_it_cannot_honour_is_named(
    engine: TranscriptionService,
    language: str | None,
    vocabulary: tuple[str, ...],
    diarize: bool,
    refused: str | None,
) -> None:
    asked = {"language": language, "vocabulary": vocabulary, "diarize": diarize}
    assert cases.refused(engine, **asked) == refused


def test_a_refusal_says_which_languages_there_are(engine: TranscriptionService) -> None:
    refusal = engine.refusal(language="de", vocabulary=(), diarize=False)
    assert refusal is not None
    assert refusal.reason == "its model en-us knows en"
