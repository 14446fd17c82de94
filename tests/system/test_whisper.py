"""The engine faster-whisper through real processes: audio over HTTP in, one transcript out."""

from __future__ import annotations

import pytest

from tests.asr.tiny_whisper import SCRIPT, shared_model
from tests.system.conftest import SAMPLES, StartSystem

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]

SAID = " ".join(line.text for line in SCRIPT)


def test_six_chunks_are_heard_in_order_with_times_of_the_whole(start_system: StartSystem) -> None:
    system = start_system(
        ASR_ENGINE="faster-whisper", WHISPER_MODEL=shared_model(), WHISPER_DEVICE="cpu"
    )
    files = [("audioChunks", (path.name, path.read_bytes())) for path in SAMPLES]
    form = {"title": "Six", "vocabulary": ["Kubernetes", "Redis"]}
    answer = system.client.post("/transcribe", data=form, files=files)
    assert answer.status_code == 202, answer.text
    job = system.wait_for_end(answer.json()["jobId"])

    assert job["jobStatus"] == "completed"
    assert job["gaps"] == []
    assert job["transcription"] == " ".join([SAID] * 6)
    assert (job["language"], len(job["chunks"])) == ("en", 6)
    for chunk in job["chunks"]:
        assert (chunk["status"], chunk["attempts"]) == ("completed", 1)
        assert (chunk["engine"], chunk["language"]) == ("faster-whisper", "en")
        assert chunk["confidence"] == pytest.approx(1.0, abs=0.05)

    exported = system.client.get(f"/transcript/{job['jobId']}/export/json").json()
    words = [word for segment in exported["segments"] for word in segment["words"]]
    assert [word["text"] for word in words] == SAID.split() * 6
    for index, chunk in enumerate(job["chunks"]):
        own = words[index * 6 : index * 6 + 6]
        end = chunk["startTime"] + chunk["durationSeconds"]
        assert all(chunk["startTime"] <= word["start"] <= end for word in own)
        # The same script each time, shifted by where its chunk and the speech in it begin.
        spoken = own[-1]["end"] - own[0]["start"]
        assert spoken == pytest.approx(SCRIPT[-1].end - SCRIPT[0].start, abs=0.05)
