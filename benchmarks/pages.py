"""The pages in Chromium: how soon a text is seen, and what two hours of it cost to work in."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from playwright.sync_api import Page, sync_playwright

from benchmarks import sounds
from benchmarks.clients import signed_in
from benchmarks.engine_server import ends_of, engine
from benchmarks.figures import Figures, percentile
from benchmarks.world import World, running

CHUNKS: Final = 24
SECONDS: Final = 300  # of each: two hours
WORDS: Final = 750  # of each: 18,000
WORD: Final = 0.4  # seconds
KEYS: Final = 40

# When each text came into the page, in milliseconds of the day. Kept where a reload finds it.
_SEE = """
addEventListener("DOMContentLoaded", () => {
  const look = () => {
    for (const { textContent } of document.querySelectorAll(".text")) {
      if (textContent) sessionStorage[textContent] ??= performance.timeOrigin + performance.now();
    }
  };
  look();
  new MutationObserver(look).observe(document,
    { subtree: true, childList: true, characterData: true });
});
"""
# The longest tasks of the page from now on, in milliseconds.
_TASKS = """() => {
  window.tasks = [];
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) window.tasks.push(entry.duration);
  }).observe({ type: "longtask", buffered: false });
}"""
# How long the scripts take for one key, until the page would be drawn.
_KEYS = """() => {
  window.keys = [];
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) {
      if (entry.name === "keydown" || entry.name === "input" || entry.name === "beforeinput") {
        window.keys.push(entry.processingEnd - entry.processingStart);
      }
    }
  }).observe({ type: "event", durationThreshold: 0, buffered: false });
}"""


def measure(figures: Figures, *, quick: bool) -> None:
    """A live job, the list's first load, and a transcript of two hours."""
    chromium = shutil.which("chromium")
    if chromium is None:
        figures.tell("pages", "left out", "there is no chromium")
        return
    with engine(1, 3) as environ, running(**environ) as world, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, chromium_sandbox=False)
        page = browser.new_context(base_url=world.url).new_page()
        _sign_in(page, world)
        late = _seen_late(page, world, environ, 2 if quick else 10)
        p99 = percentile(late, 0.99)
        beside = f"p50 {percentile(late, 0.5):.0f} ms of {len(late)}"
        title = "p99 from a chunk's recognition to its text on the page"
        figures.take("pages", title, p99, at_most=300, unit=" ms", beside=beside)
        _first_load(figures, page)
        _two_hours(figures, page, world)
        browser.close()


def _sign_in(page: Page, world: World) -> None:
    page.goto("/")
    page.get_by_label("Name").fill("admin")
    page.get_by_label("Password").fill(world.password)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/")


def _seen_late(page: Page, world: World, environ: dict[str, str], jobs: int) -> list[float]:
    """Milliseconds from the end of each call to its text in the page."""
    page.add_init_script(_SEE)
    for number in range(jobs):
        paths = sounds.put(world.audio_root, "admin", 6, first=6 * number)
        page.goto(f"/t/{_run(_submit(world, paths))}")
        page.locator("#status", has_text="Completed").wait_for(timeout=60_000)
    seen = page.evaluate("() => ({ ...sessionStorage })")
    offset = time.time() - time.monotonic()
    ends = {text: 1000 * (moment + offset) for text, moment in ends_of(environ).items()}
    return [float(moment) - ends[text] for text, moment in seen.items() if text in ends]


def _run(work: Coroutine[Any, Any, str]) -> str:
    """In a thread of its own: Playwright has a loop in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


async def _submit(world: World, paths: list[str]) -> str:
    async with signed_in(world) as client:
        return await client.submit(paths, "admin")


def _first_load(figures: Figures, page: Page) -> None:
    """In a window that has nothing but the sign-in."""
    assert page.context.browser is not None
    state = page.context.storage_state()
    fresh = page.context.browser.new_context(base_url=page.url, storage_state=state)
    sizes: list[int] = []
    fresh.on("requestfinished", lambda request: sizes.append(_bytes_of(request)))
    fresh.new_page().goto("/", wait_until="networkidle")
    beside = f"{len(sizes)} answers"
    whole = sum(sizes) / 1000
    figures.take("pages", "first load of the list", whole, at_most=100, unit=" kB", beside=beside)
    fresh.close()


def _bytes_of(request: Any) -> int:
    sizes = request.sizes()
    return int(sizes["responseBodySize"] + sizes["responseHeadersSize"])


def _two_hours(figures: Figures, page: Page, world: World) -> None:
    job_id = _run(_long(world))
    began = time.monotonic()
    page.goto(f"/t/{job_id}", wait_until="domcontentloaded")
    page.wait_for_function("() => document.querySelectorAll('.text').length === 24")
    page.wait_for_function("() => !document.getElementById('player').hidden")
    figures.take("pages", "18,000 words are open", time.monotonic() - began, at_most=1, unit=" s")
    page.evaluate(_TASKS)
    page.mouse.move(600, 400)
    for _ in range(60):
        page.mouse.wheel(0, 600)
        page.wait_for_timeout(30)
    scrolled = page.evaluate("() => scrollY")
    if scrolled < 1000:
        raise RuntimeError(f"the page scrolled by {scrolled} only")
    longest = max(page.evaluate("() => window.tasks"), default=0.0)
    figures.take("pages", "longest task while it scrolls", longest, at_most=50, unit=" ms")
    page.locator("#part-12 .text").click()
    page.evaluate(_KEYS)
    page.keyboard.type("wonderful day " * (KEYS // 14 + 1), delay=30)
    page.wait_for_timeout(200)
    longest = max(page.evaluate("() => window.keys"), default=0.0)
    figures.take("pages", "script for one key, at most", longest, at_most=16, unit=" ms")


async def _long(world: World) -> str:
    """A job whose chunks get their length and words by hand."""
    async with signed_in(world) as client:
        paths = sounds.put(world.audio_root, "admin", CHUNKS, first=1000)
        job_id = await client.submit(paths, "admin")
        await client.wait(job_id)
    words = [f"word{number}" for number in range(WORDS)]
    text = " ".join(words)
    segments = [part for index in range(CHUNKS) for part in _segments(index, words)]
    for index in range(CHUNKS):
        world.execute(
            "UPDATE jobs_chunk SET duration_seconds = %s, text = %s, segments = %s::jsonb"
            " WHERE job_id = %s AND index = %s",
            *(SECONDS, text, json.dumps(_segments(0, words)), job_id, index),
        )
    world.execute(
        "UPDATE jobs_transcript SET text = %s, segments = %s::jsonb, duration_seconds = %s"
        " WHERE job_id = %s",
        *(" ".join([text] * CHUNKS), json.dumps(segments), SECONDS * CHUNKS, job_id),
    )
    return job_id


def _segments(index: int, words: list[str]) -> list[dict[str, Any]]:
    """Ten words in each."""
    made = []
    for first in range(0, len(words), 10):
        some = words[first : first + 10]
        begins = index * SECONDS + first * WORD
        made.append(
            {
                "text": " ".join(some),
                "start": begins,
                "end": begins + len(some) * WORD,
                "speaker": None,
                "confidence": 0.8,
                "words": [
                    {
                        "text": word,
                        "start": begins + number * WORD,
                        "end": begins + (number + 1) * WORD,
                        "confidence": 0.3 if number == 7 else 0.9,
                        "speaker": None,
                    }
                    for number, word in enumerate(some)
                ],
            }
        )
    return made
