"""Promise 10: two `serve`s on one workspace: gap-free, commit order.  Rollback after computing ops: no row, no gap."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from pemba.model import Operation, Role, Tuple
from pemba.spicedb.client import SpiceDB
from pemba.storage import journal, outbox
from pemba.storage.statement import Statement
from pemba.tokens import Signer
from pemba.v1 import types_pb2, workspaces_pb2
from tests.integration.conftest import Parts
from tests.integration.instruments import Gate
from tests.promises.conftest import is_broken
from tests.stack import ROOT_SECRET, Calls, calling, processes
from tests.truth import as_owner, require_no_gap, require_truth, sql, stored
from tests.watching import Write, watching

MUTATIONS = 200
ROLES = (types_pb2.ROLE_VIEWER, types_pb2.ROLE_MEMBER, types_pb2.ROLE_ADMIN)


@dataclass(frozen=True)
class Done:
    """When a mutation was sent and answered (monotonic seconds), and its token: empty where it changed nothing."""

    sent: float
    answered: float
    token: str


async def test_two_hundred_mutations_at_once_through_two_servers_have_no_gap_and_are_delivered_in_order(
    database_url: str, spicedb, tmp_path: Path
) -> None:
    settings = {"database_url": database_url, "spicedb_endpoint": spicedb.endpoint, "spicedb_key": spicedb.key}
    store = SpiceDB.connect(spicedb.endpoint, spicedb.key)
    async with processes(tmp_path, **settings) as running:
        one, two, _ = await asyncio.gather(running.serve(), running.serve(), running.relay())
        async with (
            calling(one.settings["PEMBA_GRPC_LISTEN"]) as first,
            calling(two.settings["PEMBA_GRPC_LISTEN"]) as second,
        ):
            created = await first.tenant("acme")
            root = created.root_workspace
            assert await second.may_view(root, "alice", created.token)
            before = frozenset(await stored(store, root.tenant_id))
            async with watching(store, f"{root.tenant_id}/") as seen:
                servers = (first, second)
                done = await asyncio.gather(*(mutate(servers[n % 2], root, n) for n in range(MUTATIONS)))
                last = await first.grant(root, "last")
                writes = await seen.until("last")
            assert await second.may_view(root, "last", last)
            head = await require_truth(database_url, store, root.tenant_id)
    await store.close()
    assert head == 1 + MUTATIONS + 1
    await require_commit_order(database_url, done)
    await require_delivered_in_order(database_url, root.tenant_id, before, writes)


async def mutate(calls: Calls, root: workspaces_pb2.Workspace, number: int) -> Done:
    """All change the role of one user, so that any change of order would show."""
    sent = time.monotonic()
    role = number % 4
    token = await (calls.revoke(root, "bob") if role == 3 else calls.grant(root, "bob", ROLES[role]))
    return Done(sent, time.monotonic(), token)


async def require_commit_order(url: str, done: list[Done]) -> None:
    """Each has a number of its own, and what was answered before another was sent has the lower one."""
    [installed] = await sql(url, "SELECT database_epoch FROM installation")
    signer = Signer((ROOT_SECRET,), installed["database_epoch"])
    numbered = {}
    for each in done:
        if each.token:
            [seq] = signer.positions(each.token).positions.values()
            assert seq not in numbered
            numbered[seq] = each
    assert len(numbered) > MUTATIONS / 2
    in_order = [numbered[seq] for seq in sorted(numbered)]
    latest_sent = 0.0
    for each in in_order:
        assert each.answered > latest_sent
        latest_sent = max(latest_sent, each.sent)


async def require_delivered_in_order(url: str, tenant_id: str, before: frozenset[Tuple], writes: list[Write]) -> None:
    """After each write SpiceDB held what the sequence says up to some number, and the numbers only rose."""
    rows = await sql(url, "SELECT ops, trace FROM outbox WHERE tenant_id = $1 ORDER BY seq", tenant_id)
    by_request = {json.loads(row["trace"])["request_id"]: number for number, row in enumerate(rows)}
    states = [frozenset[Tuple]()]
    for row in rows:
        operations = outbox.from_json(json.loads(row["ops"]))
        deleted = {o.tuple for o in operations if o.operation is Operation.DELETE}
        states.append(states[-1] - deleted | {o.tuple for o in operations if o.operation is Operation.TOUCH})
    assert before == states[1]
    assert len(writes) > 5
    delivered = [by_request[write.request_id] for write in writes]
    assert all(earlier < later for earlier, later in pairwise(delivered))
    held = before
    for write, number in zip(writes, delivered, strict=True):
        held = write.applied_to(held)
        assert held == states[number + 1]


async def test_a_mutation_that_is_rolled_back_after_its_operations_were_computed_leaves_no_row_and_no_gap(
    parts: Parts, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant, root = await parts.tenant()
    append = journal.append

    async def fails(*given: object) -> None:
        await append(*given)
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(journal, "append", fails)
        with pytest.raises(ZeroDivisionError):
            await parts.role(root, "bob", Role.VIEWER)
    await parts.role(root, "carol", Role.VIEWER, validate_only=True)
    await parts.role(root, "dave", Role.VIEWER)
    assert await require_no_gap(database_url, tenant.id) == 2
    assert {r["user_id"] for r in await sql(database_url, "SELECT user_id FROM memberships")} == {"alice", "dave"}


async def numbers_from_a_sequence(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What numbers in commit order are not: each is taken at once, without waiting for who has the one before."""
    await as_owner(url, "outbox", "CREATE SEQUENCE numbers START 2")
    await as_owner(url, "outbox", "GRANT USAGE ON SEQUENCE numbers TO pemba_api")
    numbered = "SELECT nextval('numbers') AS head_seq FROM tenant_head WHERE tenant_id = :tenant_id AND :by > 0"
    statement = Statement(numbered.replace("'numbers'", "CAST('numbers' AS regclass)"))
    Statement.every.remove(statement)  # other databases know of no such sequence
    monkeypatch.setattr(outbox, "_ADVANCE", statement)


async def test_it_is_broken_by_numbers_that_do_not_roll_back(
    parts: Parts, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await numbers_from_a_sequence(database_url, monkeypatch)
    with is_broken():
        await test_a_mutation_that_is_rolled_back_after_its_operations_were_computed_leaves_no_row_and_no_gap(
            parts, database_url, monkeypatch
        )


async def test_a_later_number_is_not_committed_before_an_earlier_one(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, root = await parts.tenant()
    gate = Gate(monkeypatch, journal, "append")
    first = asyncio.create_task(parts.role(root, "bob", Role.VIEWER))
    await gate.reached.wait()
    second = asyncio.create_task(parts.role(root, "carol", Role.VIEWER))
    overtook = (await asyncio.wait({second}, timeout=0.5))[0]
    gate.open()
    positions = [parts.signer.positions(done.token).positions for done in await asyncio.gather(first, second)]
    assert [seq for each in positions for seq in each.values()] == [2, 3]
    assert not overtook, "it was committed before the number below it"


async def test_it_is_broken_by_numbers_without_the_heads_lock(
    parts: Parts, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await numbers_from_a_sequence(database_url, monkeypatch)
    with is_broken("committed before the number below it"):
        await test_a_later_number_is_not_committed_before_an_earlier_one(parts, monkeypatch)
