"""The API: views decide nothing, they name who asks, call one function and word the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast
from uuid import UUID

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from drf_spectacular.renderers import (
    OpenApiJsonRenderer,
    OpenApiJsonRenderer2,
    OpenApiYamlRenderer,
    OpenApiYamlRenderer2,
)
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from drf_spectacular.views import SpectacularAPIView
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from jobs import actions, cache, tasks
from jobs.api.authentication import Beside, Caller
from jobs.api.base import PAGE, ApiViewSet
from jobs.api.errors import AnotherUser, Conflict, Erased, documented, from_refusals
from jobs.api.pagination import CachedFirstPage, NewestFirst
from jobs.api.serializers import (
    AcceptedSerializer,
    RetrieveSerializer,
    SearchSerializer,
    SubmissionSerializer,
    TranscriptResultSerializer,
)
from jobs.api.visibility import JobStamp, JobViewSet
from jobs.models import (
    Job,
    JobGoneError,
    JobStatus,
    UserIndexStamp,
    UserJobIndex,
)
from jobs.results import load_results
from jobs.submission import Accepted, Submission, SubmissionRefused, submit
from jobs.waits import MAX_WAIT_SECONDS, AskAgain, may_wait


class SchemaView(SpectacularAPIView):
    """The OpenAPI document: JSON unless YAML is asked for, so that its errors are JSON as well."""

    renderer_classes = [
        OpenApiJsonRenderer2,
        OpenApiJsonRenderer,
        OpenApiYamlRenderer,
        OpenApiYamlRenderer2,
    ]


class TranscribeViewSet(ApiViewSet):
    """Hand in the audio chunks of one recording, get a job."""

    serializer_class = SubmissionSerializer

    @extend_schema(
        operation_id="transcribe",
        parameters=[
            OpenApiParameter(
                "Idempotency-Key",
                OpenApiTypes.STR,
                OpenApiParameter.HEADER,
                description="Repeating the call with the same key makes no second job. 24 h.",
            )
        ],
        responses={
            202: AcceptedSerializer,
            200: AcceptedSerializer,
            **documented(403, 409, 413, 415, 422, 507),
        },
    )
    def create(self, request: Request) -> Response:
        """Take a job in: 1 to 24 audio files, in spoken order, and whose they are."""
        serializer = self.get_serializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        caller = Caller.of(request)
        submission = _submission(serializer.validated_data, caller)
        try:
            accepted = submit(
                submission, caller=caller.username, idempotency_key=_idempotency_key(request)
            )
        except SubmissionRefused as refused:
            raise from_refusals(refused) from None
        if accepted.created:
            tasks.dispatch(accepted.job_id)
        return _accepted(accepted)


def _submission(asked: Mapping[str, Any], caller: Caller) -> Submission:
    user_id = asked.get("userId", caller.username)
    if not caller.may_see(user_id):
        raise AnotherUser
    return Submission(
        user_id=user_id,
        audio_paths=tuple(asked.get("audioChunkPaths", ())),
        recording_path=asked.get("recordingPath") or "",
        uploads=tuple(asked.get("audioChunks", ())),
        own_folder_only=not caller.is_service,
        title=asked.get("title") or "",
        engine=asked.get("engine"),
        language=asked.get("language"),
        vocabulary=tuple(asked.get("vocabulary", ())),
        diarize=asked["diarize"],
        webhook_url=asked.get("webhookUrl") or "",
    )


def _seconds_to_wait(request: Request) -> int:
    if "wait" not in request.GET:  # a serializer costs as much as the rest of a cached answer
        return 0
    query = RetrieveSerializer(data=request.GET)
    query.is_valid(raise_exception=True)
    return int(query.validated_data["wait"])


def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if len(key) > 2 and key.startswith('"') and key.endswith('"'):
        key = key[1:-1]  # the draft standard writes it as a quoted string
    if not 1 <= len(key) <= 255:
        raise ValidationError({"Idempotency-Key": "1 to 255 characters."})
    return key


def _accepted(accepted: Accepted) -> Response:
    return Response(
        {"jobId": str(accepted.job_id)},
        status=status.HTTP_202_ACCEPTED if accepted.created else status.HTTP_200_OK,
        headers={"Location": reverse("transcript", args=[accepted.job_id])},
    )


class TranscriptViewSet(JobViewSet):
    """Read transcripts, search them, and act on their jobs."""

    serializer_class = TranscriptResultSerializer
    pagination_class = NewestFirst
    queryset = UserJobIndex.objects.none()

    def beside_token(self) -> Beside:
        """See `AsksWithToken`."""
        if "job_id" in self.kwargs:
            return super().beside_token()
        asked = self.request.GET.get("userId", "").replace("\0", "")
        return Beside(
            table="jobs_userindexstamp",
            condition="beside.user_id = COALESCE(NULLIF(%s, ''), account.username)",
            value=asked,
            columns={"index_stamp": "stamp"},
        )

    @extend_schema(
        operation_id="transcript_retrieve",
        parameters=[
            OpenApiParameter(
                "wait",
                {"type": "integer", "minimum": 0, "maximum": MAX_WAIT_SECONDS},
                description="Answer as soon as the job ends, or after so many seconds.",
            )
        ],
        responses={200: TranscriptResultSerializer, **documented(404, 410)},
    )
    def retrieve(self, request: Request, job_id: UUID) -> HttpResponseBase:
        """The job with its chunks, and its transcript once it has ended."""
        stamp = self.visible(job_id)
        seconds = _seconds_to_wait(request)
        if seconds and stamp.status == JobStatus.IN_PROGRESS and may_wait(request._request):
            caller = Caller.of(request)
            return AskAgain(job_id, seconds, None if caller.is_service else caller.username)
        wants_json = cast("Any", request).accepted_media_type == "application/json"
        if stamp.status != JobStatus.IN_PROGRESS and wants_json:
            # 10,000 words are 100 kB: they are not taken apart to be put together again.
            body = cache.read_body(job_id, stamp.sequence)
            if body is not None:
                return HttpResponse(body, content_type="application/json")
        return Response(self._result(job_id, stamp))

    @extend_schema(
        operation_id="transcript_search",
        parameters=[
            OpenApiParameter("userId", OpenApiTypes.STR),
            OpenApiParameter("jobStatus", enum=JobStatus.values, many=True),
            *PAGE,
        ],
        responses={200: TranscriptResultSerializer(many=True), **documented(403)},
    )
    @action(detail=False)
    def search(self, request: Request) -> Response:
        """Jobs of a user, or of all users for a service token; newest first."""
        # Not as a form, where an empty value counts as none: `userId=` would search all users.
        asked = request.GET.dict() | {
            name: request.GET.getlist(name) for name in request.GET if name == "jobStatus"
        }
        query = SearchSerializer(data=asked)
        query.is_valid(raise_exception=True)
        statuses = sorted(set(query.validated_data.get("jobStatus", ())))
        user_id = self._searched_user(query.validated_data.get("userId"))
        rows = self.paginate_queryset(self._index_rows(user_id, statuses))
        return self.get_paginated_response(self._results([row.job_id for row in rows or ()]))

    @extend_schema(operation_id="transcript_delete", responses={204: None, **documented(404, 410)})
    def destroy(self, request: Request, job_id: UUID) -> Response:
        """Erase the job, its transcript and the audio that was uploaded for it."""
        self.visible(job_id)
        try:
            actions.delete(job_id)
        except JobGoneError:
            raise Erased from None
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(
        operation_id="transcript_cancel",
        request=None,
        responses={
            202: TranscriptResultSerializer,
            200: TranscriptResultSerializer,
            **documented(404, 409, 410),
        },
    )
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, job_id: UUID) -> Response:
        """Stop the job; what was recognised so far is kept."""
        self.visible(job_id)
        try:
            cancelled = actions.cancel(job_id)
        except JobGoneError:
            raise Erased from None
        except actions.AlreadyEndedError:
            raise Conflict("The job has already ended.", "already_ended") from None
        code = status.HTTP_202_ACCEPTED if cancelled else status.HTTP_200_OK
        return Response(self._present(job_id), status=code)

    @extend_schema(
        operation_id="transcript_retry",
        request=None,
        responses={202: TranscriptResultSerializer, **documented(404, 409, 410)},
    )
    @action(detail=True, methods=["post"])
    def retry(self, request: Request, job_id: UUID) -> Response:
        """Run the failed chunks of a failed job again; finished ones are kept."""
        self.visible(job_id)
        try:
            actions.retry(job_id)
        except JobGoneError:
            raise Erased from None
        except actions.NotFailedError:
            raise Conflict("Only a failed job can be retried.", "not_failed") from None
        tasks.dispatch(job_id)
        return Response(self._present(job_id), status=status.HTTP_202_ACCEPTED)

    def _result(self, job_id: UUID, stamp: JobStamp) -> dict[str, Any]:
        if stamp.status == JobStatus.IN_PROGRESS:
            return self._present(job_id)
        result = cache.read_results({job_id: stamp.sequence}).get(job_id)
        if result is None:
            raise Erased  # between the check of the token and now
        return result

    def _present(self, job_id: UUID) -> dict[str, Any]:
        result = load_results([job_id]).get(job_id)
        if result is None:
            raise Erased
        return result

    def _searched_user(self, asked: str | None) -> str | None:
        caller = Caller.of(self.request)
        if asked is not None and not caller.may_see(asked):
            raise AnotherUser
        return asked if caller.is_service else caller.username

    def _index_rows(self, user_id: str | None, statuses: list[str]) -> Any:
        """The index; its first page from the cache where the user's stamp is known."""
        if user_id is None or "cursor" in self.request.GET:
            return UserJobIndex.objects.search(user_id, statuses)
        known = getattr(self.request.auth, "index_stamp", None)
        stamp = UUID(str(known)) if known else UserIndexStamp.of(user_id)
        if stamp is None:
            return UserJobIndex.objects.none()
        ids = cache.first_page(user_id, statuses, stamp)
        return CachedFirstPage([UserJobIndex(job_id=job_id) for job_id in ids])

    def _results(self, job_ids: list[UUID]) -> list[dict[str, Any]]:
        """TranscriptResults in the order given; a job deleted meanwhile is left out."""
        rows = Job.objects.filter(pk__in=job_ids).values_list("pk", "status", "sequence")
        ended = {pk: sequence for pk, state, sequence in rows if state != JobStatus.IN_PROGRESS}
        found = cache.read_results(ended) if ended else {}
        waiting = [job_id for job_id in job_ids if job_id not in ended]
        found |= load_results(waiting) if waiting else {}
        return [found[job_id] for job_id in job_ids if job_id in found]
