"""What people say of a transcript on its page: stars, and mistakes where they are."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import assert_accessible, assert_fits
from tests.helpers import wait_until
from tests.system.conftest import RunningSystem

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

SOON = 20_000
MISTAKE = "Report a mistake"


@pytest.fixture(scope="module")
def job_id(site: RunningSystem) -> str:
    job_id = site.submit(site.put_samples("admin", 3), title="Said of it")
    assert site.wait_for_end(job_id)["jobStatus"] == "completed"
    return job_id


@pytest.fixture
def opened(page: Page, job_id: str) -> Page:
    page.goto(f"/t/{job_id}")
    expect(page.locator(".text[contenteditable]")).to_have_count(3)
    return page


def read(site: RunningSystem, job_id: str, what: str) -> Any:
    return site.client.get(f"/transcript/{job_id}/{what}").json()


def select_word(page: Page, index: int, number: int) -> str:
    """Select a word of a part as by a mouse, the caret being in the part; the word."""
    text = page.locator(f"#part-{index} .text")
    text.focus()
    word: str = text.evaluate(
        """(element, number) => {
            const word = [...element.textContent.matchAll(/\\S+/g)][number];
            const node = element.firstChild;
            getSelection().setBaseAndExtent(node, word.index, node, word.index + word[0].length);
            return word[0];
        }""",
        number,
    )
    return word


def dialog_of(page: Page) -> Locator:
    return page.get_by_role("dialog", name=MISTAKE)


def test_a_transcript_is_rated_by_mouse_and_by_keys(
    opened: Page, site: RunningSystem, job_id: str
) -> None:
    page, said = opened, opened.locator("#rating .said")
    comment = page.get_by_label("What was good or bad about it?")
    expect(comment).to_be_hidden()
    page.locator(".star").nth(1).click()
    expect(said).to_have_text("Saved. Thank you.", timeout=SOON)
    assert read(site, job_id, "rating")["stars"] == 2
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="4 stars", exact=True)).to_be_checked()
    page.keyboard.press("Tab")
    expect(comment).to_be_focused()
    page.keyboard.type("nearly all of it")
    page.keyboard.press("Tab")
    wait_until(lambda: read(site, job_id, "rating")["comment"] == "nearly all of it")
    assert_accessible(page)
    assert_fits(page)
    page.reload()
    expect(page.get_by_role("radio", name="4 stars", exact=True)).to_be_checked()
    expect(comment).to_have_value("nearly all of it")
    rating = read(site, job_id, "rating")
    assert (rating["stars"], rating["userId"], rating["engine"]) == (4, "admin", "pocketsphinx")


def test_a_rating_is_taken_back(opened: Page, site: RunningSystem, job_id: str) -> None:
    page = opened
    page.locator(".star").nth(4).click()
    page.get_by_role("button", name="Take the rating back").click()
    expect(page.locator("#rating .said")).to_have_text("The rating is taken back.", timeout=SOON)
    expect(page.get_by_role("radio", name="1 star", exact=True)).to_be_focused()
    assert site.client.get(f"/transcript/{job_id}/rating").status_code == 404
    page.reload()
    expect(page.locator("#rating input:checked")).to_have_count(0)


def test_what_is_selected_is_reported_and_nothing_happens_to_the_text(
    opened: Page, site: RunningSystem, job_id: str
) -> None:
    page = opened
    before = page.locator("#parts").inner_text()
    word = select_word(page, 1, 2)
    part = site.read(job_id)["chunks"][1]
    page.locator("#report-here").click()
    dialog = dialog_of(page)
    expect(dialog).to_be_visible()
    expect(dialog.get_by_label("What stands there")).to_have_value(word)
    expect(dialog.get_by_label("What was said")).to_be_focused()
    expect(dialog.locator(".place")).to_contain_text("Part 2, 0:")
    assert_accessible(page)
    assert_fits(page)
    page.keyboard.type("another word")
    dialog.get_by_label("What is wrong?").select_option("Invented words")
    dialog.get_by_role("button", name="Send").click()
    expect(dialog).to_be_hidden(timeout=SOON)
    expect(page.get_by_text("The mistake is reported. Thank you.")).to_be_visible()
    expect(page.locator("#part-1 .text")).to_be_focused()
    assert page.evaluate("getSelection().toString()") == word
    (report,) = read(site, job_id, "mistakes")["results"]
    assert (report["index"], report["kind"]) == (1, "invented_words")
    assert (report["heard"], report["meant"]) == (word, "another word")
    end = part["startTime"] + part["durationSeconds"]
    assert part["startTime"] < report["startTime"] < end
    assert page.locator("#parts").inner_text() == before
    assert site.read(job_id)["revision"] == 0


def test_the_whole_is_reported_by_keys_and_a_refusal_keeps_what_was_written(
    opened: Page, site: RunningSystem, job_id: str
) -> None:
    page, dialog = opened, dialog_of(opened)
    count = len(read(site, job_id, "mistakes")["results"])
    page.keyboard.press("Alt+KeyM")
    expect(dialog.get_by_label("What is wrong?")).to_be_focused()
    expect(dialog.locator(".place")).to_be_hidden()
    dialog.get_by_label("Comment").fill("it ends too early")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.get_by_role("button", name=MISTAKE).click()
    expect(dialog.get_by_label("Comment")).to_have_value("it ends too early")
    page.context.set_offline(True)
    dialog.get_by_role("button", name="Send").click()
    expect(dialog.get_by_role("alert")).to_be_visible()
    page.context.set_offline(False)
    dialog.get_by_role("button", name="Send").click()
    expect(dialog).to_be_hidden(timeout=SOON)
    report, *others = read(site, job_id, "mistakes")["results"]
    assert len(others) == count
    assert (report["index"], report["startTime"]) == (None, None)
    assert (report["kind"], report["comment"]) == ("wrong_word", "it ends too early")


def test_what_is_not_selected_any_more_is_not_reported(opened: Page) -> None:
    page, here = opened, opened.locator("#report-here")
    expect(here).to_be_hidden()
    select_word(page, 0, 1)
    expect(here).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(here).to_be_hidden()
    page.get_by_role("button", name=MISTAKE).click()
    expect(dialog_of(page).get_by_label("What stands there")).to_have_value("")
