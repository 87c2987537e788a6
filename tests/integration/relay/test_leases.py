"""Relays side by side: each has its share, a leaver's goes to the others at once, and no clock of theirs matters."""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from contextlib import AsyncExitStack

import pytest

from pemba.cli.outbox import read_streams
from pemba.errors import Reason, Unavailable
from pemba.model import Role
from pemba.relay.relay import Relay, RelayOptions
from pemba.spicedb.client import SpiceDB
from pemba.storage.database import Database
from pemba.storage.outbox import shard_of
from tests.integration.conftest import Parts
from tests.integration.relay.conftest import ALL, Relaying, Seized, delivers_all, take_over
from tests.integration.relay.test_fences import holds
from tests.proxy import Proxy
from tests.truth import as_owner, eventually, is_delivered, positions, require_truth, sql


async def are_divided(relays: list[Relay], *shares: int) -> bool:
    shards = [relay.shards for relay in relays]
    return sorted(map(len, shards)) == list(shares) and sorted(itertools.chain(*shards)) == ALL


async def test_three_relays_share_the_shards_as_they_come_and_go(
    parts: Parts, relaying: Relaying, store: SpiceDB, database_url: str
) -> None:
    made = [await parts.tenant() for _ in range(6)]
    async with AsyncExitStack() as running:
        relays: list[Relay] = []
        for shares in ((16,), (8, 8), (5, 5, 6)):
            relays.append(await running.enter_async_context(relaying()))
            await eventually(lambda shares=shares: are_divided(relays, *shares), 5)
        for number, (tenant, root) in enumerate(made):
            await parts.role(root, f"user-{number}", Role.VIEWER)
            await require_truth(database_url, store, tenant.id)
        relays.pop(1).stop()
        await eventually(lambda: are_divided(relays, 8, 8), 5)
        for number, (tenant, root) in enumerate(made):
            await parts.role(root, f"user-{number}", Role.MEMBER)
            await require_truth(database_url, store, tenant.id)


async def test_what_a_relay_gives_up_at_its_stop_is_another_s_within_a_second(
    relaying: Relaying, database_url: str
) -> None:
    async with relaying() as first, relaying() as second:
        await eventually(lambda: are_divided([first, second], 8, 8), 5)
        first.stop()
        began = time.monotonic()
        await eventually(lambda: delivers_all(second), 5)
        assert time.monotonic() - began < 1


async def test_a_relay_gives_up_a_shard_only_after_the_request_under_way(
    parts: Parts, relaying: Relaying, store: SpiceDB, spicedb_proxy: Proxy, database_url: str
) -> None:
    tenant, root = await parts.tenant()
    shard = shard_of(tenant.id)
    async with relaying() as first:
        await require_truth(database_url, store, tenant.id)
        answer = spicedb_proxy.trap(b"mallory")
        await parts.role(root, "mallory", Role.VIEWER)
        await answer.answered.wait()
        first.stop()
        async with relaying() as second:
            await eventually(lambda: holds_all_but(second, shard), 5)
            assert await positions(database_url, tenant.id) == (2, 1)
            answer.release()
            await eventually(lambda: delivers_all(second), 5)
            assert await is_delivered(database_url, tenant.id)
    assert spicedb_proxy.seen(b"mallory") == 1


async def holds_all_but(relay: Relay, shard: int) -> bool:
    return relay.shards == [other for other in ALL if other != shard]


async def test_a_shard_of_a_silent_relay_is_taken_over_when_its_lease_has_run_out(
    database: Database, relaying: Relaying, database_url: str
) -> None:
    await take_over(database, 7, "silent")
    async with relaying() as relay:
        await eventually(lambda: holds_all_but(relay, 7))
        await as_owner(database_url, "outbox", "UPDATE relay_lease SET lease_until = now() WHERE shard = 7")
        await eventually(lambda: delivers_all(relay), 2)
    assert (await sql(database_url, "SELECT epoch FROM relay_lease WHERE shard = 7"))[0]["epoch"] == 2


async def test_a_lease_is_renewed_for_as_long_as_the_relay_lives(relaying: Relaying, database_url: str) -> None:
    async with relaying(lease_seconds=3.0) as relay:
        await eventually(lambda: delivers_all(relay))
        began = time.monotonic()

        async def is_older_than_a_lease() -> bool:
            assert relay.shards == ALL
            return time.monotonic() - began > 3.5

        await eventually(is_older_than_a_lease)
        [lasting] = await sql(
            database_url, "SELECT count(*), max(epoch) AS epoch FROM relay_lease WHERE lease_until > now()"
        )
        assert (lasting["count"], lasting["epoch"]) == (16, 1)


async def test_a_lane_asks_its_own_clock_right_before_it_writes(
    parts: Parts, seized: Seized, store: SpiceDB, database_url: str
) -> None:
    tenant, _ = await parts.tenant()
    lane = await seized(shard_of(tenant.id))
    await lane.fence.keep()
    lane.fence._is_certain = lambda: False
    await asyncio.wait_for(lane.run(asyncio.Event()), 5)
    assert lane.is_over
    assert await positions(database_url, tenant.id) == (1, 0)
    assert not await holds(store, tenant.id, "alice")


async def test_a_relay_that_is_stopped_before_it_begins_begins_nothing(
    database: Database, store: SpiceDB, database_url: str
) -> None:
    relay = Relay(database_url, database, store, RelayOptions())
    relay.stop()
    await asyncio.wait_for(relay.run(), 5)
    gc.collect()  # a coroutine that was never awaited complains as it goes
    assert not await sql(database_url, "SELECT FROM relay_lease WHERE holder IS NOT NULL")


async def test_a_relay_goes_on_while_its_session_is_away(
    parts: Parts, relaying: Relaying, store: SpiceDB, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant, root = await parts.tenant()
    async with relaying(poll_max_seconds=0.1) as relay:
        await eventually(lambda: delivers_all(relay))
        monkeypatch.setattr("pemba.relay.relay.RelaySession.connect", no_session)
        await as_owner(
            database_url,
            "outbox",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'pemba relay'",
        )
        for user in ("bob", "carol", "dave"):
            await parts.role(root, user, Role.VIEWER)
            await require_truth(database_url, store, tenant.id)
        assert relay.shards == ALL


def no_session(*_: object) -> object:
    raise Unavailable(Reason.POSTGRES_UNAVAILABLE, "no session in this test")


async def test_the_status_of_a_stream_says_which_relay_has_it_or_that_none_has(
    parts: Parts, database: Database, database_url: str
) -> None:
    tenant, _ = await parts.tenant()

    async def relay_of() -> str:
        [stream] = [s for s in await read_streams(database_url, every=True, limit=10) if s.tenant_id == tenant.id]
        return stream.relay

    assert await relay_of() == ""
    await take_over(database, shard_of(tenant.id), "host/1/a")
    assert await relay_of() == "host/1/a"
    await as_owner(database_url, "outbox", "UPDATE relay_lease SET lease_until = now() WHERE holder IS NOT NULL")
    assert await relay_of() == "", "its lease has run out"
