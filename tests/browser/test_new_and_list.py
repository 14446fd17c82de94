"""From files on a disk to a transcript in the list, as a person does it."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import FilePayload, Page, expect

from tests.browser.conftest import assert_accessible, assert_fits
from tests.system.conftest import SAMPLES, RunningSystem

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]


def test_six_files_are_dropped_ordered_sent_and_appear_in_the_list(page: Page) -> None:
    page.get_by_role("link", name="New transcription").click()
    page.set_input_files("#files", [str(path) for path in SAMPLES])
    names = page.locator(".part .name")
    expect(names).to_have_text([path.name for path in SAMPLES])
    expect(page.locator("#estimate")).to_have_text(re.compile(r"^\d+:\d\d$"))
    assert_accessible(page)
    assert_fits(page)

    page.get_by_role("listitem").nth(1).get_by_role("button", name="Move up").click()
    swapped = [SAMPLES[1].name, SAMPLES[0].name, *(path.name for path in SAMPLES[2:])]
    expect(names).to_have_text(swapped)
    expect(
        page.get_by_role("listitem").nth(0).get_by_role("button", name="Move down")
    ).to_be_focused()
    page.keyboard.press("Enter")
    page.get_by_role("listitem").nth(5).get_by_role("button", name="Remove").click()
    expect(names).to_have_text([path.name for path in SAMPLES[:5]])

    page.get_by_label("Title").fill("Monday")
    page.get_by_role("button", name="Transcribe").click()
    expect(page).to_have_url(re.compile("/t/"))
    page.get_by_role("link", name="Transcripts").click()
    row = page.locator(".job", has_text="Monday")
    expect(row.locator(".badge")).to_have_text("Completed", timeout=120_000)
    expect(row).to_contain_text("0:2")
    assert_accessible(page)
    assert_fits(page)

    expect(page.get_by_role("button", name="Download")).to_be_disabled()
    row.get_by_role("checkbox").check()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename == "transcripts.zip"
    said = row.locator("p").last.inner_text().split()
    page.get_by_label("Words in the text").fill(f'"{said[0]} {said[1]}"')
    expect(page.locator(".job mark").first).to_have_text(f"{said[0]} {said[1]}")
    expect(page).to_have_url(re.compile("text="))
    assert_accessible(page)
    page.get_by_label("Status").select_option("failed")
    expect(page.get_by_text("There is none like that.")).to_be_visible()
    expect(page).to_have_url(re.compile("status=failed"))


def test_what_cannot_be_taken_is_said_before_anything_is_sent(
    page: Page, site: RunningSystem
) -> None:
    page.goto("/new")
    send = page.get_by_role("button", name="Transcribe")
    expect(send).to_be_disabled()
    empty = FilePayload(name="empty.wav", mimeType="audio/wav", buffer=b"")
    page.set_input_files("#files", [empty])
    expect(page.locator(".reason")).to_have_text("The file is empty.")
    expect(send).to_be_disabled()
    page.get_by_role("button", name="Remove").click()
    notes = FilePayload(name="notes.txt", mimeType="text/plain", buffer=b"words")
    large = FilePayload(name="large.wav", mimeType="audio/wav", buffer=b"x" * 5_100_000)
    page.set_input_files("#files", [notes, large])
    expect(page.locator(".reason")).to_contain_text(["This is no recording.", "Larger than"])
    expect(send).to_be_disabled()
    page.get_by_role("button", name="Remove: notes.txt").click()
    page.get_by_role("button", name="Remove: large.wav").click()
    page.set_input_files("#files", [str(SAMPLES[0])])
    for _ in range(24):
        page.set_input_files("#files", [str(SAMPLES[0])])
    expect(page.get_by_role("alert").filter(has_text="At most 24 parts")).to_be_visible()
    expect(send).to_be_disabled()


def test_the_microphone_gives_a_part(page: Page) -> None:
    page.goto("/new")
    record = page.get_by_role("button", name="Record")
    record.click()
    expect(page.locator("#recorded")).to_have_text(re.compile("0:01"))
    record.click()
    expect(page.locator(".part .name")).to_have_text(re.compile(r"^recording-.*\.webm$"))


def test_a_connection_that_breaks_loses_nothing(page: Page) -> None:
    page.goto("/new")
    page.set_input_files("#files", [str(SAMPLES[0])])
    page.context.set_offline(True)
    page.get_by_role("button", name="Transcribe").click()
    expect(page.get_by_role("alert").filter(has_text="not reached")).to_be_visible(timeout=20_000)
    page.context.set_offline(False)
    page.get_by_role("button", name="Transcribe").click()
    expect(page.locator(".part-text")).to_have_count(1)
