"""What boto3's errors mean: to a chunk that waits, and to a person who set the variables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from jobs.storage.errors import AudioNotFoundError, StorageAwayError

BUCKET: Final = "AUDIO_STORAGE_URL"
CREDENTIALS: Final = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_NOT_THERE: Final = {"404", "NoSuchKey"}
_NO_BUCKET: Final = {"404", "NoSuchBucket"}
_REFUSED: Final = {
    *("401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"),
    *("ExpiredToken", "InvalidToken", "AllAccessDisabled"),
}
_ELSEWHERE: Final = {"301", "400"}  # a temporary key that has ended is answered by 400 as well


@contextmanager
def translated(name: str) -> Iterator[None]:
    """boto3's errors as those of a storage."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415  (for who uses it)

    try:
        yield
    except ClientError as error:
        if code_of(error) in _NOT_THERE:
            raise AudioNotFoundError(name) from None
        raise StorageAwayError(f"the object storage refused ({code_of(error)})") from None
    except (BotoCoreError, OSError) as error:
        if isinstance(error, StorageAwayError):
            raise
        raise StorageAwayError("the object storage does not answer") from None


def code_of(error: Any) -> str:
    """The server's word for what is wrong; the status where it gave an answer without a body."""
    return str(error.response.get("Error", {}).get("Code", "unknown"))


def explained(error: Exception) -> StorageAwayError:
    """Why a bucket cannot be looked at, and which variables say otherwise."""
    from botocore import exceptions  # noqa: PLC0415

    match error:
        case exceptions.ClientError():
            return _of_answer(code_of(error), making=error.operation_name == "CreateBucket")
        case exceptions.NoCredentialsError() | exceptions.PartialCredentialsError():
            return _refused("there are no credentials for the object storage")
        case exceptions.HTTPClientError() | exceptions.ConnectionError():
            detail = "the object storage does not answer"
            return StorageAwayError(detail, look_at=f"the endpoint in {BUCKET}")
    detail = f"the object storage cannot be used ({type(error).__name__})"
    return StorageAwayError(detail, look_at=f"{BUCKET} and the configuration of boto3")


def _of_answer(code: str, *, making: bool) -> StorageAwayError:
    """What the server's word means, to the look at the bucket or to the attempt to make it."""
    if making or code in _NO_BUCKET:
        why = f"and cannot be made ({code})" if making else "any more"
        detail = f"the bucket is not there {why}"
        return StorageAwayError(detail, reason="bucket_missing", look_at=BUCKET)
    if code in _ELSEWHERE:
        detail = f"the object storage refused ({code})"
        return StorageAwayError(detail, look_at=f"the region in {BUCKET}, and {CREDENTIALS}")
    if code in _REFUSED:
        return _refused(f"the object storage refuses the credentials ({code})")
    return StorageAwayError(f"the object storage fails ({code})", look_at=f"the server in {BUCKET}")


def _refused(detail: str) -> StorageAwayError:
    look_at = f"{CREDENTIALS}, and whether they may list the bucket in {BUCKET}"
    return StorageAwayError(detail, reason="credentials_refused", look_at=look_at)
