"""A small disk under a world's audio root, to be filled up and emptied again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from tests.faults.world import World

# For the world: where nothing can be mounted, its processes are told that there is no room.
TOLD_SO = {"CRASHPOINT": "full-disk:0"}
DISK_BYTES = 16_000_000


class Disk(Protocol):
    """The audio root's."""

    what: str

    def fill(self, left: int) -> None:
        """From now on there is room for no more than that many bytes, or for none at all."""

    def free(self) -> None:
        """There is room again."""


class MountedDisk:
    """A real one, in memory."""

    what = f"a tmpfs of {DISK_BYTES // 1_000_000} MB"

    def __init__(self, root: Path) -> None:
        self._root, self._ballast = root, root / "ballast"

    def fill(self, left: int) -> None:
        disk = os.statvfs(self._root)
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_frsize - left)

    def free(self) -> None:
        self._ballast.unlink()


class DiskThatIsSaidToBeFull:
    """For who may not mount: the service's own storage says what the kernel would."""

    what = "ENOSPC at the storage's seam"

    def __init__(self, var: Path) -> None:
        self._mark = var / "disk-is-full"

    def fill(self, left: int) -> None:
        self._mark.touch()

    def free(self) -> None:
        self._mark.unlink()


@contextmanager
def small_disk(world: World) -> Iterator[Disk]:
    """A disk for the audio root, which must be empty; a world needs TOLD_SO for it."""
    root = str(world.audio_root)
    options = f"size={DISK_BYTES},mode=0755"
    if not _succeeds("mount", "-t", "tmpfs", "-o", options, "tmpfs", root):
        yield DiskThatIsSaidToBeFull(world.var)
        return
    try:
        yield MountedDisk(world.audio_root)
    finally:
        assert _succeeds("umount", "--lazy", root), "the disk cannot be unmounted"


def _succeeds(*command: str) -> bool:
    with suppress(FileNotFoundError):
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    return False
