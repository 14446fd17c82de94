"""What callers write is bounded, and shown as words; pages need no script of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from rest_framework.test import APIClient

from jobs.models import Job, MistakeReport, Rating
from tests import factories
from tests.helpers import client_of

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>'\"&{{7919*3}}"
CODE = re.compile(r"<script>alert|<img src=x|onerror=alert\(2\)>|23757")


@pytest.fixture
def staff(db: None) -> APIClient:
    client = client_of()
    client.force_login(factories.make_user("root", is_staff=True, is_superuser=True))
    return client


@pytest.fixture
def evil_job(db: None) -> Job:
    """One whose every word was chosen by somebody who means no good."""
    job = factories.make_failed_job(EVIL, None)
    texts = {"title": EVIL, "vocabulary": [EVIL], "language": EVIL[:35], "delay_reason": EVIL[:40]}
    Job.objects.filter(pk=job.pk).update(engine=EVIL[:40], **texts)
    job.chunks.update(audio_path=f"alice/{EVIL}", error_detail=EVIL, model=EVIL, engine=EVIL[:40])
    said: dict[str, Any] = {"comment": EVIL, "model": EVIL, "engine": EVIL[:40]}
    factories.make_rating(job, **said)
    factories.make_mistake(job, heard=EVIL, meant=EVIL, **said)
    job.refresh_from_db()
    return job


def pages(job: Job) -> list[str]:
    chunk = job.chunks.order_by("index").last()
    assert chunk is not None
    return [
        "/admin/",
        "/admin/login/?next=/admin/<script>alert(1)</script>",
        "/admin/jobs/job/",
        "/admin/jobs/job/?q=<script>alert(1)</script>",
        f"/admin/jobs/job/{job.pk}/change/",
        f"/admin/jobs/job/{job.pk}/delete/",
        "/admin/jobs/chunk/",
        f"/admin/jobs/chunk/{chunk.pk}/change/",
        "/admin/jobs/deadletter/",
        f"/admin/jobs/deadletter/{chunk.pk}/change/",
        "/admin/jobs/enginecall/",
        "/admin/jobs/rating/",
        f"/admin/jobs/rating/{Rating.objects.get().pk}/change/",
        "/admin/jobs/mistakereport/",
        f"/admin/jobs/mistakereport/{MistakeReport.objects.get().pk}/change/",
        "/admin/jobs/authtoken/",
        "/admin/jobs/workerprocess/",
        "/admin/auth/user/",
        "/api-auth/login/?next=<script>alert(1)</script>",
        "/docs",
        "/docs?lang=<script>alert(1)</script>",
        "/redoc",
        "/engines",
        "/transcribe",
        f"/transcript/{job.pk}",
        "/transcript/search",
        "/transcript/search?cursor=<script>alert(1)</script>",
        f"/transcript/{job.pk}/cancel",
        f"/transcript/{job.pk}/rating",
        f"/transcript/{job.pk}/mistakes",
        f"/t/{job.pk}",
        "/users/<script>alert(1)<script>/data",
    ]


def inline_scripts(page: str) -> Iterator[str]:
    """What a browser would run of the page itself: scripts without an address, and attributes."""
    for attributes, text in re.findall(r"<script\b([^>]*)>(.*?)</script>", page, re.DOTALL):
        is_data = re.search(r"""type=["']application/json""", attributes)
        if "src=" not in attributes and not is_data:
            yield text
    without_values = re.sub(r"""=("[^"]*"|'[^']*')""", "=", page)  # where words stand as words
    yield from re.findall(r"<[a-z][^>]*\son[a-z]+\s*=[^>]*>", without_values)
    yield from re.findall(r"""(?:href|src|action)\s*=\s*["']?\s*javascript:[^"']*""", page)


@pytest.mark.usefixtures("redis_is_empty")
def test_no_page_shows_as_code_what_a_caller_wrote_nor_needs_inline_scripts(
    staff: APIClient, evil_job: Job
) -> None:
    seen = 0
    for address in pages(evil_job):
        answer = staff.get(address, HTTP_ACCEPT="text/html")
        page = answer.content.decode()
        assert answer["Content-Type"].startswith("text/html"), (address, answer["Content-Type"])
        assert list(inline_scripts(page)) == [], address
        assert not CODE.search(page), address
        seen += "&lt;script&gt;alert(1)" in page or "&lt;script&gt;alert" in page
    assert seen > 13, "the words are nowhere to be seen: nothing was tested"


@pytest.mark.django_db
def test_who_is_signed_in_can_log_out_on_the_api_s_pages() -> None:
    client = client_of(enforce_csrf_checks=True)
    client.force_login(factories.make_user("alice"))
    page = client.get("/engines", HTTP_ACCEPT="text/html").content.decode()
    (form,) = re.findall(r'<form[^>]*action="/api-auth/logout/".*?</form>', page, re.DOTALL)
    assert "Log out alice" in form
    fields = dict(re.findall(r'name="(\w+)" value="([^"]+)"', form))
    answer = client.post("/api-auth/logout/", fields, format="multipart")
    assert (answer.status_code, answer["Location"]) == (302, "/engines")
    assert client.get("/engines").status_code == 401


@pytest.mark.usefixtures("redis_is_empty")
def test_what_is_exported_is_no_page(staff: APIClient, evil_job: Job) -> None:
    for file_format in ("txt", "srt", "vtt", "json", "docx", "pdf"):
        answer = staff.get(f"/transcript/{evil_job.pk}/export/{file_format}")
        assert answer.status_code == 200
        assert "html" not in answer["Content-Type"]
        assert answer["Content-Disposition"].startswith("attachment")
        assert "<" not in answer["Content-Disposition"]
        assert answer["X-Content-Type-Options"] == "nosniff"


@pytest.mark.usefixtures("redis_is_empty")
@pytest.mark.parametrize(
    "field",
    [
        {"title": "x" * 201},
        {"engine": "x" * 41},
        {"language": "en-" + "x" * 40},
        {"userId": "x" * 151},
        {"vocabulary": ["x" * 101]},
        {"vocabulary": ["x"] * 101},
        {"audioChunkPaths": ["alice/" + "x" * 1024]},
        {"x" * 10_000: 1},
    ],
    ids=lambda field: next(iter(field))[:20],
)
def test_what_a_caller_says_of_a_job_is_bounded(db: None, field: dict[str, Any]) -> None:
    factories.put_audio("alice/a.wav")
    alice = client_of(factories.make_token("alice"))
    answer = alice.post("/transcribe", {"audioChunkPaths": ["alice/a.wav"], **field})
    assert answer.status_code == 400, answer.content
    assert not Job.objects.exists()
