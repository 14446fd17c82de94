"""`make screenshots`: every page as a picture in docs/screenshots. No test, run by name only."""

from __future__ import annotations

from typing import Final

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import PHONE
from tests.system.conftest import SAMPLES, RunningSystem
from transcription_site.env import BASE_DIR

FOLDER: Final = BASE_DIR / "docs" / "screenshots"

pytestmark = pytest.mark.timeout(400)


def test_every_page_is_photographed(page: Page, site: RunningSystem) -> None:
    FOLDER.mkdir(exist_ok=True)
    titles = ["A walk by the harbour", "Tuesday's interview", "Notes on tea"]
    jobs = [site.submit(site.put_samples("admin", 6), title=title) for title in titles]
    for job_id in jobs:
        assert site.wait_for_end(job_id)["jobStatus"] == "completed"
    page.goto("/new")
    page.set_input_files("#files", [str(path) for path in SAMPLES])
    page.get_by_label("Title").fill("A walk by the harbour")
    keep(page, "new")
    page.goto("/")
    keep(page, "list")
    page.get_by_label("Words in the text").fill("the")
    expect(page.locator("mark").first).to_be_visible()
    keep(page, "search")
    page.goto(f"/t/{jobs[0]}")
    page.locator("#part-1 .text").click()
    page.get_by_role("button", name="Play", exact=True).click()
    page.wait_for_function("() => CSS.highlights.get('spoken')?.size === 1")
    page.keyboard.press("Alt+KeyK")
    keep(page, "transcript")
    page.emulate_media(color_scheme="dark")
    keep(page, "transcript-dark")
    page.set_viewport_size(PHONE)
    keep(page, "transcript-phone")
    page.set_viewport_size({"width": 1280, "height": 900})
    page.emulate_media(color_scheme="light")
    for name in ("usage", "tokens", "webhooks"):
        page.goto(f"/account/{name}")
        keep(page, name)
    page.goto("/admin/")
    keep(page, "admin")


def keep(page: Page, name: str) -> None:
    page.wait_for_load_state("networkidle")
    page.screenshot(path=FOLDER / f"{name}.png")
