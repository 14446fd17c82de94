"""One pool of children for all tests of the package, and its speech samples."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from asr.child_pool import ChildPool


@pytest.fixture(scope="session")
def pool() -> Iterator[ChildPool]:
    pool = ChildPool(2)
    yield pool
    pool.close()
