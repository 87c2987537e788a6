"""Promise 5: NOTIFY lost, listener dead: delivered within the polling interval.  A relay's clock an hour off: one owner
for each shard."""

from __future__ import annotations

import itertools
import time

import asyncpg
import pytest

from pemba.errors import Reason, Unavailable
from pemba.model import Role, TenantId
from pemba.relay.relay import Relay
from pemba.storage import leases
from pemba.storage.statement import Statement
from pemba.storage.wakeup import RelaySession
from tests.crash.faults.processes import FaultyRelay
from tests.crash.test_relay import are_divided, holders
from tests.integration.conftest import Parts
from tests.integration.relay.conftest import Relaying, delivers_all
from tests.promises.conftest import is_broken
from tests.stack import Processes
from tests.truth import eventually, is_delivered, sql

HOUR = 3600.0


class Nobody:
    """Hears no NOTIFY: as if every one were lost."""

    def notify(self, tenant_id: TenantId) -> None:
        """Says nothing."""


async def end_session(url: str) -> None:
    """End the relay's own session, as a failover of PostgreSQL does."""
    connection = await asyncpg.connect(url)
    ended = await connection.fetch(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'pemba relay'"
    )
    await connection.close()
    assert len(ended) == 1


async def test_a_lost_notify_costs_one_polling_interval_and_nothing_else(
    parts: Parts, relaying: Relaying, database_url: str
) -> None:
    parts.mutations.wakeup = Nobody()
    async with relaying(poll_min_seconds=0.3, poll_max_seconds=0.3) as relay:
        await eventually(lambda: delivers_all(relay))
        tenant, root = await parts.tenant()
        for user in ("bob", "carol", "dave"):
            await parts.role(root, user, Role.VIEWER)
            began = time.monotonic()
            await eventually(lambda: is_delivered(database_url, tenant.id), 5)
            assert time.monotonic() - began < 0.3 + 2.0, "far more than one interval"


async def test_a_notify_delivers_long_before_the_next_poll(parts: Parts, relaying: Relaying, database_url: str) -> None:
    async with relaying(poll_min_seconds=HOUR, poll_max_seconds=HOUR) as relay:
        await eventually(lambda: delivers_all(relay))
        tenant, root = await parts.tenant()
        await eventually(lambda: is_delivered(database_url, tenant.id), 5)
        await parts.role(root, "bob", Role.VIEWER)
        await eventually(lambda: is_delivered(database_url, tenant.id), 5)


async def test_a_listener_that_dies_is_replaced_and_finds_what_it_missed(
    parts: Parts, relaying: Relaying, database_url: str
) -> None:
    notifier = parts.mutations.wakeup
    async with relaying(poll_min_seconds=HOUR, poll_max_seconds=HOUR) as relay:
        await eventually(lambda: delivers_all(relay))
        heard, root = await parts.tenant()
        await eventually(lambda: is_delivered(database_url, heard.id), 5)
        parts.mutations.wakeup = Nobody()
        await parts.role(root, "bob", Role.VIEWER)
        assert not await is_delivered(database_url, heard.id)
        await end_session(database_url)
        await eventually(lambda: is_delivered(database_url, heard.id), 5)
        parts.mutations.wakeup = notifier
        await parts.role(root, "carol", Role.VIEWER)
        await eventually(lambda: is_delivered(database_url, heard.id), 5)


async def test_anybody_may_notify_anything(parts: Parts, relaying: Relaying, database_url: str) -> None:
    async with relaying(poll_min_seconds=HOUR, poll_max_seconds=HOUR) as relay:
        await eventually(lambda: delivers_all(relay))
        for payload in ("", "~", "nonsense", "ten_01h455vb4pex5vsknk084sn02q", "x" * 7000):
            await sql(database_url, "SELECT pg_notify('pemba_outbox', $1)", payload)
        tenant, _ = await parts.tenant()
        await eventually(lambda: is_delivered(database_url, tenant.id), 5)


async def test_it_is_broken_without_polling(
    parts: Parts, relaying: Relaying, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(relay: Relay) -> None:
        await relay._stopping.wait()

    monkeypatch.setattr(Relay, "_poll", never)
    with is_broken("still gives False"):
        await test_a_lost_notify_costs_one_polling_interval_and_nothing_else(parts, relaying, database_url)


async def test_it_is_broken_where_nobody_listens_anew(
    parts: Parts, relaying: Relaying, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Polling, which would bring it all the same, is an hour away here."""
    connect, times = RelaySession.connect, itertools.count()

    def only_once(*given: object):
        if next(times):
            raise Unavailable(Reason.POSTGRES_UNAVAILABLE, "no session in this test")
        return connect(*given)

    monkeypatch.setattr(RelaySession, "connect", only_once)
    with is_broken("still gives False"):
        await test_a_listener_that_dies_is_replaced_and_finds_what_it_missed(parts, relaying, database_url)


async def epochs(url: str) -> list[int]:
    return [row["epoch"] for row in await sql(url, "SELECT epoch FROM relay_lease ORDER BY shard")]


async def require_nobody_takes_anothers(url: str, seconds: float) -> None:
    """For longer than a lease lasts."""
    before, began = await epochs(url), time.monotonic()

    async def is_over() -> bool:
        assert await epochs(url) == before, "a shard went from one to another"
        return time.monotonic() - began > seconds

    await eventually(is_over, seconds + 5, every=0.1)


async def test_of_relays_whose_clocks_are_an_hour_off_one_has_each_shard(
    running: Processes, parts: Parts, database_url: str
) -> None:
    for seconds in (3600, -3600):
        await running.relay(FaultyRelay, test_clock_seconds=seconds)
    await running.relay()
    await eventually(lambda: are_divided(database_url, 5, 5, 6), 15)
    await require_nobody_takes_anothers(database_url, 3.0)
    assert len(await holders(database_url)) == 3
    tenant, _ = await parts.tenant()
    await eventually(lambda: is_delivered(database_url, tenant.id))


async def test_a_shard_is_never_two_relays_at_a_time(relaying: Relaying) -> None:
    """While one comes, and takes what the other gives up."""
    async with relaying() as first:
        await eventually(lambda: delivers_all(first))
        async with relaying() as second:
            await eventually(lambda: is_divided(first, second))


async def is_divided(first: Relay, second: Relay) -> bool:
    assert not set(first.shards) & set(second.shards), "a shard is two relays' at a time"
    return len(first.shards) == len(second.shards) == 8


async def test_it_is_broken_where_a_relay_s_own_clock_says_what_has_run_out(
    relaying: Relaying, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one does that is an hour ahead."""
    ahead = """
        WITH free AS MATERIALIZED (
            SELECT shard FROM relay_lease
            WHERE (lease_until IS NULL OR lease_until <= now() + interval '1 hour')
                AND shard <> ALL (CAST(:without AS smallint[]))
            ORDER BY shard LIMIT :limit FOR UPDATE SKIP LOCKED
        )
        UPDATE relay_lease l SET holder = CAST(:holder AS text), epoch = l.epoch + 1,
            lease_until = now() + make_interval(secs => :ttl_seconds)
        FROM free WHERE l.shard = free.shard RETURNING l.shard, l.epoch, l.n
    """
    monkeypatch.setattr(leases, "_TAKE", Statement(ahead))
    with is_broken("two relays' at a time"):
        await test_a_shard_is_never_two_relays_at_a_time(relaying)
