"""A relay that is killed while it removes a tenant: the next one goes on, and nothing is left; nor where SpiceDB was
lost meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from pemba import projection
from pemba.dev.spicedb import SpiceDB as SpiceDBServer
from pemba.model import Role, Scope, SubjectRef, Tenant
from pemba.spicedb.client import FullyConsistent, SpiceDB
from tests.crash.faults.points import DELETION_POINTS
from tests.crash.faults.processes import FaultyRelay
from tests.integration.conftest import Parts, ref
from tests.integration.relay.test_healing import empty
from tests.stack import Processes, processes, run_command
from tests.truth import eventually, is_delivered, require_no_gap, require_truth


async def filled(parts: Parts) -> Tenant:
    tenant, root = await parts.tenant()
    eng = await parts.workspace(root, "eng", "olga")
    backend = await parts.workspace(eng, "backend", "olga")
    await parts.role(eng, await parts.group(tenant, "crew", "carol", manager="bob"), Role.MEMBER)
    await parts.share(eng, backend)
    await parts.share(backend, root)
    key = (await parts.key(tenant, Scope.READ, workspace=eng)).changed.record
    await parts.memberships.set_role(
        *(parts.system, tenant.id),
        object=ref(eng),
        subject=SubjectRef("api_key", key.id),
        role=Role.VIEWER,
        options=parts.options("SetRole"),
    )
    return tenant


async def everything(store: SpiceDB) -> list[str]:
    """Every tuple of the whole store, whoever it is about, on either side."""
    return [
        str(found)
        for type_ in projection.TYPES
        async for found in store.read_tuples(type_, FullyConsistent(), 10, id_prefix="")
    ]


async def require_nothing_left(parts: Parts, store: SpiceDB, url: str, tenant: Tenant, other: Tenant) -> None:
    async def is_over() -> bool:
        found = await parts.tenants.get_tenant_deletion(parts.system, tenant_id=tenant.id, slug=None)
        return found.finish_time is not None and found.undelivered == 0

    await eventually(is_over, 30)
    await eventually(lambda: is_delivered(url, tenant.id))
    assert [each for each in await everything(store) if tenant.id in each] == []
    await require_no_gap(url, tenant.id)
    await require_truth(url, store, other.id)
    assert any(other.id in each for each in await everything(store))


def in_turn(points: list[str]) -> list[object]:
    """The first of each take their turn in the long run."""
    return [pytest.param(p, marks=[] if p.endswith(".committed") else [pytest.mark.long]) for p in points]


@pytest.mark.parametrize("point", in_turn([*DELETION_POINTS, *(f"{p}:4" for p in DELETION_POINTS if "step" in p)]))
async def test_killed_while_a_tenant_is_removed(
    running: Processes, parts: Parts, store: SpiceDB, database_url: str, point: str
) -> None:
    tenant, other = await filled(parts), await filled(parts)
    early = await running.relay()
    for each in (tenant, other):
        await require_truth(database_url, store, each.id)
    await running.stop(early)
    await parts.delete(tenant)
    doomed = await running.relay(FaultyRelay, test_crash_at=point)

    async def has_ended() -> bool:
        return doomed.pid is None

    await eventually(has_ended, 25)
    assert "SIGKILL" in doomed.last_words()
    await asyncio.gather(running.relay(), running.relay())
    await require_nothing_left(parts, store, database_url, tenant, other)


async def test_spicedb_loses_everything_while_a_tenant_is_removed(
    own_spicedb: Callable[[], SpiceDBServer], parts: Parts, database_url: str, tmp_path: Path
) -> None:
    """What fills the store anew brings nothing of it there, and reconciling finds nothing to do."""
    spicedb = await asyncio.to_thread(own_spicedb)
    settings = {"database_url": database_url, "spicedb_endpoint": spicedb.endpoint, "spicedb_key": spicedb.key}
    applied = await run_command("schema", "apply", **settings)
    assert applied.code == 0, applied
    store = SpiceDB.connect(spicedb.endpoint, spicedb.key)
    async with processes(tmp_path, relay_lease_seconds=2, **settings) as running:
        tenant, other = await filled(parts), await filled(parts)
        early = await running.relay()
        for each in (tenant, other):
            await require_truth(database_url, store, each.id)
        await running.stop(early)
        await parts.delete(tenant)
        await parts.deletions.run_once()
        [before] = await parts.sql("SELECT store_epoch FROM installation")
        await asyncio.to_thread(empty, spicedb)
        await running.relay()

        async def is_filled() -> bool:
            again = "SELECT FROM installation WHERE store_epoch = filled_epoch AND store_epoch <> $1"
            return bool(await parts.sql(again, before["store_epoch"]))

        await eventually(is_filled, 30)
        await require_nothing_left(parts, store, database_url, tenant, other)
    await store.close()
