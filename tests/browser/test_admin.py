"""The admin's front page: readable by everybody, and it keeps itself up to date."""

from __future__ import annotations

from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import assert_accessible, assert_fits
from tests.system.conftest import RunningSystem

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


def open_front(page: Page) -> None:
    page.get_by_role("link", name="Admin").click()
    expect(page.get_by_role("heading", name="Is it well?")).to_be_visible()


def submit_broken(site: RunningSystem) -> None:
    """A job that fails, as its only file is no audio."""
    paths = site.put_samples("admin", 1)
    (site.audio_root / paths[0]).write_bytes(b"no sound at all")
    assert site.wait_for_end(site.submit(paths))["jobStatus"] == "failed"


def test_the_front_page_answers_in_light_and_dark_and_on_a_phone(
    page: Page, site: RunningSystem
) -> None:
    open_front(page)
    expect(page.locator("#verdict")).to_have_text("Yes, all is well.")
    assert site.wait_for_end(site.submit(site.put_samples("admin", 2)))["jobStatus"] == "completed"
    submit_broken(site)
    page.reload()
    expect(page.locator("#verdict")).to_have_text("Yes, all is well.")
    for summary in page.locator("summary").all():
        summary.click()
    assert_accessible(page)
    assert_fits(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_our_colours_are_legible_on_the_other_pages_of_the_admin(
    page: Page, site: RunningSystem, scheme: Literal["light", "dark"]
) -> None:
    """Their structure is Django's."""
    submit_broken(site)
    page.emulate_media(color_scheme=scheme)
    page.goto("/admin/jobs/job/")
    pages = [f"/admin/jobs/{model}/" for model in ("job", "chunk", "enginecall", "deadletter")]
    job = page.locator("#result_list th a").first.get_attribute("href")
    for address in [*pages, job, "/admin/auth/user/add/", "/admin/jobs/userlimits/add/"]:
        page.goto(str(address))
        found = Axe().run(page, options={"runOnly": ["color-contrast"]})
        assert found.violations_count == 0, f"{address}:\n{found.generate_report()}"


def test_it_renews_itself_and_what_is_open_stays_open(page: Page, site: RunningSystem) -> None:
    page.clock.install()
    open_front(page)
    figures = page.locator("#jobs details")
    failed = page.locator("#jobs .figures div").filter(has_text="Failed").locator("dd")
    before = int(failed.inner_text())
    figures.locator("summary").click()
    expect(figures).to_have_attribute("open", "")
    submit_broken(site)
    assert failed.inner_text() == f"{before}"
    page.clock.fast_forward(30_000)
    expect(failed).to_have_text(f"{before + 1}")
    expect(figures).to_have_attribute("open", "")
    expect(figures.locator("summary")).to_be_focused()


def test_a_server_that_is_away_is_told_and_not_taken_for_well(page: Page) -> None:
    page.clock.install()
    open_front(page)
    page.route("**/admin/", lambda route: route.abort())
    page.clock.fast_forward(30_000)
    expect(page.get_by_role("alert")).to_contain_text("The server has not answered")
    assert_accessible(page)
    page.unroute("**/admin/")
    page.clock.fast_forward(30_000)
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.locator("#told")).to_contain_text("As of")
