"""Small functions that make the rows and files that tests begin with."""

from __future__ import annotations

import json
import struct
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.db.models.functions import Now

from asr.errors import AsrError, EngineUnavailable
from asr.types import AudioInfo, Recognition, Segment, Word
from jobs import attempts, claims, finishing, setbacks
from jobs.models import (
    AuthToken,
    Chunk,
    EventType,
    Job,
    MistakeReport,
    Rating,
    UserIndexStamp,
    UserJobIndex,
    WebhookDelivery,
    WebhookEndpoint,
    changing,
    from_now,
)

SAMPLES = Path(__file__).parents[1] / "samples"
MANIFEST: list[dict[str, Any]] = json.loads((SAMPLES / "manifest.json").read_text())
_amplitudes = count(1)
A_DAY = timedelta(hours=24)


def make_user(name: str = "alice", **columns: Any) -> User:
    user, _ = get_user_model().objects.get_or_create(username=name, defaults=columns)
    return user


def make_token(name: str = "alice", *, service: bool = False, **columns: Any) -> str:
    """A token that can be sent; the user is made if need be."""
    _, token = AuthToken.objects.create(user=make_user(name), is_service=service, **columns)
    return str(token)


def make_job(chunks: int = 1, *, user_id: str = "alice", **columns: Any) -> Job:
    """An accepted job as a submission leaves it, without files."""
    values = {"engine": "scripted", "submitted_time": Now(), "deadline": from_now(A_DAY)} | columns
    job = Job.objects.create(user_id=user_id, **values)
    Chunk.objects.bulk_create(
        Chunk(
            job=job,
            index=index,
            user_id=user_id,
            asked_engine=job.engine,
            audio_path=f"{user_id}/{index:02d}.wav",
            not_before=Now(),
            resend_time=from_now(timedelta(seconds=60)),
        )
        for index in range(chunks)
    )
    UserJobIndex.objects.create(
        job=job, user_id=user_id, job_status=job.status, submitted_time=Now()
    )
    UserIndexStamp.renew(user_id)
    with changing(job.pk) as change:
        change.record(EventType.JOB_SUBMITTED)
    return Job.objects.get(pk=job.pk)


def make_completed_job(*texts: str, user_id: str = "alice", **columns: Any) -> Job:
    job = make_job(len(texts), user_id=user_id, **columns)
    for index, text in enumerate(texts):
        complete(claim(job, index), text)
    assert finishing.finish_job(job.pk)
    job.refresh_from_db()
    return job


def make_failed_job(*texts: str | None, user_id: str = "alice") -> Job:
    """None stands for a chunk that failed for good."""
    job = make_job(len(texts), user_id=user_id)
    for index, text in enumerate(texts):
        claimed = claim(job, index)
        if text is None:
            fail(claimed, permanent())
        else:
            complete(claimed, text)
    assert finishing.finish_job(job.pk)
    job.refresh_from_db()
    return job


def make_rating(job: Job, stars: int = 4, **columns: Any) -> Rating:
    said = {"user_id": job.user_id, "engine": "scripted", "model": "m"} | columns
    return Rating.objects.create(job=job, stars=stars, **said)


def make_mistake(job: Job, kind: str = "wrong_word", **columns: Any) -> MistakeReport:
    said = {"user_id": job.user_id, "engine": "scripted", "model": "m"} | columns
    return MistakeReport.objects.create(job=job, kind=kind, **said)


def make_webhook(url: str, *, user_id: str = "alice", **columns: Any) -> WebhookEndpoint:
    """An endpoint as a user has made it, whatever its address."""
    made = WebhookEndpoint.objects.create(user_id=user_id, url=url, **columns)
    return WebhookEndpoint.objects.get(pk=made.pk)


def make_delivery(url: str, **columns: Any) -> WebhookDelivery:
    """What is to be told to a new endpoint of alice when a job of hers has completed."""
    endpoint = make_webhook(url, **columns)
    job = make_completed_job("word", title="Monday")
    return WebhookDelivery.objects.get(job_id=job.pk, endpoint=endpoint)


def make_deliveries_due() -> None:
    """Let the time pass that pending deliveries wait for."""
    WebhookDelivery.objects.pending().update(not_before=from_now(-timedelta(seconds=1)))


def claim(job: Job, index: int = 0) -> attempts.Claim:
    claimed = claims.claim_chunk(job.pk, index)
    assert claimed is not None
    return claimed


def complete(claimed: attempts.Claim, text: str = "word", seconds: float = 1.0) -> bool:
    return claims.record_result(attempt(claimed, seconds), recognition(text))


def fail(claimed: attempts.Claim, error: AsrError | None = None) -> attempts.Again | None:
    return setbacks.record_error(attempt(claimed, None), error or passing())


def attempt(claimed: attempts.Claim, seconds: float | None = 1.0) -> attempts.Attempt:
    info = None
    if seconds is not None:
        info = AudioInfo(duration_seconds=seconds, container="wav", digest="")
    return attempts.Attempt(claim=claimed, info=info)


def recognition(text: str) -> Recognition:
    if not text:
        return Recognition(segments=(), engine="scripted", model="m", language="en")
    words = tuple(
        Word(text=word, start=float(n), end=n + 0.5, confidence=0.5)
        for n, word in enumerate(text.split())
    )
    segment = Segment(text=text, start=0.0, end=float(len(words)), words=words)
    return Recognition(segments=(segment,), engine="scripted", model="m", language="en")


def passing() -> AsrError:
    return EngineUnavailable("engine_error", "the engine stumbled")


def permanent() -> AsrError:
    from asr.errors import AudioRejected

    return AudioRejected("invalid_audio", "not audio")


def make_due(job_id: UUID) -> None:
    """Let the time pass that the job's waiting chunks wait for."""
    Chunk.objects.filter(job_id=job_id, status="pending").update(
        not_before=from_now(-timedelta(seconds=1))
    )


def make_undispatched(job_id: UUID) -> None:
    """Let the messages of the job's waiting chunks be lost for an hour."""
    Chunk.objects.filter(job_id=job_id, status="pending").update(
        resend_time=from_now(-timedelta(seconds=1)), dispatches=0
    )


def wav(seconds: float = 0.3, *, fill: int = 0) -> bytes:
    """A sound of that length: silence, or a square wave of the amplitude `fill`."""
    samples = [fill if n // 40 % 2 else -fill for n in range(int(seconds * 16_000))]
    sound = struct.pack(f"<{len(samples)}h", *samples)
    shape = struct.pack("<HHIIHH", 1, 1, 16_000, 32_000, 2, 16)
    return b"".join(
        (
            b"RIFF",
            struct.pack("<I", 36 + len(sound)),
            b"WAVEfmt ",
            struct.pack("<I", 16),
            shape,
            b"data",
            struct.pack("<I", len(sound)),
            sound,
        )
    )


def put_audio(path: str, data: bytes | None = None) -> str:
    """Put a file under the audio root, as an operator would; its relative path.

    Without data it is a sound like no other, so that nothing is known of it.
    """
    file = Path(settings.AUDIO_ROOT) / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(wav(fill=next(_amplitudes)) if data is None else data)
    return path


def sample(index: int) -> bytes:
    """Real speech; its words are `MANIFEST[index]["text"]`."""
    return (SAMPLES / str(MANIFEST[index]["file"])).read_bytes()
