"""Editing transcripts: texts, names of speakers, revisions, and the words with their times."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import isfinite
from typing import Any, Final
from uuid import UUID

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, NotFound, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from asr.types import join_text
from jobs import editing
from jobs.api.authentication import Caller
from jobs.api.base import PAGE
from jobs.api.errors import (
    Conflict,
    Erased,
    PreconditionRequired,
    RevisionConflict,
    documented,
)
from jobs.api.exports import SpokenSerializer
from jobs.api.pagination import NewestRevisionsFirst
from jobs.api.serializers import StrictCharField, StrictSerializer
from jobs.api.visibility import JobViewSet
from jobs.models import JobGoneError, Revision
from jobs.words import NoTranscriptError, TooManyWordsError, words_between

TEXT_LENGTH: Final = 100_000  # characters of a chunk's text
NAME_LENGTH: Final = 100
MOST_CHUNKS: Final = 100  # in one call; a job has 30 at most
MOST_SECONDS: Final = 1_000_000_000
# What stands between the quotes; a proxy that packs answers may have marked it as weak or packed.
_ETAG = re.compile(r'(?:W/)?"(\d{1,9})(?:-[a-z]+)?"')
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def _printable(text: str) -> None:
    if _CONTROL.search(text):
        raise serializers.ValidationError("Control characters are not taken.", "invalid")


class ChunkTextSerializer(serializers.Serializer[Any]):
    """The text of one chunk."""

    index = serializers.IntegerField()
    text = serializers.CharField()
    recognisedText = serializers.CharField(help_text="Empty if it failed.")  # noqa: N815
    edited = serializers.BooleanField(help_text="Whether `text` is a person's.")


class TranscriptTextSerializer(serializers.Serializer[Any]):
    """A transcript as it is edited."""

    jobId = serializers.UUIDField()  # noqa: N815
    revision = serializers.IntegerField(help_text="0: as recognised.")
    chunks = ChunkTextSerializer(many=True)
    speakers = serializers.DictField(
        child=serializers.CharField(allow_null=True),
        help_text="All speakers by the engine's label; null: nobody gave them a name.",
    )


class NewChunkTextSerializer(StrictSerializer):
    """A chunk's text as it is to be."""

    index = serializers.IntegerField(min_value=0, max_value=10_000)
    text = StrictCharField(
        allow_null=True,
        allow_blank=True,
        max_length=TEXT_LENGTH,
        validators=[_printable],
        help_text="Runs of spaces and line breaks count as one space. Null: as recognised.",
    )


class NewNameField(StrictCharField):
    """A speaker's name, in one line."""

    def __init__(self, **options: Any) -> None:
        options |= {"allow_null": True, "max_length": NAME_LENGTH, "validators": [_printable]}
        super().__init__(**options)


class TextChangeSerializer(StrictSerializer):
    """PATCH /transcript/{jobId}/text; what is left out stays as it is."""

    chunks = serializers.ListField(
        child=NewChunkTextSerializer(), required=False, max_length=MOST_CHUNKS
    )
    speakers = serializers.DictField(
        child=NewNameField(), required=False, help_text="Names by label; null: none."
    )

    def validate_chunks(self, chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if len({chunk["index"] for chunk in chunks}) < len(chunks):
            raise serializers.ValidationError("A chunk stands there twice.", "invalid")
        return chunks


class RevisionSerializer(serializers.Serializer[Any]):
    """One version, as it is listed."""

    revision = serializers.IntegerField(source="number")
    userId = serializers.CharField(  # noqa: N815
        source="editor", help_text="Who made it, or a pseudonym once that user was erased."
    )
    time = serializers.DateTimeField(help_text="Of the last save in it.")
    chunks = serializers.SerializerMethodField(help_text="How many chunks' texts it changed.")
    restores = serializers.IntegerField(
        allow_null=True, help_text="The revision that it brought back."
    )

    def get_chunks(self, revision: Revision) -> int:
        return len(revision.changed)


class SpanSerializer(serializers.Serializer[Any]):
    """The filters of GET …/words; `from` is no name that Python lets a class have."""

    to = serializers.FloatField(required=False, min_value=0, max_value=MOST_SECONDS)

    def get_fields(self) -> dict[str, Any]:
        begin = serializers.FloatField(required=False, min_value=0, max_value=MOST_SECONDS)
        return {**super().get_fields(), "from": begin}

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        for name, seconds in attrs.items():
            if not isfinite(seconds):
                raise serializers.ValidationError({name: "Not a number of seconds."})
        return attrs


class TimedWordSerializer(SpokenSerializer):
    """A word, and whose it is."""

    index = serializers.IntegerField(help_text="Of its chunk.")
    edited = serializers.BooleanField(help_text="A person wrote it; its times are an estimate.")


_WORDS: Final = inline_serializer(
    "Words",
    {"revision": serializers.IntegerField(), "words": TimedWordSerializer(many=True)},
)
_SECONDS: Final = {"type": "number", "minimum": 0, "maximum": MOST_SECONDS}
_ETAG_ANSWERED: Final = OpenApiParameter(
    "ETag", OpenApiTypes.STR, OpenApiParameter.HEADER, response=[200], description="The revision."
)


def _if_match(*, required: bool) -> OpenApiParameter:
    what = 'The revision that you have seen, in quotes: `"3"`.'
    return OpenApiParameter(
        "If-Match",
        {"type": "string", "pattern": r'^"[0-9]{1,9}"$'},
        OpenApiParameter.HEADER,
        required=required,
        description=what if required else f"{what} It is checked if it is given.",
    )


class EditingViewSet(JobViewSet):
    """Edit transcripts, and bring earlier versions back."""

    serializer_class = TranscriptTextSerializer
    pagination_class = NewestRevisionsFirst
    queryset = Revision.objects.none()

    @extend_schema(
        operation_id="transcript_text_retrieve",
        parameters=[_ETAG_ANSWERED],
        responses={200: TranscriptTextSerializer, **documented(404, 409, 410)},
    )
    def retrieve(self, request: Request, job_id: UUID) -> Response:
        """The text chunk by chunk, as recognised and as edited, of a job that has ended."""
        self.visible(job_id)
        with _refusals():
            return _tagged(editing.read(job_id))

    @extend_schema(
        operation_id="transcript_text_change",
        parameters=[_if_match(required=True), _ETAG_ANSWERED],
        request={"application/json": TextChangeSerializer},
        responses={
            200: TranscriptTextSerializer,
            **documented(400, 404, 409, 410, 412, 413, 415, 428),
        },
    )
    def partial_update(self, request: Request, job_id: UUID) -> Response:
        """Save texts and names, if nobody else has since the revision that you have seen.

        With 412 nothing was written: read the text anew, and show what you, they and the engine
        have. What you save within a minute is one version; what changes nothing makes none.
        """
        self.visible(job_id)
        seen = _seen(request)
        if seen is None:
            raise PreconditionRequired
        asked = TextChangeSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        chunks: list[dict[str, Any]] = asked.validated_data.get("chunks", [])
        with _refusals(chunks):
            changed = editing.save(
                job_id,
                editor=Caller.of(request).username,
                seen=seen,
                texts={chunk["index"]: _in_one_line(chunk["text"]) for chunk in chunks},
                speakers=_names(asked.validated_data.get("speakers", {})),
            )
        return _tagged(changed)

    @extend_schema(
        operation_id="transcript_revisions",
        parameters=PAGE,
        responses={200: RevisionSerializer(many=True), **documented(400, 404, 410)},
    )
    def list(self, request: Request, job_id: UUID) -> Response:
        """All versions but number 0, newest first. Saves that became one leave holes."""
        self.visible(job_id)
        page = self.paginate_queryset(Revision.objects.filter(job_id=job_id))
        return self.get_paginated_response(RevisionSerializer(page, many=True).data)

    @extend_schema(
        operation_id="transcript_revision_restore",
        parameters=[_if_match(required=False), _ETAG_ANSWERED],
        request=None,
        responses={200: TranscriptTextSerializer, **documented(404, 409, 410, 412, 428)},
    )
    def restore(self, request: Request, job_id: UUID, number: int) -> Response:
        """Bring a version back, as the newest one; 0 is what was recognised."""
        self.visible(job_id)
        seen = _seen(request)
        with _refusals():
            editor = Caller.of(request).username
            return _tagged(editing.restore(job_id, number, editor=editor, seen=seen))

    @extend_schema(
        operation_id="transcript_words",
        parameters=[
            OpenApiParameter("from", _SECONDS, description="Words that begin then or later."),
            OpenApiParameter("to", _SECONDS, description="Words that begin before."),
        ],
        responses={200: _WORDS, **documented(400, 404, 409, 410)},
    )
    def words(self, request: Request, job_id: UUID) -> Response:
        """The words with their times in seconds, in reading order; all unless a span is given.

        Beyond 50,000 words 400 `too_many_words`: ask for a shorter span.
        """
        self.visible(job_id)
        query = SpanSerializer(data=request.GET.dict())
        query.is_valid(raise_exception=True)
        asked = query.validated_data
        with _refusals():
            return Response(words_between(job_id, asked.get("from", 0.0), asked.get("to")))


def _seen(request: Request) -> int | None:
    """The revision in `If-Match`; None without one. What names none is refused, `*` as well."""
    given = request.headers.get("If-Match")
    if given is None:
        return None
    found = _ETAG.fullmatch(given.strip())
    if found is None:
        raise PreconditionRequired
    return int(found[1])


def _in_one_line(text: str | None) -> str | None:
    return None if text is None else join_text([text])


def _names(speakers: Mapping[str, str | None]) -> dict[str, str | None]:
    return {label: _in_one_line(name) for label, name in speakers.items()}


def _tagged(text: dict[str, Any]) -> Response:
    return Response(text, headers={"ETag": f'"{text["revision"]}"'})


@contextmanager
def _refusals(chunks: list[dict[str, Any]] | None = None) -> Iterator[None]:
    """What may be refused, in the contract's words."""
    try:
        yield
    except JobGoneError:
        raise Erased from None
    except (editing.NotEndedError, NoTranscriptError):
        raise Conflict("The job has not ended yet.", "not_completed") from None
    except editing.RevisionConflictError as conflict:
        raise RevisionConflict(str(conflict)) from None
    except editing.UnknownRevisionError:
        raise NotFound("There is no such revision.") from None
    except editing.UnknownChunkError as unknown:
        wrong = {"index": [ErrorDetail("There is no such chunk.", "invalid")]}
        errors = [wrong if chunk["index"] == unknown.index else {} for chunk in chunks or ()]
        raise ValidationError({"chunks": errors}) from None
    except editing.UnknownSpeakerError as unknown:
        detail = ErrorDetail("There is no such speaker.", "invalid")
        raise ValidationError({"speakers": {unknown.label: [detail]}}) from None
    except TooManyWordsError:
        detail = ErrorDetail("That is too much at once: ask for less.", "too_many_words")
        raise ValidationError({"to": [detail]}) from None
