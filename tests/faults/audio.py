"""Small sound files, each of its own kind, and the words that the engine server hears in them."""

from __future__ import annotations

import hashlib
import os
import wave
from dataclasses import dataclass
from pathlib import Path

RATE = 16_000
# Six of these 64, chosen by the digest, are as good as unique.
# fmt: off
WORDS = (
    "apple", "arrow", "autumn", "basket", "beacon", "bottle", "branch", "bridge", "candle",
    "carpet", "castle", "cherry", "copper", "corner", "cotton", "dinner", "dragon", "engine",
    "falcon", "fiddle", "finger", "forest", "garden", "ginger", "hammer", "harbor", "helmet",
    "island", "jacket", "jungle", "kettle", "ladder", "lantern", "lemon", "marble", "meadow",
    "mirror", "needle", "nickel", "orange", "oyster", "paper", "pebble", "pencil", "pepper",
    "pillow", "pocket", "rabbit", "ribbon", "river", "saddle", "salmon", "silver", "spider",
    "summer", "temple", "ticket", "timber", "tunnel", "valley", "velvet", "violin", "window",
    "winter",
)
# fmt: on


@dataclass(frozen=True, kw_only=True)
class Audio:
    """One file, the SHA-256 of its bytes, and the text that the engine server gives for it."""

    path: Path
    digest: str
    text: str


def spoken_text(digest: str) -> str:
    """What is said in the file with this SHA-256: a sentence of six words, always the same."""
    chosen = [WORDS[byte % len(WORDS)] for byte in bytes.fromhex(digest)[:6]]
    return f"{' '.join(chosen).capitalize()}."


def make_audio(folder: Path, count: int) -> list[Audio]:
    """Write so many WAV files of 0.2 to 0.5 seconds; no two, of any call, are alike."""
    folder.mkdir(parents=True, exist_ok=True)
    return [write_noise(folder / f"{n:03d}.wav", 0.2 + 0.01 * (n % 31)) for n in range(count)]


def write_noise(path: Path, seconds: float) -> Audio:
    """Write one WAV file of random samples."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(os.urandom(2 * round(seconds * RATE)))
    return audio_of(path)


def audio_of(path: Path) -> Audio:
    """Any file that is there already."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Audio(path=path, digest=digest, text=spoken_text(digest))
