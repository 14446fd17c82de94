"""A remote engine: all chunks of a job at once, and one text in order whatever comes back first."""

from __future__ import annotations

import io
import threading
import wave
from typing import Any

import pytest

from tests.asr.vendor import serving
from tests.system.conftest import RunningSystem, StartSystem

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]
CHUNKS = 24


def silence(tenths: int) -> bytes:
    """A WAV file of that many tenths of a second."""
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(tenths * 3200))
    return target.getvalue()


def put_silences(system: RunningSystem) -> list[str]:
    """Chunk n lasts n + 2 tenths of a second; its path."""
    (system.audio_root / "alice").mkdir()
    for index in range(CHUNKS):
        (system.audio_root / f"alice/{index}.wav").write_bytes(silence(index + 2))
    return [f"alice/{index}.wav" for index in range(CHUNKS)]


def test_24_calls_are_under_way_at_once_and_may_end_in_any_order(start_system: StartSystem) -> None:
    ended = [threading.Event() for _ in range(CHUNKS + 1)]
    ended[CHUNKS].set()

    def answer_in_reverse(handler: Any) -> None:
        index = (len(handler.own.file) - 44) // 3200 - 2
        # Each waits for the one behind it: only if all are under way does any of them end.
        in_turn = ended[index + 1].wait(60)
        handler.json(200, {"text": f"Part {index}{'.' if in_turn else ' came too early.'}"})
        ended[index].set()

    with serving() as vendor:
        vendor.answer = answer_in_reverse
        system = start_system(ASR_ENGINE="openai", OPENAI_BASE_URL=vendor.url, OPENAI_MODEL="m")

        done = system.wait_for_end(system.submit(put_silences(system), userId="alice"))

        assert done["jobStatus"] == "completed"
        assert done["transcription"] == " ".join(f"Part {n}." for n in range(CHUNKS))
        assert {chunk["engine"] for chunk in done["chunks"]} == {"openai"}
        starts = [round(chunk["startTime"] * 10) for chunk in done["chunks"]]
        assert starts == [sum(range(2, n + 2)) for n in range(CHUNKS)]
        assert len(vendor.received) == CHUNKS
