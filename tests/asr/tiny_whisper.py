"""A Whisper model of a few hundred kilobytes with weights written by hand, for faster-whisper.

Whatever it hears, it says the same script, with known times, in every window of 30 seconds. Each
token's embedding is one state of a chain, one-hot, and the output projection maps a state to the
token that follows: layers in between pass it on untouched, but for three that listen. One sees
`<|notimestamps|>`, one digital silence, and one tells the alignment where each word was heard.
"""

from __future__ import annotations

import atexit
import itertools
import json
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from ctranslate2.specs import WhisperSpec
from faster_whisper.tokenizer import _LANGUAGE_CODES
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

FRAMES, TOKENS, FRAMES_PER_SECOND = 1500, 448, 50
FLAG, QUIET, OTHER = 0, 1, 2  # dimensions with a meaning of their own; the states follow
SURE, LIKELY = 30.0, 24.0  # logits of the next token, and of the one that comes in its absence
CONTROL = ("translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps")

Array = npt.NDArray[np.float32]


class Line(NamedTuple):
    """A segment of the script; times in even hundredths of a second."""

    start: float
    end: float
    text: str


SCRIPT = (Line(0.0, 1.0, "alpha bravo charlie"), Line(1.1, 2.0, "delta echo foxtrot."))


@dataclass(frozen=True, kw_only=True)
class TinyWhisper:
    """What the model says and which languages it believes to hear; `build` writes its folder.

    A script holds each word and each time only once, and at most 31 words. `quantization` is the
    stored type (None: float32). A wider and deeper model says the same, only more slowly.
    """

    script: Sequence[Line] = SCRIPT
    spoken: Sequence[tuple[str, float]] = (("en", 0.9), ("es", 0.08))
    languages: Sequence[str] = tuple(code for code in _LANGUAGE_CODES if code != "yue")
    multilingual: bool = True
    quantization: str | None = None
    width: int = 64
    layers: int = 2

    def build(self, folder: Path) -> Path:
        """Write the folder that `faster_whisper.WhisperModel` loads, and return it."""
        folder.mkdir(parents=True, exist_ok=True)
        _Weights(self, _tokenizer(self)).save(folder)
        preprocessor = {"feature_size": 80, "hop_length": 160, "n_fft": 400, "sampling_rate": 16000}
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
        return folder


@cache
def shared_model() -> str:
    """One folder for all tests of a run; removed at its end."""
    folder = tempfile.mkdtemp(prefix="verbatim-test-whisper-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return str(TinyWhisper().build(Path(folder)))


def _alphabet() -> list[str]:
    """The 256 printable characters of a byte-level vocabulary, by byte value."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = iter(range(256, 512))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]


def _spell(text: str) -> str:
    return "".join(_alphabet()[byte] for byte in text.encode())


def _tokenizer(model: TinyWhisper) -> Tokenizer:
    vocabulary = {character: number for number, character in enumerate(sorted(_alphabet()))}
    merges = []
    words = [_spell(f" {word}") for line in model.script for word in line.text.split()]
    # faster-whisper bans the first token of " -", " '" and " ♪": it must not be the mere space.
    for chain in (*(_spell(text)[:2] for text in (" -", " '", " ♪")), *words):
        left = chain[0]
        for right in chain[1:]:
            if left + right not in vocabulary:
                vocabulary[left + right] = len(vocabulary)
                merges.append((left, right))
            left += right
    if model.multilingual:
        vocabulary[""] = len(vocabulary)  # by this CTranslate2 knows
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ("endoftext", "startoftranscript", *model.languages, *CONTROL)
    tokenizer.add_special_tokens([_added(name, special=True) for name in special])
    times = [f"{number * 0.02:.2f}" for number in range(FRAMES + 1)]
    tokenizer.add_tokens([_added(time, special=False) for time in times])
    return tokenizer


def _added(name: str, *, special: bool) -> AddedToken:
    return AddedToken(f"<|{name}|>", special=special, normalized=False)


class _Weights:
    """The numbers behind the script."""

    def __init__(self, model: TinyWhisper, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.size = tokenizer.get_vocab_size()
        self.lines = [
            (self.id(f"{line.start:.2f}"), self.words(line.text), self.id(f"{line.end:.2f}"))
            for line in model.script
        ]
        self.language_ids = sorted(self.id(code) for code in model.languages)
        self.tasks = [self.id("transcribe"), self.id("translate")]
        self.no_timestamps = self.id("notimestamps")
        self.state: dict[int, int] = {}  # token: its dimension
        self.spec = WhisperSpec(model.layers, 2, model.layers, 2)

    def id(self, name: str) -> int:
        return self._number(f"<|{name}|>")

    def words(self, text: str) -> list[int]:
        return [self._number(_spell(f" {word}")) for word in text.split()]

    def _number(self, token: str) -> int:
        number = self.tokenizer.token_to_id(token)
        assert number is not None, f"no token {token!r}: times are even hundredths, at most 30"
        return number

    def save(self, folder: Path) -> None:
        self._name_states()
        for layer in (*self.spec.encoder.layer, *self.spec.decoder.layer):
            self._pass_on(layer)
        self._write_encoder()
        self._write_decoder()
        self._write_projection()
        self._write_config()
        self.spec.validate()
        self.spec.optimize(quantization=self.model.quantization)
        self.spec.save(str(folder))
        self.tokenizer.save(str(folder / "tokenizer.json"), pretty=False)

    def _name_states(self) -> None:
        sot = self.id("startoftranscript")
        groups = [[sot], self.language_ids, self.tasks, [self.no_timestamps]]
        for opening, words, closing in self.lines:
            groups += [[opening], *([word] for word in words), [closing]]
        for dimension, group in enumerate(groups, start=OTHER + 1):
            for token in group:
                assert token not in self.state, "a word or time stands twice in the script"
                self.state[token] = dimension
        assert OTHER + 1 + len(groups) <= self.model.width, "the script is too long"

    def _successors(self) -> Iterable[tuple[int, int, float]]:
        """Token, the one that follows it, and its logit."""
        eot = self.id("endoftext")
        for code, probability in self.model.spoken:
            yield self.id("startoftranscript"), self.id(code), SURE + float(np.log(probability))
        first_time, first_words, _ = self.lines[0]
        yield self.language_ids[0], self.tasks[0], SURE
        yield self.tasks[0], first_time, SURE
        yield self.no_timestamps, first_words[0], SURE
        # An English-only model is asked for nothing: neither language nor task.
        if not self.model.multilingual:
            yield self.id("startoftranscript"), first_time, SURE
        for number, (opening, words, closing) in enumerate(self.lines, start=1):
            following = self.lines[number] if number < len(self.lines) else None
            yield opening, words[0], SURE
            for word, after in itertools.pairwise(words):
                yield word, after, SURE
            # Without timestamps the closing one is turned down, and the words run on.
            yield words[-1], closing, SURE
            yield words[-1], following[1][0] if following else eot, LIKELY
            yield closing, following[0] if following else eot, SURE

    def _zeros(self, *shape: int) -> Array:
        return np.zeros(shape, np.float32)

    def _norm(self, norm: Any) -> None:
        width = self.model.width
        norm.gamma, norm.beta = np.ones(width, np.float32), self._zeros(width)

    def _linear(self, linear: Any, rows: int, columns: int) -> None:
        linear.weight, linear.bias = self._zeros(rows, columns), self._zeros(rows)

    def _attention(self, attention: Any, rows: Sequence[int]) -> None:
        self._norm(attention.layer_norm)
        for linear, count in zip(attention.linear, rows, strict=True):
            self._linear(linear, count, self.model.width)

    def _pass_on(self, layer: Any) -> None:
        """Add nothing to what comes in."""
        width = self.model.width
        self._attention(layer.self_attention, (3 * width, width))
        if hasattr(layer, "attention"):
            self._attention(layer.attention, (width, 2 * width, width))
        self._norm(layer.ffn.layer_norm)
        self._linear(layer.ffn.linear_0, 4 * width, width)
        self._linear(layer.ffn.linear_1, width, 4 * width)
        noise = np.random.default_rng(0).normal(0, 0.1, (4 * width, width))
        layer.ffn.linear_0.weight = noise.astype(np.float32)  # computed; linear_1 drops it

    def _write_encoder(self) -> None:
        """One channel fires on digital silence; positions say which word is heard there."""
        encoder, width = self.spec.encoder, self.model.width
        self._norm(encoder.layer_norm)
        encoder.conv1.weight, encoder.conv1.bias = self._zeros(width, 80, 3), self._zeros(width)
        encoder.conv2.weight, encoder.conv2.bias = self._zeros(width, width, 3), self._zeros(width)
        # Three frames in a row: batched inference adds a single silent one to what it listens to.
        encoder.conv1.weight[QUIET], encoder.conv1.bias[QUIET] = -20 / (3 * 80), -24
        encoder.conv2.weight[QUIET, QUIET, 1] = 1
        places, begin = self._zeros(FRAMES, width), 0
        for number, end in enumerate(self._word_ends()):
            places[begin : (begin := round(end * FRAMES_PER_SECOND)), OTHER + number] = 1
        encoder.position_encodings.encodings = places

    def _word_ends(self) -> list[float]:
        """Each word's end in seconds, which is the next one's start, and that of the window.

        Every frame belongs to somebody: the alignment makes noise of those that do not.
        """
        starts = []
        for line, (_, words, _) in zip(self.model.script, self.lines, strict=True):
            length = (line.end - line.start) / len(words)
            starts += [line.start + length * number for number in range(len(words))]
        return [*starts[1:], self.model.script[-1].end, FRAMES / FRAMES_PER_SECOND]

    def _write_decoder(self) -> None:
        decoder, width, half = self.spec.decoder, self.model.width, self.model.width // 2
        hot = np.sqrt(width - 1)  # what a layer norm makes of a one-hot vector
        self._norm(decoder.layer_norm)
        table = self._zeros(self.size, width)
        table[:, OTHER] = 1
        for token, dimension in self.state.items():
            table[token, OTHER], table[token, dimension] = 0, 1
        decoder.embeddings.weight = table
        decoder.position_encodings.encodings = self._zeros(TOKENS, width)  # a prompt shifts nothing
        decoder.scale_embeddings = False
        flag = decoder.layer[0].self_attention  # was <|notimestamps|> seen?
        flag.linear[0].bias[0] = 40
        flag.linear[0].weight[width, self.state[self.no_timestamps]] = 1
        flag.linear[0].weight[2 * width, self.state[self.no_timestamps]] = 1 / hot
        flag.linear[1].weight[FLAG, 0] = 1
        ear = decoder.layer[0].attention  # did the encoder hear silence?
        ear.linear[0].bias[0] = 40
        ear.linear[1].weight[0, QUIET] = 1
        ear.linear[1].weight[width, QUIET] = 1 / hot
        ear.linear[2].weight[QUIET, 0] = 8
        look = decoder.layer[-1].attention  # what precedes a word looks at the place of that word
        words = [word for _, words, _ in self.lines for word in words]
        for number, token in enumerate((self.no_timestamps, *words)):
            look.linear[0].weight[half + number, self.state[token]] = 5
            look.linear[1].weight[half + number, OTHER + number] = 1

    def _write_projection(self) -> None:
        hot, eot = np.sqrt(self.model.width - 1), self.id("endoftext")
        weight, bias = self._zeros(self.size, self.model.width), self._zeros(self.size)
        bias[:eot] = -8
        for token, following, logit in self._successors():
            weight[following, self.state[token]] += logit / hot
        weight[self.no_timestamps + 1 :, FLAG] -= 12
        weight[[self.id("nospeech"), eot], QUIET] = 5
        self.spec.decoder.projection.weight, self.spec.decoder.projection.bias = weight, bias

    def _write_config(self) -> None:
        spec, last = self.spec, self.model.layers - 1
        spec.register_vocabulary([self.tokenizer.id_to_token(i) for i in range(self.size)])
        spec.config.suppress_ids = []
        space, eot = self.tokenizer.token_to_id(_spell(" ")), self.id("endoftext")
        spec.config.suppress_ids_begin = [space, eot]
        spec.config.lang_ids = self.language_ids
        spec.config.alignment_heads = [[last, 1]]
