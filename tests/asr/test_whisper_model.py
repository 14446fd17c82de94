"""Models as files: what a folder or a name tells, and how one comes here from the hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from asr.child_pool import ChildPool
from asr.engines.faster_whisper import FasterWhisperEngine
from asr.errors import EngineMisconfigured
from tests.asr.hub import serving
from tests.asr.tiny_whisper import TinyWhisper

REPOSITORY = "Systran/faster-whisper-small"  # what faster-whisper takes the name "small" for
FILES = {
    *("config.json", "model.bin", "preprocessor_config.json", "tokenizer.json", "vocabulary.json")
}
NOWHERE = "http://127.0.0.1:9"  # the discard port: nobody listens

PREPARE = """
import sys
from asr.child_pool import ChildPool
from asr.engines.faster_whisper import FasterWhisperEngine
from asr.errors import AsrError
for name in sys.argv[1:]:
    engine = FasterWhisperEngine(pool=ChildPool(1), model=name, device="cpu")
    for step in (engine.prepare, lambda: engine.verify(60)):
        try:
            step()
            print("done")
        except AsrError as error:
            print(error.detail)
"""


def run(home: Path, endpoint: str, *names: str) -> list[str]:
    """Prepare and verify each model in a process of its own; a line for each step.

    The library reads its environment once, when it is imported.
    """
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
        "PYTHONPATH": str(Path.cwd()),
        "HF_HOME": str(home),
        "HF_ENDPOINT": endpoint,
    }
    done = subprocess.run(
        [sys.executable, "-c", PREPARE, *names],
        capture_output=True,
        text=True,
        timeout=110,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_model_is_fetched_once_and_found_without_the_hub_afterwards(tmp_path: Path) -> None:
    folder = TinyWhisper().build(tmp_path / "tiny")
    (folder / "README.md").write_text("what nobody needs")
    with serving(REPOSITORY, folder) as hub:
        assert run(tmp_path / "home", hub.url, "small") == ["done", "done"]
        assert set(hub.fetched) == FILES
        count = len(hub.fetched)
        assert run(tmp_path / "home", hub.url, "small") == ["done", "done"]
        assert len(hub.fetched) == count
    assert run(tmp_path / "home", NOWHERE, "small") == ["done", "done"]


def test_a_name_that_nobody_knows_is_one_clear_line(tmp_path: Path) -> None:
    folder = TinyWhisper().build(tmp_path / "tiny")
    with serving(REPOSITORY, folder) as hub:
        lines = run(tmp_path / "home", hub.url, "smal", "nobody/nothing")
    assert lines == [
        "there is no Whisper model named 'smal' (WHISPER_MODEL)",
        "the Whisper model 'smal' is not on this machine",
        "there is no Whisper model named 'nobody/nothing' (WHISPER_MODEL)",
        "the Whisper model 'nobody/nothing' is not on this machine",
    ]


def test_a_hub_that_cannot_be_reached_is_one_clear_line(tmp_path: Path) -> None:
    prepared, verified = run(tmp_path / "home", NOWHERE, "small")
    assert prepared == (
        "the Whisper model 'small' cannot be downloaded: the Hugging Face hub cannot be reached; "
        "WHISPER_MODEL may name a folder instead"
    )
    assert verified == "the Whisper model 'small' is not on this machine"


@pytest.mark.parametrize("missing", ["tokenizer.json", "model.bin"])
def test_a_repository_that_lacks_a_file_is_one_clear_line(tmp_path: Path, missing: str) -> None:
    folder = TinyWhisper().build(tmp_path / "tiny")
    (folder / missing).unlink()
    with serving(REPOSITORY, folder) as hub:
        lines = run(tmp_path / "home", hub.url, "small")
    assert lines == [f"the folder of the Whisper model lacks {missing}"] * 2


def test_a_cache_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    folder = TinyWhisper().build(tmp_path / "tiny")
    (tmp_path / "home").write_text("no folder")
    with serving(REPOSITORY, folder) as hub:
        line, _ = run(tmp_path / "home", hub.url, "small")
    assert line.startswith("the Whisper model 'small' cannot be downloaded: ")
    assert str(tmp_path) not in line


@pytest.mark.parametrize(
    ("name", "count", "cantonese"),
    [
        ("small", 99, False),
        ("large-v3", 100, True),
        ("turbo", 100, True),
        ("mobiuslabsgmbh/faster-whisper-large-v3-turbo", 100, True),
        ("small.en", 1, False),
        ("Systran/faster-whisper-medium.en", 1, False),
        ("distil-large-v3", 1, False),
    ],
)
def test_a_model_s_name_tells_its_languages(
    pool: ChildPool, name: str, count: int, cantonese: bool
) -> None:
    engine = FasterWhisperEngine(pool=pool, model=name)
    languages = engine.capabilities.languages
    assert languages is not None
    assert (engine.model, len(languages), "yue" in languages) == (name, count, cantonese)
    assert "en" in languages


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def drop(path: Path, key: str) -> None:
    content = json.loads(path.read_text())
    del content[key]
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda f: (f / "model.bin").unlink(), "lacks model.bin"),
        (lambda f: (f / "tokenizer.json").unlink(), "lacks tokenizer.json"),
        (lambda f: (f / "config.json").unlink(), "lacks config.json"),
        (lambda f: cut(f / "tokenizer.json"), "tokenizer.json of the Whisper model is damaged"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer.json of the Whisper model"),
        (lambda f: cut(f / "config.json"), "config.json of the Whisper model is damaged"),
        (lambda f: (f / "config.json").write_text("[]"), "config.json of the Whisper model is dam"),
        (lambda f: drop(f / "config.json", "alignment_heads"), "lacks alignment_heads"),
    ],
)
def test_a_folder_that_is_no_whole_model_is_refused_at_once(
    tmp_path: Path, pool: ChildPool, damage: Callable[[Path], None], line: str
) -> None:
    folder = TinyWhisper().build(tmp_path / "tiny")
    damage(folder)
    with pytest.raises(EngineMisconfigured) as caught:
        FasterWhisperEngine(pool=pool, model=str(folder))
    assert line in caught.value.detail
    assert str(tmp_path) not in caught.value.detail


@pytest.mark.parametrize("model", ["/no/such/folder", "a/b/c", "", "two words", "~/model"])
def test_what_is_neither_folder_nor_name_is_refused_at_once(pool: ChildPool, model: str) -> None:
    with pytest.raises(EngineMisconfigured, match="neither a folder nor the name of a model"):
        FasterWhisperEngine(pool=pool, model=model)
