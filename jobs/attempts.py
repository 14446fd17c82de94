"""What passes between the steps of a chunk: the claim, the attempt, and when to come again."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from uuid import UUID

from django.conf import settings

from asr.breaker import Call
from asr.service import TranscriptionService
from asr.types import AudioInfo, Recognition
from jobs.models import MESSAGE_PATIENCE


@dataclass(frozen=True, kw_only=True)
class Again:
    """When a chunk is due again, and for which engine."""

    seconds: float
    engine: str
    counted: bool = False
    """Whether an attempt was spent; waiting for an engine that is down or busy costs none."""

    @property
    def needs_message(self) -> bool:
        """Long waits are left to the sweeper: delayed messages lie in a worker's memory."""
        return self.seconds <= MESSAGE_PATIENCE.total_seconds()


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The right to write one chunk's result, until the lease runs out."""

    chunk_id: int
    job_id: UUID
    index: int
    user_id: str
    token: UUID
    audio_path: str
    crashes: int
    engine: str
    own_engine: str
    probe: bool
    language: str | None
    vocabulary: tuple[str, ...]
    diarize: bool

    @property
    def ticket(self) -> tuple[int, UUID | None]:
        """What tells it from all other claims: those made at once have one token."""
        return self.chunk_id, self.token

    @property
    def stands_in(self) -> bool:
        """Whether the job was submitted for another engine."""
        return self.engine != self.own_engine


@dataclass(kw_only=True)
class Attempt:
    """What is known of a chunk so far, also when the attempt fails half-way."""

    claim: Claim
    call: Call = field(default_factory=Call)
    started: float = field(default_factory=time.monotonic)
    data: bytes = b""
    info: AudioInfo | None = None
    engine: TranscriptionService | None = None
    expected_language: str | None = None
    granted_seconds: float | None = None
    """What was left of the deadline when the engine was asked; None before."""
    recognition: Recognition | None = None
    deduplicated: bool = False
    """Whether the recognition is another chunk's."""
    call_id: int | None = None
    """The ledger's row of the call of the engine; None before it, or when there is none."""

    is_last: bool = True
    """Whether the job may be over with it; False when other chunks are known to be under way."""

    @property
    def remaining_seconds(self) -> float:
        """Of the deadline, which covers decoding and recognising: the lease outlives both."""
        return settings.ENGINE_DEADLINE_SECONDS - (time.monotonic() - self.started)

    @property
    def known_info(self) -> AudioInfo:
        """What opening the file has shown; there is no way on without."""
        assert self.info is not None  # noqa: S101
        return self.info

    @property
    def known_engine(self) -> TranscriptionService:
        """The engine that is to be asked."""
        assert self.engine is not None  # noqa: S101
        return self.engine

    @property
    def measured(self) -> dict[str, float]:
        seconds = {"processing_seconds": time.monotonic() - self.started}
        if self.info is not None:
            seconds["duration_seconds"] = self.info.duration_seconds
        return seconds
