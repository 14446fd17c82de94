"""Files in a bucket of S3, or of any server that speaks its protocol.

By boto3's client and not by django-storages, which makes a session for each thread: 90 ms of
processor time and its memory, 512 times in a worker. One client serves all threads.
"""

from __future__ import annotations

import mimetypes
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, Final, cast

from django.core.files import File

from jobs.storage.base import MAX_PATH_BYTES, AudioStorage, SignedUpload, check_path
from jobs.storage.errors import AudioNotFoundError, InvalidPathError, StorageAwayError
from jobs.storage.s3_errors import code_of, explained, translated

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CONNECT_SECONDS: Final = 3
READ_SECONDS: Final = 8
LOOK_SECONDS: Final = 2  # to connect, and to answer: a caller waits while files are looked for
BODY_SECONDS: Final = 60  # for one read in all
_PIECE: Final = 1 << 20
_CONNECTIONS: Final = 64  # kept open; more are opened and closed when all threads want one
_LOOKS_AT_ONCE: Final = 8  # for the sizes of a job's files
_DELETED_AT_ONCE: Final = 1000  # the protocol's limit
_DEFAULT_REGION: Final = "us-east-1"  # what the vendor takes when none is named


class S3AudioStorage(AudioStorage):
    """A bucket, made if it is absent; every write asks for encryption at rest."""

    takes_uploads_itself = True
    is_remote = True

    def __init__(
        self,
        *,
        bucket: str,
        prefix: str = "",
        endpoint: str | None = None,
        region: str | None = None,
        encryption: str | None = "AES256",
        kms_key: str | None = None,
        credentials: dict[str, str] | None = None,
    ) -> None:
        """`credentials` None: those of the environment or of the instance's role."""
        self._bucket, self._prefix = bucket, prefix
        self._endpoint, self._region = endpoint, region
        self._credentials = credentials or {}
        self._lock = threading.Lock()
        self._made: dict[bool, S3Client] = {}
        self._bucket_is_known = False
        self._encryption: dict[str, Any] = {}
        if encryption:
            self._encryption["ServerSideEncryption"] = encryption
        if kms_key:
            self._encryption["SSEKMSKeyId"] = kms_key

    def delete(self, name: str) -> None:
        self.delete_all([name])

    def delete_all(self, names: Iterable[str]) -> int:
        """Raises StorageAwayError when one of them cannot be deleted."""
        keys = [{"Key": self._key(name)} for name in names]
        with translated(""):
            for first in range(0, len(keys), _DELETED_AT_ONCE):
                some: Any = keys[first : first + _DELETED_AT_ONCE]
                answer = self._client.delete_objects(
                    Bucket=self._bucket, Delete={"Objects": some, "Quiet": True}
                )
                if answer.get("Errors"):
                    raise StorageAwayError("the object storage did not delete a file")
        return len(keys)

    def exists(self, name: str) -> bool:
        with suppress(InvalidPathError, AudioNotFoundError):
            self.size(name)
            return True
        return False

    def size(self, name: str) -> int:
        key = self._key(name)
        try:
            with translated(name):
                return self._looking.head_object(Bucket=self._bucket, Key=key)["ContentLength"]
        except AudioNotFoundError:
            if not self.is_there():  # which is answered alike
                raise StorageAwayError("the bucket is not there") from None
            raise

    def sizes(self, names: Sequence[str]) -> list[int | Exception]:
        """Several at once: each is a round trip. Raises StorageAwayError."""
        with ThreadPoolExecutor(min(_LOOKS_AT_ONCE, len(names) or 1)) as threads:
            return list(threads.map(self._size_or_error, names))

    def look(self, *, to_write: bool = True) -> None:
        """See `AudioStorage`. What may be written is not known before it is."""
        try:
            self._find_bucket()
            self._looking.head_bucket(Bucket=self._bucket)
        except Exception as error:  # whatever boto3 raises, also for its configuration
            raise explained(error) from None

    def sign_upload(
        self, name: str, *, size: int, content_type: str, seconds: int
    ) -> SignedUpload | None:
        """A PUT whose signature covers length, type and encryption. Raises StorageAwayError.

        Not the POST that the vendor's browsers use: few other servers know it.
        """
        params = {
            "Bucket": self._bucket,
            "Key": self._key(name),
            "ContentLength": size,
            "ContentType": content_type,
            **self._encryption,
        }
        with translated(name):
            self._find_bucket()
            url = self._client.generate_presigned_url("put_object", params, seconds)
        headers = {"Content-Type": content_type}
        if "ServerSideEncryption" in self._encryption:
            headers["x-amz-server-side-encryption"] = self._encryption["ServerSideEncryption"]
        if "SSEKMSKeyId" in self._encryption:
            headers["x-amz-server-side-encryption-aws-kms-key-id"] = self._encryption["SSEKMSKeyId"]
        return SignedUpload(url=url, headers=headers)

    def _open(self, name: str, mode: str = "rb") -> File[bytes]:
        """A stream; nothing is read ahead."""
        key = self._key(name)
        with translated(name):
            body = self._client.get_object(Bucket=self._bucket, Key=key)["Body"]
        return File(cast("IO[bytes]", _Body(body)), name)

    def _save(self, name: str, content: Any) -> str:
        content.seek(0)
        with translated(name):
            self._find_bucket()
            self._client.put_object(
                Bucket=self._bucket,
                Key=self._key(name),
                Body=content,
                ContentType=mimetypes.guess_type(name)[0] or "application/octet-stream",
                **self._encryption,
            )
        return name

    def _key(self, name: str) -> str:
        key = f"{self._prefix}{check_path(name)}"
        if len(key.encode()) > MAX_PATH_BYTES:
            raise InvalidPathError(name)
        return key

    @property
    def _client(self) -> S3Client:
        return self._connected(patiently=True)

    @property
    def _looking(self) -> S3Client:
        """The client for what is only looked at; who waits asks again rather than this does."""
        return self._connected(patiently=False)

    def _connected(self, *, patiently: bool) -> S3Client:
        with self._lock:
            if patiently not in self._made:
                self._made[patiently] = self._connect(patiently=patiently)
            return self._made[patiently]

    def _connect(self, *, patiently: bool) -> S3Client:
        import boto3  # noqa: PLC0415  (0.3 s and 30 MB, for those who use it)
        from botocore.config import Config  # noqa: PLC0415

        config = Config(
            connect_timeout=CONNECT_SECONDS if patiently else LOOK_SECONDS,
            read_timeout=READ_SECONDS if patiently else LOOK_SECONDS,
            retries={"mode": "standard", "total_max_attempts": 2 if patiently else 1},
            max_pool_connections=_CONNECTIONS,
            signature_version="s3v4",  # the older one signs neither length nor type
            # Servers of other makers do not know the newer checksums.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path" if self._endpoint else "auto"},
        )
        credentials: dict[str, Any] = self._credentials
        session = boto3.session.Session(**credentials)
        client: S3Client = session.client(
            "s3",
            region_name=self._region or session.region_name or _DEFAULT_REGION,
            endpoint_url=self._endpoint,
            config=config,
        )
        return client

    def _find_bucket(self) -> None:
        """Once in a process: see whether the bucket is there, and make it if it is not."""
        from botocore.exceptions import ClientError  # noqa: PLC0415

        if self._bucket_is_known:
            return
        try:
            self._looking.head_bucket(Bucket=self._bucket)
        except ClientError as error:
            if code_of(error) == "404":
                self._make_bucket()
            elif code_of(error) != "403":  # it is there, but may not be asked for
                raise
        self._bucket_is_known = True

    def _make_bucket(self) -> None:
        region = self._client.meta.region_name
        place: dict[str, Any] = {}
        if region != _DEFAULT_REGION:
            place["CreateBucketConfiguration"] = {"LocationConstraint": region}
        already = (
            self._client.exceptions.BucketAlreadyOwnedByYou,
            self._client.exceptions.BucketAlreadyExists,  # by another process, just now
        )
        with suppress(*already):
            self._client.create_bucket(Bucket=self._bucket, **place)


class _Body:
    """A stream of boto3's as a file whose failures are those of a storage."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        """As much as is asked for, or all there is: one read may give less without an error.

        Raises StorageAwayError, also when the server dribbles.
        """
        deadline, pieces, left = time.monotonic() + BODY_SECONDS, [], size
        with translated(""):
            while left and (piece := self._stream.read(min(left, _PIECE) if left > 0 else _PIECE)):
                pieces.append(piece)
                left -= len(piece) if left > 0 else 0
                if time.monotonic() > deadline:
                    raise StorageAwayError("the object storage is too slow")
        return b"".join(pieces)

    def close(self) -> None:
        self._stream.close()

    @property
    def closed(self) -> bool:
        return False
