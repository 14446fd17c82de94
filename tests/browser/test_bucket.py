"""With audio in a bucket a browser sends files there and plays from there, as its policy lets."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import SCREEN, signed_in
from tests.object_storage import KEY, SECRET, start_object_storage
from tests.system.conftest import SAMPLES, running_system

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]


def test_files_go_to_the_bucket_once_it_lets_them_and_are_heard_from_there(
    browser: Browser, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        storage = start_object_storage(stack, tmp_path)
        # Without encryption, as this storage's rules for browsers know no header that asks for it.
        site = stack.enter_context(
            running_system(
                tmp_path,
                AUDIO_ROOT="",
                AUDIO_STORAGE_URL=f"s3://verbatim-audio?endpoint={storage.url}&encryption=none",
                AUDIO_STORAGE_ALLOW_HTTP="true",
                AWS_ACCESS_KEY_ID=KEY,
                AWS_SECRET_ACCESS_KEY=SECRET,
            )
        )
        context = browser.new_context(base_url=site.url, viewport=SCREEN)
        stack.callback(context.close)
        page = signed_in(context, site)
        page.goto("/new")
        page.set_input_files("#files", [str(path) for path in SAMPLES[:2]])
        page.get_by_role("button", name="Transcribe").click()
        problem = page.get_by_role("alert").filter(has_text="The storage of audio was not reached")
        expect(problem).to_be_visible(timeout=30_000)
        expect(page.locator(".part .name")).to_have_text([path.name for path in SAMPLES[:2]])

        storage.stop()
        storage.open_to = "*"
        storage.start()
        asked: Counter[tuple[str, str]] = Counter()  # by method and host
        said: list[str] = []
        page.on("request", lambda sent: asked.update([(sent.method, urlsplit(sent.url).netloc)]))
        page.on("console", lambda line: said.append(line.text))
        page.get_by_role("button", name="Transcribe").click()
        expect(page).to_have_url(re.compile("/t/"))
        expect(page.locator("#status")).to_have_text("Completed", timeout=120_000)
        expect(page.locator("#part-1 .text")).not_to_be_empty()
        page.locator("#part-1 .text").click()
        page.get_by_role("button", name="Play", exact=True).click()
        page.wait_for_function("() => CSS.highlights.get('spoken')?.size === 1")
        here, bucket = (urlsplit(url).netloc for url in (site.url, storage.url))
        assert asked["PUT", bucket] == 2
        assert asked["GET", bucket] >= 1
        assert {host for _, host in asked if host} == {here, bucket}
        assert said == [], "what the policy forbids is told here"
