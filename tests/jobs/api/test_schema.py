"""The OpenAPI document says what the service does; Schemathesis tries to prove it wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from typing import Any

import pytest
import schemathesis
from django.contrib.auth import get_user_model
from django.contrib.staticfiles import finders
from hypothesis import HealthCheck, Phase, given, settings
from rest_framework.test import APIClient
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.generation.modes import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from jobs import actions, uploads
from jobs.exports import CONTENT_TYPES
from jobs.models import Job, UploadKind
from tests import factories
from transcription_site.asgi import application

pytestmark = pytest.mark.django_db(transaction=True)

OPERATIONS = {
    ("POST", "/transcribe"),
    ("POST", "/uploads"),
    ("PUT", "/uploads/{upload_id}"),
    ("DELETE", "/uploads/{upload_id}"),
    ("GET", "/transcript/search"),
    ("GET", "/transcript/{job_id}"),
    ("GET", "/transcript/{job_id}/export/{file_format}"),
    ("GET", "/transcript/{job_id}/audio/{index}"),
    ("DELETE", "/transcript/{job_id}"),
    ("POST", "/transcript/{job_id}/cancel"),
    ("POST", "/transcript/{job_id}/retry"),
    ("GET", "/transcript/{job_id}/text"),
    ("PATCH", "/transcript/{job_id}/text"),
    ("GET", "/transcript/{job_id}/revisions"),
    ("POST", "/transcript/{job_id}/revisions/{number}/restore"),
    ("GET", "/transcript/{job_id}/words"),
    ("GET", "/transcript/{job_id}/rating"),
    ("PUT", "/transcript/{job_id}/rating"),
    ("DELETE", "/transcript/{job_id}/rating"),
    ("GET", "/transcript/{job_id}/mistakes"),
    ("POST", "/transcript/{job_id}/mistakes"),
    ("GET", "/engines"),
    ("POST", "/engines/{name}/verify"),
    ("GET", "/usage"),
    ("DELETE", "/users/{user_id}/data"),
    ("GET", "/webhooks"),
    ("POST", "/webhooks"),
    ("GET", "/webhooks/{webhook_id}"),
    ("PATCH", "/webhooks/{webhook_id}"),
    ("DELETE", "/webhooks/{webhook_id}"),
    ("POST", "/webhooks/{webhook_id}/rotate"),
    ("GET", "/webhooks/{webhook_id}/deliveries"),
    ("POST", "/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver"),
}
NOTHING_TO_GET_WRONG = {("GET", "/engines"), ("POST", "/engines/{name}/verify")}
BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/transcribe"): {"audioChunkPaths": ["alice/a.wav"]},
    ("POST", "/webhooks"): {"url": "https://8.8.8.8/"},
    ("PATCH", "/transcript/{job_id}/text"): {"chunks": [{"index": 0, "text": "edited"}]},
    ("PUT", "/transcript/{job_id}/rating"): {"stars": 4, "comment": "fair"},
    ("POST", "/transcript/{job_id}/mistakes"): {"kind": "wrong_word", "index": 0, "startTime": 1.5},
    ("POST", "/uploads"): {"fileName": "a.wav", "sizeBytes": 9, "contentType": "audio/wav"},
}
HEALTH = {("GET", "/healthz"), ("GET", "/readyz")}


def test_the_document_names_every_call_and_its_errors(anybody: APIClient) -> None:
    document = anybody.get("/schema").json()
    found = {
        (method.upper(), path): call
        for path, calls in document["paths"].items()
        for method, call in calls.items()
    }
    assert set(found) == OPERATIONS | HEALTH
    for name, call in found.items():
        expected = {"200", "405"} if name in HEALTH else {"400", "401", "429", "503"}
        assert expected <= set(call["responses"])
        for code, response in call["responses"].items():
            if int(code) >= 400 and (name, code) != (("GET", "/readyz"), "503"):
                (content,) = response["content"].values()
                assert content["schema"]["$ref"].endswith("/Error")
        assert call["description"]
    assert set(found["POST", "/transcribe"]["requestBody"]["content"]) == {
        "application/json",
        "multipart/form-data",
    }


def test_the_document_shows_what_the_health_checks_answer(anybody: APIClient) -> None:
    document = anybody.get("/schema").json()
    assert document["components"]["schemas"]["Error"]
    for _, path in HEALTH:
        assert document["paths"][path]["get"].get("security", [{}]) == [{}]  # no sign-in
    answers = document["paths"]["/readyz"]["get"]["responses"]
    shapes = {answers[code]["content"]["application/json"]["schema"]["$ref"] for code in answers}
    assert shapes == {"#/components/schemas/Readiness", "#/components/schemas/Error"}
    assert answers["200"] == answers["503"]
    shown = document["components"]["schemas"]["Readiness"]["properties"]
    assert set(shown) == set(anybody.get("/readyz").json())


@pytest.mark.parametrize("away", [False, True])
def test_the_health_checks_answer_as_the_document_says(
    database_down: Callable[[], Any], away: bool
) -> None:
    schema = contract()
    with database_down() if away else nullcontext():
        codes = {
            path: schema[path][method]
            .Case()
            .call_and_validate(excluded_checks=[not_a_server_error])  # 503 is an answer here
            .status_code
            for method, path in HEALTH
        }
    assert codes == {"/healthz": 200, "/readyz": 503 if away else 200}


@pytest.mark.parametrize("kind", ["application/json", "application/vnd.oai.openapi"])
def test_the_document_comes_as_json_and_as_yaml(anybody: APIClient, kind: str) -> None:
    response = anybody.get("/schema", HTTP_ACCEPT=kind)
    assert response.status_code == 200
    assert response["Content-Type"].startswith(kind)


@pytest.mark.parametrize("address", ["/docs", "/redoc"])
def test_the_pages_reference_no_other_host(anybody: APIClient, address: str) -> None:
    text = anybody.get(address).content.decode()
    for script in re.findall(r'<script src="(/[^"]*script=)"', text):
        text += anybody.get(script.replace("&amp;", "&")).content.decode()
    assert "/schema" in text
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?:https?:)?//[^"']*""", text)
    assert "googleapis" not in text
    for file in re.findall(r"""(?:src|href)\s*=\s*["'](/static/[^"']*)""", text):
        assert finders.find(file.removeprefix("/static/")) is not None, file


@cache
def contract() -> schemathesis.BaseSchema:
    load_all_checks()
    return schemathesis.openapi.from_asgi("/schema", application)


def signed_in() -> dict[str, str]:
    factories.put_audio("alice/a.wav")
    return {"Authorization": f"Token {factories.make_token('alice')}"}


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [
        (*operation, mode)
        for operation in sorted(OPERATIONS)
        for mode in GenerationMode
        if mode == GenerationMode.POSITIVE or operation not in NOTHING_TO_GET_WRONG
    ],
)
def test_no_generated_call_breaks_the_contract(
    method: str, path: str, mode: GenerationMode
) -> None:
    operation, headers = contract()[path][method], signed_in()

    @settings(
        max_examples=50,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(mode))
    def call(case: Any) -> None:
        # No schema can say which paths, users and jobs there are: a valid one may be refused.
        case.call_and_validate(headers=headers, excluded_checks=[positive_data_acceptance])

    call()


@pytest.mark.parametrize("state", ["waiting", "running", "completed", "failed", "cancelled"])
def test_the_answers_about_real_jobs_are_as_the_document_says(state: str) -> None:
    schema, headers = contract(), signed_in()
    get_user_model().objects.update(is_staff=True)
    calls = OPERATIONS - {("PUT", "/uploads/{upload_id}")}  # which takes what is signed
    for method, path in sorted(calls, key=lambda call: call[0] == "DELETE"):
        job = job_in(state)
        factories.make_rating(job)  # as of before a retry, where it runs
        factories.make_mistake(job)
        at: dict[str, Any] = {"job_id": str(job.pk), "name": "pocketsphinx"}
        at |= {"user_id": "alice", "file_format": "json", "number": 0, "index": 0} | a_delivery()
        at |= {"upload_id": an_upload()}
        given: dict[str, Any] = {"path_parameters": {n: v for n, v in at.items() if n in path}}
        if (method, path) in BODIES:
            given |= {"body": BODIES[method, path], "media_type": "application/json"}
        if method == "PATCH":
            given["headers"] = {"If-Match": '"0"'}
        case = schema[path][method].Case(**given)
        response = case.call_and_validate(headers=headers)
        assert response.status_code in {200, 201, 202, 204, 409}


def test_what_a_text_finds_is_as_the_document_says() -> None:
    headers, _ = signed_in(), [job_in(state) for state in ("completed", "failed", "waiting")]
    operation = contract()["/transcript/search"]["GET"]
    response = operation.Case(query={"text": "hello -april"}).call_and_validate(headers=headers)
    results: Any = response.json()["results"]
    assert [result["hit"]["spans"] for result in results] == [[[0, 5]]] * 2


@pytest.mark.parametrize(
    ("asked", "status"),
    [({}, 200), ({"Range": "bytes=0-9"}, 206), ({"Range": "bytes=9999999-"}, 416)],
)
def test_the_sound_is_as_the_document_says(asked: dict[str, str], status: int) -> None:
    operation = contract()["/transcript/{job_id}/audio/{index}"]["GET"]
    at = {"job_id": str(job_in("completed").pk), "index": 0}
    response = operation.Case(path_parameters=at).call_and_validate(headers=signed_in() | asked)
    assert response.status_code == status


@pytest.mark.parametrize("file_format", CONTENT_TYPES)
@pytest.mark.parametrize("state", ["completed", "failed"])
def test_every_export_is_as_the_document_says(state: str, file_format: str) -> None:
    operation = contract()["/transcript/{job_id}/export/{file_format}"]["GET"]
    at = {"job_id": str(job_in(state).pk), "file_format": file_format}
    response = operation.Case(path_parameters=at).call_and_validate(headers=signed_in())
    assert response.status_code == 200


def an_upload() -> str:
    """Announced by alice."""
    announced = uploads.announce(
        "alice", name="a.wav", size=9, content_type="audio/wav", kind=UploadKind.CHUNK
    )
    return str(announced.upload_id)


def a_delivery() -> dict[str, str]:
    """Where it is found; its job completed."""
    delivery = factories.make_delivery("https://8.8.8.8/", events=["transcript.completed"])
    return {"webhook_id": str(delivery.endpoint_id), "delivery_id": str(delivery.pk)}


def job_in(state: str) -> Job:
    factories.put_audio("alice/00.wav")
    if state == "completed":
        return factories.make_completed_job("hello", "world")
    if state == "failed":
        return factories.make_failed_job("hello", None)
    job = factories.make_job(3)
    if state == "running":
        factories.complete(factories.claim(job, 0))
        factories.fail(factories.claim(job, 1))
        factories.claim(job, 2)
    elif state == "cancelled":
        actions.cancel(job.pk)
    return job
