"""GET /transcript/{jobId}/export/{format}."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest
from rest_framework.test import APIClient

from asr.errors import ChildCrashed
from jobs import actions, engines, exports
from jobs.exports import CONTENT_TYPES
from tests import factories
from tests.helpers import client_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis_is_empty")]


def address(job: Any, file_format: str) -> str:
    return f"/transcript/{getattr(job, 'pk', job)}/export/{file_format}"


def refused(response: Any, status: int, code: str) -> None:
    assert (response.status_code, response["Content-Type"]) == (status, "application/json")
    assert response.json()["errors"][0]["code"] == code
    assert "Content-Disposition" not in response


@pytest.mark.parametrize("file_format", CONTENT_TYPES)
@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/html", "image/png"])
def test_the_file_comes_whatever_is_accepted(
    alice: APIClient, file_format: str, accept: str
) -> None:
    job = factories.make_completed_job("hello", "world", title="Monday")
    response = alice.get(address(job, file_format), HTTP_ACCEPT=accept)
    assert response.status_code == 200
    assert response["Content-Type"] == CONTENT_TYPES[file_format]
    assert response["Content-Disposition"] == f'attachment; filename="Monday.{file_format}"'
    assert response.content == exports.export(job.pk, file_format).content


def test_a_name_beyond_ascii_is_encoded_and_none_can_break_the_header(alice: APIClient) -> None:
    job = factories.make_completed_job("hello", title='Größe "x"\r\nSet-Cookie: a=b')
    response = alice.get(address(job, "txt"))
    assert response["Content-Disposition"] == (
        'attachment; filename="Groe x Set-Cookie a=b.txt"; '
        "filename*=utf-8''Gr%C3%B6%C3%9Fe%20x%20Set-Cookie%20a%3Db.txt"
    )
    assert "Set-Cookie" not in response


def test_a_failed_job_says_what_is_missing(alice: APIClient) -> None:
    job = factories.make_failed_job("hello", None)
    text = alice.get(address(job, "txt")).content.decode()
    assert text == "hello\n\n[missing: part 2, length unknown, invalid_audio]\n"
    body = json.loads(alice.get(address(job, "json")).content)
    assert (body["jobStatus"], body["transcription"]) == ("failed", "hello")
    assert [gap["code"] for gap in body["gaps"]] == ["invalid_audio"]


@pytest.mark.parametrize("file_format", CONTENT_TYPES)
def test_a_job_that_runs_or_was_cancelled_is_not_completed(
    alice: APIClient, file_format: str
) -> None:
    running, cancelled = factories.make_job(), factories.make_job()
    actions.cancel(cancelled.pk)
    for job in (running, cancelled):
        refused(alice.get(address(job, file_format)), 409, "not_completed")


@pytest.mark.parametrize("file_format", ["doc", "PDF", "txt.gz", "json ", "0"])
def test_an_unknown_format_is_not_found(alice: APIClient, file_format: str) -> None:
    response = alice.get(address(factories.make_completed_job("a"), file_format))
    refused(response, 404, "not_found")
    detail = response.json()["errors"][0]["detail"]
    assert "txt, srt, vtt, json, docx, pdf" in detail


def test_only_who_may_read_the_job_may_export_it(
    alice: APIClient, bob: APIClient, service: APIClient, anybody: APIClient
) -> None:
    job = factories.make_completed_job("hello")
    assert alice.get(address(job, "txt")).content == b"hello\n"
    assert service.get(address(job, "txt")).content == b"hello\n"
    refused(bob.get(address(job, "txt")), 404, "not_found")
    refused(bob.get(address(job, "doc")), 404, "not_found")
    refused(bob.get(address(factories.make_job(), "txt")), 404, "not_found")
    refused(anybody.get(address(job, "txt")), 401, "not_authenticated")
    refused(alice.get(address(uuid4(), "txt")), 404, "not_found")


def test_an_erased_job_is_gone_for_those_who_could_have_read_it(
    alice: APIClient, bob: APIClient
) -> None:
    job = factories.make_completed_job("hello")
    actions.delete(job.pk)
    refused(alice.get(address(job, "pdf")), 410, "erased")
    refused(bob.get(address(job, "pdf")), 404, "not_found")


def test_other_methods_are_not_allowed(alice: APIClient) -> None:
    job = factories.make_completed_job("hello")
    for method in (alice.post, alice.put, alice.delete):
        refused(method(address(job, "txt")), 405, "method_not_allowed")
    assert alice.get(address(job, "txt")).status_code == 200


def test_a_file_that_no_child_could_make_is_tried_again_later(
    alice: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: Any, **__: Any) -> None:
        raise ChildCrashed("the process ended by signal 9 at /some/path")

    monkeypatch.setattr(engines.child_pool(), "run", crash)
    response = alice.get(address(factories.make_completed_job("hello"), "pdf"))
    refused(response, 503, "export_unavailable")
    assert int(response["Retry-After"]) > 0
    assert "/some/path" not in response.content.decode()


def test_a_signed_in_browser_gets_the_file_and_finds_it_in_the_admin() -> None:
    client = client_of()
    client.force_login(factories.make_user("root", is_staff=True, is_superuser=True))
    job = factories.make_completed_job("hello", user_id="somebody")
    page = client.get(f"/admin/jobs/job/{job.pk}/change/").content.decode()
    for file_format in CONTENT_TYPES:
        assert f'href="{address(job, file_format)}"' in page
    response = client.get(address(job, "pdf"), HTTP_ACCEPT="text/html,*/*;q=0.8")
    assert (response.status_code, response["Content-Type"]) == (200, "application/pdf")
    running = factories.make_job()
    page = client.get(f"/admin/jobs/job/{running.pk}/change/").content.decode()
    assert "/export/" not in page


def test_an_export_costs_few_statements_however_long_the_job(
    alice: APIClient, django_assert_num_queries: Any
) -> None:
    for texts in (["a"], ["word"] * 24):
        job = factories.make_completed_job(*texts)
        with django_assert_num_queries(4):
            assert alice.get(address(job, "srt")).status_code == 200
