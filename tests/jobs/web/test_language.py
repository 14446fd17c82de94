"""The pages speak the reader's language; the API speaks English, whatever is asked for."""

from __future__ import annotations

import os
import re
import shutil
import struct
from pathlib import Path
from typing import Any, Final

import pytest
from django.core.management import call_command
from rest_framework.test import APIClient

from tests import factories
from tests.helpers import client_of
from transcription_site.env import BASE_DIR

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis_is_empty", "german")]

HEADER: Final = {
    "": "Content-Type: text/plain; charset=UTF-8\nPlural-Forms: nplurals=2; plural=n != 1;\n"
}
PAGES: Final = {
    "Transcripts": "Mitschriften",
    "Completed": "Fertig",
    "Transcripts in progress": "Mitschriften in Arbeit",
    "Sign in": "Anmelden",
}
SCRIPTS: Final = {"Somebody else has saved meanwhile": "-", "Restore": "Zurückholen"}
ASKED: Final = {"Accept-Language": "de,en;q=0.5"}


def compiled(messages: dict[str, str]) -> bytes:
    """A catalogue as gettext reads it (a .mo file)."""
    texts = [(key.encode(), value.encode()) for key, value in sorted(messages.items())]
    at = 28 + 16 * len(texts)
    tables: list[bytes] = []
    strings = b""
    for column in (0, 1):
        for pair in texts:
            tables.append(struct.pack("<II", len(pair[column]), at + len(strings)))
            strings += pair[column] + b"\0"
    head = struct.pack("<7I", 0x950412DE, 0, len(texts), 28, 28 + 8 * len(texts), 0, 0)
    return head + b"".join(tables) + strings


@pytest.fixture
def german(tmp_path: Path, settings: Any) -> None:
    """A few words of another language, as an operator or translator would add one."""
    folder = tmp_path / "locale" / "de" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    (folder / "django.mo").write_bytes(compiled(HEADER | PAGES))
    (folder / "djangojs.mo").write_bytes(compiled(HEADER | SCRIPTS))
    settings.LOCALE_PATHS = [tmp_path / "locale"]
    settings.LANGUAGES = [("en", "English"), ("de", "Deutsch")]


@pytest.fixture
def reader(db: None) -> APIClient:
    client = client_of()
    client.force_login(factories.make_user("alice"))
    return client


def test_a_pages_words_are_the_readers(reader: APIClient) -> None:
    factories.make_completed_job("word")
    answer = reader.get("/", headers=ASKED)
    page = answer.content.decode()
    assert '<html lang="de">' in page
    assert ">Mitschriften</h1>" in page
    assert (answer["Content-Language"], "Accept-Language" in answer["Vary"]) == ("de", True)
    english = reader.get("/").content.decode()
    assert '<html lang="en">' in english
    assert ">Transcripts</h1>" in english


def test_a_status_is_told_by_its_label(reader: APIClient) -> None:
    job = factories.make_completed_job("word")
    for address in ("/", f"/t/{job.pk}"):
        page = reader.get(address, headers=ASKED).content.decode()
        assert re.search(r'class="badge completed"[^>]*>Fertig<', page), address


def test_the_names_of_limits_are_words(reader: APIClient, settings: Any) -> None:
    settings.QUOTA_JOBS_IN_FLIGHT = 3
    assert (
        "Mitschriften in Arbeit: 0 " in reader.get("/account/usage", headers=ASKED).content.decode()
    )
    assert "Transcripts in progress: 0 " in reader.get("/account/usage").content.decode()


def test_scripts_get_their_words_from_the_catalogue(anybody: APIClient) -> None:
    answer = anybody.get("/jsi18n", headers=ASKED)
    assert answer["Content-Type"].startswith("text/javascript")
    assert "max-age=" in answer["Cache-Control"]
    assert r"Zur\u00fcckholen" in answer.content.decode()
    assert "Zur" not in anybody.get("/jsi18n").content.decode()


def test_a_language_without_a_catalogue_is_english(reader: APIClient) -> None:
    page = reader.get("/", headers={"Accept-Language": "fr"}).content.decode()
    assert '<html lang="en">' in page


def test_the_api_speaks_english(reader: APIClient, alice: APIClient, anybody: APIClient) -> None:
    """Also right after a page, in the same thread; Django and REST framework know German."""
    job = factories.make_completed_job("word")
    calls: list[tuple[APIClient, str, str, dict[str, Any]]] = [
        (anybody, "get", "/transcript/search", {}),
        (reader, "post", "/transcribe", {"audioChunkPaths": "x", "title": 3}),
        (alice, "post", "/transcribe", {}),
        (alice, "get", f"/transcript/{job.pk}", {}),
        (alice, "delete", "/transcript/search", {}),
        (alice, "get", "/nothing-there", {}),
        (alice, "get", "/engines", {}),
    ]
    for client, method, address, body in calls:
        assert "Anmelden" in anybody.get("/sign-in", headers=ASKED).content.decode()
        answers = [
            getattr(client, method)(address, body, headers={"Accept-Language": language})
            for language in ("en", "de")
        ]
        assert answers[0].content == answers[1].content, address
        assert answers[1]["Content-Type"] == "application/json"
        assert "Accept-Language" not in answers[1].get("Vary", "")
    refused = reader.post("/transcribe", {"audioChunkPaths": 3}, headers=ASKED)
    assert "Expected a list of items" in refused.content.decode()


@pytest.mark.skipif(
    shutil.which("xgettext") is None and "CI" not in os.environ,  # there it is to fail
    reason="GNU gettext is not installed",
)
def test_makemessages_finds_the_words_of_pages_and_scripts(tmp_path: Path, settings: Any) -> None:
    """What it does not find cannot be translated."""
    (tmp_path / "new").mkdir()
    settings.LOCALE_PATHS = [tmp_path / "new"]
    options = {"locale": ["de"], "verbosity": 0, "no_obsolete": True}
    ignored = [".venv/*", "var/*", "tests/*", "docs/*", "benchmarks/*"]
    for domain in ("django", "djangojs"):
        call_command("makemessages", domain=domain, ignore_patterns=ignored, **options)
    found = {
        domain: (tmp_path / "new" / "de" / "LC_MESSAGES" / f"{domain}.po").read_text()
        for domain in ("django", "djangojs")
    }
    for text in ("Minutes of sound a day", "Completed", "Your unsaved text"):
        assert f'msgid "{text}"' in found["django"]
    scripts = BASE_DIR / "jobs" / "static" / "verbatim"
    used = [
        text
        for script in scripts.glob("*.js")
        for text in re.findall(r'gettext\(\s*"([^"]+)"', script.read_text())
    ]
    assert len(used) > 30
    joined = found["djangojs"].replace('"\n"', "")
    assert [text for text in used if f'msgid "{text}"' not in joined] == []
