"""The same six files through every engine of one system: the same shape of everything."""

from __future__ import annotations

from itertools import chain, pairwise
from typing import Any

import pytest

from asr.registry import ENGINES
from tests.asr.published import KEY, SCRIPT, deepgram_api, openai_api
from tests.asr.tiny_whisper import shared_model
from tests.asr.vendor import serving
from tests.system.conftest import SAMPLES, RunningSystem, StartSystem

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

FORMATS = ("txt", "srt", "vtt", "json", "docx", "pdf")


def agree(first: Any, second: Any, at: str) -> None:
    """Both have the same keys and kinds all the way down; what may be null is null or that kind."""
    if isinstance(first, dict) and isinstance(second, dict):
        assert set(first) == set(second), at
        for key in first:
            agree(first[key], second[key], f"{at}.{key}")
    elif isinstance(first, list) and isinstance(second, list):
        for one, other in pairwise(chain(first, second)):
            agree(one, other, f"{at}[]")
    elif first is not None and second is not None:
        number = (int, float)
        assert isinstance(second, number if isinstance(first, number) else type(first)), at


def exports(system: RunningSystem, job_id: str) -> dict[str, Any]:
    """Each format's content type; for JSON the content."""
    told: dict[str, Any] = {}
    for name in FORMATS:
        answer = system.client.get(f"/transcript/{job_id}/export/{name}")
        assert answer.status_code == 200, answer.text
        assert answer.content
        told[name] = answer.json() if name == "json" else answer.headers["Content-Type"]
    return told


def test_six_files_have_the_same_shape_whichever_engine_heard_them(
    start_system: StartSystem,
) -> None:
    with serving() as openai, serving() as deepgram:
        openai.answer, deepgram.answer = openai_api, deepgram_api
        system = start_system(
            OPENAI_API_KEY=KEY,
            OPENAI_BASE_URL=openai.url,
            DEEPGRAM_API_KEY=KEY,
            DEEPGRAM_BASE_URL=deepgram.url.removesuffix("/v1"),
            WHISPER_MODEL=shared_model(),
            WHISPER_DEVICE="cpu",
        )
        paths = system.put_samples("alice", len(SAMPLES))
        jobs = {name: system.submit(paths, userId="alice", engine=name) for name in ENGINES}
        results = {name: system.wait_for_end(job_id) for name, job_id in jobs.items()}
        files = {name: exports(system, job_id) for name, job_id in jobs.items()}
        assert openai.violations == deepgram.violations == []

    assert len(SAMPLES) == 6
    for name, result in results.items():
        assert (result["jobStatus"], result["gaps"]) == ("completed", []), name
        assert result["transcription"], name
        assert {chunk["engine"] for chunk in result["chunks"]} == {name}
        agree(results["pocketsphinx"], result, name)
        agree(files["pocketsphinx"], files[name], name)
    for name, server in (("openai", openai), ("deepgram", deepgram)):
        assert results[name]["transcription"] == " ".join(SCRIPT * 6)
        sent = sorted(received.file for received in server.received)
        assert sent == sorted(path.read_bytes() for path in SAMPLES), name
