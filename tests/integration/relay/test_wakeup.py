"""What wakes the relay: NOTIFY for speed, the poll as the guarantee."""

from __future__ import annotations

import time

import asyncpg

from pemba.model import Role, TenantId
from tests.integration.conftest import Parts
from tests.integration.relay.conftest import Relaying, delivers_all
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
            assert time.monotonic() - began < 0.3 + 0.5


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
