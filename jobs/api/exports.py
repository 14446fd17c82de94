"""The export endpoint: a transcript as a file."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

from django.http import HttpResponse
from django.utils.http import content_disposition_header
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import NotFound
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request

from asr.errors import EngineUnavailable
from jobs.api.errors import Conflict, Erased, ExportUnavailable, documented
from jobs.api.serializers import TranscriptResultSerializer
from jobs.api.visibility import JobViewSet
from jobs.exports import CONTENT_TYPES, File, NotCompletedError, export
from jobs.models import JobGoneError

_TEXTS: Final = {"txt", "srt", "vtt"}


class SpokenSerializer(serializers.Serializer[Any]):
    """What was said, timed from the start of the first chunk."""

    text = serializers.CharField()
    start = serializers.FloatField()
    end = serializers.FloatField()
    confidence = serializers.FloatField(allow_null=True)
    speaker = serializers.CharField(allow_null=True)


class WordSerializer(SpokenSerializer):
    """One word."""

    edited = serializers.BooleanField(
        required=False, help_text="There where a person wrote it; its times are an estimate."
    )


class SegmentSerializer(SpokenSerializer):
    """A stretch of speech with its words, where the engine has them."""

    words = WordSerializer(many=True)
    index = serializers.IntegerField(required=False, help_text="Of its chunk.")


class UncertainSerializer(serializers.Serializer[Any]):
    """Consecutive words of one chunk that the engine doubts; `confidence` is their mean."""

    index = serializers.IntegerField(help_text="Of the chunk that it is in, as in `chunks`.")
    start = serializers.FloatField()
    end = serializers.FloatField()
    text = serializers.CharField()
    confidence = serializers.FloatField()


class TranscriptExportSerializer(TranscriptResultSerializer):
    """The TranscriptResult with all that is known of its words."""

    segments = SegmentSerializer(many=True)
    speakers = serializers.ListField(child=serializers.CharField())
    uncertainBelow = serializers.FloatField(  # noqa: N815
        help_text="The confidence below which words stand in `uncertain`."
    )
    uncertain = UncertainSerializer(many=True)


def _shape(file_format: str) -> Any:
    if file_format == "json":
        return TranscriptExportSerializer
    return OpenApiTypes.STR if file_format in _TEXTS else OpenApiTypes.BINARY


_FILES: Final = {
    (200, CONTENT_TYPES[file_format].partition(";")[0]): _shape(file_format)
    for file_format in CONTENT_TYPES
}


class TheFileItself(BaseContentNegotiation):
    """The address says what is answered, whatever the caller accepts; errors are JSON."""

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        return renderers[0], renderers[0].media_type


class ExportViewSet(JobViewSet):
    """Download transcripts."""

    serializer_class = TranscriptExportSerializer
    renderer_classes = [JSONRenderer]
    content_negotiation_class = TheFileItself

    @extend_schema(
        operation_id="transcript_export",
        parameters=[
            OpenApiParameter(
                "file_format", OpenApiTypes.STR, OpenApiParameter.PATH, enum=list(CONTENT_TYPES)
            )
        ],
        responses={**_FILES, **documented(404, 409, 410)},
    )
    def retrieve(self, request: Request, job_id: UUID, file_format: str) -> HttpResponse:
        """A completed job's transcript as a file; a failed one's with its gaps marked."""
        self.visible(job_id)
        if file_format not in CONTENT_TYPES:
            raise NotFound(f"There is no such format; there are {', '.join(CONTENT_TYPES)}.")
        try:
            file = export(job_id, file_format)
        except JobGoneError:
            raise Erased from None
        except NotCompletedError:
            raise Conflict(
                "Only a job that has completed or failed can be exported.", "not_completed"
            ) from None
        except EngineUnavailable as error:
            raise ExportUnavailable from error
        headers = {"Content-Disposition": _disposition(file)}
        return HttpResponse(file.content, content_type=file.content_type, headers=headers)


def _disposition(file: File) -> str:
    """With both names, as RFC 6266 advises: Django gives one, and curl -J knows no `filename*`."""
    named = content_disposition_header(as_attachment=True, filename=file.ascii_name)
    plain = named or "attachment"
    if file.name == file.ascii_name:
        return plain
    return f"{plain}; filename*=utf-8''{quote(file.name)}"
