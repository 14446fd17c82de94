"""The counter of calls in Redis."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import redis

from jobs.rate_limits import Allowance, take
from tests.helpers import together, wait_until

pytestmark = pytest.mark.usefixtures("redis_is_empty")


def test_as_many_calls_as_the_limit_are_allowed_at_once_and_no_more() -> None:
    allowed = [take("alice", 3, 60) for _ in range(3)]
    assert [a.remaining for a in allowed if a is not None and a.allowed] == [2, 1, 0]
    assert [a.reset_seconds for a in allowed if a is not None] == [20, 40, 60]
    assert {a.retry_seconds for a in allowed if a is not None} == {0}
    refused = Allowance(allowed=False, remaining=0, reset_seconds=60, retry_seconds=20)
    assert take("alice", 3, 60) == take("alice", 3, 60) == refused


def test_each_caller_has_a_count_of_its_own() -> None:
    assert [take(name, 1, 60) for name in ("alice", "alice", "bob")][2] == take("carol", 1, 60)


def test_a_part_of_the_period_gives_one_call_back(raw_cache: redis.Redis) -> None:
    """By a count that is set back, as if the time had passed."""
    for _ in range(3):
        take("alice", 3, 60)
    (key,) = raw_cache.keys("*rate:alice")
    raw_cache.set(key, int(raw_cache.get(key) or 0) - 20_000_000)
    allowances = [take("alice", 3, 60) for _ in range(2)]
    assert [a.allowed for a in allowances if a is not None] == [True, False]


def test_what_is_kept_goes_when_nothing_counts_any_more(raw_cache: redis.Redis) -> None:
    take("alice", 10, 1)
    wait_until(lambda: raw_cache.keys("*rate:alice") == [])
    allowance = take("alice", 10, 1)
    assert allowance is not None
    assert (allowance.allowed, allowance.remaining) == (True, 9)


@pytest.mark.parametrize(("limit", "seconds"), [(1_000_000, 1), (1, 86_400), (7, 3600)])
def test_extreme_rates_are_counted_as_well(limit: int, seconds: int) -> None:
    first, second = take("alice", limit, seconds), take("alice", limit, seconds)
    assert first is not None
    assert second is not None
    assert first.remaining >= limit - 2
    assert second.allowed == (limit > 1)


def test_20_callers_at_once_share_one_limit() -> None:
    results = together(*[partial(take, "alice", 5, 60)] * 20)
    assert sum(result.allowed for result in results) == 5
    assert sorted(r.remaining for r in results if r.allowed) == [0, 1, 2, 3, 4]


def test_while_redis_is_away_nobody_is_kept_from_calling(
    redis_elsewhere: Callable[[str], None],
) -> None:
    redis_elsewhere("redis://127.0.0.1:1/0")
    assert take("alice", 1, 60) is None


def test_a_count_that_is_none_is_begun_anew(raw_cache: redis.Redis) -> None:
    take("alice", 1, 60)
    (key,) = raw_cache.keys("*rate:alice")
    raw_cache.set(key, "nonsense")
    allowances = [take("alice", 1, 60) for _ in range(2)]
    assert [a.allowed for a in allowances if a is not None] == [True, False]
