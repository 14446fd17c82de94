"""The engine faster-whisper, on a model that says what it was made to say."""

from __future__ import annotations

import itertools
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tokenizers import Tokenizer

from asr import whisper_model
from asr.child_pool import ChildPool
from asr.child_process import ANSWER_MAX_BYTES
from asr.engines import faster_whisper
from asr.engines.faster_whisper import MAX_SECONDS, FasterWhisperEngine
from asr.errors import ChildBusy, ChildTimeout, EngineMisconfigured, EngineUnavailable
from asr.types import AudioRequest, Recognition, Segment, Word
from asr.whisper_child import PROMPT_TOKENS, _hotwords, _probability
from tests.asr.cases import refused
from tests.asr.sounds import MANIFEST, RATE, encode, noise, request, sample, samples_of, silence
from tests.asr.test_child_pool import eventually, is_gone
from tests.asr.tiny_whisper import TinyWhisper, shared_model

SAID = "alpha bravo charlie delta echo foxtrot."
# A word ends where the next begins; the last before a pause takes the pause as well.
TIMES = [(0.0, 0.34), (0.34, 0.66), (0.66, 1.1), (1.1, 1.4), (1.4, 1.7), (1.7, 2.0)]
FRAME = 0.02  # seconds; what the model's times are multiples of

Sound = npt.NDArray[np.int16]
Build = Callable[..., FasterWhisperEngine]


@pytest.fixture(scope="module")
def build() -> Iterator[Build]:
    """Builds engines of the shared model; equal ones are one, and all are closed at the end.

    Their children end when idle, so that few are alive at once.
    """
    pool, built = ChildPool(1), {}

    def engine(**options: Any) -> FasterWhisperEngine:
        usual = {"model": shared_model(), "device": "cpu", "vad": False, "idle_seconds": 20.0}
        options = {**usual, **options}
        key = tuple(sorted(options.items()))
        if key not in built:
            built[key] = FasterWhisperEngine(pool=pool, **options)
        return built[key]

    yield engine
    for each in built.values():
        each.close()
    pool.close()


@pytest.fixture
def engine(build: Build) -> FasterWhisperEngine:
    return build()


@cache
def all_samples() -> Sound:
    return np.concatenate([samples_of(sample(index)) for index in range(len(MANIFEST))])


def speech(seconds: float) -> Sound:
    """The samples, one after the other, again and again."""
    return np.resize(all_samples(), round(seconds * RATE))


def ask(sound: Sound, **options: Any) -> AudioRequest:
    options = {"deadline_seconds": 100.0, **options}
    return request(encode(sound, "flac"), seconds=len(sound) / RATE, **options)


def words_of(recognition: Recognition) -> list[Word]:
    return [word for segment in recognition.segments for word in segment.words]


def pid_of(engine: FasterWhisperEngine) -> int:
    return engine._models.run(os.getpid, limit=60)


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("batch_size", [1, 8])
@pytest.mark.parametrize("quantization", [None, "int8"])
def test_words_come_with_their_times_and_confidence(
    tmp_path: Path, pool: ChildPool, quantization: str | None, batch_size: int
) -> None:
    folder = TinyWhisper(quantization=quantization).build(tmp_path / "tiny")
    engine = FasterWhisperEngine(pool=pool, model=str(folder), batch_size=batch_size)
    heard = engine.transcribe(ask(speech(8.0)))
    engine.close()
    assert (heard.engine, heard.model, heard.usage) == ("faster-whisper", "tiny", None)
    assert (heard.text, heard.language) == (SAID, "en")
    assert heard.language_confidence == pytest.approx(0.917, abs=0.01)
    assert heard.confidence == pytest.approx(1.0, abs=0.01)
    assert [segment.text for segment in heard.segments] == [
        "alpha bravo charlie",
        "delta echo foxtrot.",
    ]
    assert [segment.confidence for segment in heard.segments] == pytest.approx([1, 1], abs=0.01)
    for word, text, (start, end) in zip(words_of(heard), SAID.split(), TIMES, strict=True):
        assert word.text == text
        # The filter has cut some silence off the beginning, and the times take it in again.
        assert word.start - words_of(heard)[0].start == pytest.approx(start, abs=FRAME)
        assert word.end - words_of(heard)[0].start == pytest.approx(end, abs=FRAME)


@pytest.mark.parametrize("options", [{"vad": True}, {"compute_type": "int8"}, {"batch_size": 1}])
def test_what_changes_the_words_makes_another_variant(
    build: Build, options: dict[str, Any]
) -> None:
    assert build(**options).variant != build().variant == build(batch_size=4).variant


def test_without_the_filter_every_window_is_heard(engine: FasterWhisperEngine) -> None:
    heard = engine.transcribe(ask(speech(44.0)))
    assert heard.text == f"{SAID} {SAID}"
    times = [(word.start, word.end) for word in words_of(heard)]
    expected = [*TIMES, *((start + 30, end + 30) for start, end in TIMES)]
    assert times == [pytest.approx(pair, abs=FRAME) for pair in expected]


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"vad": True}])
def test_the_text_so_far_is_heard_before_the_end(build: Build, options: dict[str, Any]) -> None:
    texts: list[str] = []
    asked = ask(speech(44.0), hear=texts.append)
    heard = build(**options).transcribe(asked)
    assert len(texts) == len(heard.segments) > 1
    assert texts[-1] == heard.text
    assert all(later.startswith(f"{text} ") for text, later in itertools.pairwise(texts))
    assert heard == build(**options).transcribe(replace(asked, hear=None))


@pytest.mark.parametrize("batch_size", [1, 8])
def test_with_the_filter_times_are_those_of_the_file(build: Build, batch_size: int) -> None:
    sound = np.concatenate([silence(6.0), speech(8.0), silence(40.0), speech(8.0)])
    heard = build(vad=True, batch_size=batch_size).transcribe(ask(sound))
    words = words_of(heard)
    assert {word.text for word in words} <= set(SAID.split())
    assert 5.0 <= words[0].start <= 7.0
    assert all(word.end <= len(sound) / RATE for word in words)
    assert not [word for word in words if 16.0 <= word.start < 52.0]


def test_the_filter_keeps_the_model_from_hearing_words_in_noise(build: Build) -> None:
    hiss = (noise(10.0) / 10).astype(np.int16)
    assert build().transcribe(ask(hiss)).text == SAID
    for batch_size in (1, 8):
        heard = build(vad=True, batch_size=batch_size).transcribe(ask(hiss))
        assert (heard.segments, heard.language, heard.language_confidence) == ((), None, None)


@pytest.mark.parametrize("seconds", [0.1, 10.0])
def test_silence_is_no_words_in_no_language(build: Build, seconds: float) -> None:
    for options in ({}, {"vad": True, "batch_size": 1}, {"vad": True}):
        heard = build(**options).transcribe(ask(silence(seconds)))
        assert (heard.segments, heard.language, heard.language_confidence) == ((), None, None)
    given = build().transcribe(ask(silence(seconds), language="de"))
    assert (given.segments, given.language) == ((), "de")


def test_no_time_lies_beyond_the_end_of_the_sound(engine: FasterWhisperEngine) -> None:
    heard = engine.transcribe(ask(speech(0.5)))
    assert heard.text == "alpha bravo charlie"
    items: list[Segment | Word] = [*heard.segments, *words_of(heard)]
    times = [(item.start, item.end) for item in items]
    assert all(0 <= start <= end <= 0.5 for start, end in times)


@pytest.mark.parametrize(
    ("options", "language"),
    [
        ({"language": "de"}, "de"),
        ({"language": "pt-BR"}, "pt"),
        ({"language": "jv"}, "jv"),
        ({"language": "es", "expected_language": "de"}, "es"),
    ],
)
def test_a_language_that_is_given_is_taken(
    engine: FasterWhisperEngine, options: dict[str, str], language: str
) -> None:
    heard = engine.transcribe(ask(speech(3.0), **options))
    assert (heard.text, heard.language, heard.language_confidence) == (SAID, language, None)


@pytest.mark.parametrize(
    ("spoken", "expected", "language", "confidence"),
    [
        ((("en", 0.9), ("es", 0.08)), "es", "en", 0.9),  # sure: a hint is no order
        ((("en", 0.4), ("jw", 0.35), ("es", 0.2)), "jv", "jv", 0.35),
        ((("en", 0.4), ("jw", 0.35), ("es", 0.2)), "en-GB", "en", 0.4),
        ((("en", 0.4), ("jw", 0.35), ("es", 0.2)), "yue", "en", 0.4),  # unknown to the model
        ((("en", 0.4), ("jw", 0.35), ("es", 0.2)), None, "en", 0.4),
    ],
)
def test_the_expected_language_decides_where_detection_is_in_doubt(
    tmp_path_factory: pytest.TempPathFactory,
    build: Build,
    spoken: tuple[tuple[str, float], ...],
    expected: str | None,
    language: str,
    confidence: float,
) -> None:
    folder = tmp_path_factory.getbasetemp() / f"spoken-{spoken[0][1]}"
    if not folder.exists():
        TinyWhisper(spoken=spoken).build(folder)
    engine = build(model=str(folder), vad=True)
    heard = engine.transcribe(ask(speech(5.0), expected_language=expected))
    assert (heard.text, heard.language) == (SAID, language)
    assert heard.language_confidence == pytest.approx(confidence, abs=0.05)


def test_a_vocabulary_longer_than_the_prompt_silences_nothing(engine: FasterWhisperEngine) -> None:
    vocabulary = tuple(f"word{number:02d} " + "x" * 93 for number in range(100))
    for options in ({}, {"language": "en"}):
        heard = engine.transcribe(ask(speech(44.0), vocabulary=vocabulary, **options))
        assert heard.text == f"{SAID} {SAID}"
    one = engine.transcribe(ask(speech(3.0), vocabulary=("y" * 100, "<|endoftext|>", " ", "")))
    assert one.text == SAID


def test_a_vocabulary_that_the_prompt_cannot_take_is_refused(engine: FasterWhisperEngine) -> None:
    fits = ("x" * 98,) * 4  # 200 tokens are 400 bytes, two of them between each
    assert refused(engine, vocabulary=fits) is None
    assert refused(engine, vocabulary=(*fits, "y")) == "vocabulary"
    assert refused(engine, language="yue", vocabulary=(*fits, "y")) == "language"


def test_a_vocabulary_in_any_script_is_taken_whole_or_refused(
    engine: FasterWhisperEngine,
) -> None:
    model: Any = SimpleNamespace(hf_tokenizer=_ByteTokenizer())
    for letter in ("7", "Q", "-", "ш", "語", "አ", "𐍈"):
        size = len(letter.encode())
        most = (letter * ((PROMPT_TOKENS - 1) // size),)
        assert refused(engine, vocabulary=most) is None
        assert _hotwords(model, most) == most[0]
        assert refused(engine, vocabulary=(most[0] + letter,)) == "vocabulary"
    codes = ("QX7Z-9K2B",) * (PROMPT_TOKENS // len("QX7Z-9K2B,"))
    assert refused(engine, vocabulary=codes) is None
    assert _hotwords(model, codes) == ", ".join(codes)
    assert refused(engine, vocabulary=(*codes, codes[0])) == "vocabulary"


class _ByteTokenizer:
    """The worst that a tokenizer does in codes and scripts that it hardly knows: a token a byte.

    A space before a word goes with it, as Whisper's tokenizer has it.
    """

    def encode(self, text: str, *, add_special_tokens: bool) -> SimpleNamespace:
        assert not add_special_tokens
        return SimpleNamespace(ids=list(text.lstrip().encode()))


def test_the_prompt_takes_whole_words_and_no_control_tokens() -> None:
    tokenizer = Tokenizer.from_file(str(Path(shared_model()) / "tokenizer.json"))
    model: Any = SimpleNamespace(hf_tokenizer=tokenizer)
    # A character is a token here, so no two of these long ones fit together.
    long, short = ["x" * 120, "y" * 120], ["<|endoftext|>", " two  words ", " ", "z" * 300, "end"]
    kept = _hotwords(model, (*long, *short))
    assert kept == f"{long[0]}, endoftext|>, two words, end"
    ids = tokenizer.encode(f" {kept}", add_special_tokens=False).ids
    assert len(ids) <= PROMPT_TOKENS
    assert max(ids) < (tokenizer.token_to_id("<|endoftext|>") or 0)
    assert _hotwords(model, ()) is None


def test_an_english_only_model_speaks_english_alone(tmp_path: Path, pool: ChildPool) -> None:
    folder = TinyWhisper(multilingual=False).build(tmp_path / "tiny.en")
    engine = FasterWhisperEngine(pool=pool, model=str(folder))
    assert engine.capabilities.languages == frozenset({"en"})
    assert not engine.capabilities.detects_language
    for options in ({}, {"language": "en-US"}, {"expected_language": "de"}):
        heard = engine.transcribe(ask(speech(3.0), **options))
        assert (heard.text, heard.language, heard.language_confidence) == (SAID, "en", None)
    with pytest.raises(EngineMisconfigured, match="does not know the language 'de'"):
        engine.transcribe(ask(speech(3.0), language="de"))
    engine.close()


def test_a_language_that_the_tokenizer_lacks_is_refused_and_not_left_out(
    engine: FasterWhisperEngine,
) -> None:
    assert refused(engine, language="yue") == "language"
    assert refused(engine, language="de", vocabulary=("a",)) is None
    with pytest.raises(EngineMisconfigured, match="does not know the language 'yue'"):
        engine.transcribe(ask(speech(3.0), language="yue"))


def test_half_an_hour_of_samples_fits_into_an_answer() -> None:
    assert MAX_SECONDS * RATE * 2 < ANSWER_MAX_BYTES


def test_the_model_is_loaded_once_and_the_child_kept(build: Build) -> None:
    engine = build(idle_seconds=301.0, processes=1)
    engine.verify(limit=60)
    pid = pid_of(engine)
    assert engine.transcribe(ask(speech(2.0))).text == SAID
    assert pid_of(engine) == pid


def test_the_model_s_process_downloads_nothing_and_its_threads_wait_asleep(
    engine: FasterWhisperEngine,
) -> None:
    expected = {"HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    for name, value in expected.items():
        assert engine._models.run(os.getenv, name, limit=60) == value


def test_two_children_hear_at_once(build: Build) -> None:
    engine = build(processes=2)
    heard: list[str] = []
    asked = ask(speech(44.0))
    threads = [
        threading.Thread(target=lambda: heard.append(engine.transcribe(asked).text))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert heard == [f"{SAID} {SAID}"] * 6
    children = [child for child in engine._models._idle if child is not None]
    assert len(children) == 2
    assert all(child.calls for child in children)


def test_a_call_past_its_deadline_ends_its_child_alone(engine: FasterWhisperEngine) -> None:
    pid = pid_of(engine)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(ChildTimeout) as caught:
        engine.transcribe(ask(speech(3.0), deadline_seconds=8.0))
    assert not isinstance(caught.value, ChildBusy)
    assert is_gone(pid)
    assert engine.transcribe(ask(speech(3.0))).text == SAID


def test_an_idle_child_ends_and_its_memory_is_back(build: Build) -> None:
    engine = build(idle_seconds=1.0)
    assert engine.transcribe(ask(speech(2.0))).text == SAID
    (child,) = engine._models._idle
    assert child is not None
    pid = child._process.pid
    assert eventually(lambda: is_gone(pid), seconds=60)
    assert not Path(f"/proc/{pid}/statm").exists() or resident_bytes(pid) == 0
    assert engine.transcribe(ask(speech(2.0))).text == SAID


def test_a_chunk_that_finds_no_model_ready_is_to_come_again(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = build(idle_seconds=302.0)
    monkeypatch.setattr(faster_whisper, "_PATIENCE", 0.0)
    with pytest.raises(ChildBusy) as caught:
        engine.transcribe(ask(speech(2.0)))
    assert caught.value.retry_after is not None
    monkeypatch.setattr(faster_whisper, "_PATIENCE", 0.25)
    assert engine.transcribe(ask(speech(2.0))).text == SAID


def test_more_callers_than_models_only_wait(engine: FasterWhisperEngine) -> None:
    results: list[Any] = []
    asked = ask(speech(5.0))

    def call() -> None:
        try:
            results.append(engine.transcribe(asked).text)
        except Exception as error:
            results.append(error)

    threads = [threading.Thread(target=call) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert results == [SAID] * 12


def test_a_forked_process_recognises_and_the_parent_never_loads_whisper() -> None:
    code = (
        "import os, sys\n"
        "from asr.child_pool import ChildPool\n"
        "from asr.engines.faster_whisper import FasterWhisperEngine\n"
        "from tests.asr.sounds import encode, request\n"
        "import numpy as np\n"
        "engine = FasterWhisperEngine(pool=ChildPool(1), model=sys.argv[1], vad=False)\n"
        "sound = np.random.default_rng(0).normal(0, 2000, 32000).astype(np.int16)\n"
        "asked = request(encode(sound, 'flac'), seconds=2.0, deadline_seconds=100.0)\n"
        "for _ in range(2):\n"
        "    print(engine.transcribe(asked).text, flush=True)\n"
        "    print({'ctranslate2', 'faster_whisper'} & set(sys.modules), flush=True)\n"
        "    if (child := os.fork()): sys.exit(os.waitpid(child, 0)[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, shared_model()],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        check=False,
    )
    assert (done.stdout, done.returncode) == (f"{SAID}\nset()\n" * 2, 0), done.stderr


def test_verifying_loads_the_model_and_lets_it_listen(build: Build, tmp_path: Path) -> None:
    build().verify(limit=60)
    folder = TinyWhisper().build(tmp_path / "damaged")
    (folder / "model.bin").write_bytes(b"no weights")
    engine = build(model=str(folder))
    with pytest.raises(EngineMisconfigured, match="files of the Whisper model are damaged"):
        engine.verify(limit=60)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"compute_type": "float16"}, "WHISPER_COMPUTE_TYPE=float16 does not work on this machine"),
        ({"compute_type": "nonsense"}, "WHISPER_COMPUTE_TYPE=nonsense does not work"),
        ({"device": "cuda"}, "WHISPER_DEVICE=cuda does not work"),
        ({"device": "toaster"}, "WHISPER_DEVICE=toaster does not work"),
    ],
)
def test_what_this_machine_cannot_do_is_one_clear_line(
    build: Build, options: dict[str, str], line: str
) -> None:
    with pytest.raises(EngineMisconfigured) as caught:
        build(**options).transcribe(ask(speech(1.0)))
    assert caught.value.detail.startswith(line)


def test_without_the_extra_it_says_how_to_install_it(
    pool: ChildPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        faster_whisper, "find_spec", lambda name: None if "whisper" in name else find_spec(name)
    )
    with pytest.raises(EngineMisconfigured, match="not installed: `make whisper`"):
        FasterWhisperEngine(pool=pool)


def test_without_a_model_it_says_which_variable_names_one(pool: ChildPool) -> None:
    with pytest.raises(EngineMisconfigured, match="needs WHISPER_MODEL"):
        FasterWhisperEngine(pool=pool)


def test_verifying_leaves_no_model_in_memory(build: Build) -> None:
    engine = build(idle_seconds=303.0)
    engine.verify(limit=60)
    assert engine._models._idle == [None]
    assert engine.transcribe(ask(speech(2.0))).text == SAID


def test_verifying_a_model_that_is_not_loaded_in_time_says_to_ask_again(build: Build) -> None:
    engine = build(idle_seconds=304.0)
    with pytest.raises(EngineUnavailable, match="still being loaded: ask again") as caught:
        engine.verify(limit=0.05)
    assert caught.value.code == "engine_timeout"
    engine.verify(limit=100)


def test_a_probability_that_is_none_is_left_out() -> None:
    assert _probability(math.nan) is None
    assert (_probability(1.5), _probability(-0.1)) == (1.0, 0.0)


def test_preparing_a_folder_asks_nobody(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whisper_model, "fetch", lambda name: pytest.fail("asked"))
    build().prepare()
