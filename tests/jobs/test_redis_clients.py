"""Clients for every kind of address that REDIS_URL may be."""

from __future__ import annotations

import asyncio

import pytest
import redis

from jobs.redis_clients import async_listening_client, impatient_client, listening_client

ADDRESSES = ["redis://127.0.0.1:1/0", "rediss://127.0.0.1:1/0", "unix:///nowhere.sock?db=0"]


@pytest.mark.parametrize("url", ADDRESSES)
@pytest.mark.parametrize("make", [impatient_client, listening_client])
def test_nobody_there_is_told_as_that(make: object, url: str) -> None:
    assert callable(make)
    with pytest.raises(redis.ConnectionError):
        make(url).ping()


@pytest.mark.parametrize("url", ADDRESSES)
def test_nobody_there_is_told_as_that_to_an_event_loop(url: str) -> None:
    async def ping() -> None:
        async with async_listening_client(url) as client:
            await client.execute_command("PING")

    with pytest.raises(redis.ConnectionError):
        asyncio.run(ping())
