"""One pool of children for all tests of the package, and the engines that all have to stand."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from asr import registry
from asr.child_pool import ChildPool
from asr.service import TranscriptionService
from tests.asr.cases import CASES, GUIDE, Case, example_of_the_guide
from tests.asr.vendor import Vendor, serving


@pytest.fixture(scope="session")
def pool() -> Iterator[ChildPool]:
    pool = ChildPool(2)
    yield pool
    pool.close()


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Case:
    chosen: Case = request.param
    if chosen.engine == "acme":
        module = ModuleType("asr.engines.acme")
        exec(compile(example_of_the_guide(), str(GUIDE), "exec"), module.__dict__)
        monkeypatch.setitem(sys.modules, "asr.engines.acme", module)
        monkeypatch.setitem(registry.ENGINES, "acme", "asr.engines.acme.AcmeEngine")
    return chosen


@pytest.fixture
def vendor(case: Case) -> Iterator[Vendor]:
    with serving() as server:
        if case.api is not None:
            server.answer = case.api
        yield server
        assert server.violations == []


@pytest.fixture(scope="module")
def local_engines() -> Iterator[dict[str, TranscriptionService]]:
    """One of each for all tests: loading a model takes seconds."""
    engines: dict[str, TranscriptionService] = {}
    yield engines
    for engine in engines.values():
        engine.close()


@pytest.fixture
def engine(
    case: Case, pool: ChildPool, vendor: Vendor, local_engines: dict[str, TranscriptionService]
) -> Iterator[TranscriptionService]:
    if case.api is None:
        if str(case) not in local_engines:
            local_engines[str(case)] = case.build(pool, vendor)
        yield local_engines[str(case)]
        return
    engine = case.build(pool, vendor)
    yield engine
    engine.close()
