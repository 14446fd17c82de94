"""The rows: the truth about every job."""

from __future__ import annotations

from jobs.models.changes import (
    JobChange,
    JobGoneError,
    after_commit,
    changing,
    changing_all,
    complete_chunks,
    start_chunks,
)
from jobs.models.chunk import (
    MAX_CRASHES,
    MAX_ERRORS,
    MAX_REDRIVES,
    MESSAGE_PATIENCE,
    Chunk,
    ChunkQuerySet,
    DeadLetter,
    common_language,
)
from jobs.models.clock import database_time, from_now, iso_time
from jobs.models.engine_call import CallOutcome, EngineCall
from jobs.models.event import EventType, JobEvent
from jobs.models.feedback import (
    COMMENT_LENGTH,
    MAX_REPORTS,
    MOST_STARS,
    QUOTE_LENGTH,
    MistakeKind,
    MistakeReport,
    Rating,
)
from jobs.models.idempotency import IdempotencyKey
from jobs.models.job import DEADLINE, MAX_CHUNKS, URL_LENGTH, ErasedJob, Job, validate_user_id
from jobs.models.recording import CUT_PATIENCE, Recording
from jobs.models.revision import AS_RECOGNISED, Edits, RevisedText, Revision, edits_of
from jobs.models.search_text import SearchText
from jobs.models.spending_meter import EVERYBODY, SpendingMeter
from jobs.models.states import ENDED_CHUNK, ENDED_JOB, ChunkStatus, JobStatus
from jobs.models.token import AuthToken
from jobs.models.transcript import Transcript
from jobs.models.upload import Upload, UploadKind
from jobs.models.usage_day import UsageDay, count_deduplicated
from jobs.models.user_index import UserIndexStamp, UserJobIndex
from jobs.models.user_limits import UserLimits
from jobs.models.waiting import users_waiting
from jobs.models.webhook import (
    MAX_WEBHOOKS,
    DeliveryStatus,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
)
from jobs.models.worker import SILENCE_LIMIT, SWEEPER, WorkerProcess

__all__ = [
    "AS_RECOGNISED",
    "COMMENT_LENGTH",
    "CUT_PATIENCE",
    "DEADLINE",
    "ENDED_CHUNK",
    "ENDED_JOB",
    "EVERYBODY",
    "MAX_CHUNKS",
    "MAX_CRASHES",
    "MAX_ERRORS",
    "MAX_REDRIVES",
    "MAX_REPORTS",
    "MAX_WEBHOOKS",
    "MESSAGE_PATIENCE",
    "MOST_STARS",
    "QUOTE_LENGTH",
    "SILENCE_LIMIT",
    "SWEEPER",
    "URL_LENGTH",
    "AuthToken",
    "CallOutcome",
    "Chunk",
    "ChunkQuerySet",
    "ChunkStatus",
    "DeadLetter",
    "DeliveryStatus",
    "Edits",
    "EngineCall",
    "ErasedJob",
    "EventType",
    "IdempotencyKey",
    "Job",
    "JobChange",
    "JobEvent",
    "JobGoneError",
    "JobStatus",
    "MistakeKind",
    "MistakeReport",
    "Rating",
    "Recording",
    "RevisedText",
    "Revision",
    "SearchText",
    "SpendingMeter",
    "Transcript",
    "Upload",
    "UploadKind",
    "UsageDay",
    "UserIndexStamp",
    "UserJobIndex",
    "UserLimits",
    "WebhookAttempt",
    "WebhookDelivery",
    "WebhookEndpoint",
    "WebhookEvent",
    "WorkerProcess",
    "after_commit",
    "changing",
    "changing_all",
    "common_language",
    "complete_chunks",
    "count_deduplicated",
    "database_time",
    "edits_of",
    "from_now",
    "iso_time",
    "start_chunks",
    "users_waiting",
    "validate_user_id",
]
