"""What kind of sound a file is by its first bytes: for whoever plays it, as no decoding is done."""

from __future__ import annotations

from typing import Final

BYTES: Final = 16  # of a file's beginning are enough
UNKNOWN: Final = "application/octet-stream"
# By the container, as in `AudioInfo`.
MEDIA_TYPES: Final = {
    "aac": "audio/aac",
    "flac": "audio/flac",
    "m4a": "audio/mp4",
    "mp3": "audio/mpeg",
    "ogg": "audio/ogg",
    "wav": "audio/wav",
    "webm": "audio/webm",
}
_SIGNATURES: Final = {
    (0, b"fLaC"): "flac",
    (0, b"OggS"): "ogg",
    (0, b"ID3"): "mp3",
    (0, b"\x1aE\xdf\xa3"): "webm",
    (4, b"ftyp"): "m4a",
    (8, b"WAVE"): "wav",
}


def media_type(beginning: bytes) -> str:
    """Of a file that begins so; `UNKNOWN`, which no browser shows, for anything else."""
    for (offset, signature), container in _SIGNATURES.items():
        if beginning.startswith(signature, offset):
            return MEDIA_TYPES[container]
    if len(beginning) > 1 and beginning[0] == 0xFF:
        if beginning[1] & 0xF6 == 0xF0:
            return MEDIA_TYPES["aac"]
        if beginning[1] & 0xE0 == 0xE0 and beginning[1] & 0x06:
            return MEDIA_TYPES["mp3"]
    return UNKNOWN
