"""Named points at which a process can be made to fail: for the fault suite, and for nothing else.

`CRASHPOINT=name:n` in its environment kills the process with SIGKILL when it comes to that point
for the n-th time. It happens once in a system, not again in the process that takes its place: the
first to die leaves a mark under VAR_DIR.

`CRASHPOINT=full-disk:0` is for machines on which no small disk may be mounted: then there is no
room under the audio root for as long as the file `disk-is-full` lies under VAR_DIR.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections import Counter

from django.conf import settings

_armed, _, _number = os.environ.get("CRASHPOINT", "").rpartition(":")
_lock = threading.Lock()
_passed: Counter[str] = Counter()


def crashpoint(name: str) -> None:
    """Die here if this is the point that was asked for."""
    if name == _armed:
        _die_at(name, int(_number))


def full_disk() -> None:
    """Fail here as a full disk does, if that was asked for. Raises OSError."""
    if _armed == "full-disk" and (settings.VAR_DIR / "disk-is-full").exists():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _die_at(name: str, number: int) -> None:
    with _lock:
        _passed[name] += 1
        if _passed[name] != number:
            return
        mark = settings.VAR_DIR / f"crashed-at-{name}"
        try:
            mark.touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)
