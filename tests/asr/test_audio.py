"""Decoding: every format in, every trap refused."""

from __future__ import annotations

import hashlib
import io
import resource
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any

import av
import numpy as np
import pytest

from asr import audio
from asr.child_pool import ChildPool
from asr.errors import AudioRejected, ChildBusy, ChildCrashed
from tests.asr.sounds import (
    ENCODINGS,
    MANIFEST,
    encode,
    sample,
    samples_of,
    silence,
    silent_flac,
    tone,
    wav,
)
from tests.helpers import wait_until

CONTAINERS = {"opus": "ogg", "mp4": "m4a"}


def rejection(data: bytes, max_seconds: float = 300) -> str:
    with pytest.raises(AudioRejected) as caught:
        audio.measure(data, max_seconds)
    assert not caught.value.recoverable
    assert "/" not in caught.value.detail
    return caught.value.code


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_format_is_measured(encoding: str) -> None:
    info = audio.measure(encode(samples_of(sample(0)), encoding), 300)
    assert info.duration_seconds == pytest.approx(MANIFEST[0]["seconds"], abs=0.15)
    assert info.container == CONTAINERS.get(encoding, encoding)


@pytest.mark.parametrize("encoding", ["m4a", "mp4"])
def test_the_padding_of_aac_in_a_container_is_cut_off(encoding: str) -> None:
    info = audio.measure(encode(tone(2.0), encoding), 2.0)
    assert info.duration_seconds == pytest.approx(2.0, abs=0.001)


def test_the_digest_names_the_sound_and_not_the_file() -> None:
    sound = samples_of(sample(1))
    digests = {audio.measure(encode(sound, name), 300).digest for name in ("wav", "flac")}
    assert digests == {hashlib.sha256(sound.tobytes()).hexdigest()}


def test_a_file_that_waits_for_a_child_leaves_the_engine_its_time() -> None:
    pool = ChildPool(1)

    def occupy() -> None:
        with suppress(ChildCrashed):  # the pool is closed before it is done
            pool.run(time.sleep, 20.0, limit=60)

    busy = threading.Thread(target=occupy)
    busy.start()
    wait_until(lambda: not pool._idle)
    began = time.monotonic()
    with pytest.raises(ChildBusy) as caught:
        audio.inspect(pool, sample(2), max_seconds=300, limit=4.0)
    assert time.monotonic() - began < 3.9
    assert caught.value.retry_after is not None  # the chunk's turn comes later, at no cost
    pool.close()
    busy.join()


def test_a_file_is_measured_in_a_child(pool: ChildPool) -> None:
    info = audio.inspect(pool, sample(2), max_seconds=300, limit=20)
    assert info == audio.measure(sample(2), 300)
    with pytest.raises(AudioRejected):
        audio.inspect(pool, b"no sound", max_seconds=300, limit=20)


@pytest.mark.parametrize(
    ("data", "seconds"),
    [
        (wav(b""), 0.0),
        (wav(b"\0" * 20), 10 / 16_000),
        (wav(b"\0" * 32_000, claimed=1_000), 500 / 16_000),
        (wav(b"\0" * 32_000, claimed=0xFFFFFFFF), 1.0),
        (wav(b"\0" * 32_000, claimed=2_000_000_000), 1.0),
    ],
    ids=["no samples", "ten samples", "claims less", "claims 4 GB", "claims 2 GB"],
)
def test_the_samples_count_and_not_the_header(data: bytes, seconds: float) -> None:
    assert audio.measure(data, 300).duration_seconds == pytest.approx(seconds, abs=0.001)


def test_a_flac_file_without_samples_is_no_error() -> None:
    assert audio.measure(encode(silence(0.0), "flac"), 300).duration_seconds == 0.0


@pytest.mark.parametrize("encoding", ["ogg", "opus", "m4a", "webm", "mp3", "aac"])
def test_hardly_any_samples_are_no_error(encoding: str) -> None:
    assert audio.measure(encode(silence(0.01), encoding), 300).duration_seconds < 0.15


@pytest.mark.parametrize("encoding", ["mp3", "ogg", "flac", "wav"])
def test_half_a_file_is_half_the_sound(encoding: str) -> None:
    data = encode(samples_of(sample(0)), encoding)
    seconds = audio.measure(data[: len(data) // 2], 300).duration_seconds
    assert 1.0 < seconds < 3.5


def _video() -> bytes:
    target = io.BytesIO()
    with av.open(target, "w", format="webm") as file:
        stream: Any = file.add_stream("libvpx", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((96, 64), np.uint8), format="yuv420p")
        for piece in (frame, None):
            file.mux(stream.encode(piece))
    return target.getvalue()


def _half_m4a() -> bytes:
    data = encode(tone(2.0), "m4a")
    return data[: len(data) // 2]


NOT_AUDIO = {
    "empty": lambda: b"",
    "text": lambda: b"Dear all, this is not sound.\n" * 100,
    "html": lambda: b"<!doctype html><html><body>no</body></html>",
    "svg": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'></svg>",
    "subtitles": lambda: b"1\n00:00:00,000 --> 00:00:01,000\nHello\n",
    "random": lambda: np.random.default_rng(0).bytes(100_000),
    "zeros": lambda: bytes(200_000),
    "riff alone": lambda: wav(b"")[:12],
    "rate 0": lambda: wav(b"\0" * 32_000, rate=0),
    "rate 1": lambda: wav(b"\0" * 32_000, rate=1),
    "rate 2 GHz": lambda: wav(b"\0" * 32_000, rate=2**31 - 1),
    "channels": lambda: wav(b"\0" * 32_000, channels=65_535),
    "video": _video,
    "half an m4a": _half_m4a,
    "100 bytes of mp3": lambda: encode(tone(2.0), "mp3")[:100],
    "pls": lambda: b"[playlist]\nFile1=http://127.0.0.1:1/a.mp3\nNumberOfEntries=1\n",
    "dash": lambda: b"<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'></MPD>",
}


@pytest.mark.parametrize("name", NOT_AUDIO)
def test_what_is_not_audio_is_refused(name: str) -> None:
    assert rejection(NOT_AUDIO[name]()) == "invalid_audio"


def _listener() -> tuple[Any, int]:
    import socket

    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)
    return listener, listener.getsockname()[1]


def test_a_playlist_in_disguise_reads_nothing(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    neighbour = tmp_path / "ok.wav"
    neighbour.write_bytes(wav(tone(1.0).tobytes()))
    listener, port = _listener()
    address = f"http://127.0.0.1:{port}/a.ts"
    head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n"
    sdp = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 9 RTP/AVP 0\n"
    monkeypatch.chdir(tmp_path)  # where a relative name would be looked up
    try:
        for text in (
            "ffconcat version 1.0\nfile ok.wav\n",
            f"ffconcat version 1.0\nfile {neighbour}\n",
            f"ffconcat version 1.0\nfile {address}\n",
            f"{head}{neighbour}\n#EXT-X-ENDLIST\n",
            f"{head}{address}\n#EXT-X-ENDLIST\n",
            sdp,
        ):
            started = time.monotonic()
            assert rejection(text.encode()) == "invalid_audio"
            assert time.monotonic() - started < 2
        with pytest.raises(TimeoutError):
            listener.accept()
    finally:
        listener.close()


def test_a_day_of_silence_stops_at_the_cap() -> None:
    bomb = silent_flac(24)
    assert len(bomb) < 5_000_000
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    assert rejection(bomb) == "audio_too_long"
    assert time.process_time() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 100_000  # kB


def test_the_limit_itself_is_not_too_long() -> None:
    assert audio.measure(wav(tone(2.0).tobytes()), 2.0).duration_seconds == 2.0
    assert rejection(wav(tone(2.01).tobytes()), 2.0) == "audio_too_long"


def test_scattered_damage_costs_only_what_it_hits() -> None:
    data = bytearray(encode(samples_of(sample(0)), "mp3"))
    for position in np.random.default_rng(0).integers(2_000, len(data), 20):
        data[position] ^= 0xFF
    assert 3.0 < audio.measure(bytes(data), 300).duration_seconds < 5.0


def test_raw_aac_becomes_flac_with_the_same_sound() -> None:
    data = encode(samples_of(sample(0)), "aac")
    info = audio.measure(data, 300)
    again = audio.measure(audio.to_flac(data, 300), 300)
    assert (again.container, again.digest) == ("flac", info.digest)


def test_the_parent_loads_neither_codecs_nor_numpy() -> None:
    code = (
        "import sys, asr.audio, asr.registry, asr.engines.openai, asr.engines.pocketsphinx;"
        "print(*{'av', 'numpy', 'pocketsphinx', 'openai', 'django'} & set(sys.modules))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert loaded.stdout.strip() == b""
