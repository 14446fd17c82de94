"""A word's time in the transcript is its time in the joined recording."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
import pytest

from asr.audio import decode
from asr.types import AudioRequest, Recognition, Segment, Word
from jobs import exports, pipeline
from jobs.models import Chunk, Transcript
from jobs.results import in_milliseconds
from tests import factories
from tests.asr.sounds import ENCODINGS, RATE, encode
from tests.scripted import ScriptedEngine

pytestmark = pytest.mark.django_db

Sound = npt.NDArray[np.int16]
BEEP_SECONDS = 0.1
# Raw AAC (ADTS) says nothing of its encoder's padding: 0.1 s more for each file (measured).
EXACT = [name for name in ENCODINGS if name != "aac"]


def beeping(seconds: float, at: float) -> Sound:
    """Silence of an odd length, with one beep."""
    sound = np.zeros(round(seconds * RATE), np.int16)
    beep = np.sin(np.arange(round(BEEP_SECONDS * RATE)) * 2 * np.pi * 1000 / RATE)
    begin = round(at * RATE)
    sound[begin : begin + len(beep)] = (8000 * beep).astype(np.int16)
    return sound


def beeps(sound: Sound) -> tuple[float, float]:
    """When the first beep begins and the last one ends."""
    loud = np.nonzero(np.abs(sound.astype(np.int32)) > 2000)[0]
    return float(loud[0] / RATE), float(loud[-1] / RATE)


def listen(request: AudioRequest) -> Recognition:
    """An engine that hears beeps, in the very file that it was sent."""
    start, end = beeps(decode(request.data, 600))
    word = Word(text="beep", start=start, end=end)
    segment = Segment(text="beep", start=start, end=end, words=(word,))
    return Recognition(segments=(segment,), engine="scripted", model="m")


def test_after_24_files_of_odd_lengths_and_many_kinds_the_last_word_is_where_it_was_spoken(
    script: ScriptedEngine,
) -> None:
    script.otherwise = listen
    random = np.random.default_rng(7)
    lengths = random.uniform(0.4, 2.7, 24)
    sounds = [beeping(length, length * random.uniform(0.1, 0.7)) for length in lengths]
    job = factories.make_job(24)
    for chunk, sound in zip(job.chunks.order_by("index"), sounds, strict=True):
        encoding = EXACT[chunk.index % len(EXACT)]
        path = factories.put_audio(f"alice/{chunk.index}.{encoding}", encode(sound, encoding))
        Chunk.objects.filter(pk=chunk.pk).update(audio_path=path)
    for index in random.permutation(24):
        assert pipeline.transcribe(job.pk, int(index)) is None

    joined = np.concatenate(sounds)
    transcript = Transcript.objects.get(job=job)
    assert transcript.duration_seconds == pytest.approx(len(joined) / RATE, abs=0.05)
    words = [word for segment in transcript.segments for word in segment["words"]]
    assert len(words) == 24
    begins = np.cumsum([0, *map(len, sounds[:-1])]) / RATE
    spoken = [begin + beeps(sound)[0] for begin, sound in zip(begins, sounds, strict=True)]
    assert [word["start"] for word in words] == pytest.approx(spoken, abs=0.05)
    assert words[-1]["end"] == pytest.approx(beeps(joined)[1], abs=0.05)
    exported = json.loads(exports.export(job.pk, "json").content)
    assert [
        word for segment in exported["segments"] for word in segment["words"]
    ] == in_milliseconds(words)
