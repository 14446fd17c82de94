"""What kind of sound a file is by its first bytes."""

from __future__ import annotations

import numpy as np
import pytest

from asr.audio import measure
from asr.sniffing import BYTES, MEDIA_TYPES, UNKNOWN, media_type
from tests.asr.sounds import ENCODINGS, encode, sample


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
def test_the_first_bytes_say_what_decoding_says(encoding: str) -> None:
    data = encode(np.arange(8000, dtype=np.int16), encoding)
    assert media_type(data[:BYTES]) == MEDIA_TYPES[measure(data, 10).container]


def test_the_samples_are_flac() -> None:
    assert media_type(sample(0)[:BYTES]) == "audio/flac"


@pytest.mark.parametrize(
    "beginning",
    [b"", b"\xff", b"\xff\xff", b"<html><script>", b"#!AMR\n", b"RIFFxxxxAVI LIST", b"%PDF-1.7"],
)
def test_what_is_no_sound_is_of_no_type_that_a_browser_shows(beginning: bytes) -> None:
    assert media_type(beginning) in {UNKNOWN, "audio/mpeg"}
    assert media_type(beginning[:1]) == UNKNOWN
