"""What comes in with a submission, and the shape of what goes out."""

from __future__ import annotations

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.utils import html

from jobs.models import URL_LENGTH, ChunkStatus, JobStatus, validate_user_id
from jobs.waits import MAX_WAIT_SECONDS


def printable(name: str) -> str:
    """A name as an answer can carry it: JSON lets half a character in, UTF-8 lets none out."""
    return name.encode(errors="replace").decode()


class StrictCharField(serializers.CharField):
    """A string and nothing else: DRF's own turns numbers into strings."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


@extend_schema_field(OpenApiTypes.STR)
class PathField(serializers.Field[str, Any, str, Any]):
    """A string as it came: whether it is a path is judged, with the contract's codes, later."""

    default_error_messages = {"invalid": "Not a valid string."}

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return data

    def to_representation(self, value: str) -> str:
        return value


class StrictBooleanField(serializers.BooleanField):
    """True or false; in a form also the words for them."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool) and not html.is_html_input(self.root.initial_data):
            self.fail("invalid", input=data)
        return bool(super().to_internal_value(data))


class StrictSerializer(serializers.Serializer[Any]):
    """What comes in, where a field that does not exist is an error and not ignored."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict):
            unknown = set(data) - set(self.fields)
            if html.is_html_input(data):
                unknown.discard("csrfmiddlewaretoken")  # the browsable API's form sends it along
            if unknown:
                raise serializers.ValidationError(
                    {printable(name): ["There is no such field."] for name in sorted(unknown)},
                    code="unknown_field",
                )
        return super().to_internal_value(data)


class SubmissionSerializer(StrictSerializer):
    """POST /transcribe: the fields of JSON and of a multipart form alike."""

    audioChunkPaths = serializers.ListField(  # noqa: N815  (the contract's names)
        child=PathField(), required=False, help_text="1 to 24 paths relative to the audio root."
    )
    recordingPath = PathField(  # noqa: N815
        required=False,
        allow_null=True,
        help_text="Instead of chunks: one recording of up to 2 hours, which is cut at pauses.",
    )
    audioChunks = serializers.ListField(  # noqa: N815
        child=serializers.FileField(allow_empty_file=True),
        required=False,
        help_text="Instead of paths, in a multipart form: the files themselves, in order.",
    )
    userId = StrictCharField(  # noqa: N815
        required=False, validators=[validate_user_id], help_text="Your own name if left out."
    )
    title = StrictCharField(required=False, allow_blank=True, allow_null=True, max_length=200)
    engine = StrictCharField(required=False, allow_null=True, max_length=40)
    language = serializers.RegexField(
        r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*\Z",
        required=False,
        allow_null=True,
        max_length=35,
        error_messages={"invalid": "A language is given by its tag, such as en or pt-BR."},
        help_text="A language tag such as `en`; the engine's own choice if left out.",
    )
    vocabulary = serializers.ListField(
        child=StrictCharField(max_length=100), required=False, max_length=100
    )
    diarize = StrictBooleanField(required=False, default=False)
    webhookUrl = StrictCharField(  # noqa: N815
        required=False,
        allow_null=True,
        max_length=URL_LENGTH,
        help_text="Told when the job ends, besides your `/webhooks`.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs.get("audioChunkPaths") and attrs.get("audioChunks"):
            raise serializers.ValidationError(
                {"audioChunks": "Send either files or paths, not both."}
            )
        return attrs


class AcceptedSerializer(serializers.Serializer[Any]):
    """The job that a submission became."""

    jobId = serializers.UUIDField()  # noqa: N815


class ChunkErrorSerializer(serializers.Serializer[Any]):
    """Why a chunk failed, or its last attempt did."""

    code = serializers.CharField()
    detail = serializers.CharField()
    recoverable = serializers.BooleanField()


class ChunkResultSerializer(serializers.Serializer[Any]):
    """One audio file of a job."""

    index = serializers.IntegerField()
    audioChunkPath = serializers.CharField()  # noqa: N815
    status = serializers.ChoiceField(ChunkStatus.choices)
    attempts = serializers.IntegerField()
    startTime = serializers.FloatField(allow_null=True)  # noqa: N815
    durationSeconds = serializers.FloatField(allow_null=True)  # noqa: N815
    processingSeconds = serializers.FloatField(allow_null=True)  # noqa: N815
    language = serializers.CharField(allow_null=True)
    languageConfidence = serializers.FloatField(allow_null=True)  # noqa: N815
    confidence = serializers.FloatField(allow_null=True)
    engine = serializers.CharField(allow_null=True)
    deduplicated = serializers.BooleanField()
    error = ChunkErrorSerializer(allow_null=True)


class GapSerializer(serializers.Serializer[Any]):
    """What is missing in a transcript."""

    index = serializers.IntegerField()
    startTime = serializers.FloatField(allow_null=True)  # noqa: N815
    durationSeconds = serializers.FloatField(allow_null=True)  # noqa: N815
    code = serializers.CharField()


class TranscriptResultSerializer(serializers.Serializer[Any]):
    """A job in whatever state it is; `transcription` is null until it ends."""

    jobId = serializers.UUIDField()  # noqa: N815
    userId = serializers.CharField()  # noqa: N815
    title = serializers.CharField(allow_null=True)
    jobStatus = serializers.ChoiceField(JobStatus.choices)  # noqa: N815
    submittedTime = serializers.DateTimeField()  # noqa: N815
    completedTime = serializers.DateTimeField(allow_null=True)  # noqa: N815
    delayed = serializers.BooleanField()
    delayReason = serializers.CharField(allow_null=True)  # noqa: N815
    chunks = ChunkResultSerializer(many=True)
    language = serializers.CharField(allow_null=True)
    confidence = serializers.FloatField(allow_null=True)
    durationSeconds = serializers.FloatField(allow_null=True)  # noqa: N815
    transcription = serializers.CharField(allow_null=True)
    gaps = GapSerializer(many=True)


class RetrieveSerializer(serializers.Serializer[Any]):
    """How GET /transcript/{jobId} is asked."""

    wait = serializers.IntegerField(min_value=0, max_value=MAX_WAIT_SECONDS)


class SearchSerializer(serializers.Serializer[Any]):
    """The filters of GET /transcript/search."""

    userId = StrictCharField(required=False, validators=[validate_user_id])  # noqa: N815
    jobStatus = serializers.ListField(  # noqa: N815
        child=serializers.ChoiceField(JobStatus.choices), required=False
    )
    limit = serializers.IntegerField(required=False, min_value=1, max_value=100)
