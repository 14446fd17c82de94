"""GET /engines and POST /engines/{name}/verify."""

from __future__ import annotations

from typing import Any

import pytest
from rest_framework.test import APIClient

from asr.errors import EngineMisconfigured, EngineUnavailable
from asr.registry import ENGINES
from jobs import breakers, engines
from tests import factories
from tests.asr.vendor import serving
from tests.helpers import client_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def staff() -> APIClient:
    factories.make_user("boss", is_staff=True)
    return client_of(factories.make_token("boss"))


@pytest.fixture
def openai_at(settings: Any) -> Any:
    """Configures the engine openai for a server."""

    def use(url: str, key: str = "sk-secret") -> None:
        options = {"base_url": url, "model": "whisper-1", "api_key": key}
        settings.ENGINE_OPTIONS = {**settings.ENGINE_OPTIONS, "openai": options}
        engines.close()

    yield use
    engines.close()


def by_name(client: APIClient) -> dict[str, Any]:
    page = client.get("/engines").json()
    assert (page["next"], page["previous"]) == (None, None)
    return {engine["name"]: engine for engine in page["results"]}


def test_every_engine_is_listed_with_what_it_can_do(alice: APIClient) -> None:
    listed = by_name(alice)
    assert list(listed) == list(ENGINES)
    embedded = listed["pocketsphinx"]
    assert (embedded["isDefault"], embedded["configured"], embedded["detail"]) == (True, True, None)
    assert embedded["model"] == "en-us"
    assert embedded["breaker"] == "closed"
    able = embedded["capabilities"]
    assert (able["languages"], able["words"], able["runsLocally"]) == (["en"], True, True)
    assert (able["vocabulary"], able["diarize"], able["pricePerMinute"]) == (False, False, 0.0)


def test_an_engine_without_its_key_says_what_it_needs(alice: APIClient) -> None:
    vendor = by_name(alice)["openai"]
    assert (vendor["configured"], vendor["model"], vendor["capabilities"]) == (False, None, None)
    assert vendor["detail"].startswith("the engine openai needs OPENAI_API_KEY")


def test_a_whisper_that_nobody_has_chosen_a_model_for_says_what_it_needs(alice: APIClient) -> None:
    whisper = by_name(alice)["faster-whisper"]
    assert (whisper["configured"], whisper["capabilities"]) == (False, None)
    assert whisper["detail"] == "the engine faster-whisper needs WHISPER_MODEL"


def test_the_most_that_is_read_of_a_vocabulary_is_shown(alice: APIClient, openai_at: Any) -> None:
    openai_at("http://127.0.0.1:9/v1")
    able = by_name(alice)["openai"]["capabilities"]
    assert (able["maxVocabularyTerms"], able["maxVocabularyTokens"]) == (None, 224)


def test_the_breaker_of_an_engine_that_is_down_is_shown(alice: APIClient, openai_at: Any) -> None:
    openai_at("http://127.0.0.1:9/v1")
    for _ in range(5):
        with breakers.admit("openai") as call:
            call.failed()
    assert by_name(alice)["openai"]["breaker"] == "open"


def test_nobody_is_told_without_a_token(anybody: APIClient) -> None:
    assert anybody.get("/engines").status_code == 401
    assert anybody.post("/engines/pocketsphinx/verify").status_code == 401


def test_only_staff_may_verify(alice: APIClient) -> None:
    answer = alice.post("/engines/pocketsphinx/verify")
    assert answer.status_code == 403
    assert answer.json()["errors"][0]["code"] == "permission_denied"


def test_the_embedded_engine_verifies(staff: APIClient) -> None:
    answer = staff.post("/engines/pocketsphinx/verify")
    assert answer.json() == {"name": "pocketsphinx", "result": "valid", "detail": None}


@pytest.mark.parametrize("name", ["parrot", "%00", "pocket/sphinx"])
def test_an_unknown_engine_is_not_found(staff: APIClient, name: str) -> None:
    assert staff.post(f"/engines/{name}/verify").status_code == 404


def test_an_engine_that_is_not_configured_is_refused(staff: APIClient) -> None:
    answer = staff.post("/engines/openai/verify").json()
    assert answer["result"] == "refused"
    assert "OPENAI_API_KEY" in answer["detail"]


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (EngineMisconfigured("the key is wrong"), "refused"),
        (EngineUnavailable("engine_error", "no way through"), "unreachable"),
    ],
)
def test_what_an_engine_says_is_told(
    staff: APIClient, monkeypatch: pytest.MonkeyPatch, error: Exception, result: str
) -> None:
    def fail(limit: float) -> None:
        assert 0 < limit <= 10
        raise error

    monkeypatch.setattr(engines.get("pocketsphinx"), "verify", fail)
    answer = staff.post("/engines/pocketsphinx/verify").json()
    assert (answer["result"], answer["detail"]) == (result, error.args[-1])


def test_an_engine_that_is_busy_is_valid(staff: APIClient, openai_at: Any) -> None:
    with serving() as vendor:
        openai_at(vendor.url)
        vendor.says(429, {"error": {"message": "slow down"}}, Retry_After="7")
        answer = staff.post("/engines/openai/verify").json()
    detail = "the engine is busy (429, a rate limit); it did not refuse the key"
    assert answer == {"name": "openai", "result": "valid", "detail": detail}


def test_a_vendor_that_echoes_the_key_does_not_make_us_show_it(
    staff: APIClient, openai_at: Any
) -> None:
    with serving() as vendor:
        openai_at(vendor.url, key="sk-secret")
        for status in (401, 200, 500):
            vendor.says(status, {"error": {"message": "Incorrect API key: sk-secret"}})
            assert b"sk-secret" not in staff.post("/engines/openai/verify").content
    assert b"sk-secret" not in staff.get("/engines").content
    assert staff.post("/engines/openai/verify").json()["result"] == "unreachable"
