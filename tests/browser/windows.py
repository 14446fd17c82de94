"""What tests of the pages do again and again: make a transcript, save as another, break a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from playwright.sync_api import Locator, Page, Route

from tests.system.conftest import RunningSystem

SOON: Final = 20_000  # milliseconds


def completed(site: RunningSystem, title: str, parts: int = 6) -> str:
    job_id = site.submit(site.put_samples("admin", parts), title=title)
    assert site.wait_for_end(job_id)["jobStatus"] == "completed"
    return job_id


def text_of(page: Page, index: int) -> Locator:
    return page.locator(f"#part-{index} .text")


def save_as_another(site: RunningSystem, job_id: str, index: int, text: str) -> None:
    """By the API, at once, over whatever there is."""
    address = f"/transcript/{job_id}/text"
    seen = site.client.get(address).headers["ETag"]
    body = {"chunks": [{"index": index, "text": text}]}
    answer = site.client.patch(address, json=body, headers={"If-Match": seen})
    assert answer.status_code == 200, answer.text


def only(method: str, act: Callable[[Route], Any]) -> Callable[[Route], Any]:
    """What a route does with calls of one method; others go on."""
    return lambda route: act(route) if route.request.method == method else route.fallback()


def unreachable(route: Route) -> None:
    route.abort()
