"""Shares that end by themselves: swept by however many relays there are, by SpiceDB's own expiration without any."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest

from pemba.errors import Reason, Unavailable
from pemba.model import ObjectRef, Operation, Role, Share, SubjectRef, Tenant, Tuple, TupleOperation, Workspace
from pemba.relay import expiry
from pemba.relay.expiry import Expiry
from pemba.service.drift import Kind
from pemba.service.reconciliation import Options, Reconciler
from pemba.service.share_expiry import ShareExpiry
from pemba.spicedb.client import SpiceDB
from pemba.spicedb.stored import StoredTuples
from pemba.storage.database import Database
from pemba.v1 import workspaces_pb2
from tests.integration.conftest import SYSTEM, Parts
from tests.integration.relay.conftest import Relaying, Serving
from tests.stack import calling, processes
from tests.truth import eventually, is_delivered, require_truth, sql, stored

HOUR = 3600.0
SPICEDB_SECONDS = 10.0
"""SpiceDB keeps what it found at a revision, and makes one every five seconds by itself."""


@dataclass
class Lab:
    """`lab` is shared with `guests`, of which carol is a member."""

    tenant: Tenant
    lab: Workspace
    guests: Workspace
    share: Share


async def a_lab(parts: Parts, seconds: float | None) -> Lab:
    tenant, root = await parts.tenant()
    lab, guests = [await parts.workspace(root, slug) for slug in ("lab", "guests")]
    await parts.role(guests, "carol", Role.VIEWER)
    share = (await parts.share(lab, guests, seconds=seconds)).record
    return Lab(tenant, lab, guests, share)


def as_message(workspace: Workspace) -> workspaces_pb2.Workspace:
    return workspaces_pb2.Workspace(id=workspace.id, tenant_id=workspace.tenant_id)


async def withdrawals(parts: Parts, tenant: Tenant) -> list:
    return await parts.sql("SELECT * FROM audit WHERE tenant_id = $1 AND method = 'ExpireShares'", tenant.id)


async def test_two_relays_withdraw_what_is_due_once_and_servers_know_it(
    parts: Parts, database_url: str, spicedb, store: SpiceDB, tmp_path: Path
) -> None:
    settings = {"database_url": database_url, "spicedb_endpoint": spicedb.endpoint, "spicedb_key": spicedb.key}
    async with processes(tmp_path, **settings) as running:
        serve, _, _ = await asyncio.gather(running.serve(), running.relay(), running.relay())
        made = await a_lab(parts, 3)
        async with calling(serve.settings["PEMBA_GRPC_LISTEN"]) as calls:
            workspace = as_message(made.lab)
            await eventually(lambda: calls.may_view(workspace, "carol"))
            await eventually(lambda: is_denied(calls, workspace, "carol"))
            await eventually(lambda: is_withdrawn(parts, made))
        await require_truth(database_url, store, made.tenant.id)
    [row] = await withdrawals(parts, made.tenant)
    assert (row["principal"], row["before"][0]["id"], len(row["ops"])) == ("pemba:maintenance", made.share.id, 1)
    [late] = await parts.sql(
        "SELECT create_time - $2 AS late FROM audit WHERE id = $1", row["id"], made.share.expire_time
    )
    assert late["late"].total_seconds() >= 0, "not before its time"
    [delivery] = await sql(database_url, "SELECT next_expiry FROM tenant_delivery WHERE tenant_id = $1", made.tenant.id)
    assert delivery["next_expiry"] is None


async def is_denied(calls, workspace: workspaces_pb2.Workspace, user: str) -> bool:
    return not await calls.may_view(workspace, user)


async def is_withdrawn(parts: Parts, made: Lab) -> bool:
    return not await parts.sql("SELECT FROM shares WHERE id = $1", made.share.id)


async def test_without_a_relay_spicedbs_own_expiration_ends_it(
    parts: Parts, relaying: Relaying, serving: Serving, database_url: str
) -> None:
    async with serving() as calls:
        async with relaying():
            made = await a_lab(parts, 3)
            await eventually(lambda: is_delivered(database_url, made.tenant.id))
        workspace = as_message(made.lab)
        assert await calls.may_view(workspace, "carol")
        await eventually(lambda: is_denied(calls, workspace, "carol"), 4 + SPICEDB_SECONDS)
    assert await parts.sql("SELECT FROM shares WHERE id = $1 AND expire_time <= now()", made.share.id)


async def test_a_share_that_is_delivered_late_gives_nothing_and_holds_up_nobody(
    parts: Parts, relaying: Relaying, store: SpiceDB, database_url: str
) -> None:
    """SpiceDB takes a tuple that has expired, and shows it to nobody; one without an expiry in its place goes."""
    made = await a_lab(parts, 1)
    other = (await parts.share(made.guests, made.lab)).record
    async with relaying():
        await eventually(lambda: is_delivered(database_url, made.tenant.id))
    await parts.revoke(other)
    await parts.share(made.guests, made.lab, seconds=0.1)
    await eventually(lambda: has_come(parts, 2))
    async with relaying():
        await require_gone(parts, store, made, database_url)


async def has_come(parts: Parts, count: int) -> bool:
    [row] = await parts.sql("SELECT count(*) AS due FROM shares WHERE expire_time <= now()")
    return row["due"] == count


async def require_gone(parts: Parts, store: SpiceDB, made: Lab, database_url: str) -> None:
    await eventually(lambda: is_delivered(database_url, made.tenant.id))
    assert not [t for t in await stored(store, made.tenant.id) if t.relation.startswith("shared_")]
    assert await parts.expiry.run_once() == 2
    await require_truth(database_url, store, made.tenant.id)


async def test_grant_expiry_and_another_grant_in_one_batch_leave_the_last(
    parts: Parts, relaying: Relaying, store: SpiceDB, database_url: str
) -> None:
    """To SpiceDB they are one tuple, whatever its expiration."""
    made = await a_lab(parts, HOUR)
    await parts.revoke(made.share)
    made.share = (await parts.share(made.lab, made.guests, seconds=2 * HOUR)).record
    await parts.revoke(made.share)
    await parts.share(made.lab, made.guests)
    async with relaying():
        await require_truth(database_url, store, made.tenant.id)


# -- the sweeper's own ------------------------------------------------------------------------------------


async def test_many_sweepers_at_once_withdraw_each_share_once(parts: Parts, database: Database) -> None:
    made = [await a_lab(parts, 0.1) for _ in range(3)]
    sweepers = [ShareExpiry(database, parts.mutations.wakeup) for _ in range(6)]
    await eventually(lambda: has_come(parts, 3))
    assert sum(await asyncio.gather(*(Expiry(sweeper).run_once() for sweeper in sweepers))) == 3
    for lab in made:
        assert len(await withdrawals(parts, lab.tenant)) == 1
        heads = await parts.sql("SELECT head_seq FROM tenant_head WHERE tenant_id = $1", lab.tenant.id)
        assert [r["head_seq"] for r in heads] == [6], "who comes second takes no number"


async def test_a_sweeper_that_failed_looks_again_and_one_that_knows_the_time_does_not_wait(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "INTERVAL_SECONDS", 0.01)
    made = await a_lab(parts, 0.1)
    run_once, failures = parts.expiry.run_once, [Unavailable(Reason.POSTGRES_UNAVAILABLE, "away")] * 2

    async def fails_twice() -> int:
        if failures:
            raise failures.pop()
        return await run_once()

    monkeypatch.setattr(parts.expiry, "run_once", fails_twice)
    sweeping = asyncio.create_task(Expiry(parts.expiry).run())
    await eventually(lambda: is_withdrawn(parts, made))
    sweeping.cancel()
    await asyncio.wait({sweeping})
    assert sweeping.cancelled()


# -- drift ------------------------------------------------------------------------------------------------


async def drift(parts: Parts, database: Database, url: str, store: SpiceDB, tenant: Tenant, **options: object):
    reconciler = Reconciler(database, url, StoredTuples(store), parts.mutations.wakeup)
    events = [event async for event in reconciler.run(SYSTEM, Options(tenant_id=tenant.id, **options))]
    return {(e.drift.kind, str(e.drift.tuple)) for e in events[:-1] if hasattr(e, "drift")}, events[-1]


@pytest.mark.parametrize("seconds", [None, HOUR], ids=["for_ever", "for_an_hour"])
async def test_another_expiration_than_the_records_is_told_once_and_repaired_by_a_touch(
    parts: Parts, database: Database, relaying: Relaying, store: SpiceDB, database_url: str, seconds: float | None
) -> None:
    async with relaying():
        made = await a_lab(parts, seconds)
        await eventually(lambda: is_delivered(database_url, made.tenant.id))
        [right] = [t for t in await stored(store, made.tenant.id) if t.relation == "shared_viewer"]
        later = (await parts.sql("SELECT date_trunc('second', now()) + interval '1 day' AS t"))[0]["t"]
        for wrong in (None, later):
            if wrong == right.expiration:
                continue
            spoilt = Tuple(right.resource, right.relation, right.subject, wrong)
            await store.write([TupleOperation(Operation.TOUCH, spoilt)], metadata={}, timeout=5)
            found, summary = await drift(parts, database, database_url, store, made.tenant, apply=True, wait=True)
            assert found == {(Kind.MISSING, str(right))}
            assert (summary.missing, summary.too_much, summary.repaired) == (1, 0, 1)
            await require_truth(database_url, store, made.tenant.id)


async def test_what_has_expired_and_is_not_withdrawn_yet_is_no_drift(
    parts: Parts, database: Database, relaying: Relaying, store: SpiceDB, database_url: str
) -> None:
    async with relaying():
        made = await a_lab(parts, 1)
        await eventually(lambda: is_delivered(database_url, made.tenant.id))
        await eventually(lambda: has_come(parts, 1))
        found, summary = await drift(parts, database, database_url, store, made.tenant, apply=True)
        assert (found, summary.undelivered, summary.repaired) == (set(), 1, 0)
        assert await parts.expiry.run_once() == 1
        await eventually(lambda: is_delivered(database_url, made.tenant.id))
        found, summary = await drift(parts, database, database_url, store, made.tenant)
        assert (found, summary.undelivered) == (set(), 0)


async def test_a_share_that_was_taken_out_or_put_in_behind_pembas_back_is_repaired(
    parts: Parts, database: Database, relaying: Relaying, store: SpiceDB, database_url: str
) -> None:
    async with relaying():
        made = await a_lab(parts, HOUR)
        await eventually(lambda: is_delivered(database_url, made.tenant.id))
        [right] = [t for t in await stored(store, made.tenant.id) if t.relation == "shared_viewer"]
        shared_with, roster = right.subject, SubjectRef("workspace", right.resource.id, "roster")
        back = Tuple(ObjectRef("workspace", shared_with.id), "shared_admin", roster, right.expiration)
        await store.write(
            [TupleOperation(Operation.DELETE, right), TupleOperation(Operation.TOUCH, back)], metadata={}, timeout=5
        )
        found, _ = await drift(parts, database, database_url, store, made.tenant, apply=True, wait=True)
        assert found == {(Kind.MISSING, str(right)), (Kind.TOO_MUCH, str(back))}
        await require_truth(database_url, store, made.tenant.id)
