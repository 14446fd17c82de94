"""Saying how good a transcript is, and where it is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID

from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.exceptions import ErrorDetail, NotFound, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from jobs import feedback
from jobs.api.authentication import Caller
from jobs.api.base import PAGE
from jobs.api.errors import Conflict, Erased, documented
from jobs.api.pagination import NewestRowsFirst
from jobs.api.serializers import StrictCharField, StrictSerializer
from jobs.api.visibility import JobViewSet
from jobs.models import (
    COMMENT_LENGTH,
    MAX_REPORTS,
    MOST_STARS,
    QUOTE_LENGTH,
    JobGoneError,
    MistakeKind,
    MistakeReport,
    Rating,
)

MOST_SECONDS: Final = 1_000_000_000  # and no number that is taken here is larger


class _Number:
    """A number and nothing else: DRF's own fields make numbers of words."""

    def to_internal_value(self, data: Any) -> Any:
        is_number = isinstance(data, int | float) and not isinstance(data, bool)
        if not is_number or not -MOST_SECONDS <= data <= MOST_SECONDS:  # as neither inf nor nan is
            self.fail("invalid")  # type: ignore[attr-defined]
        return super().to_internal_value(data)  # type: ignore[misc]


class WholeNumberField(_Number, serializers.IntegerField):
    """A whole number."""


class SecondsField(_Number, serializers.FloatField):
    """Seconds from the job's start."""


def _text(length: int, **options: Any) -> StrictCharField:
    return StrictCharField(
        required=False, allow_blank=True, default="", max_length=length, **options
    )


class FeedbackSerializer(serializers.Serializer[Any]):
    """What ratings and reports have in common."""

    jobId = serializers.UUIDField(source="job_id")  # noqa: N815  (the contract's names)
    userId = serializers.CharField(  # noqa: N815
        source="user_id", help_text="Who said it, or a pseudonym once that user was erased."
    )
    time = serializers.DateTimeField()
    engine = serializers.SerializerMethodField(
        help_text="That heard the chunk, or most of the job, when it was said."
    )
    model = serializers.SerializerMethodField()
    comment = serializers.CharField()

    def get_engine(self, row: Rating | MistakeReport) -> str | None:
        return row.engine or None

    def get_model(self, row: Rating | MistakeReport) -> str | None:
        return row.model or None


class RatingSerializer(FeedbackSerializer):
    """A job's rating."""

    stars = serializers.IntegerField()


class NewRatingSerializer(StrictSerializer):
    """PUT /transcript/{jobId}/rating."""

    stars = WholeNumberField(min_value=1, max_value=MOST_STARS)
    comment = _text(COMMENT_LENGTH)


class MistakeSerializer(FeedbackSerializer):
    """A mistake that was reported."""

    id = serializers.UUIDField()
    kind = serializers.ChoiceField(MistakeKind.choices)
    index = serializers.IntegerField(allow_null=True)
    startTime = serializers.FloatField(source="start_seconds", allow_null=True)  # noqa: N815
    heard = serializers.CharField()
    meant = serializers.CharField()


class NewMistakeSerializer(StrictSerializer):
    """POST /transcript/{jobId}/mistakes."""

    kind = serializers.ChoiceField(MistakeKind.choices)
    index = WholeNumberField(
        required=False,
        allow_null=True,
        default=None,
        min_value=0,
        max_value=10_000,
        help_text="Of the chunk; null: it is about the whole.",
    )
    startTime = SecondsField(  # noqa: N815
        required=False,
        allow_null=True,
        default=None,
        min_value=0,
        max_value=MOST_SECONDS,
        help_text="From the job's start.",
    )
    heard = _text(QUOTE_LENGTH, help_text="As it stands in the transcript.")
    meant = _text(QUOTE_LENGTH, help_text="As it was said.")
    comment = _text(COMMENT_LENGTH)


class RatingViewSet(JobViewSet):
    """Say how good a transcript is."""

    serializer_class = RatingSerializer

    @extend_schema(
        operation_id="transcript_rating_retrieve",
        responses={200: RatingSerializer, **documented(404, 410)},
    )
    def retrieve(self, request: Request, job_id: UUID) -> Response:
        """The rating; 404 while there is none."""
        self.visible(job_id)
        rating = feedback.rating_of(job_id)
        if rating is None:
            raise NotFound("It is not rated.")
        return Response(RatingSerializer(rating).data)

    @extend_schema(
        operation_id="transcript_rate",
        request={"application/json": NewRatingSerializer},
        responses={200: RatingSerializer, **documented(404, 409, 410, 415)},
    )
    def update(self, request: Request, job_id: UUID) -> Response:
        """Rate a transcript that has ended, in place of the rating before."""
        self.visible(job_id)
        asked = NewRatingSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        with _refusals():
            user_id = Caller.of(request).username
            rating = feedback.rate(job_id, user_id=user_id, **asked.validated_data)
        return Response(RatingSerializer(rating).data)

    @extend_schema(
        operation_id="transcript_rating_delete", responses={204: None, **documented(404, 410)}
    )
    def destroy(self, request: Request, job_id: UUID) -> Response:
        """Take the rating back."""
        self.visible(job_id)
        if not feedback.take_back(job_id):
            raise NotFound("It is not rated.")
        return Response(status=status.HTTP_204_NO_CONTENT)


class MistakeViewSet(JobViewSet):
    """Say where a transcript is wrong."""

    serializer_class = MistakeSerializer
    pagination_class = NewestRowsFirst
    queryset = MistakeReport.objects.none()

    @extend_schema(
        operation_id="transcript_mistakes",
        parameters=PAGE,
        responses={200: MistakeSerializer(many=True), **documented(404, 410)},
    )
    def list(self, request: Request, job_id: UUID) -> Response:
        """What was reported, newest first."""
        self.visible(job_id)
        page = self.paginate_queryset(MistakeReport.objects.filter(job_id=job_id))
        return self.get_paginated_response(MistakeSerializer(page, many=True).data)

    @extend_schema(
        operation_id="transcript_mistake_report",
        request={"application/json": NewMistakeSerializer},
        responses={201: MistakeSerializer, **documented(404, 409, 410, 415)},
    )
    def create(self, request: Request, job_id: UUID) -> Response:
        """Report a mistake in a transcript that has ended. It changes nothing in the text."""
        self.visible(job_id)
        asked = NewMistakeSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        given = dict(asked.validated_data)
        with _refusals():
            made = feedback.report(
                job_id,
                user_id=Caller.of(request).username,
                start_seconds=given.pop("startTime"),
                **given,
            )
        return Response(MistakeSerializer(made).data, status=status.HTTP_201_CREATED)


@contextmanager
def _refusals() -> Iterator[None]:
    """What may be refused, in the contract's words."""
    try:
        yield
    except JobGoneError:
        raise Erased from None
    except feedback.NotEndedError:
        raise Conflict("The job has not ended yet.", "not_completed") from None
    except feedback.TooManyReportsError:
        detail = f"A job has at most {MAX_REPORTS} reports."
        raise Conflict(detail, "too_many_reports") from None
    except feedback.UnknownChunkError:
        detail = ErrorDetail("There is no such chunk.", "invalid")
        raise ValidationError({"index": [detail]}) from None
