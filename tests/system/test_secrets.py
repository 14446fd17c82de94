"""No secret reaches a log: a whole run at the most talkative level, in which much goes wrong."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.asr.vendor import serving
from tests.servers import fresh_database
from tests.system.conftest import RunningSystem, StartSystem

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

ENGINE_KEY = "sk-engine-key-4711-0815"
SIGNING_KEY = "signing-key-that-is-long-enough-to-be-one-0123456789-abcdefg"
DATABASE_WORD = "database-word-4711"
LOGIN_WORD = "login-word-4711"
WRONG_TOKEN = "0123456789abcdef" * 4


def database_with_password() -> str:
    """Its server trusts everybody: it only matters who repeats the word."""
    return fresh_database().replace("//postgres@", f"//postgres:{DATABASE_WORD}@")


def call_in_every_wrong_way(system: RunningSystem, token: str) -> None:
    url = str(system.client.base_url)
    wrong = {"Authorization": f"Token {WRONG_TOKEN}"}
    with httpx2.Client(base_url=url, timeout=30, trust_env=False) as stranger:
        assert stranger.get("/transcript/search", headers=wrong).status_code == 401
        assert stranger.get("/nothing", headers={"Authorization": f"Token {token}"}).status_code
        page = stranger.get("/admin/login/")
        (field,) = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
        form = {"csrfmiddlewaretoken": field, "username": "admin", "password": LOGIN_WORD}
        assert stranger.post("/admin/login/", data=form).status_code == 200
        assert stranger.post("/admin/login/", data={"password": LOGIN_WORD}).status_code == 403
        assert stranger.post("/transcribe", content=b"{", headers=wrong).status_code == 401
    assert system.client.post("/transcribe", content=b"{").status_code in {400, 415}
    verdict = system.client.post("/engines/openai/verify")
    assert verdict.json()["result"] == "refused"
    assert ENGINE_KEY not in verdict.text


def test_no_secret_is_in_any_log_of_a_run(start_system: StartSystem, tmp_path: Path) -> None:
    with serving() as vendor:
        vendor.says(200, {"text": "heard"})
        variables = {
            "ASR_ENGINE": "openai",
            "OPENAI_BASE_URL": vendor.url,
            "OPENAI_API_KEY": ENGINE_KEY,
            "SECRET_KEY": SIGNING_KEY,
            "LOG_LEVEL": "DEBUG",
        }
        if database := database_with_password():
            variables["DATABASE_URL"] = database
        system = start_system(**variables)
        token = system.client.headers["Authorization"].removeprefix("Token ")
        done = system.wait_for_end(system.submit(system.put_samples("alice", 2), userId="alice"))
        assert done["jobStatus"] == "completed"
        # A vendor that repeats the key it refuses, which the caller must not be told either.
        vendor.says(401, {"error": {"message": f"wrong key: {ENGINE_KEY}"}})
        (system.audio_root / "alice" / "odd.flac").write_bytes(
            (system.audio_root / done["chunks"][0]["audioChunkPath"]).read_bytes()
        )
        job_id = system.submit(["alice/odd.flac"], userId="alice", vocabulary=["anew"])
        failed = system.wait_for_end(job_id)
        assert failed["jobStatus"] == "failed"
        assert ENGINE_KEY not in str(failed)
        call_in_every_wrong_way(system, token)
        redis_word = urlsplit((tmp_path / "run" / "redis.url").read_text()).password
        assert system.client.delete("/users/alice/data").status_code == 200
        system.stop()

    assert ENGINE_KEY in str(vendor.received), "the key was not used: nothing was tested"
    logs = {path.name: path.read_text(errors="replace") for path in (tmp_path / "log").iterdir()}
    assert "DEBUG" in logs["web.log"]
    assert "DEBUG" in logs["worker-chunks.log"]
    secrets = [ENGINE_KEY, SIGNING_KEY, DATABASE_WORD, LOGIN_WORD, WRONG_TOKEN, token, redis_word]
    for name, text in logs.items():
        for secret in secrets:
            assert secret
            assert secret not in text, f"{secret} is in {name}"
