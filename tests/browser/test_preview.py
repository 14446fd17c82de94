"""The text of a part while it is still being listened to."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from tests.asr.sounds import MANIFEST, RATE, encode, sample, samples_of
from tests.asr.tiny_whisper import SCRIPT, TinyWhisper
from tests.browser.conftest import assert_accessible
from tests.system.conftest import RunningSystem, running_system

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

WINDOWS = 4  # of 30 seconds, each of which takes the model a second or more
SAID = " ".join([line.text for line in SCRIPT] * WINDOWS)


@pytest.fixture(scope="module")
def site(browser: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    """A system whose engine says what it hears as it goes, window by window, and takes its time."""
    folder = tmp_path_factory.mktemp("preview")
    model = TinyWhisper(width=512, layers=4).build(folder / "model")
    variables = {
        "ASR_ENGINE": "faster-whisper",
        "WHISPER_MODEL": str(model),
        "WHISPER_DEVICE": "cpu",
        "WHISPER_BATCH_SIZE": "1",
        "WHISPER_VAD": "False",
    }
    (folder / "system").mkdir()
    with running_system(folder / "system", **variables) as system:
        yield system


def test_the_text_so_far_is_seen_and_gives_way_to_the_text(page: Page, site: RunningSystem) -> None:
    spoken = np.concatenate([samples_of(sample(index)) for index in range(len(MANIFEST))])
    folder = site.audio_root / "admin"
    folder.mkdir()
    for name, seconds in (("one.mp3", 30 * WINDOWS - 1), ("two.mp3", 30 * WINDOWS - 2)):
        (folder / name).write_bytes(encode(np.resize(spoken, seconds * RATE), "mp3"))
    job_id = site.submit(["admin/one.mp3", "admin/two.mp3"], title="Long")
    page.goto(f"/t/{job_id}")
    text = page.locator("#part-0 .text")
    expect(text).to_have_class("text preview", timeout=120_000)
    so_far = text.inner_text()
    assert SAID.startswith(so_far)
    assert 0 < len(so_far) < len(SAID)
    expect(text).to_have_attribute("aria-busy", "true")
    expect(text).to_have_attribute("aria-readonly", "true")
    expect(page.locator("#part-0 .state")).to_have_text("Listening …")
    expect(page.locator("[aria-live] .text, [role=status] .text, [role=log] .text")).to_have_count(
        0
    )
    assert_accessible(page)
    expect(text).to_have_class("text", timeout=120_000)
    expect(text).to_have_text(SAID)
    expect(text).not_to_have_attribute("aria-busy", "true")
    expect(page.locator("#progress")).to_have_js_property("value", 1)
    expect(page.locator("#part-1 .text.preview")).to_be_visible(timeout=120_000)
    expect(page.locator("#status")).to_have_text("Completed", timeout=240_000)
    assert site.read(job_id)["transcription"] == f"{SAID} {SAID}"
