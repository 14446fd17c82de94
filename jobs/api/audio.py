"""The audio endpoint: a chunk's sound as it was handed in."""

from __future__ import annotations

from typing import Any, Final, cast
from uuid import UUID

from django.http import HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response
from django.utils.http import content_disposition_header, http_date
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import status
from rest_framework.exceptions import APIException, NotFound
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from asr.sniffing import MEDIA_TYPES, UNKNOWN
from jobs.api.errors import documented
from jobs.api.exports import TheFileItself
from jobs.api.ranges import Pieces, UnsatisfiableError, asked_range, is_the_same
from jobs.api.visibility import JobViewSet
from jobs.playback import Sound, UnknownChunkError, sound_of
from jobs.storage import AudioNotFoundError

_TYPES: Final = (*MEDIA_TYPES.values(), UNKNOWN)


class AudioGone(NotFound):
    """The chunk's file is not there any more."""

    default_code = "audio_not_found"
    default_detail = "The file is no longer there."


class PreconditionFailed(APIException):
    """If-Match or If-Unmodified-Since does not hold."""

    status_code = status.HTTP_412_PRECONDITION_FAILED
    default_code = "precondition_failed"
    default_detail = "The file is not the one that was named."


class RangeNotSatisfiable(APIException):
    """There is no such part of the file."""

    status_code = status.HTTP_416_REQUESTED_RANGE_NOT_SATISFIABLE
    default_code = "range_not_satisfiable"

    def __init__(self, size: int) -> None:
        super().__init__(f"The file has {size} bytes.")
        self.size = size


class AudioViewSet(JobViewSet):
    """Listen to the chunks of a job."""

    renderer_classes = [JSONRenderer]
    content_negotiation_class = TheFileItself

    @extend_schema(
        operation_id="transcript_audio",
        parameters=[
            OpenApiParameter("index", OpenApiTypes.INT, OpenApiParameter.PATH),
            OpenApiParameter(
                "Range",
                OpenApiTypes.STR,
                OpenApiParameter.HEADER,
                description="One part, as `bytes=0-65535`; several are answered by the whole file.",
            ),
        ],
        responses={
            **dict.fromkeys(((200, kind) for kind in _TYPES), OpenApiTypes.BINARY),
            **dict.fromkeys(((206, kind) for kind in _TYPES), OpenApiTypes.BINARY),
            302: OpenApiResponse(description="The file's address in the bucket, for 5 minutes."),
            304: OpenApiResponse(description="The file is the one that was named."),
            **documented(404, 410, 412, 416),
        },
    )
    def retrieve(self, request: Request, job_id: UUID, index: int) -> HttpResponseBase:
        """A chunk's file as it was handed in, or the part of it that is asked for."""
        self.visible(job_id)
        try:
            sound = sound_of(job_id, index)
        except UnknownChunkError:
            raise NotFound("The job has no chunk of this number.") from None
        except AudioNotFoundError:
            raise AudioGone from None
        if isinstance(sound, str):
            return HttpResponseRedirect(sound, headers={"Cache-Control": "no-store"})
        try:
            response = _answer(request, sound)
        except BaseException:
            sound.file.close()
            raise
        if not response.streaming:
            sound.file.close()
        return response

    def handle_exception(self, exc: Exception) -> Response:
        """With the file's length, where a part beyond it was asked for."""
        response = super().handle_exception(exc)
        if isinstance(exc, RangeNotSatisfiable):
            response["Content-Range"] = f"bytes */{exc.size}"
        return response


def _answer(request: Request, sound: Sound) -> HttpResponseBase:
    """Preconditions go before the range, which only a GET has."""
    modified = sound.modified_ns // 1_000_000_000
    headers = {
        "Content-Type": sound.content_type,
        "Content-Disposition": content_disposition_header(False, sound.name) or "inline",
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "ETag": sound.etag,
        "Last-Modified": http_date(modified),
    }
    whole: Any = HttpResponse(headers=headers | {"Content-Length": str(sound.size)})
    answer: Any = get_conditional_response(request._request, sound.etag, modified, whole)
    if answer.status_code == status.HTTP_412_PRECONDITION_FAILED:
        raise PreconditionFailed
    if answer is not whole or request.method == "HEAD":
        return cast("HttpResponse", answer)
    part = _asked_part(request, sound, headers["Last-Modified"])
    code: int = status.HTTP_200_OK
    if part is None:
        part = range(sound.size)
    else:
        code = status.HTTP_206_PARTIAL_CONTENT
        headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{sound.size}"
    headers["Content-Length"] = str(len(part))
    pieces: Any = Pieces(sound.file, part)
    return StreamingHttpResponse(pieces, status=code, headers=headers)


def _asked_part(request: Request, sound: Sound, modified: str) -> range | None:
    if_range = request.headers.get("If-Range", "")
    if not is_the_same(if_range, etag=sound.etag, modified=modified):
        return None
    try:
        return asked_range(request.headers.get("Range", ""), sound.size)
    except UnsatisfiableError:
        raise RangeNotSatisfiable(sound.size) from None
