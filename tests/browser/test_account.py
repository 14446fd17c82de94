"""Usage, tokens and webhooks of one's own."""

from __future__ import annotations

import httpx2
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import assert_accessible, assert_fits
from tests.system.conftest import RunningSystem

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


def test_a_token_is_shown_once_works_and_can_be_revoked(page: Page, site: RunningSystem) -> None:
    page.get_by_role("link", name="Tokens").click()
    page.get_by_label("Ends after days").fill("7")
    page.get_by_role("button", name="Make a token").click()
    token = page.locator("#new-token").inner_text()
    assert_accessible(page)
    assert_fits(page)

    def status() -> int:
        headers = {"Authorization": f"Token {token}"}
        return httpx2.get(f"{site.url}/usage", headers=headers, trust_env=False).status_code

    assert status() == 200
    made = page.get_by_role("button", name="Revoke").count()
    page.reload()  # which is no second one
    assert token not in page.content()
    expect(page.locator("#new-token")).to_be_hidden()
    expect(page.get_by_role("button", name="Revoke")).to_have_count(made)
    revoke = page.get_by_role("button", name=f"Revoke {token[:8]}")
    page.evaluate("window.confirm = () => false")
    revoke.click()
    assert status() == 200
    page.reload()
    revoke.click()  # what is asked is said yes to
    expect(page.get_by_text("The token is revoked.")).to_be_visible()
    assert status() == 401


def test_usage_and_webhooks(page: Page) -> None:
    page.get_by_role("link", name="Usage").click()
    expect(page.get_by_text("Nothing was used in this month.")).to_be_visible()
    assert_accessible(page)
    page.get_by_role("link", name="Webhooks").click()
    page.get_by_label("Address").fill("https://127.0.0.1/hook")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("alert")).to_be_visible()
    page.get_by_label("Address").fill("https://93.184.216.34/hook")
    page.get_by_role("button", name="Add").click()
    endpoint = page.get_by_role("listitem").filter(has_text="93.184.216.34")
    endpoint.get_by_role("button", name="Show the secret").click()
    expect(page.get_by_text("whsec_")).to_be_visible()
    assert_accessible(page)
    assert_fits(page)
    endpoint.get_by_role("button", name="Switch off").click()
    expect(endpoint).to_contain_text("switched off")
    endpoint.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("There is none.")).to_be_visible()
