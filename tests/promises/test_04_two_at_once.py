"""Promise 4: two last-owner removals at once: one succeeds.  Opposing moves at once: no cycle.  Suspend against
SetRole: no tuple survives."""

from __future__ import annotations

import asyncio

import pytest

from pemba.errors import PembaError, Reason
from pemba.model import Role, Seq
from pemba.storage import journal, outbox, users
from pemba.storage.statement import Statement
from tests.integration.conftest import Parts
from tests.integration.instruments import Gate, one_behind_the_other
from tests.integration.service.test_user_status import in_tenants, told
from tests.integration.service.test_workspaces import move
from tests.promises.conftest import is_broken


@pytest.mark.race
async def test_two_removals_of_the_last_two_owners_at_once_leave_one(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second comes while the first has checked and written, and not committed."""
    _, root = await parts.tenant()
    top = await parts.workspace(root, "top", owner="olga")
    await parts.role(top, "otto", Role.OWNER)
    gate = Gate(monkeypatch, journal, "append")
    outcomes = await one_behind_the_other(parts, gate, parts.remove(top, "olga"), lambda: parts.remove(top, "otto"))
    assert [o.reason for o in outcomes if isinstance(o, PembaError)] == [Reason.LAST_OWNER]


@pytest.mark.race
async def test_opposing_moves_at_the_same_moment_make_no_cycle(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    _, root = await parts.tenant()
    a, b = await parts.workspace(root, "a"), await parts.workspace(root, "b")
    gate = Gate(monkeypatch, journal, "append")
    outcomes = await one_behind_the_other(parts, gate, move(parts, a, b), lambda: move(parts, b, a))
    assert [o.reason for o in outcomes if isinstance(o, PembaError)] == [Reason.CYCLE]


@pytest.mark.race
@pytest.mark.parametrize("first", ["SetRole", "SuspendUser"])
async def test_suspend_against_set_role_leaves_no_tuple(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """Whichever has the user first: the other waits for it, and the job finds what both have done."""
    [tenant, other] = await in_tenants(parts, 2)
    await parts.remove(tenant, "bob")

    async def suspend_and_withdraw():
        await parts.suspend("bob")
        await parts.all_jobs()

    async def set_role():
        await parts.role(tenant, "bob", Role.ADMIN)

    gate = Gate(monkeypatch, journal, "append" if first == "SetRole" else "append_global")
    early, late = (set_role, suspend_and_withdraw) if first == "SetRole" else (suspend_and_withdraw, set_role)
    assert await one_behind_the_other(parts, gate, early(), late) == [None, None]
    await parts.all_jobs()
    held = await parts.sql("SELECT tenant_id FROM memberships WHERE user_id = 'bob'")
    assert {r["tenant_id"] for r in held} == {tenant.id, other.id}
    assert await told(parts, tenant) == await told(parts, other) == {"admin@user:alice"}
    await parts.activate("bob")
    assert await told(parts, tenant) == {"admin@user:alice", "admin@user:bob"}


def without_the_heads_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number is taken at the end, right before the rows: gap-free as well, but nothing is checked under it."""
    advance, append = outbox.advance, journal.append
    together = asyncio.Barrier(2)

    async def look_only(tx, by: int = 1) -> Seq:
        return Seq(await outbox.head(tx, tx.tenant_id) + by)

    async def append_late(tx, tenant_id, first_seq, rows, entry) -> None:
        await together.wait()  # both have checked
        last = await advance(tx, len(rows))
        await append(tx, tenant_id, Seq(last - len(rows) + 1), rows, entry)

    monkeypatch.setattr(outbox, "advance", look_only)
    monkeypatch.setattr(journal, "append", append_late)


async def test_without_the_heads_lock_a_workspace_loses_both_owners(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, root = await parts.tenant()
    top = await parts.workspace(root, "top", owner="olga")
    await parts.role(top, "otto", Role.OWNER)
    without_the_heads_lock(monkeypatch)
    await asyncio.gather(parts.remove(top, "olga"), parts.remove(top, "otto"))
    assert not await parts.sql("SELECT FROM memberships WHERE workspace_id = $1", top.id)


async def test_without_the_heads_lock_opposing_moves_make_a_cycle(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, root = await parts.tenant()
    a, b = await parts.workspace(root, "a"), await parts.workspace(root, "b")
    without_the_heads_lock(monkeypatch)
    await asyncio.gather(move(parts, a, b), move(parts, b, a))
    found = await parts.sql("SELECT id, parent_id FROM workspaces WHERE id = ANY ($1)", [a.id, b.id])
    assert {r["id"]: r["parent_id"] for r in found} == {a.id: b.id, b.id: a.id}


async def test_without_the_users_lock_a_tuple_survives_the_suspension(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlocked = f"SELECT {users.COLUMNS} FROM users WHERE id = ANY (CAST(:ids AS text[])) ORDER BY id"
    monkeypatch.setattr(users, "_LOCK_SHARED", Statement(unlocked))
    with is_broken("admin@user:bob"):
        await test_suspend_against_set_role_leaves_no_tuple(parts, monkeypatch, "SetRole")
