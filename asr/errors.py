"""The ways in which recognising can fail.

Every error carries a `code` of the HTTP contract and a `detail` that may be shown to a caller:
it never holds a path, a key, an address or a traceback.
"""

from __future__ import annotations

from typing import Any, ClassVar

_BUSY_SECONDS = 2.0  # after which a caller asks again for a child; its turn comes by chance


class AsrError(Exception):
    """Base of all errors that engines, decoding and the child pool raise."""

    recoverable: ClassVar[bool] = False

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail

    def __reduce__(self) -> tuple[Any, ...]:
        # The default would call the constructor with `args`, which its signature does not fit.
        return _rebuild, (type(self), self.args), self.__dict__


class AudioRejected(AsrError):
    """The file itself is at fault: `invalid_audio` or `audio_too_long`. Never tried again."""


class EngineMisconfigured(AsrError):
    """The engine lacks an option, or refuses credentials or request. Never tried again."""

    def __init__(self, detail: str, *, code: str = "engine_refused") -> None:
        super().__init__(code, detail)


class EngineUnavailable(AsrError):
    """Not now: `engine_error`, `engine_timeout`, `engine_bad_response` or `worker_crashed`.

    `retry_after` is the number of seconds that the engine asked for, None when it did not.
    `answer_lost`: it was asked, and nobody knows whether it did the work; so too for a time-out.
    """

    recoverable = True

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        retry_after: float | None = None,
        answer_lost: bool = False,
    ) -> None:
        super().__init__(code, detail)
        self.retry_after = retry_after
        self.answer_lost = answer_lost or code == "engine_timeout"


class ChildTimeout(EngineUnavailable):
    """A call to a child process did not end within its limit."""

    def __init__(
        self,
        detail: str = "no result within the time limit",
        *,
        retry_after: float | None = None,
    ) -> None:
        super().__init__("engine_timeout", detail, retry_after=retry_after)


class ChildBusy(ChildTimeout):
    """No child process was free and ready while the caller could wait; the call never began."""

    def __init__(self) -> None:
        super().__init__("the recogniser is busy", retry_after=_BUSY_SECONDS)


class ChildCrashed(EngineUnavailable):
    """A child process ended in the middle of a call."""

    def __init__(self, detail: str = "the recogniser's process ended") -> None:
        super().__init__("worker_crashed", detail)


def _rebuild(kind: type[AsrError], args: tuple[Any, ...]) -> AsrError:
    return kind.__new__(kind, *args)
