"""The pages hold out: late answers, lost connections and sessions, others at the same time."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
from playwright.sync_api import Error, Page, Route, expect

from tests.browser.conftest import OpenContext, assert_accessible, assert_fits, signed_in
from tests.browser.windows import SOON, completed, only, save_as_another, text_of, unreachable
from tests.system.conftest import SAMPLES, RunningSystem

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

# Tells on the console of what a socket beside the page's own has heard.
LISTEN = """(path) => new Promise((resolve) => {
    const socket = new WebSocket(new URL(path, location.href.replace(/^http/, "ws")));
    let edits = 0;
    socket.onopen = () => socket.send("{}");
    socket.onmessage = ({ data }) => {
        resolve();
        if (data.includes('"job.edited"') && ++edits === 2) console.log("heard five");
    };
})"""
DRAFTS = "() => Object.keys(sessionStorage).filter((name) => name.startsWith('unsaved:')).length"


@pytest.fixture(scope="module")
def job_id(site: RunningSystem) -> str:
    """A completed transcript of the six samples, to be edited."""
    return completed(site, "Held")


# --- the list ---


def test_the_list_keeps_focus_ticks_and_choice_when_it_is_drawn_anew(
    page: Page, site: RunningSystem, job_id: str
) -> None:
    page.goto("/")
    row = page.locator(f"#job-{job_id}")
    row.get_by_role("checkbox").check()
    page.get_by_label("Chosen ones as").select_option("srt")
    link = row.get_by_role("link", name="Held")
    link.focus()
    new = completed(site, "Came meanwhile", 1)
    expect(page.locator(f"#job-{new} .badge")).to_have_text("Completed", timeout=SOON)
    site.client.delete(f"/transcript/{new}")
    other = completed(site, "Came after it", 1)
    expect(page.locator(f"#job-{other} .badge")).to_have_text("Completed", timeout=SOON)
    expect(page.locator(f"#job-{new}")).to_have_count(0)
    expect(link).to_be_focused()
    expect(row.get_by_role("checkbox")).to_be_checked()
    expect(page.get_by_label("Chosen ones as")).to_have_value("srt")
    assert_accessible(page)


def test_a_late_answer_of_another_filter_is_thrown_away(
    page: Page, site: RunningSystem, job_id: str
) -> None:
    page.goto("/")
    expect(page.locator(f"#job-{job_id}")).to_be_visible()
    held: list[Route] = []

    def hold(route: Route) -> None:
        is_filter = "hx-request" in route.request.headers
        route.fallback() if is_filter or held else held.append(route)

    page.route(re.compile(r"/(\?.*)?$"), hold)
    with page.expect_request(lambda request: request.url == f"{site.url}/", timeout=SOON):
        completed(site, "Too late", 1)
    page.get_by_label("Status").select_option("failed")
    expect(page.get_by_text("There is none like that.")).to_be_visible()
    with suppress(Error):  # the page has given it up
        held[0].continue_()
    for _ in range(2):  # longer than the late one takes
        page.evaluate("() => fetch('/?text=slow').then((answer) => answer.text())")
    expect(page.locator(".job")).to_have_count(0)
    expect(page.get_by_text("There is none like that.")).to_be_visible()


def test_who_was_signed_out_is_told_so_and_keeps_the_list(page: Page, job_id: str) -> None:
    page.goto("/")
    expect(page.locator(f"#job-{job_id}")).to_be_visible()
    page.context.clear_cookies(name="sessionid")
    page.get_by_label("Status").select_option("failed")
    expect(page.locator("#notices")).to_contain_text("You are signed out.")
    expect(page.locator(f"#job-{job_id}")).to_be_visible()
    assert_accessible(page)


def test_the_list_goes_on_once_somebody_has_signed_in_again_elsewhere(
    page: Page, site: RunningSystem, job_id: str
) -> None:
    page.goto("/")
    expect(page.locator(f"#job-{job_id}")).to_be_visible()
    other = page.context.new_page()
    other.goto("/")
    other.get_by_role("button", name="Sign out").click()
    expect(other).to_have_url(re.compile("/sign-in"))
    expect(page.locator("#notices")).to_contain_text("You are signed out.", timeout=SOON)
    signed_in(page.context, site)
    page.evaluate("window.dispatchEvent(new Event('focus'))")
    made = completed(site, "Made since")
    expect(page.locator(f"#job-{made} .badge")).to_have_text("Completed", timeout=SOON)


# --- unsaved text ---


def test_text_that_could_not_be_saved_outlives_the_page(
    page: Page, site: RunningSystem, job_id: str
) -> None:
    asked: list[str] = []
    page.on("dialog", lambda dialog: asked.append(dialog.type))
    page.goto(f"/t/{job_id}")
    page.route("**/text", only("PATCH", unreachable))
    text_of(page, 0).fill("kept by the browser")
    expect(page.locator("#saved")).to_contain_text("your text is kept")
    page.reload()
    assert asked == ["beforeunload"]
    expect(text_of(page, 0)).to_have_text("kept by the browser")
    expect(page.locator("#saved")).to_contain_text("your text is kept", timeout=SOON)
    page.unroute("**/text")
    expect(page.locator("#saved")).to_have_text("· Saved", timeout=SOON)
    assert page.evaluate(DRAFTS) == 0
    assert "kept by the browser" in site.read(job_id)["transcription"]
    page.reload()
    assert asked == ["beforeunload"]
    expect(text_of(page, 0)).to_have_text("kept by the browser")


def test_text_from_before_a_reload_meets_what_another_saved_meanwhile(
    page: Page, site: RunningSystem, job_id: str
) -> None:
    page.goto(f"/t/{job_id}")
    before = text_of(page, 1).inner_text()
    page.route("**/text", only("PATCH", unreachable))
    text_of(page, 1).fill("one by me")
    text_of(page, 2).fill("two by me")
    expect(page.locator("#saved")).to_contain_text("your text is kept")
    save_as_another(site, job_id, 1, "one by them")
    page.reload()
    page.unroute("**/text")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible(timeout=SOON)
    expect(dialog.locator(".before")).to_have_text(before)
    expect(dialog.locator(".theirs")).to_have_text("one by them")
    expect(dialog.locator(".mine")).to_have_text("one by me")
    dialog.get_by_role("button", name="Take theirs").click()
    expect(page.locator("#saved")).to_have_text("· Saved", timeout=SOON)
    expect(text_of(page, 1)).to_have_text("one by them")
    expect(text_of(page, 2)).to_have_text("two by me")
    assert page.evaluate(DRAFTS) == 0


def test_who_was_signed_out_while_writing_signs_in_and_loses_nothing(
    page: Page, site: RunningSystem, job_id: str
) -> None:
    page.goto(f"/t/{job_id}")
    expect(page.locator(".text[contenteditable]")).to_have_count(6)
    page.context.clear_cookies(name="sessionid")
    text_of(page, 3).fill("written without a session")
    problem = page.locator("#problem")
    expect(problem).to_contain_text("You are signed out.", timeout=SOON)
    expect(problem.get_by_role("link", name="Sign in")).to_be_visible()
    assert_accessible(page)
    page.reload()
    expect(page).to_have_url(re.compile("/sign-in"))
    page.get_by_label("Name").fill("admin")
    page.get_by_label("Password").fill(site.password)
    page.get_by_role("button", name="Sign in").click()
    expect(text_of(page, 3)).to_have_text("written without a session")
    expect(page.locator("#saved")).to_have_text("· Saved", timeout=SOON)
    assert "written without a session" in site.read(job_id)["transcription"]
    page.route("**/text", only("PATCH", unreachable))
    text_of(page, 3).fill("never to be saved")
    expect(page.locator("#saved")).to_contain_text("your text is kept")
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(re.compile("/sign-in"))
    page.wait_for_function(f"() => ({DRAFTS})() === 0")  # the page's script does it


def test_what_one_writes_while_another_retries_is_neither_lost_nor_overwritten(
    page: Page, site: RunningSystem
) -> None:
    paths = site.put_samples("admin", 3)
    broken = site.audio_root / paths[1]
    broken.write_bytes(b"no sound at all")
    job_id = site.submit(paths, title="Retried by another")
    assert site.wait_for_end(job_id)["jobStatus"] == "failed"
    page.goto(f"/t/{job_id}")
    page.route("**/text", only("PATCH", unreachable))
    text_of(page, 1).fill("written by hand")
    expect(page.locator("#saved")).to_contain_text("your text is kept")
    broken.write_bytes(SAMPLES[1].read_bytes())
    assert site.client.post(f"/transcript/{job_id}/retry").status_code == 202
    expect(page.locator("#part-1")).to_have_attribute("data-status", "completed", timeout=SOON)
    expect(text_of(page, 1)).to_have_text("written by hand")
    assert site.wait_for_end(job_id)["jobStatus"] == "completed"
    page.unroute("**/text")
    expect(page.locator("#status")).to_have_text("Completed", timeout=SOON)
    expect(text_of(page, 1)).to_have_text("written by hand")
    assert "written by hand" in site.read(job_id)["transcription"]


def test_what_one_wrote_in_what_another_deleted_can_be_copied(
    page: Page, site: RunningSystem
) -> None:
    job_id = completed(site, "Deleted by another", 2)
    page.goto(f"/t/{job_id}")
    page.route("**/text", only("PATCH", unreachable))
    text_of(page, 1).fill("of use elsewhere")
    expect(page.locator("#saved")).to_contain_text("your text is kept")
    assert site.client.delete(f"/transcript/{job_id}").status_code == 204
    page.unroute("**/text")
    expect(page.locator("#problem")).to_contain_text("was deleted", timeout=SOON)
    expect(text_of(page, 1)).to_have_text("of use elsewhere")
    page.reload()
    expect(page.get_by_role("heading", name="This transcript was deleted.")).to_be_visible()
    kept = page.locator("#unsaved")
    expect(kept).to_contain_text("of use elsewhere")
    expect(kept).to_contain_text("Part 2")
    assert_accessible(page)
    assert_fits(page)
    kept.get_by_role("button", name="Discard").click()
    expect(kept).to_be_hidden()
    assert page.evaluate(DRAFTS) == 0


def test_what_another_saves_in_the_pause_after_the_last_key_is_asked_about(
    page: Page, site: RunningSystem, job_id: str
) -> None:
    """The news of it comes by the socket while something is typed and not sent yet."""
    page.clock.install()
    page.goto(f"/t/{job_id}")
    expect(page.locator(".text[contenteditable]")).to_have_count(6)
    page.wait_for_load_state("networkidle")
    page.clock.pause_at(page.evaluate("Date.now() + 1000"))
    text_of(page, 4).fill("four by me")
    page.evaluate(LISTEN, f"/ws/transcript/{job_id}")
    with page.expect_console_message(lambda message: "five" in message.text, timeout=SOON):
        save_as_another(site, job_id, 4, "four by them")
        save_as_another(site, job_id, 5, "five by them")
    expect(text_of(page, 4)).to_have_text("four by me")
    page.clock.run_for(5000)
    page.clock.resume()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible(timeout=SOON)
    expect(dialog.locator(".theirs")).to_have_text("four by them")
    expect(dialog.locator(".mine")).to_have_text("four by me")
    dialog.get_by_role("button", name="Keep yours").click()
    expect(page.locator("#saved")).to_have_text("· Saved", timeout=SOON)
    expect(text_of(page, 5)).to_have_text("five by them")
    assert "four by me" in site.read(job_id)["transcription"]


def test_two_windows_of_one_person_keep_their_own_unsaved_text(
    context_of: OpenContext, site: RunningSystem, job_id: str
) -> None:
    context = context_of()
    page = signed_in(context, site)
    page.goto(f"/t/{job_id}")
    page.route("**/text", only("PATCH", unreachable))
    text_of(page, 2).fill("of the first window")
    expect(page.locator("#saved")).to_contain_text("your text is kept")
    other = context.new_page()
    other.goto(f"/t/{job_id}")
    expect(other.locator(".text[contenteditable]")).to_have_count(6)
    expect(text_of(other, 2)).not_to_have_text("of the first window")
    page.unroute("**/text")
    expect(text_of(other, 2)).to_have_text("of the first window", timeout=SOON)


# --- the door ---


def test_too_many_tries_are_answered_by_a_page(context_of: OpenContext) -> None:
    page = context_of().new_page()
    page.goto("/sign-in?next=/new")
    for _ in range(11):
        page.get_by_label("Name").fill("nobody")
        page.get_by_label("Password").fill("a guess")
        page.get_by_label("Password").press("Enter")
        page.wait_for_load_state()
        if page.get_by_role("heading", name="Too many tries").is_visible():
            break
        expect(page.get_by_role("alert")).to_be_visible()
    expect(page.get_by_text("Wait 2 minutes, then try again.")).to_be_visible()
    assert_accessible(page)
    assert_fits(page)
    page.get_by_role("link", name="Sign in").click()
    expect(page).to_have_url("/sign-in?next=/new")
