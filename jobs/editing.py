"""Editing a transcript: its chunks' texts and its speakers' names, in numbered revisions.

Who edits says which revision they have seen; where there is a newer one nothing is written. What
was recognised stays as it is in the chunks, so an edit survives whatever becomes of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from django.db.models import Max
from django.db.models.functions import Now

from asr.stitch import speaker_keys
from jobs import cache
from jobs.finishing import keep_transcript, parts_of
from jobs.models import (
    AS_RECOGNISED,
    Chunk,
    ChunkStatus,
    Edits,
    EventType,
    Job,
    JobChange,
    JobGoneError,
    Recording,
    RevisedText,
    Revision,
    Transcript,
    after_commit,
    changing,
    edits_of,
    from_now,
)

ONE_VERSION: Final = timedelta(seconds=60)  # in which what one editor saves is one revision


class NotEndedError(Exception):
    """The job runs: its chunks' texts may still change by themselves."""


class RevisionConflictError(Exception):
    """The transcript is not (any more) at the revision that the editor has seen."""


class UnknownRevisionError(Exception):
    """There is no such revision."""


class UnknownChunkError(Exception):
    """There is no chunk of this `index`."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index


class UnknownSpeakerError(Exception):
    """There is no speaker of this `label`."""

    def __init__(self, label: str) -> None:
        super().__init__(label)
        self.label = label


def read(job_id: UUID) -> dict[str, Any]:
    """The text of an ended job as it is edited, JSON-able.

    Raises:
        JobGoneError: there is no such job (any more).
        NotEndedError: it is in progress.
    """
    # The job first: a revision that is older than the texts is refused when they are saved, while
    # one that is newer would have somebody overwrite what they have not seen.
    job = Job.objects.filter(pk=job_id).first()
    if job is None:
        raise JobGoneError(str(job_id))
    chunks = _editable(Chunk.objects.without_words().filter(job=job).order_by("index"))
    texts = dict(RevisedText.objects.current().filter(job=job).values_list("index", "text"))
    transcript = Transcript.objects.filter(pk=job_id).defer("segments", "text").first()
    if transcript is None:
        raise NotEndedError(str(job_id))
    return _shown(job, chunks, texts, transcript)


def save(
    job_id: UUID,
    *,
    editor: str,
    seen: int,
    texts: Mapping[int, str | None],
    speakers: Mapping[str, str | None],
) -> dict[str, Any]:
    """Keep what somebody has written; as `read`. What changes nothing makes no revision.

    Args:
        seen: the revision that was edited.
        texts: by the index of the chunk, with single spaces; None: as it was recognised.
        speakers: names by label; None: no name.

    Raises:
        RevisionConflictError: another one has been made since. Nothing was written.
        UnknownChunkError, UnknownSpeakerError, JobGoneError, NotEndedError.
    """
    with _editing(job_id, seen) as desk:
        new = Edits(
            texts=_with_texts(desk.edits.texts, texts, desk.chunks),
            speakers=_with_names(desk.edits.speakers, speakers, desk.chunks),
        )
        return _write(desk, new, Revision(editor=editor))


def restore(job_id: UUID, number: int, *, editor: str, seen: int | None) -> dict[str, Any]:
    """Make an earlier revision, or 0, the newest one; as `save`.

    Args:
        seen: the revision that it is to replace; None: whichever there is.

    Raises:
        UnknownRevisionError, RevisionConflictError, JobGoneError, NotEndedError.
    """
    with _editing(job_id, seen) as desk:
        past = _past(desk.change.job, number)
        return _write(desk, past, Revision(editor=editor, restores=number))


@dataclass(frozen=True)
class _Desk:
    """A transcript that is being edited: its job, which is locked, and what there is of it."""

    change: JobChange
    chunks: list[Chunk]
    edits: Edits


@contextmanager
def _editing(job_id: UUID, seen: int | None) -> Iterator[_Desk]:
    with changing(job_id) as change:
        job = change.job
        if not job.ended:
            raise NotEndedError(str(job_id))
        if seen is not None and seen != job.revision:
            raise RevisionConflictError(str(job.revision))
        yield _Desk(change, _editable(job.chunks.order_by("index")), edits_of(job))


def _editable(rows: Any) -> list[Chunk]:
    """The chunks, but not one that stands for a recording that could not be cut into any.

    When that is retried, the first chunk is another sound.
    """
    chunks: list[Chunk] = list(rows)
    if len(chunks) == 1 and chunks[0].status == ChunkStatus.FAILED:
        whole = Recording.objects.filter(pk=chunks[0].job_id, audio_path=chunks[0].audio_path)
        return [] if whole.exists() else chunks
    return chunks


def _with_texts(
    present: Mapping[int, str], wanted: Mapping[int, str | None], chunks: Sequence[Chunk]
) -> dict[int, str]:
    recognised = {chunk.index: chunk.text for chunk in chunks}
    texts = dict(present)
    for index, text in wanted.items():
        if index not in recognised:
            raise UnknownChunkError(index)
        if text is None or text == recognised[index]:
            texts.pop(index, None)
        else:
            texts[index] = text
    return texts


def _with_names(
    present: Mapping[str, str], wanted: Mapping[str, str | None], chunks: Sequence[Chunk]
) -> dict[str, str]:
    keys = speaker_keys(parts_of(chunks, AS_RECOGNISED)) if wanted else {}
    names = dict(present)
    for label, name in wanted.items():
        if label not in keys:
            raise UnknownSpeakerError(label)
        if name is None:
            names.pop(keys[label], None)
        else:
            names[keys[label]] = name
    return names


def _past(job: Job, number: int) -> Edits:
    if number == 0:
        return AS_RECOGNISED
    revision = Revision.objects.filter(job=job, number=number).first()
    if revision is None:
        raise UnknownRevisionError(str(number))
    texts = RevisedText.objects.as_of(number).filter(job=job).values_list("index", "text")
    return Edits(texts=dict(texts), speakers=revision.speakers)


def _write(desk: _Desk, new: Edits, version: Revision) -> dict[str, Any]:
    """Make `new` the newest revision, and the transcript anew by it; `version` is its row."""
    job, old = desk.change.job, desk.edits
    if new == old:
        transcript = Transcript.objects.defer("segments", "text").get(pk=job.pk)
        return _shown(job, desk.chunks, old.texts, transcript)
    everywhere = sorted(old.texts.keys() | new.texts.keys())
    changed = [index for index in everywhere if old.texts.get(index) != new.texts.get(index)]
    version.job, version.number = job, job.revision + 1
    version.changed, version.speakers = changed, dict(new.speakers)
    _keep_texts(job, new, changed, version.number, after=_keep_version(job, version))
    Job.objects.filter(pk=job.pk).update(revision=version.number)
    job.revision = version.number
    desk.change.record(EventType.JOB_EDITED, revision=version.number)
    transcript = keep_transcript(job, desk.chunks, new)
    # An hour of saves would leave as many versions in the cache, and a deletion knows the last.
    after_commit(cache.forget_jobs, {desk.change.job.pk: desk.change.job.sequence})
    after_commit(cache.write_job_through, desk.change, desk.chunks, transcript, set(new.texts))
    return _shown(job, desk.chunks, new.texts, transcript)


def _keep_version(job: Job, version: Revision) -> int:
    """Store the row; the number of the version before it.

    It takes the place of the newest one where both are of the same minute and editor, unless one
    of them brings back another: that is to stay in the list.
    """
    same = {"number": job.revision, "editor": version.editor, "restores": None}
    open_until = {"begun_time__gt": from_now(-ONE_VERSION)}
    newest = Revision.objects.filter(job=job, **same, **open_until).first()
    if newest is None or version.restores is not None:
        version.save(force_insert=True)
        return job.revision
    Revision.objects.filter(pk=newest.pk).update(
        number=version.number,
        time=Now(),
        changed=sorted({*newest.changed, *version.changed}),
        speakers=version.speakers,
    )
    earlier = Revision.objects.filter(job=job, number__lt=job.revision)
    return earlier.aggregate(number=Max("number"))["number"] or 0


def _keep_texts(job: Job, new: Edits, changed: list[int], number: int, after: int) -> None:
    """Store the texts of revision `number`, which follows the one of number `after`."""
    texts = RevisedText.objects.filter(job=job)
    replaced = texts.current().filter(index__in=changed)
    replaced.filter(since__gt=after).delete()  # of no version that is left
    replaced.update(until=number)
    texts.bulk_create(
        RevisedText(job=job, index=index, text=new.texts[index], since=number)
        for index in changed
        if index in new.texts
    )


def _shown(
    job: Job, chunks: Sequence[Chunk], texts: Mapping[int, str], transcript: Transcript
) -> dict[str, Any]:
    return {
        "jobId": str(job.pk),
        "revision": job.revision,
        "chunks": [
            {
                "index": chunk.index,
                "text": texts.get(chunk.index, chunk.text),
                "recognisedText": chunk.text,
                "edited": chunk.index in texts,
            }
            for chunk in chunks
        ],
        "speakers": _names(transcript),
    }


def _names(transcript: Transcript) -> dict[str, str | None]:
    """By label. A transcript from before there were names has none: its speakers are labels."""
    if transcript.speakers is not None:
        return dict(transcript.speakers)
    spoken = (item["speaker"] for part in transcript.segments for item in (part, *part["words"]))
    return dict.fromkeys(speaker for speaker in spoken if speaker is not None)
