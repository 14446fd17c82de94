"""Whisper models as files: where one lies, whether it is whole, and which languages it speaks.

Converted for CTranslate2. Nothing here loads one; that is for `asr.whisper_child`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from asr.errors import EngineMisconfigured
from asr.languages import WHISPER_LANGUAGES, from_whisper

_FILES = ("model.bin", "config.json", "tokenizer.json")  # the last would be looked up on the hub
# Without one of these CTranslate2 reads memory that is not its own (segmentation fault, seen).
_CONFIG_KEYS = {"alignment_heads", "lang_ids", "suppress_ids_begin"}
_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")  # a size, or a repository of the Hugging Face hub
_LANGUAGE_TOKEN = re.compile(r"<\|([a-z]{2,3})\|>")
_ENGLISH = frozenset({"en"})
_MULTILINGUAL_TOKENS = 51_865  # vocabularies of English-only models are smaller


def folder_of(model: str) -> Path | None:
    """The folder that a setting means; None where it is a model's name.

    Raises EngineMisconfigured when it is neither, or a folder that holds no model.
    """
    if model and Path(model).is_dir():
        check_folder(Path(model))
        return Path(model)
    if not _NAME.fullmatch(model):
        raise EngineMisconfigured("WHISPER_MODEL is neither a folder nor the name of a model")
    return None


def check_folder(folder: Path) -> None:
    """Raise EngineMisconfigured unless a whole model lies there."""
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        raise EngineMisconfigured(f"the folder of the Whisper model lacks {', '.join(missing)}")
    lacking = _CONFIG_KEYS - set(_json(folder / "config.json"))
    if lacking:
        raise EngineMisconfigured(f"config.json of the Whisper model lacks {min(lacking)}")


def languages_in(folder: Path) -> frozenset[str]:
    """The languages that a model's tokenizer has a token for, as ISO 639 codes.

    English-only models have the tokens too, but no use for them. They are told by the empty token
    that they lack, as CTranslate2 does it, or by their size, as it did it before 4.7.
    """
    tokenizer = _json(folder / "tokenizer.json")
    try:
        vocabulary, added = tokenizer["model"]["vocab"], tokenizer["added_tokens"]
        tokens = [token["content"] for token in added]
    except (KeyError, TypeError):
        raise EngineMisconfigured("tokenizer.json of the Whisper model is damaged") from None
    if "" not in vocabulary and len({*vocabulary, *tokens}) < _MULTILINGUAL_TOKENS:
        return _ENGLISH
    found = {from_whisper(match[1]) for match in map(_LANGUAGE_TOKEN.fullmatch, tokens) if match}
    return WHISPER_LANGUAGES & found


def languages_of(name: str) -> frozenset[str]:
    """The languages of a model that may not be here yet, by its name.

    The `.en` models know English alone, and the distilled ones were trained on nothing else.
    Cantonese came with large-v3.
    """
    size = name.rpartition("/")[2].lower()
    if size.endswith(".en") or "distil" in size:
        return _ENGLISH
    knows_cantonese = "large-v3" in size or size in {"large", "turbo"}
    return WHISPER_LANGUAGES if knows_cantonese else WHISPER_LANGUAGES - {"yue"}


def find(name: str) -> Path:
    """The folder of a model that has been fetched before. Raises EngineMisconfigured."""
    from faster_whisper.utils import download_model  # noqa: PLC0415  (heavy)

    try:
        folder = Path(download_model(name, local_files_only=True))
    except (OSError, ValueError):
        raise EngineMisconfigured(f"the Whisper model {name!r} is not on this machine") from None
    check_folder(folder)
    return folder


def fetch(name: str) -> None:
    """Download a model into the Hugging Face cache, unless it is there.

    Raises EngineMisconfigured.
    """
    from faster_whisper.utils import download_model  # noqa: PLC0415  (heavy)

    try:
        find(name)
    except EngineMisconfigured:
        try:
            folder = Path(download_model(name))
        except Exception as error:
            raise EngineMisconfigured(_why_not(name, error)) from error
        check_folder(folder)


def _why_not(name: str, error: Exception) -> str:
    from huggingface_hub.errors import (  # noqa: PLC0415  (heavy)
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    match error:
        case LocalEntryNotFoundError():  # what it means is that the hub did not answer
            reason = "the Hugging Face hub cannot be reached"
        case RepositoryNotFoundError() | ValueError():
            return f"there is no Whisper model named {name!r} (WHISPER_MODEL)"
        case OSError(strerror=str(reason)):  # a full disk, a folder that is not ours
            pass
        case _:
            reason = type(error).__name__
    return (
        f"the Whisper model {name!r} cannot be downloaded: {reason}; "
        "WHISPER_MODEL may name a folder instead"
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict):
        raise EngineMisconfigured(f"{path.name} of the Whisper model is damaged")
    return content
