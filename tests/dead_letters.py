"""Jobs that failed of given codes, as dead letters come to be."""

from __future__ import annotations

from datetime import timedelta

from asr.errors import AsrError, AudioRejected, EngineUnavailable
from jobs import finishing
from jobs.models import MAX_ERRORS, Chunk, Job, from_now
from tests import factories

PERMANENT = {"invalid_audio", "audio_too_long"}


def make_dead_job(
    *codes: str | None, user_id: str = "alice", ended: timedelta = timedelta(0), redrives: int = 0
) -> Job:
    """A failed job whose chunks died of these codes that long ago; None is one that completed."""
    job = factories.make_job(len(codes), user_id=user_id)
    for index, code in enumerate(codes):
        if code is None:
            factories.complete(factories.claim(job, index), "kept")
        else:
            die(job, index, code)
    assert finishing.finish_job(job.pk)
    failed = Chunk.objects.filter(job=job, status="failed")
    failed.update(ended_time=from_now(-ended), redrives=redrives)
    return Job.objects.get(pk=job.pk)


def die(job: Job, index: int, code: str) -> None:
    """The chunk's last attempt fails."""
    factories.make_due(job.pk)
    claimed = factories.claim(job, index)
    Chunk.objects.filter(job=job, index=index).update(errors=MAX_ERRORS - 1)
    error: AsrError = EngineUnavailable(code, f"because of {code}")
    if code in PERMANENT:
        error = AudioRejected(code, f"because of {code}")
    assert factories.fail(claimed, error) is None
    assert Chunk.objects.get(job=job, index=index).error_code == code


def statuses(job: Job) -> list[str]:
    return list(job.chunks.order_by("index").values_list("status", flat=True))
