"""Two `pemba serve` and a relay as processes: one order, from the commits to SpiceDB."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from pemba.model import Operation, Tuple
from pemba.spicedb.client import SpiceDB
from pemba.storage import outbox
from pemba.tokens import Signer
from pemba.v1 import types_pb2, workspaces_pb2
from tests.stack import ROOT_SECRET, Calls, calling, processes
from tests.truth import require_truth, sql, stored
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
