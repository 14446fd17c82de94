"""The page of a transcript: it comes alive, is listened to, corrected by two, and taken away."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.browser.conftest import OpenContext, assert_accessible, assert_fits, signed_in
from tests.system.conftest import SAMPLES, RunningSystem

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

SOON = 20_000


@pytest.fixture(scope="module")
def job_id(site: RunningSystem) -> str:
    """A completed transcript of the six samples."""
    job_id = site.submit(site.put_samples("admin", 6), title="Six")
    assert site.wait_for_end(job_id)["jobStatus"] == "completed"
    return job_id


def text_of(page: Page, index: int) -> Locator:
    return page.locator(f"#part-{index} .text")


def test_the_text_appears_while_one_looks(page: Page, site: RunningSystem) -> None:
    site.kill("run_worker local", "queues local", number=signal.SIGSTOP)
    job_id = site.submit(site.put_samples("admin", 6), title="Live")
    page.goto(f"/t/{job_id}")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # skips to the content: the address has a fragment now
    expect(page).to_have_url(f"/t/{job_id}#main")
    expect(page.locator("#part-0 .state")).to_have_text("Not heard yet")
    assert_accessible(page)
    assert_fits(page)
    site.kill("run_worker local", "queues local", number=signal.SIGCONT)
    expect(text_of(page, 0)).not_to_be_empty(timeout=60_000)
    expect(page.locator("#status")).to_have_text("Completed", timeout=120_000)
    expect(page.locator(".text")).to_have_count(6)


def test_it_is_listened_to(page: Page, job_id: str) -> None:
    page.goto(f"/t/{job_id}")
    play = page.get_by_role("button", name="Play", exact=True)
    play.click()
    page.wait_for_function("() => CSS.highlights.get('spoken')?.size === 1")
    expect(page.locator("#clock")).to_have_text("0:02", timeout=SOON)
    page.keyboard.press("Alt+KeyK")
    expect(play).to_be_visible()
    text_of(page, 2).click()
    start = float(page.locator("#part-2").get_attribute("data-start") or 0)
    page.wait_for_function(f"() => document.getElementById('seek').value >= {start}")
    page.keyboard.press("Alt+KeyS")
    expect(page.get_by_label("Speed")).to_have_value("1.25")


def test_a_correction_is_saved_survives_and_can_be_taken_back(page: Page, job_id: str) -> None:
    page.goto(f"/t/{job_id}")
    before = text_of(page, 0).inner_text()
    text_of(page, 0).click()
    page.keyboard.press("End")
    page.keyboard.type(" and amen ")
    expect(page.locator("#saved")).to_have_text("· Saved", timeout=SOON)
    page.keyboard.type("again")
    expect(page.locator("#saved")).to_have_text("· Saved", timeout=SOON)
    page.reload()
    expect(text_of(page, 0)).to_have_text(f"{before} and amen again")
    assert_accessible(page)
    page.locator("#versions summary").click()
    page.get_by_role("listitem").filter(has_text="As recognised").get_by_role("button").click()
    expect(text_of(page, 0)).to_have_text(before)


def test_two_windows_overwrite_nothing(
    page: Page, context_of: OpenContext, site: RunningSystem, job_id: str
) -> None:
    other = signed_in(context_of(), site)
    page.goto(f"/t/{job_id}")
    other.goto(f"/t/{job_id}")
    expect(other.locator(".text[contenteditable]")).to_have_count(6)
    # Another part: both stand, and each window shows both.
    text_of(page, 1).fill("one by me")
    text_of(other, 2).fill("two by them")
    expect(text_of(page, 2)).to_have_text("two by them", timeout=SOON)
    expect(text_of(other, 1)).to_have_text("one by me", timeout=SOON)
    # The same part: who comes second is asked.
    other.context.set_offline(True)
    text_of(other, 3).fill("three by them")
    text_of(page, 3).fill("three by me")
    expect(page.locator("#saved")).to_have_text("· Saved", timeout=SOON)
    other.context.set_offline(False)
    dialog = other.get_by_role("dialog")
    expect(dialog).to_be_visible(timeout=SOON)
    expect(dialog.locator(".theirs")).to_have_text("three by me")
    expect(dialog.locator(".mine")).to_have_text("three by them")
    assert_accessible(other)
    assert_fits(other)
    # Closed without an answer it overwrites nothing, and comes again.
    for _ in range(2):
        other.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        expect(other.locator("#saved")).to_contain_text("Not saved")
        expect(text_of(other, 3)).to_have_text("three by them")
        assert site.read(job_id)["transcription"].count("three by me") == 1
        text_of(other, 3).press("End")
        other.keyboard.type("!")
        expect(dialog).to_be_visible(timeout=SOON)
        text_of(other, 3).evaluate("element => { element.textContent = 'three by them'; }")
    dialog.get_by_role("textbox").fill("three by us")
    dialog.get_by_role("button", name="Save this").click()
    expect(text_of(page, 3)).to_have_text("three by us", timeout=SOON)


def test_what_another_saves_while_one_types_is_not_written_over(
    page: Page, context_of: OpenContext, site: RunningSystem, job_id: str
) -> None:
    """A save must not name a newer revision that the page has heard of and the person not seen."""
    other = signed_in(context_of(), site)
    for window in (page, other):
        window.goto(f"/t/{job_id}")
        expect(window.locator(".text[contenteditable]")).to_have_count(6)
    saves: list[Route] = []
    page.route("**/text", lambda route: saves.append(route) if is_save(route) else route.fallback())
    text_of(page, 5).fill("five by me")
    expect(page.locator("#saved")).to_have_text("· Saving …")
    text_of(other, 5).fill("five by them")
    expect(other.locator("#saved")).to_have_text("· Saved", timeout=SOON)
    text_of(other, 4).fill("told after it")
    expect(other.locator("#saved")).to_have_text("· Saved", timeout=SOON)
    saves.pop().abort()
    page.unroute("**/text")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible(timeout=SOON)
    expect(dialog.locator(".theirs")).to_have_text("five by them")
    dialog.get_by_role("button", name="Keep yours").click()
    expect(text_of(other, 5)).to_have_text("five by me", timeout=SOON)
    expect(text_of(page, 4)).to_have_text("told after it")


def is_save(route: Route) -> bool:
    return route.request.method == "PATCH"


def test_find_and_replace(page: Page, job_id: str, site: RunningSystem) -> None:
    page.goto(f"/t/{job_id}")
    text_of(page, 4).fill("the cat and the dog")
    expect(page.locator("#saved")).to_have_text("· Saved", timeout=SOON)
    page.locator("#find summary").click()
    page.get_by_label("Find").fill("cat")
    expect(page.locator("#found")).to_have_text("1 found")
    page.get_by_label("Replace with").fill("horse")
    page.get_by_role("button", name="Replace all").click()
    expect(text_of(page, 4)).to_have_text("the horse and the dog")
    expect(page.locator("#saved")).to_have_text("· Saved", timeout=SOON)
    assert "the horse and the dog" in site.read(job_id)["transcription"]


def test_the_document_is_taken_away(page: Page, job_id: str) -> None:
    page.goto(f"/t/{job_id}")
    page.get_by_text("Export", exact=True).click()
    with page.expect_download() as download:
        page.get_by_role("link", name="SRT").click()
    assert download.value.suggested_filename == "Six.srt"
    assert "-->" in Path(download.value.path()).read_text()


def test_a_correction_survives_the_retry_of_a_failed_part(page: Page, site: RunningSystem) -> None:
    paths = site.put_samples("admin", 3)
    broken = site.audio_root / paths[1]
    broken.write_bytes(b"no sound at all")
    job_id = site.submit(paths, title="Broken")
    assert site.wait_for_end(job_id)["jobStatus"] == "failed"
    page.goto(f"/t/{job_id}")
    expect(page.locator("#part-1 .state")).to_contain_text("This part is missing")
    assert_accessible(page)
    text_of(page, 0).fill("what was really said")
    expect(page.locator("#saved")).to_have_text("· Saved", timeout=SOON)
    broken.write_bytes(SAMPLES[1].read_bytes())
    page.get_by_role("button", name="Retry what is missing").click()
    expect(page.locator("#status")).to_have_text("Completed", timeout=120_000)
    expect(text_of(page, 0)).to_have_text("what was really said")
    expect(text_of(page, 1)).not_to_be_empty()


def test_by_keyboard_alone(page: Page, job_id: str) -> None:
    page.goto("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    link = page.get_by_role("link", name="Six", exact=True)
    for _ in range(60):
        page.keyboard.press("Tab")
        if link.evaluate("link => link === document.activeElement"):
            break
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(f"/t/{job_id}$"))
    expect(page.locator(".text[contenteditable]")).to_have_count(6)
    for _ in range(60):
        page.keyboard.press("Tab")
        if text_of(page, 5).evaluate("text => text === document.activeElement"):
            break
    page.keyboard.press("Control+End")
    page.keyboard.type(" by keys")
    expect(page.locator("#saved")).to_have_text("· Saved", timeout=SOON)


def test_another_ones_or_no_transcript_is_a_page_that_says_so(page: Page) -> None:
    answer = page.goto("/t/0197a000-0000-7000-8000-000000000000")
    assert answer is not None
    assert answer.status == 404
    expect(page.get_by_role("heading", name="There is nothing here.")).to_be_visible()
    assert_accessible(page)
