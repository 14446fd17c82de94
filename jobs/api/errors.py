"""One shape for every error, also where Django or the library would answer with a page."""

from __future__ import annotations

import logging
import sys
from typing import Any, Final

from django.core.exceptions import RequestDataTooBig, SuspiciousOperation, TooManyFilesSent
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import reverse
from django.views import csrf
from drf_standardized_errors import formatter, handler
from drf_standardized_errors.types import Error
from rest_framework import serializers, status
from rest_framework.exceptions import (
    APIException,
    ErrorDetail,
    ParseError,
    PermissionDenied,
    ValidationError,
)

from jobs.api.encodings import BrokenEncodingError, UnknownEncodingError
from jobs.quotas import QuotaExceeded
from jobs.storage import StorageAwayError, is_out_of_room
from jobs.submission import Refusal, SubmissionRefused

RETRY_AFTER_SECONDS: Final = 5
STATUS_OF: Final = {
    "permission_denied": status.HTTP_403_FORBIDDEN,
    "idempotency_conflict": status.HTTP_409_CONFLICT,
    "idempotency_key_reused": status.HTTP_422_UNPROCESSABLE_ENTITY,
    "quota_exceeded": status.HTTP_429_TOO_MANY_REQUESTS,
}

logger = logging.getLogger(__name__)


class ErrorItemSerializer(serializers.Serializer[Any]):
    """One thing that is wrong."""

    code = serializers.CharField()
    detail = serializers.CharField()
    attr = serializers.CharField(allow_null=True)


class ErrorSerializer(serializers.Serializer[Any]):
    """The shape of every error."""

    type = serializers.ChoiceField(["validation_error", "client_error", "server_error"])
    errors = ErrorItemSerializer(many=True)  # type: ignore[assignment]  # a field, not the property


class DatabaseUnavailable(APIException):
    """The database is away."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_code = "database_unavailable"
    default_detail = "The database is not available; try again in a moment."
    wait = RETRY_AFTER_SECONDS


class StorageUnavailable(APIException):
    """The folder or the bucket of audio is away."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_code = "storage_unavailable"
    default_detail = "The storage of audio is not there; try again in a moment."
    wait = RETRY_AFTER_SECONDS


def documented(*codes: int) -> dict[int, type[ErrorSerializer]]:
    """The errors that a call may answer with, for the OpenAPI document; some any call may."""
    return dict.fromkeys((400, 401, *codes, 429, 503), ErrorSerializer)


class InsufficientStorage(APIException):
    """The disk has no room for what is uploaded."""

    status_code = status.HTTP_507_INSUFFICIENT_STORAGE
    default_code = "insufficient_storage"
    default_detail = "There is no room for the upload; nothing was stored."


class AnotherUser(PermissionDenied):
    """A userId that is not the caller's own."""

    default_detail = "Your token is for another user."
    attr = "userId"


class Conflict(APIException):
    """The job's state does not allow it."""

    status_code = status.HTTP_409_CONFLICT


class RevisionConflict(APIException):
    """Somebody else has saved since."""

    status_code = status.HTTP_412_PRECONDITION_FAILED
    default_code = "revision_conflict"

    def __init__(self, revision: str) -> None:
        super().__init__(f"The transcript is at revision {revision}; nothing was written.")


class PreconditionRequired(APIException):
    """Who writes must say what they have seen."""

    status_code = status.HTTP_428_PRECONDITION_REQUIRED
    default_code = "precondition_required"
    default_detail = (
        "Name the revision that you have seen in If-Match, in quotes, as ETag has it. No other form"
        " is taken, as nothing may be overwritten unseen."
    )


class Erased(APIException):
    """The job was deleted."""

    status_code = status.HTTP_410_GONE
    default_code = "erased"
    default_detail = "This transcript was deleted."


class Unfinished(APIException):
    """Not everything of a user could be erased."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_code = "erasure_incomplete"
    wait = RETRY_AFTER_SECONDS

    def __init__(self, left: str) -> None:
        super().__init__(f"Not everything could be erased ({left}); repeat the call.")


class ExportUnavailable(APIException):
    """No process made the file in time, or it took too much."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_code = "export_unavailable"
    default_detail = "The file could not be made; try again in a moment, or another format."
    wait = RETRY_AFTER_SECONDS


class TooLarge(APIException):
    """The request itself is too large."""

    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_code = "request_too_large"
    default_detail = "The request is too large."


class BrokenBody(ParseError):
    """The body cannot be unpacked."""

    default_detail = "The body is not what its Content-Encoding says, or not all of it."


class UnknownEncoding(APIException):
    """The body is packed in a way that is not known here."""

    status_code = status.HTTP_415_UNSUPPORTED_MEDIA_TYPE
    default_code = "unsupported_media_type"
    default_detail = "A body comes as it is, or with Content-Encoding: gzip."


class Refused(APIException):
    """A submission that is refused for another reason than its own form."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.detail, refusal.code)
        self.status_code = STATUS_OF[refusal.code]
        self.attr = refusal.attr
        self.wait = 1 if refusal.code == "idempotency_conflict" else refusal.retry_after


def from_refusals(refused: SubmissionRefused) -> APIException:
    """A refused submission as the exception that DRF answers with."""
    first = refused.refusals[0]
    if first.code in STATUS_OF:
        return Refused(first)
    return ValidationError(
        {r.attr or "audioChunkPaths": [ErrorDetail(r.detail, r.code)] for r in refused.refusals}
    )


def _of_storage(error: OSError) -> APIException | None:
    """What a failure of the storage means to a caller; None when it is some other failure."""
    if isinstance(error, StorageAwayError):
        return StorageUnavailable()
    return InsufficientStorage() if is_out_of_room(error) else None


class ExceptionFormatter(formatter.ExceptionFormatter):
    """The library's, with the field named where our own exceptions know it."""

    def get_errors(self) -> list[Error]:
        errors: list[Error] = super().get_errors()
        attr = getattr(self.exc, "attr", None)
        if attr is not None:
            errors[0].attr = attr
        return errors


class ExceptionHandler(handler.ExceptionHandler):
    """The library's, for the exceptions that it does not know."""

    def convert_known_exceptions(self, exc: Exception) -> Exception:
        match exc:
            case OperationalError() | InterfaceError():
                return DatabaseUnavailable()
            case QuotaExceeded():
                return Refused(Refusal.of_quota(exc))
            case OSError() if (answer := _of_storage(exc)) is not None:
                return answer
            case TooManyFilesSent():
                return ValidationError(
                    {"audioChunks": [ErrorDetail("Too many files.", "audio_chunk_count")]}
                )
            case SuspiciousOperation():
                kind = _of_body(exc)
                return kind() if kind else ParseError("The request is malformed.")
        converted: Exception = super().convert_known_exceptions(exc)
        return converted


def _of_body(exception: Exception) -> type[APIException] | None:
    """What is wrong with a body that was not kept; None when it is something else."""
    kinds: dict[type[Exception], type[APIException]] = {
        RequestDataTooBig: TooLarge,
        BrokenEncodingError: BrokenBody,
        UnknownEncodingError: UnknownEncoding,
    }
    return kinds.get(type(exception))


def bad_request(request: HttpRequest, exception: Exception) -> JsonResponse:
    """For `handler400`."""
    if (kind := _of_body(exception)) is not None:
        return _answer_as(kind)
    return _answer(400, "client_error", "bad_request", "The request is malformed.")


def permission_denied(request: HttpRequest, exception: Exception) -> JsonResponse:
    """For `handler403`."""
    detail = "You do not have permission to perform this action."
    return _answer(403, "client_error", "permission_denied", detail)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """For `CSRF_FAILURE_VIEW`: Django's page in the admin site, our shape everywhere else."""
    if request.path.startswith(reverse("admin:index")):
        return csrf.csrf_failure(request, reason)
    return _answer(403, "client_error", "permission_denied", f"CSRF Failed: {reason}")


def not_found(request: HttpRequest, exception: Exception) -> JsonResponse:
    """For `handler404`: an address that does not exist."""
    return _answer(404, "client_error", "not_found", "There is nothing at this address.")


def server_error(request: HttpRequest) -> JsonResponse:
    """For `handler500`. Django calls it while the exception is being handled."""
    match sys.exc_info()[1]:
        case OperationalError() | InterfaceError():
            response = _answer_as(DatabaseUnavailable)
            response["Retry-After"] = str(RETRY_AFTER_SECONDS)
            return response
        case OSError() as error if is_out_of_room(error):
            return _answer_as(InsufficientStorage)
    return _answer(500, "server_error", "error", "The service failed to answer; it is logged.")


def _answer_as(error: type[APIException]) -> JsonResponse:
    kind = "client_error" if error.status_code < 500 else "server_error"
    return _answer(error.status_code, kind, str(error.default_code), str(error.default_detail))


def _answer(status_code: int, kind: str, code: str, detail: str) -> JsonResponse:
    errors = [{"code": code, "detail": detail, "attr": None}]
    return JsonResponse({"type": kind, "errors": errors}, status=status_code)
