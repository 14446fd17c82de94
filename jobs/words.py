"""A transcript word by word, for who plays the sound to it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, Final
from uuid import UUID

from jobs.models import Chunk, Job, JobGoneError, Transcript

MOST_WORDS: Final = 50_000  # twice what is said in two hours


class NoTranscriptError(Exception):
    """The job is in progress."""


class TooManyWordsError(Exception):
    """A shorter span is to be asked for."""


def words_between(job_id: UUID, begin: float, end: float | None) -> dict[str, Any]:
    """The words that begin within the span, in the transcript's order, and its revision; JSON-able.

    A segment of an engine that times no words counts as one word.

    Args:
        begin, end: seconds from the start of the first chunk, `end` itself left out; None: all.

    Raises:
        JobGoneError: there is no such job (any more).
        NoTranscriptError, TooManyWordsError.
    """
    transcript = Transcript.objects.select_related("job").defer("text").filter(pk=job_id).first()
    if transcript is None:
        raise NoTranscriptError if Job.objects.filter(pk=job_id).exists() else JobGoneError
    last = float("inf") if end is None else end
    words = [word for word in _words(transcript) if begin <= word["start"] < last]
    if len(words) > MOST_WORDS:
        raise TooManyWordsError
    return {"revision": transcript.job.revision, "words": words}


def _words(transcript: Transcript) -> Iterator[dict[str, Any]]:
    chunks = Chunk.objects.filter(job=transcript.job_id).order_by("index")
    durations = chunks.values_list("duration_seconds", flat=True)
    starts = list(accumulate((seconds or 0.0 for seconds in durations), initial=0.0))[:-1]
    for segment in transcript.segments:
        index = segment.get("index")
        if index is None:  # of a transcript that was made before segments said so
            index = max(0, bisect_right(starts, segment["start"]) - 1)
        for word in segment["words"] or (segment,):
            known = word["confidence"]
            yield {
                "text": word["text"],
                "start": word["start"],
                "end": word["end"],
                "confidence": segment["confidence"] if known is None else known,
                "speaker": word["speaker"] or segment["speaker"],
                "index": index,
                "edited": word.get("edited", False),
            }
