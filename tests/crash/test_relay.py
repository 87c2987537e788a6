"""A relay that is killed: the next one ends with the same tuples, and nothing revoked is ever back."""

from __future__ import annotations

import asyncio
import time

from pemba.spicedb.client import SpiceDB
from tests.crash.conftest import LEASE_SECONDS
from tests.integration.conftest import Parts
from tests.stack import Processes
from tests.truth import eventually, is_delivered, require_truth, sql, stored


async def holds(store: SpiceDB, tenant_id: str, user: str) -> bool:
    return user in {found.subject.id for found in await stored(store, tenant_id)}


async def holders(url: str) -> dict[str, int]:
    """How many shards each relay holds whose lease lasts."""
    rows = await sql(url, "SELECT holder, count(*) FROM relay_lease WHERE lease_until > now() GROUP BY holder")
    return {row["holder"]: row["count"] for row in rows}


async def are_divided(url: str, *counts: int) -> bool:
    return sorted((await holders(url)).values()) == list(counts)


async def test_the_shards_of_a_relay_that_is_killed_are_another_s_when_its_leases_have_run_out(
    running: Processes, parts: Parts, store: SpiceDB, database_url: str
) -> None:
    first = await running.relay()
    await running.relay()
    await eventually(lambda: are_divided(database_url, 8, 8))
    made = [await parts.tenant() for _ in range(6)]
    await asyncio.to_thread(first.kill)
    began = time.monotonic()
    await eventually(lambda: are_divided(database_url, 16), LEASE_SECONDS + 2)
    for tenant, _ in made:
        await eventually(lambda tenant=tenant: is_delivered(database_url, tenant.id), 5)
    assert time.monotonic() - began < LEASE_SECONDS + 2
    for tenant, _ in made:
        await require_truth(database_url, store, tenant.id)


async def test_a_relay_that_is_stopped_hands_over_within_a_second(running: Processes, database_url: str) -> None:
    first = await running.relay(relay_lease_seconds=60)
    await running.relay(relay_lease_seconds=60)
    await eventually(lambda: are_divided(database_url, 8, 8))
    stopping = asyncio.create_task(running.stop(first))
    await eventually(lambda: are_divided(database_url, 16), 1)
    await stopping
