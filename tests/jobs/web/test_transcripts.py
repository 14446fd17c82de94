"""Several transcripts in one file, and what a person is told where there is none."""

from __future__ import annotations

import io
import tempfile
import zipfile
from typing import IO, Any
from uuid import uuid4

import pytest
from rest_framework.test import APIClient

from jobs import exports
from jobs.web import transcripts
from tests import factories
from tests.helpers import client_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis_is_empty")]


@pytest.fixture
def reader(db: None) -> APIClient:
    client = client_of()
    client.force_login(factories.make_user("alice"))
    return client


@pytest.fixture
def archives(monkeypatch: pytest.MonkeyPatch) -> list[IO[bytes]]:
    """The files that archives are made in."""
    made: list[IO[bytes]] = []

    def make() -> IO[bytes]:
        made.append(tempfile.TemporaryFile())  # noqa: SIM115  (as the page's own)
        return made[-1]

    monkeypatch.setattr(transcripts, "TemporaryFile", make)
    return made


def test_transcripts_of_the_same_title_are_packed_side_by_side(
    reader: APIClient, archives: list[IO[bytes]]
) -> None:
    jobs = [factories.make_completed_job(text, title="Same") for text in ("one", "two", "three")]
    query = "&".join(f"job={job.pk}" for job in [*jobs, factories.make_job()])
    answer: Any = reader.get(f"/download?format=txt&{query}")
    content = b"".join(answer.streaming_content)
    assert int(answer["Content-Length"]) == len(content), "what breaks off would look whole"
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        assert packed.testzip() is None
        assert len(set(packed.namelist())) == 3
        assert sorted(packed.read(name).strip() for name in packed.namelist()) == [
            *(b"one", b"three", b"two")
        ]
    answer.close()
    assert [archive.closed for archive in archives] == [True]


@pytest.mark.parametrize("query", ["", "?format=txt", "?format=exe&job={job}", "?format=txt&job=x"])
def test_where_there_is_nothing_a_person_gets_a_page(reader: APIClient, query: str) -> None:
    job = factories.make_completed_job("one")
    answer = reader.get(f"/download{query.format(job=job.pk)}", HTTP_ACCEPT="text/html")
    assert (answer.status_code, answer["Content-Type"]) == (404, "text/html; charset=utf-8")
    assert b"There is nothing here." in answer.content


def test_jobs_that_run_or_are_anothers_are_no_file(
    reader: APIClient, archives: list[IO[bytes]]
) -> None:
    running, others = factories.make_job(), factories.make_completed_job("x", user_id="bob")
    for job_id in (running.pk, others.pk, uuid4()):
        assert reader.get(f"/download?format=txt&job={job_id}").status_code == 404
    assert [archive.closed for archive in archives] == [True]


def test_an_archive_that_cannot_be_made_is_closed_and_gives_no_file(
    reader: APIClient, archives: list[IO[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "RENDER_SECONDS", 0.0)
    job = factories.make_completed_job("one")
    for _ in range(3):  # each gives its place back
        answer = reader.get(f"/download?format=pdf&job={job.pk}")
        assert (answer.status_code, answer["Retry-After"]) == (503, "10")
        assert "Content-Disposition" not in answer
    assert [archive.closed for archive in archives] == [True] * 3


def test_an_archive_that_breaks_half_way_is_closed_and_gives_no_file(
    reader: APIClient, archives: list[IO[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [factories.make_completed_job(text) for text in ("one", "two")]
    made: list[Any] = []

    def fails_then(*args: Any) -> Any:
        if made:
            raise OSError("broken")
        made.append(exports.export(*args))
        return made[0]

    monkeypatch.setattr(transcripts, "export", fails_then)
    answer = reader.get("/download?format=txt&" + "&".join(f"job={job.pk}" for job in jobs))
    assert answer.status_code == 500
    assert "Content-Disposition" not in answer
    assert [archive.closed for archive in archives] == [True]
