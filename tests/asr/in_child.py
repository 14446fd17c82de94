"""What tests let children do."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, NoReturn


def echo(value: Any) -> Any:
    return value


def slow_echo(seconds: float, value: Any) -> Any:
    time.sleep(seconds)
    return value


def warm_up(seconds: float, error: BaseException | None = None) -> None:
    time.sleep(seconds)
    os.environ["VERBATIM_WARM"] = "yes"
    if error is not None:
        raise error


def steps(
    values: list[Any], error: BaseException | None = None, pause: float = 0.0
) -> Generator[Any, None, str]:
    """Yields each value, then raises the error or returns "done"."""
    for value in values:
        yield value
        time.sleep(pause)
    if error is not None:
        raise error
    return "done"


def endless_steps() -> Generator[int, None, None]:
    while True:
        yield os.getpid()


def steps_to_an_end(number: int) -> Generator[str, None, None]:
    yield "half a"
    os.kill(os.getpid(), number)


def harmful_steps() -> Generator[Any, None, str]:
    yield _Harmful()
    return "done"


def end(number: int) -> None:
    os._exit(number)


def fail(error: BaseException) -> NoReturn:
    raise error


def signal_self(number: int) -> None:
    os.kill(os.getpid(), number)


def size_of_bytes(size: int) -> int:
    """Reserves memory without touching it."""
    return len(bytes(size))


def write_file(path: str) -> None:
    Path(path).write_text("something")


def open_many(path: str) -> None:
    for _ in range(64):
        os.open(Path(path).parent, os.O_RDONLY)


def loaded(names: list[str]) -> list[str]:
    return [name for name in names if name in sys.modules]


class _Harmful:
    def __reduce__(self) -> Any:
        return os.putenv, ("VERBATIM_HARMED", "1")


def harmful_result() -> Any:
    return _Harmful()
