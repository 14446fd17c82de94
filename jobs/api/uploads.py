"""Uploads: an address for one file, of the storage's own or of this service."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ValidationError as InvalidName
from django.core.signing import BadSignature, TimestampSigner
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers, status
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import APIException, NotFound, PermissionDenied, ValidationError
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from jobs import upload_removal, uploads
from jobs.api.authentication import Caller
from jobs.api.base import ApiViewSet
from jobs.api.errors import AnotherUser, Conflict, documented
from jobs.api.parsers import FileParser
from jobs.api.serializers import StrictCharField, StrictSerializer
from jobs.models import UploadKind, iso_time, validate_user_id

_SIGNER: Final = TimestampSigner(salt="verbatim.upload")


ALLOWED_TYPES: Final = "A type of audio/, video/ or application/ is wanted, such as audio/flac."


class UploadExpired(PermissionDenied):
    """The address was altered, or its time is over."""

    default_code = "upload_expired"
    default_detail = "This address is not valid, or no longer; ask for a new one."


class UploadSerializer(StrictSerializer):
    """POST /uploads: what is to come."""

    fileName = StrictCharField(  # noqa: N815
        max_length=255, help_text="Its suffix is kept; the file gets a name of its own."
    )
    sizeBytes = serializers.IntegerField(  # noqa: N815
        help_text="Exactly; the upload is refused with any other length."
    )
    contentType = serializers.RegexField(  # noqa: N815
        r"^[A-Za-z]+/[A-Za-z0-9][A-Za-z0-9.+-]*[ \t]*(;[ -~\t]*)?\Z",
        max_length=100,
        error_messages=dict.fromkeys(("invalid", "blank", "null", "required"), ALLOWED_TYPES),
        help_text="The upload is refused with any other type; parameters do not count.",
    )
    kind = serializers.ChoiceField(UploadKind.choices, default=UploadKind.CHUNK)
    userId = StrictCharField(  # noqa: N815
        required=False, validators=[validate_user_id], help_text="Your own name if left out."
    )

    def validate_contentType(self, value: str) -> str:  # noqa: N802
        """As it is compared, and as the file is to be sent."""
        named = uploads.media_type(value)
        if named.partition("/")[0] not in {"audio", "video", "application"}:
            raise ValidationError(ALLOWED_TYPES, code="invalid")
        return named

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """The limits of the contract, before anything is sent."""
        size, most = attrs["sizeBytes"], _most_bytes(attrs["kind"])
        if size < 1:
            raise ValidationError({"sizeBytes": "The file has no bytes."}, code="audio_empty")
        if size > most:
            detail = f"The file has {size} bytes; at most {most} are taken."
            raise ValidationError({"sizeBytes": detail}, code="audio_too_large")
        return attrs


class AnnouncedSerializer(serializers.Serializer[Any]):
    """Where the file goes, and how to name it afterwards."""

    uploadId = serializers.UUIDField(help_text="For `DELETE /uploads/{id}`.")  # noqa: N815
    audioChunkPath = serializers.CharField(required=False)  # noqa: N815
    recordingPath = serializers.CharField(required=False)  # noqa: N815
    uploadUrl = serializers.URLField()  # noqa: N815
    method = serializers.ChoiceField(["PUT"])
    headers = serializers.DictField(child=serializers.CharField())
    expiresTime = serializers.DateTimeField()  # noqa: N815


class UploadViewSet(ApiViewSet):
    """Announce a file, then send it to the address that is answered."""

    serializer_class = UploadSerializer

    @extend_schema(
        operation_id="uploads_create",
        request={"application/json": UploadSerializer},
        responses={201: AnnouncedSerializer, **documented(403)},
    )
    def create(self, request: Request) -> Response:
        """An address that takes this file, by PUT with these headers, for 15 minutes."""
        serializer = self.get_serializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        asked, caller = serializer.validated_data, Caller.of(request)
        user_id = asked.get("userId", caller.username)
        if not caller.may_see(user_id):
            raise AnotherUser
        _check_folder(user_id)
        announced = uploads.announce(
            user_id,
            name=asked["fileName"],
            size=asked["sizeBytes"],
            content_type=asked["contentType"],
            kind=asked["kind"],
        )
        if announced.signed is not None:
            url, headers = announced.signed.url, announced.signed.headers
        else:
            size = asked["sizeBytes"]
            signature = _SIGNER.sign(f"{announced.upload_id}-{size}").partition(":")[2]
            url = request.build_absolute_uri(reverse("upload", args=[announced.upload_id]))
            url += f"?size={size}&signature={signature}"
            headers = {"Content-Type": asked["contentType"]}
        name = "recordingPath" if asked["kind"] == UploadKind.RECORDING else "audioChunkPath"
        expires = datetime.now(UTC) + timedelta(seconds=uploads.URL_SECONDS)
        return Response(
            {
                "uploadId": str(announced.upload_id),
                name: announced.path,
                "uploadUrl": url,
                "method": "PUT",
                "headers": headers,
                "expiresTime": iso_time(expires),
            },
            status=status.HTTP_201_CREATED,
        )


class OneUploadViewSet(ApiViewSet):
    """Take a file at an address of our own, and give back what was announced."""

    parser_classes = [FileParser]

    def get_authenticators(self) -> list[BaseAuthentication]:
        """Nobody's sign-in stands for a signed address: who has it may send, nobody else."""
        return [] if self._is_signed_call else super().get_authenticators()

    def get_permissions(self) -> Sequence[Any]:
        return [AllowAny()] if self._is_signed_call else super().get_permissions()

    @property
    def _is_signed_call(self) -> bool:
        # There is no request yet when the OpenAPI document first looks.
        return getattr(self.request, "method", None) == "PUT"

    @extend_schema(
        operation_id="uploads_receive",
        parameters=[
            OpenApiParameter("size", OpenApiTypes.INT, required=True),
            OpenApiParameter("signature", OpenApiTypes.STR, required=True),
        ],
        request={"*/*": OpenApiTypes.BINARY},
        responses={204: None, **documented(403, 404, 413, 415, 507)},
    )
    def receive(self, request: Request, upload_id: UUID) -> Response:
        """The body is the file. It may be sent again until a job has taken it."""
        asked = request.GET
        if not is_signed(str(upload_id), asked.get("size", ""), asked.get("signature", "")):
            raise UploadExpired
        file = request.FILES.get("file")
        if file is None:
            raise ValidationError({"body": "There is none."}, code="invalid_length")
        try:
            uploads.receive(upload_id, file, content_type=request.META.get("CONTENT_TYPE", ""))
        except uploads.UploadRefused as refused:
            raise _refusal(refused) from None
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(operation_id="uploads_give_back", responses={204: None, **documented(404, 409)})
    def destroy(self, request: Request, upload_id: UUID) -> Response:
        """Give back what was announced, sent or not: the file goes, and counts no more."""
        caller = Caller.of(request)
        owner = upload_removal.owner_of(upload_id) or caller.username
        if not caller.may_see(owner):
            raise NotFound
        try:
            upload_removal.give_back(owner, upload_id)
        except upload_removal.UploadInUseError:
            raise Conflict("A job has this file; it goes with the job.", "upload_in_use") from None
        except upload_removal.NoSuchUploadError:
            raise NotFound from None
        return Response(status=status.HTTP_204_NO_CONTENT)


def is_signed(upload_id: str, size: str, signature: str) -> bool:
    """Whether it is the signature of an address that we gave out lately, for so many bytes."""
    try:
        _SIGNER.unsign(f"{upload_id}-{size}:{signature}", max_age=uploads.URL_SECONDS)
    except BadSignature:
        return False
    return True


def _check_folder(user_id: str) -> None:
    """An account may bear a name that is no folder of its own, such as "..": no file goes there."""
    try:
        validate_user_id(user_id)
    except InvalidName as error:
        raise ValidationError({"userId": error.messages}, code="invalid_user_id") from None


def _most_bytes(kind: str) -> int:
    """Of one file; one that is larger than all may be together would never find room."""
    is_long = kind == UploadKind.RECORDING
    of_kind = int(settings.RECORDING_MAX_BYTES if is_long else settings.AUDIO_MAX_BYTES)
    together = settings.QUOTA_UPLOAD_BYTES
    return of_kind if together is None else min(of_kind, together)


def _refusal(refused: uploads.UploadRefused) -> APIException:
    if refused.code == "upload_expired":
        return UploadExpired(refused.detail)
    return ValidationError({"body": refused.detail}, code=refused.code)
