"""The pages hold out: late answers, lost connections and sessions, others at the same time."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from playwright.sync_api import Error, Locator, Page, Route, expect

from tests.browser.conftest import OpenContext, assert_accessible, assert_fits, signed_in
from tests.system.conftest import SAMPLES, RunningSystem

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

SOON = 20_000
# Tells on the console of what a socket beside the page's own has heard.
LISTEN = """(path) => new Promise((resolve) => {
    const socket = new WebSocket(new URL(path, location.href.replace(/^http/, "ws")));
    let edits = 0;
    socket.onopen = () => socket.send("{}");
    socket.onmessage = ({ data }) => {
        resolve();
        if (data.includes('"job.edited"') && ++edits === 2) console.log("heard five");
    };
})"""
DRAFTS = "() => Object.keys(sessionStorage).filter((name) => name.startsWith('unsaved:')).length"


@pytest.fixture(scope="module")
def job_id(site: RunningSystem) -> str:
    """A completed transcript of the six samples, to be edited."""
    return completed(site, "Held")


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


# --- the list ---


def test_the_list_keeps_focus_ticks_and_choice_when_it_is_drawn_anew(
    page: Page, site: RunningSystem, job_id: str
) -> None:
    page.goto("/")
    row = page.locator(f"#job-{job_id}")
    row.get_by_role("checkbox").check()
    page.get_by_label("Chosen ones as").select_option("srt")
    link = row.get_by_role("link", name="Held")
    link.focus()
    new = completed(site, "Came meanwhile", 1)
    expect(page.locator(f"#job-{new} .badge")).to_have_text("Completed", timeout=SOON)
    site.client.delete(f"/transcript/{new}")
    other = completed(site, "Came after it", 1)
    expect(page.locator(f"#job-{other} .badge")).to_have_text("Completed", timeout=SOON)
    expect(page.locator(f"#job-{new}")).to_have_count(0)
    expect(link).to_be_focused()
    expect(row.get_by_role("checkbox")).to_be_checked()
    expect(page.get_by_label("Chosen ones as")).to_have_value("srt")
    assert_accessible(page)


def test_a_late_answer_of_another_filter_is_thrown_away(
    page: Page, site: RunningSystem, job_id: str
) -> None:
    page.goto("/")
    expect(page.locator(f"#job-{job_id}")).to_be_visible()
    held: list[Route] = []

    def hold(route: Route) -> None:
        is_filter = "hx-request" in route.request.headers
        route.fallback() if is_filter or held else held.append(route)

    page.route(re.compile(r"/(\?.*)?$"), hold)
    with page.expect_request(lambda request: request.url == f"{site.url}/", timeout=SOON):
        completed(site, "Too late", 1)
    page.get_by_label("Status").select_option("failed")
    expect(page.get_by_text("There is none like that.")).to_be_visible()
    with suppress(Error):  # the page has given it up
        held[0].continue_()
    for _ in range(2):  # longer than the late one takes
        page.evaluate("() => fetch('/?text=slow').then((answer) => answer.text())")
    expect(page.locator(".job")).to_have_count(0)
    expect(page.get_by_text("There is none like that.")).to_be_visible()


def test_who_was_signed_out_is_told_so_and_keeps_the_list(page: Page, job_id: str) -> None:
    page.goto("/")
    expect(page.locator(f"#job-{job_id}")).to_be_visible()
    page.context.clear_cookies(name="sessionid")
    page.get_by_label("Status").select_option("failed")
    expect(page.locator("#notices")).to_contain_text("You are signed out.")
    expect(page.locator(f"#job-{job_id}")).to_be_visible()
    assert_accessible(page)
