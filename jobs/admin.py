"""The admin's pages: operators read everything, and act on jobs only as the API does.

Rows are moved by the state machine alone, so nothing can be added or edited here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django_dramatiq.models import Task

from jobs import actions
from jobs.admin_base import (
    ACTED_ON_AT_ONCE,
    Numbered,
    ReadOnly,
    Sender,
    export_links,
    job_link,
    say,
    unbroken,
)
from jobs.admin_dead_letters import DeadLetterAdmin
from jobs.admin_feedback import MistakeReportAdmin, RatingAdmin
from jobs.admin_ledger import EngineCallAdmin
from jobs.admin_lists import (
    AgeFilter,
    EngineFilter,
    ErrorCodeFilter,
    UserFilter,
    matching_chunks,
    matching_jobs,
)
from jobs.admin_usage import UsageDayAdmin, UserLimitsAdmin
from jobs.admin_webhooks import WebhookDeliveryAdmin, WebhookEndpointAdmin
from jobs.models import (
    AuthToken,
    Chunk,
    DeadLetter,
    EngineCall,
    Job,
    JobEvent,
    JobGoneError,
    MistakeReport,
    Rating,
    Revision,
    Transcript,
    UsageDay,
    UserLimits,
    WebhookDelivery,
    WebhookEndpoint,
    WorkerProcess,
)

# Dramatiq's own table is not filled: the rows of jobs and chunks are the truth.
admin.site.unregister(Task)

admin.site.register(DeadLetter, DeadLetterAdmin)
admin.site.register(EngineCall, EngineCallAdmin)
admin.site.register(Rating, RatingAdmin)
admin.site.register(MistakeReport, MistakeReportAdmin)
admin.site.register(UsageDay, UsageDayAdmin)
admin.site.register(UserLimits, UserLimitsAdmin)
admin.site.register(WebhookEndpoint, WebhookEndpointAdmin)
admin.site.register(WebhookDelivery, WebhookDeliveryAdmin)


class PartOfJob(ReadOnly):
    """A table on a job's page, for everyone who may see the job."""

    extra = 0

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("jobs.view_job")


class ChunkInline(Numbered, PartOfJob, admin.TabularInline):  # type: ignore[type-arg]
    model = Chunk
    show_change_link = True
    fields = (
        *("part", "audio_path", "status", "attempts", "errors", "crashes", "engine"),
        *("duration_seconds", "error_code", "error_detail", "beginning"),
    )
    readonly_fields = ("part", "beginning")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Chunk]:
        return super().get_queryset(request).defer("segments").order_by("index")

    @admin.display(description="text")
    def beginning(self, chunk: Chunk) -> str:
        return Truncator(chunk.text).chars(80)


class EventInline(PartOfJob, admin.TabularInline):  # type: ignore[type-arg]
    model = JobEvent
    template = "admin/jobs/job/events.html"
    fields = ("sequence",)
    ordering = ("sequence",)


class RevisionInline(PartOfJob, admin.TabularInline):  # type: ignore[type-arg]
    model = Revision
    fields = ("number", "editor", "time", "changed", "speakers", "restores")
    ordering = ("-number",)
    max_num = 0


@admin.register(Job)
class JobAdmin(ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = (
        *("whole_id", "user_id", "status", "progress"),
        *("submitted", "ended", "delay_reason", "title"),
    )
    list_filter = ("status", AgeFilter, UserFilter)
    ordering = ("-id",)
    sortable_by = ("whole_id",)
    search_fields = ("id",)  # makes Django show the box; get_search_results decides
    search_help_text = (
        "The beginning of a job id (6 characters or more), of a user's name or of an audio path."
    )
    actions = ("retry", "cancel", "requeue")
    inlines = (ChunkInline, RevisionInline, EventInline)
    readonly_fields = ("transcript_text", "gaps", "exports")
    fieldsets = (
        (None, {"fields": ("id", "user_id", "status", "title", "delay_reason")}),
        ("Asked for", {"fields": ("engine", "language", "vocabulary", "diarize")}),
        (
            "Times",
            {"fields": ("submitted_time", "completed_time", "deadline", "sequence", "revision")},
        ),
        ("Transcript", {"fields": ("transcript_text", "gaps", "exports")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Job]:
        return Job.objects.with_progress()

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Job], search_term: str
    ) -> tuple[QuerySet[Job], bool]:
        term = search_term.strip()
        return (queryset.filter(matching_jobs(term)) if term else queryset), False

    @admin.display(description="id", ordering="id")
    def whole_id(self, job: Job) -> SafeString:
        return unbroken(job.pk)

    @admin.display(description="submitted (UTC)")
    def submitted(self, job: Job) -> SafeString:
        return unbroken(f"{job.submitted_time:%Y-%m-%d %H:%M:%S}")

    @admin.display(description="ended (UTC)")
    def ended(self, job: Job) -> SafeString:
        return unbroken(f"{job.completed_time:%Y-%m-%d %H:%M:%S}" if job.completed_time else "-")

    @admin.display(description="chunks")
    def progress(self, job: Any) -> str:
        return f"{job.chunks_completed}/{job.chunks_total}"

    @admin.display(description="text")
    def transcript_text(self, job: Job) -> str:
        text = Transcript.objects.filter(pk=job.pk).values_list("text", flat=True).first()
        return "(none until the job ends)" if text is None else text

    @admin.display(description="gaps")
    def gaps(self, job: Job) -> str:
        gaps = Transcript.objects.filter(pk=job.pk).values_list("gaps", flat=True).first()
        return "\n".join(f"part {gap['index'] + 1}: {gap['code']}" for gap in gaps or ())

    @admin.display(description="download")
    def exports(self, job: Job) -> str:
        return export_links(job)

    # Acting on jobs: who may change jobs may do so, in the ways of the API and in no other.

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("jobs.change_job")

    @admin.action(description="Retry the failed chunks", permissions=["operate"])
    def retry(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        send = Sender()

        def act(job_id: UUID) -> str | None:
            try:
                actions.retry(job_id)
            except actions.NotFailedError:
                return "not failed"
            send(job_id)
            return None

        self._act(request, queryset, "retried", act)
        send.tell(self, request)

    @admin.action(description="Cancel", permissions=["operate"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        def act(job_id: UUID) -> str | None:
            try:
                return None if actions.cancel(job_id) else "cancelled before"
            except actions.AlreadyEndedError:
                return "already ended"

        self._act(request, queryset, "cancelled", act)

    @admin.action(description="Requeue: send waiting chunks again", permissions=["operate"])
    def requeue(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        """A message is only a hint: a second one for the same chunk finds nothing to do."""
        send = Sender()

        def act(job_id: UUID) -> str | None:
            if not Chunk.objects.due().filter(job_id=job_id).exists():
                return "without a chunk that is due"
            return None if send(job_id) else "not sent (the broker is away)"

        self._act(request, queryset, "requeued", act)

    def _act(
        self,
        request: HttpRequest,
        queryset: QuerySet[Job],
        done: str,
        act: Callable[[UUID], str | None],
    ) -> None:
        """Do it to each job, and say to how many and why not to the others."""
        acted, skipped = 0, Counter[str]()
        for job in queryset.order_by("pk")[:ACTED_ON_AT_ONCE]:
            try:
                reason = act(job.pk)
            except JobGoneError:
                reason = "deleted meanwhile"
            if reason is not None:
                skipped[reason] += 1
                continue
            acted += 1
            self.log_change(request, job, done.capitalize())
        skipped[f"beyond {ACTED_ON_AT_ONCE} at once"] = queryset.count() - acted - skipped.total()
        say(self, request, f"{acted} {done}", skipped)

    # Deleting: never by Django's cascade, which knows nothing of files, cache and tombstones.

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("jobs.delete_job")

    def get_deleted_objects(
        self, objs: Any, request: HttpRequest
    ) -> tuple[list[Any], dict[str, int], set[str], list[Any]]:
        """What the page of confirmation lists; Django's own would load every event to name it."""
        named = [f"Job {job} of {job.user_id}, with its transcript and uploads" for job in objs]
        missing = set() if self.has_delete_permission(request) else {"job"}
        return named, {"jobs": len(named)}, missing, []

    def delete_model(self, request: HttpRequest, obj: Job) -> None:
        # Django holds a transaction here: were it rolled back, the files would be gone already.
        transaction.on_commit(partial(erase, obj.pk))

    def delete_queryset(self, request: HttpRequest, queryset: Iterable[Job]) -> None:
        for job in queryset:
            transaction.on_commit(partial(erase, job.pk))


def erase(job_id: UUID) -> None:
    """Delete the job, unless somebody else just did."""
    with suppress(JobGoneError):
        actions.delete(job_id)


@admin.register(Chunk)
class ChunkAdmin(Numbered, ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = (
        *("whole_name", "status", "attempts", "errors", "crashes"),
        *("engine", "error_code", "audio_path", "started_time"),
    )
    list_filter = ("status", ErrorCodeFilter, EngineFilter)
    ordering = ("-pk",)
    sortable_by = ()
    search_fields = ("id",)
    search_help_text = "The beginning of a job id (6 characters or more) or of an audio path."
    readonly_fields = ("of_job", "part")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Chunk]:
        return Chunk.objects.without_words()

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        names = (field.name for field in Chunk._meta.fields)
        return ["of_job", "part"] + [name for name in names if name not in {"id", "job", "index"}]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Chunk], search_term: str
    ) -> tuple[QuerySet[Chunk], bool]:
        term = search_term.strip()
        return (queryset.filter(matching_chunks(term)) if term else queryset), False

    @admin.display(description="chunk")
    def whole_name(self, chunk: Chunk) -> SafeString:
        return unbroken(chunk)

    @admin.display(description="job")
    def of_job(self, chunk: Chunk) -> SafeString:
        return job_link(chunk.job_id)


@admin.register(WorkerProcess)
class WorkerProcessAdmin(ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("__str__", "alive", "queues", "started_time", "last_seen")
    ordering = ("-last_seen",)
    sortable_by = ()
    readonly_fields = ("alive",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[WorkerProcess]:
        alive = WorkerProcess.objects.alive().filter(pk=OuterRef("pk"))
        return WorkerProcess.objects.annotate(is_alive=Exists(alive))

    @admin.display(description="alive", boolean=True)
    def alive(self, worker: Any) -> bool:
        return bool(worker.is_alive)


@admin.register(AuthToken)
class AuthTokenAdmin(ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("token_key", "user", "is_service", "created", "expiry")
    list_filter = ("is_service",)
    list_select_related = ("user",)
    ordering = ("-created",)
    search_fields = ("user__username__startswith", "token_key__startswith")
    search_help_text = (
        "The beginning of a user's name or of a token. Tokens are issued by "
        "`manage.py issue_token USERNAME`, which shows them once; to delete one revokes it."
    )
    fields = ("token_key", "user", "is_service", "created", "expiry")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("jobs.delete_authtoken")
