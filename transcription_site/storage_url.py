"""AUDIO_STORAGE_URL, taken apart."""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

_NAMES: Final = {
    "endpoint": "endpoint",
    "region": "region",
    "encryption": "encryption",
    "kmsKey": "kms_key",
}
_ENCRYPTIONS: Final = ("AES256", "aws:kms", "none")
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def s3_options(url: str, *, allow_http: bool) -> dict[str, Any]:
    """Keywords of `S3AudioStorage` from `s3://bucket/prefix?endpoint=…&encryption=…`.

    Raises:
        ValueError: with one line that says what is wrong; it never holds the URL, in which somebody
            may have put credentials.
    """
    parts = urlsplit(url)
    if parts.scheme != "s3":
        raise ValueError("AUDIO_STORAGE_URL must begin with s3://")
    if "@" in parts.netloc:
        raise ValueError("AUDIO_STORAGE_URL holds credentials; set AWS_ACCESS_KEY_ID instead")
    if not _BUCKET.fullmatch(parts.netloc):
        raise ValueError("AUDIO_STORAGE_URL must name a bucket: s3://bucket or s3://bucket/prefix")
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := sorted(given.keys() - _NAMES):
        raise ValueError(f"AUDIO_STORAGE_URL knows no option {unknown[0]!r}: {', '.join(_NAMES)}")
    options: dict[str, Any] = {_NAMES[name]: value for name, value in given.items() if value}
    prefix = unquote(parts.path).strip("/")
    options |= {"bucket": parts.netloc, "prefix": f"{prefix}/" if prefix else ""}
    _check(options, allow_http=allow_http)
    if options.get("encryption") == "none":
        options["encryption"] = None
    return options


def origins(options: dict[str, Any], region: str) -> list[str]:
    """Where browsers are sent for files: what boto3 makes of the same options.

    Args:
        region: what boto3 takes where the options name none.
    """
    if endpoint := options.get("endpoint"):
        parts = urlsplit(endpoint)
        return [f"{parts.scheme}://{parts.netloc}"]
    host = f"s3.{options.get('region', region)}.amazonaws.com"
    bucket = options["bucket"]
    if "." in bucket:  # no certificate is of two labels
        return [f"https://{host}", "https://s3.amazonaws.com"]
    return [f"https://{bucket}.{host}", f"https://{bucket}.s3.amazonaws.com"]


def _check(options: dict[str, Any], *, allow_http: bool) -> None:
    endpoint = options.get("endpoint", "https://")
    if not endpoint.startswith(("https://", "http://")):
        raise ValueError("AUDIO_STORAGE_URL's endpoint is no http or https address")
    if "endpoint" in options and not _names_host(endpoint):
        raise ValueError(
            "AUDIO_STORAGE_URL's endpoint names no host: endpoint=https://minio.example.org:9000"
        )
    if endpoint.startswith("http://") and not allow_http:
        raise ValueError(
            "AUDIO_STORAGE_URL's endpoint has no TLS; AUDIO_STORAGE_ALLOW_HTTP=true takes it so"
        )
    encryption = options.get("encryption", "AES256")
    if encryption not in _ENCRYPTIONS:
        raise ValueError(f"AUDIO_STORAGE_URL's encryption is none of {', '.join(_ENCRYPTIONS)}")
    if "kms_key" in options and encryption != "aws:kms":
        raise ValueError("AUDIO_STORAGE_URL names a kmsKey without encryption=aws:kms")


def _names_host(endpoint: str) -> bool:
    try:
        parts = urlsplit(endpoint)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # half an address of IPv6, or a port that is no number
        return False
