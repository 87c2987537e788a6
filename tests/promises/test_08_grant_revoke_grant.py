"""Promise 8: grant, revoke, grant in one batch: no duplicate error, the last wins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from pemba.model import Role, TenantId
from pemba.relay import lane
from pemba.relay.batches import Batch, batch
from pemba.spicedb.client import SpiceDB
from pemba.storage.outbox import OutboxRow
from tests.integration.conftest import Parts
from tests.integration.relay.conftest import Relaying
from tests.promises.conftest import is_broken
from tests.truth import require_truth, sql
from tests.watching import watching


async def test_grant_revoke_and_grant_of_one_tuple_go_as_one_write_and_the_last_wins(
    parts: Parts, relaying: Relaying, store: SpiceDB, database_url: str
) -> None:
    tenant, root = await parts.tenant()
    async with watching(store, f"{tenant.id}/") as seen:
        await parts.role(root, "bob", Role.VIEWER)
        await parts.remove(root, "bob")
        await parts.role(root, "bob", Role.VIEWER)
        await parts.role(root, "carol", Role.VIEWER)
        await parts.remove(root, "carol")
        await parts.role(root, "last", Role.VIEWER)
        async with relaying():
            await require_truth(database_url, store, tenant.id)
        [write] = await seen.until("last")
    users = {touched.subject.id for touched in write.touched if touched.relation == "viewer"}
    assert users == {"bob", "last"}
    assert not await sql(database_url, "SELECT FROM parked_operation")


async def test_it_is_broken_where_every_operation_of_a_batch_is_sent(
    parts: Parts, relaying: Relaying, store: SpiceDB, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def all_of_them(tenant_id: TenantId, rows: Sequence[OutboxRow], **given: bool) -> Batch:
        made = batch(tenant_id, rows, **given)
        return replace(made, operations=tuple(operation for row in rows for operation in row.operations))

    monkeypatch.setattr(lane, "batch", all_of_them)
    tenant, root = await parts.tenant()
    await parts.role(root, "bob", Role.VIEWER)
    await parts.remove(root, "bob")
    await parts.role(root, "bob", Role.VIEWER)
    async with relaying():
        with is_broken("still gives False"):
            await require_truth(database_url, store, tenant.id, 3)
