"""A relay that is killed while it carries out what a change of a user's status left to do: the next one goes on."""

from __future__ import annotations

import asyncio

import pytest

from pemba.model import Role, UserStatus
from pemba.spicedb.client import SpiceDB
from tests.integration.conftest import Parts
from tests.proxy import Proxy, Side
from tests.stack import Processes
from tests.truth import eventually, require_truth, stored

KILLED_AT = 3


async def has_ended(parts: Parts) -> bool:
    return not await parts.sql("SELECT FROM user_job")


async def rows_of_the_job(parts: Parts, tenants: list, method: str) -> list[int]:
    """How many rows the job has in each tenant's stream."""
    found = await parts.sql(
        "SELECT tenant_id, count(*) AS n FROM audit WHERE principal = 'pemba:maintenance' AND method = $1"
        " AND tenant_id <> '~' GROUP BY tenant_id",
        method,
    )
    counted = {row["tenant_id"]: row["n"] for row in found}
    return [counted.get(tenant.id, 0) for tenant in tenants]


@pytest.mark.parametrize(
    ("change", "count", "side"),
    [
        ("suspend", 4, Side.REQUEST),
        ("suspend", 4, Side.ANSWER),
        ("deactivate", 4, Side.ANSWER),
        ("activate", 16, Side.REQUEST),  # in more tenants than it does at once
    ],
)
async def test_killed_at_a_commit_of_the_job(
    running: Processes,
    parts: Parts,
    store: SpiceDB,
    postgres_proxy: Proxy,
    database_url: str,
    change: str,
    count: int,
    side: Side,
) -> None:
    """Before it, or after it and before the relay knew: no tenant is left out, and none gets a second row."""
    tenants = sorted([(await parts.tenant())[0] for _ in range(count)], key=lambda tenant: tenant.id)
    for tenant in tenants:
        await parts.role(tenant, "bob", Role.MEMBER)
    if change == "activate":
        await parts.suspend("bob")
        await parts.all_jobs()
    early = await running.relay()  # nothing else is due when the one comes that is killed
    for tenant in tenants:
        await require_truth(database_url, store, tenant.id)
    await running.stop(early)
    await getattr(parts, change)("bob")
    commit = postgres_proxy.trap(b"COMMIT", side, after=tenants[KILLED_AT - 1].id.encode())
    first = await running.relay(database_url=postgres_proxy.url(database_url))
    await (commit.sprung if side is Side.REQUEST else commit.answered).wait()
    await asyncio.to_thread(first.kill)

    method = f"{change.title()}User"
    done = KILLED_AT - 1 if side is Side.REQUEST else KILLED_AT
    assert await rows_of_the_job(parts, tenants, method) == [1] * done + [0] * (count - done)
    assert (await parts.user("bob")).status is not UserStatus.ACTIVE

    await running.relay()
    await eventually(lambda: has_ended(parts), 20)
    assert await rows_of_the_job(parts, tenants, method) == [1] * count
    for tenant in tenants:
        await require_truth(database_url, store, tenant.id)
        subjects = {found.subject.id for found in await stored(store, tenant.id)}
        assert ("bob" in subjects) is (change == "activate")
    assert ((await parts.user("bob")).status is UserStatus.ACTIVE) is (change == "activate")
