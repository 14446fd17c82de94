"""Chromium, a system to look at, and a person who is signed in.

Without Chromium these tests are left out, which the run's end says in one line; under CI their
absence is a failure.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Final

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Page,
    Request,
    ViewportSize,
    expect,
    sync_playwright,
)

from tests.system.conftest import RunningSystem, running_system

CHROMIUM: Final = shutil.which("chromium") or shutil.which("google-chrome")
PHONE: Final = ViewportSize(width=400, height=800)
SCREEN: Final = ViewportSize(width=1280, height=900)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if CHROMIUM is None:
        terminalreporter.write_line("The browser tests were left out: there is no chromium.")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Not for the whole run: Playwright's event loop would be in the way of tests that have one."""
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("there is no chromium, and under CI the browser tests must run")
        pytest.skip("no chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM,
            chromium_sandbox=False,  # neither root nor a container can have one; the pages are ours
            args=["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"],
        )
        yield started
        started.close()


@pytest.fixture(scope="module")
def site(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    """A system of the module's own, with the embedded engine."""
    with running_system(tmp_path_factory.mktemp("site"), DEDUPLICATE="off") as system:
        yield system


OpenContext = Callable[..., BrowserContext]


@pytest.fixture
def context_of(browser: Browser, site: RunningSystem) -> Iterator[OpenContext]:
    """Makes windows; afterwards none may have spoken to another host, or failed a script."""
    contexts: list[BrowserContext] = []
    strangers: list[str] = []
    errors: list[str] = []

    def look(request: Request) -> None:
        if not request.url.startswith((site.url, "data:", "blob:")):
            strangers.append(request.url)

    def make(**options: object) -> BrowserContext:
        context = browser.new_context(**{"base_url": site.url, "viewport": SCREEN, **options})  # type: ignore[arg-type]
        context.set_default_timeout(15_000)
        context.on("request", look)
        context.on("dialog", lambda dialog: dialog.accept())
        context.on("weberror", lambda error: errors.append(str(error.error)))
        contexts.append(context)
        return context

    yield make
    for context in contexts:
        context.close()
    assert strangers == []
    assert errors == []


@pytest.fixture
def page(context_of: OpenContext, site: RunningSystem) -> Page:
    """A window in which the administrator of `make run` is signed in."""
    return signed_in(context_of(), site)


def signed_in(context: BrowserContext, site: RunningSystem) -> Page:
    """Sign in by the form, as a person does."""
    page = context.new_page()
    page.goto("/")
    page.get_by_label("Name").fill("admin")
    page.get_by_label("Password").fill(site.password)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Transcripts")).to_be_visible()
    return page


def assert_accessible(page: Page) -> None:
    """axe finds nothing, in the light and in the dark."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        found = Axe().run(page)
        assert found.violations_count == 0, f"{page.url}, {scheme}:\n{found.generate_report()}"


def assert_fits(page: Page) -> None:
    """Nothing sticks out sideways on a phone."""
    before = page.viewport_size
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    if before:
        page.set_viewport_size(before)
