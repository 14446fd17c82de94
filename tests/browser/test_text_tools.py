"""Find and replace, versions and names of speakers, and the words of the scripts."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import assert_accessible
from tests.browser.windows import SOON, completed, only, save_as_another, text_of, unreachable
from tests.system.conftest import RunningSystem

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def job_id(site: RunningSystem) -> str:
    """A completed transcript of the six samples, to be edited."""
    return completed(site, "Held")


def test_what_is_found_stands_where_it_is_lit_in_any_script(
    page: Page, site: RunningSystem, job_id: str
) -> None:
    """In lower case İ is two letters: what stands behind it would be found too late."""
    page.goto(f"/t/{job_id}")
    text_of(page, 0).fill("İİİ İstanbul, the cat and the dog")
    expect(page.locator("#saved")).to_have_text("· Saved", timeout=SOON)
    page.locator("#find summary").click()
    page.get_by_label("Find").fill("CAT")
    page.get_by_label("Replace with").fill("horse")
    page.get_by_role("button", name="Replace all").click()
    expect(text_of(page, 0)).to_have_text("İİİ İstanbul, the horse and the dog")
    page.get_by_label("Find").fill("istanbul")
    expect(page.locator("#found")).to_have_text("1 found")
    lit = "() => [...CSS.highlights.get('found')].map(String)"
    assert page.evaluate(lit) == ["İstanbul"]


def test_all_of_a_part_is_replaced_at_once_and_undone_at_once(page: Page, job_id: str) -> None:
    page.goto(f"/t/{job_id}")
    before = "zap here, zapper there, and Zap"
    text_of(page, 0).fill(before)
    page.locator("#find summary").click()
    expect(page.get_by_label("Find")).to_be_focused()
    page.keyboard.type("zap")
    expect(page.locator("#found")).to_have_text("3 found")
    page.get_by_label("Replace with").fill("tap")
    page.get_by_label("Whole words").check()
    page.get_by_role("button", name="Replace all").click()
    expect(page.get_by_text("2 replaced")).to_be_visible()
    expect(text_of(page, 0)).to_have_text("tap here, zapper there, and tap")
    page.keyboard.press("Control+z")
    expect(text_of(page, 0)).to_have_text(before)
    page.keyboard.press("Enter")  # a part is one paragraph
    assert text_of(page, 0).text_content() == before


def test_every_one_of_many_versions_can_be_reached(page: Page, site: RunningSystem) -> None:
    job_id = completed(site, "Many versions", 1)
    before = site.read(job_id)["transcription"]
    save_as_another(site, job_id, 0, "another one")
    for number in range(12):  # what one user saves within a minute is one version, but for these
        restore(site, job_id, number % 2)
    for width, height in ((1200, 850), (390, 844)):
        page.set_viewport_size({"width": width, "height": height})
        page.goto(f"/t/{job_id}")
        page.locator("#versions summary").click()
        rows = page.locator("#versions li")
        expect(rows.nth(12)).to_be_attached()
        rows.last.get_by_role("button").click()
        expect(text_of(page, 0)).to_have_text(before)
        restore(site, job_id, 1)
        page.keyboard.press("Escape")
        expect(rows.first).to_be_hidden()


def restore(site: RunningSystem, job_id: str, number: int) -> None:
    answer = site.client.post(f"/transcript/{job_id}/revisions/{number}/restore")
    assert answer.status_code == 200, answer.text


def test_a_version_is_not_brought_back_over_what_one_has_not_seen(
    page: Page, site: RunningSystem, job_id: str
) -> None:
    save_as_another(site, job_id, 0, "seen")
    page.goto(f"/t/{job_id}")
    page.locator("#versions summary").click()
    first = page.get_by_role("listitem").filter(has_text="As recognised").get_by_role("button")
    expect(first).to_be_visible()
    held: list[Route] = []
    page.route("**/text", only("GET", held.append))
    save_as_another(site, job_id, 0, "not seen yet")
    with page.expect_response("**/restore") as refused:
        first.click()
    assert refused.value.status == 412
    for route in held:
        route.continue_()
    page.unroute("**/text")
    expect(page.locator("#problem")).to_contain_text("Somebody else has saved meanwhile")
    expect(text_of(page, 0)).to_have_text("not seen yet")
    page.route("**/restore", unreachable)
    first.click()
    expect(page.locator("#problem")).to_contain_text("The server is not reached")
    page.unroute("**/restore")
    first.click()
    expect(page.locator("#problem")).to_be_hidden()
    expect(text_of(page, 0)).not_to_have_text("not seen yet")


def test_a_speakers_name_that_another_gave_meanwhile_is_told_and_shown(
    page: Page, site: RunningSystem, job_id: str
) -> None:
    names = {"name": ""}
    held: list[Route] = []

    def answer(route: Route) -> None:
        if route.request.method == "PATCH":  # what the server makes of it: another If-Match is 412
            route.continue_(post_data='{"chunks": []}')
            return
        response = route.fetch()
        route.fulfill(response=response, json={**response.json(), "speakers": {"0": names["name"]}})

    page.route("**/text", answer)
    page.goto(f"/t/{job_id}")
    page.locator("#speakers summary").click()
    field = page.get_by_label("Speaker 0")
    expect(field).to_have_value("")
    hold = only("GET", held.append)
    page.route("**/text", hold)
    save_as_another(site, job_id, 5, "something else")
    names["name"] = "Bob"
    with page.expect_response(lambda response: response.status == 412):
        field.fill("Anna")
        field.press("Enter")
    for route in held:
        answer(route)
    page.unroute("**/text", hold)
    expect(page.locator("#problem")).to_contain_text("Somebody else has saved meanwhile")
    expect(field).to_have_value("Bob")
    assert_accessible(page)


def test_scripts_speak_by_the_catalogue(page: Page, job_id: str) -> None:
    """It is there before any of them, and none has a text of its own."""
    catalogue = "globalThis.django = { gettext: (text) => `«${text}»` };"
    page.route(
        "**/jsi18n", lambda route: route.fulfill(body=catalogue, content_type="text/javascript")
    )
    page.goto(f"/t/{job_id}")
    page.locator("#versions summary").click()
    expect(page.get_by_role("button", name="«Restore»").first).to_be_visible()
    text_of(page, 5).fill("in another language")
    expect(page.locator("#saved")).to_have_text("· «Saved»", timeout=SOON)
