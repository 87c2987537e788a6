"""Promise 12: repair under live grants and revokes: converges, no acknowledged revoke undone."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Sequence

from pemba import projection
from pemba.model import Seq, TenantId, TenantScope, Tuple
from pemba.service import repair, wanted
from pemba.service.reconciliation import Reconciler
from pemba.spicedb.client import SpiceDB
from pemba.storage import journal, outbox
from pemba.storage.database import Database
from pemba.storage.journal import AuditEntry
from tests.integration.conftest import Parts
from tests.integration.relay import test_reconcile as reconcile
from tests.integration.relay.conftest import Serving
from tests.integration.relay.test_reconcile import Company, behind_its_back, company, on, reconciler, run
from tests.promises.conftest import is_broken
from tests.truth import require_truth

__all__ = ["company", "reconciler"]


async def test_repair_under_live_grants_and_revokes_converges_and_undoes_no_acknowledged_revoke(
    company: Company, parts: Parts, reconciler: Reconciler, serving: Serving, store: SpiceDB, database_url: str
) -> None:
    """After each revoke its token is asked with, while tuples come and go behind Pemba's back."""
    made, dice, changed = company, random.Random(12), asyncio.Event()

    async def one_user(calls, name: str) -> None:
        for _ in range(8):
            await calls.grant(made.backend, name)
            token = await calls.revoke(made.backend, name)
            assert not await calls.may_view(made.backend, name, token), name

    async def vandal() -> None:
        while not changed.is_set():
            texts = [on(made.backend, "viewer", "user:carol"), on(made.eng, "owner", "user:bob")]
            await behind_its_back(store, *(dice.choice("+-") + t for t in texts))
            await behind_its_back(store, "+" + on(made.eng, "viewer", f"user:ghost-{dice.randrange(5)}"))
            await asyncio.sleep(0.02)

    async def repairer() -> int:
        repaired = 0
        while not changed.is_set() or repaired < 5:
            _, summary = await run(reconciler, made.tenant, apply=True, max_deletions=1000)
            repaired += summary.repaired
        return repaired

    async with serving() as calls:
        others = asyncio.gather(repairer(), vandal())
        await asyncio.gather(*(one_user(calls, f"user-{n}") for n in range(4)))
        changed.set()
        repaired, _ = await others
    assert repaired >= 5
    await run(reconciler, made.tenant, apply=True, max_deletions=1000, wait=True)
    await require_truth(database_url, store, made.tenant.id)


async def desired_before_the_head_is_held(
    database: Database, entry: AuditEntry, tenant_id: TenantId, tuples: Sequence[Tuple], fills: uuid.UUID | None
) -> Seq | None:
    async with database.begin(TenantScope(tenant_id)) as tx:
        expected = await wanted.among(tx, tuples)
        seq = await outbox.advance(tx)
        assert seq is not None
        operations = projection.difference(set(tuples) - expected, expected)
        await journal.append(tx, tenant_id, seq, [operations], entry, fills)
        return seq


async def test_it_is_broken_where_the_desired_state_is_read_before_the_head_is_held(
    company: Company, parts: Parts, database: Database, store: SpiceDB, database_url: str, monkeypatch
) -> None:
    """By the test that has the repair wait for a revoke under way."""
    monkeypatch.setattr(repair, "_append", desired_before_the_head_is_held)
    with is_broken():
        await reconcile.test_a_repair_that_waits_for_a_revoke_under_way_sees_it(
            company, parts, database, store, database_url, monkeypatch
        )
    assert "+viewer@user:carol" in (await parts.operations(company.tenant))[-1], "what was revoked would be back"
