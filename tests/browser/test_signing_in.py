"""The door: who is let in, and what is behind it."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenContext, assert_accessible, assert_fits

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


def test_a_stranger_is_led_to_the_door_and_back(context_of: OpenContext) -> None:
    page = context_of().new_page()
    page.goto("/")
    expect(page).to_have_url("/sign-in?next=/")
    assert_accessible(page)
    assert_fits(page)
    page.get_by_label("Name").fill("admin")
    page.get_by_label("Password").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_be_visible()
    assert_accessible(page)


def test_who_is_in_sees_the_list_and_can_leave(page: Page) -> None:
    assert_accessible(page)
    assert_fits(page)
    page.get_by_role("button", name="Switch between light and dark").click()
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") in {"light", "dark"}
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url("/sign-in?signed-out")
    page.goto("/")
    expect(page).to_have_url("/sign-in?next=/")
