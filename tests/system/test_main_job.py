"""The main job through real processes: audio over HTTP in, one transcript out."""

from __future__ import annotations

import json

import pytest

from tests.system.conftest import SAMPLES, RunningSystem

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]


def words(text: str) -> list[str]:
    return "".join(c if c.isalnum() or c in " '" else " " for c in text.lower()).split()


def test_six_and_then_24_chunks_become_one_text_in_order(system: RunningSystem) -> None:
    manifest = json.loads((SAMPLES[0].parent / "manifest.json").read_text())
    spoken = " ".join(item["text"] for item in manifest)
    files = [("audioChunks", (path.name, path.read_bytes())) for path in SAMPLES]
    answer = system.client.post("/transcribe", data={"title": "Six"}, files=files)
    assert answer.status_code == 202, answer.text
    job_id = answer.json()["jobId"]
    assert system.client.get("/transcript/search?jobStatus=in_progress").json()["results"]

    six = system.wait_for_end(job_id)

    assert six["jobStatus"] == "completed"
    assert six["gaps"] == []
    assert [chunk["attempts"] for chunk in six["chunks"]] == [1] * 6
    heard, said = words(six["transcription"]), words(spoken)
    right = sum(a == b for a, b in zip(heard, said, strict=False))
    assert right > 0.8 * len(said), six["transcription"]
    assert six["durationSeconds"] == pytest.approx(
        sum(chunk["durationSeconds"] for chunk in six["chunks"])
    )
    found = system.client.get("/transcript/search?jobStatus=completed").json()["results"]
    assert [result["jobId"] for result in found] == [job_id]
    assert found[0] == six
    assert system.client.get("/transcript/search?jobStatus=in_progress").json()["results"] == []

    all_24 = system.wait_for_end(system.submit(system.put_samples("alice", 24), userId="alice"))

    assert all_24["jobStatus"] == "completed"
    assert all_24["transcription"] == " ".join([six["transcription"]] * 4)
    assert {chunk["deduplicated"] for chunk in six["chunks"]} == {False}
    heard_anew = [chunk for chunk in all_24["chunks"] if not chunk["deduplicated"]]
    assert len(heard_anew) == len(SAMPLES)  # once for this user, however often they come

    used = system.client.get("/usage?userId=alice").json()["total"]
    assert used["calls"] == len(SAMPLES)
    assert used["minutes"] == pytest.approx(six["durationSeconds"] / 60)
    assert used["deduplicatedMinutes"] == pytest.approx(3 * six["durationSeconds"] / 60)


def test_one_corrupt_chunk_among_six_leaves_one_named_gap_and_is_retried_alone(
    system: RunningSystem,
) -> None:
    paths = system.put_samples("alice", 6)
    corrupt = system.audio_root / paths[2]
    sound = corrupt.read_bytes()
    corrupt.write_bytes(b"this is no audio" * 100)

    job_id = system.submit(paths, userId="alice")
    failed = system.wait_for_end(job_id)

    assert failed["jobStatus"] == "failed"
    assert failed["gaps"] == [
        {"index": 2, "startTime": None, "durationSeconds": None, "code": "invalid_audio"}
    ]
    assert [chunk["status"] for chunk in failed["chunks"]].count("completed") == 5
    assert failed["chunks"][2]["attempts"] == 1
    assert failed["chunks"][2]["error"]["recoverable"] is False
    assert len(words(failed["transcription"])) > 20

    corrupt.write_bytes(sound)
    assert system.client.post(f"/transcript/{job_id}/retry").status_code == 202
    mended = system.wait_for_end(job_id)

    assert mended["jobStatus"] == "completed"
    assert mended["gaps"] == []
    assert [chunk["attempts"] for chunk in mended["chunks"]] == [1, 1, 2, 1, 1, 1]
    assert len(words(mended["transcription"])) > len(words(failed["transcription"]))
