"""Editing over HTTP: who may, by which revision, and how it is refused."""

from __future__ import annotations

import io
import json
import zipfile
from functools import partial
from typing import Any

import pytest
from rest_framework.test import APIClient

from jobs import actions, words
from jobs.api import editing as api
from jobs.models import Job, Revision
from tests import factories
from tests.helpers import client_of, together

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("redis_is_empty")]


@pytest.fixture
def job() -> Job:
    return factories.make_completed_job("hello word", "good by")


def at(job: Job, rest: str = "text") -> str:
    return f"/transcript/{job.pk}/{rest}"


def patch(client: APIClient, job: Job, seen: str | None, body: Any = None, **texts: str) -> Any:
    if body is None:
        body = {"chunks": [{"index": int(i[1:]), "text": text} for i, text in texts.items()]}
    headers = {} if seen is None else {"If-Match": seen}
    return client.patch(at(job), body, headers=headers)


def error(answer: Any) -> tuple[int, str, str | None]:
    body = answer.json()
    assert set(body) == {"type", "errors"}
    return answer.status_code, body["errors"][0]["code"], body["errors"][0]["attr"]


def test_a_text_is_read_and_saved_under_its_revision(alice: APIClient, job: Job) -> None:
    read = alice.get(at(job))
    assert (read.status_code, read["ETag"], read.json()["revision"]) == (200, '"0"', 0)
    saved = patch(alice, job, read["ETag"], _0="hello  world\n")
    assert (saved.status_code, saved["ETag"]) == (200, '"1"')
    assert saved.json() == alice.get(at(job)).json()
    assert saved.json()["chunks"][0] == {
        "index": 0,
        "text": "hello world",
        "recognisedText": "hello word",
        "edited": True,
    }
    shown = alice.get(f"/transcript/{job.pk}").json()
    assert (shown["transcription"], shown["revision"]) == ("hello world good by", 1)
    assert [chunk["edited"] for chunk in shown["chunks"]] == [True, False]
    assert alice.get("/transcript/search").json()["results"] == [shown]


def test_another_revision_is_refused_and_nothing_is_written(alice: APIClient, job: Job) -> None:
    patch(alice, job, '"0"', _0="mine")
    assert error(patch(alice, job, '"0"', _1="late")) == (412, "revision_conflict", None)
    assert error(patch(alice, job, '"2"', _1="early")) == (412, "revision_conflict", None)
    refused = alice.post(at(job, "revisions/0/restore"), headers={"If-Match": '"0"'})
    assert error(refused) == (412, "revision_conflict", None)
    assert [chunk["text"] for chunk in alice.get(at(job)).json()["chunks"]] == ["mine", "good by"]


@pytest.mark.parametrize("given", [None, "*", "1", '"x"', '"0", "1"', ""])
def test_who_does_not_name_what_they_have_seen_is_refused(
    alice: APIClient, job: Job, given: str | None
) -> None:
    assert error(patch(alice, job, given, _0="x")) == (428, "precondition_required", None)
    assert not Revision.objects.exists()


@pytest.mark.parametrize("given", ['W/"0"', '"0-gzip"', ' "0" '])
def test_a_tag_that_a_proxy_has_marked_is_known_again(
    alice: APIClient, job: Job, given: str
) -> None:
    assert patch(alice, job, given, _0="x").status_code == 200


def test_of_two_windows_that_save_at_once_one_is_told(alice: APIClient) -> None:
    token = factories.make_token("alice")
    for _ in range(3):
        job = factories.make_completed_job("a", "b")
        answers = together(
            partial(patch, client_of(token), job, '"0"', _0="one"),
            partial(patch, client_of(token), job, '"0"', _0="two"),
        )
        assert sorted(answer.status_code for answer in answers) == [200, 412]
        won = next(answer for answer in answers if answer.status_code == 200)
        assert alice.get(at(job)).json() == won.json()
        assert Revision.objects.filter(job=job).count() == 1


@pytest.mark.parametrize(
    ("body", "attr"),
    [
        ({"chunks": [{"index": 1, "text": "x"}, {"index": 2, "text": "x"}]}, "chunks.1.index"),
        ({"chunks": [{"index": -1, "text": "x"}]}, "chunks.0.index"),
        ({"chunks": [{"index": "a", "text": "x"}]}, "chunks.0.index"),
        ({"chunks": [{"index": 0}]}, "chunks.0.text"),
        ({"chunks": [{"index": 0, "text": 7}]}, "chunks.0.text"),
        ({"chunks": [{"index": 0, "text": "x\0"}]}, "chunks.0.text"),
        ({"chunks": [{"index": 0, "text": "x\u009b"}]}, "chunks.0.text"),
        ({"chunks": [{"index": 0, "text": "x" * 100_001}]}, "chunks.0.text"),
        ({"chunks": [{"index": 0, "text": "x", "words": []}]}, "chunks.0.words"),
        ({"chunks": [{"index": 0, "text": "x"}] * 2}, "chunks"),
        ({"chunks": {"0": "x"}}, "chunks"),
        ({"texts": []}, "texts"),
        ({"speakers": {"0": "Anna"}}, "speakers.0"),
        ({"speakers": {"0": ""}}, "speakers.0"),
        ({"speakers": {"0": "x" * 101}}, "speakers.0"),
        ({"speakers": ["Anna"]}, "speakers"),
    ],
)
def test_what_is_wrong_is_named(alice: APIClient, job: Job, body: Any, attr: str) -> None:
    status, _, named = error(patch(alice, job, '"0"', body))
    assert (status, named) == (400, attr)
    assert not Revision.objects.exists()


def test_half_a_character_is_refused(alice: APIClient, job: Job) -> None:
    body = json.dumps({"chunks": [{"index": 0, "text": "\ud83d"}]})
    kind = "application/json"
    answer = alice.generic("PATCH", at(job), body, content_type=kind, headers={"If-Match": '"0"'})
    assert error(answer)[::2] == (400, "chunks.0.text")


def test_only_a_job_that_has_ended_is_edited(alice: APIClient) -> None:
    job = factories.make_job(1)
    calls = [alice.get(at(job)), patch(alice, job, '"0"', _0="x"), alice.get(at(job, "words"))]
    calls.append(alice.post(at(job, "revisions/0/restore")))
    assert {error(call) for call in calls} == {(409, "not_completed", None)}
    assert alice.get(at(job, "revisions")).json()["results"] == []


def test_anothers_is_not_there_and_what_was_erased_is_gone(
    alice: APIClient, bob: APIClient, job: Job
) -> None:
    patch(alice, job, '"0"', _0="x")
    for client, expected in ((bob, (404, "not_found", None)), (alice, (410, "erased", None))):
        if client is alice:
            actions.delete(job.pk)
        calls = [client.get(at(job, rest)) for rest in ("text", "revisions", "words")]
        calls += [patch(client, job, '"1"', _0="x"), client.post(at(job, "revisions/1/restore"))]
        assert {error(call) for call in calls} == {expected}


def test_revisions_are_listed_by_pages_and_brought_back(
    alice: APIClient, service: APIClient, job: Job
) -> None:
    patch(alice, job, '"0"', _0="one")
    patch(service, job, '"1"', _0="two", _1="three")
    patch(alice, job, '"2"', _1="four")
    listed = alice.get(at(job, "revisions?limit=2")).json()
    assert [(r["revision"], r["userId"], r["chunks"]) for r in listed["results"]] == [
        (3, "alice", 1),
        (2, "robot", 2),
    ]
    rest = alice.get(listed["next"]).json()
    assert [r["revision"] for r in rest["results"]] == [1]
    assert rest["next"] is None
    assert error(alice.get(at(job, "revisions?cursor=cD1h")))[0] == 400

    answer = alice.post(at(job, "revisions/2/restore"), headers={"If-Match": '"3"'})
    assert (answer.status_code, answer["ETag"]) == (200, '"4"')
    assert [chunk["text"] for chunk in answer.json()["chunks"]] == ["two", "three"]
    assert alice.get(at(job, "revisions")).json()["results"][0]["restores"] == 2
    for unknown in ("9", "9" * 30):
        refused = alice.post(at(job, f"revisions/{unknown}/restore"))
        assert error(refused) == (404, "not_found", None)


def test_words_are_given_for_a_span(alice: APIClient, job: Job) -> None:
    patch(alice, job, '"0"', _0="hello world")
    answer = alice.get(at(job, "words?to=2")).json()
    assert answer["revision"] == 1
    assert answer["words"][0] == {
        "text": "hello",
        "start": 0.0,
        "end": 0.5,
        "confidence": 0.5,
        "speaker": None,
        "index": 0,
        "edited": False,
    }
    assert (answer["words"][1]["text"], answer["words"][1]["edited"]) == ("world", True)
    assert alice.get(at(job, "words?from=100")).json()["words"] == []


@pytest.mark.parametrize("query", ["from=-1", "to=x", "from=nan", "to=inf"])
def test_a_span_is_of_seconds(alice: APIClient, job: Job, query: str) -> None:
    assert error(alice.get(at(job, f"words?{query}")))[::2] == (
        400,
        query.split("=", maxsplit=1)[0],
    )


def test_too_many_words_are_to_be_asked_for_in_parts(
    alice: APIClient, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "MOST_WORDS", 2)
    assert error(alice.get(at(job, "words"))) == (400, "too_many_words", "to")
    assert alice.get(at(job, "words?to=0.5")).status_code == 200


@pytest.mark.parametrize("file_format", ["txt", "srt", "vtt", "json", "docx"])
def test_exports_are_of_what_was_edited(alice: APIClient, job: Job, file_format: str) -> None:
    patch(alice, job, '"0"', _0="hello world")
    content = alice.get(at(job, f"export/{file_format}")).content
    if file_format == "docx":
        content = zipfile.ZipFile(io.BytesIO(content)).read("word/document.xml")
    assert b"world" in content
    assert b"hello word " not in content
    if file_format == "json":
        exported = json.loads(content)
        assert [chunk["edited"] for chunk in exported["chunks"]] == [True, False]
        assert [word.get("edited") for word in exported["segments"][0]["words"]] == [None, True]


def test_the_longest_text_that_is_taken_is_kept(alice: APIClient, job: Job) -> None:
    text = "é " * (api.TEXT_LENGTH // 2)
    assert patch(alice, job, '"0"', _0=text).json()["chunks"][0]["text"] == text.strip()
