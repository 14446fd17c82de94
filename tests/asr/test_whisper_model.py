"""How a model comes from the hub to this machine, and what is said when it does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
