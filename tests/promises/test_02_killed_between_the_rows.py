"""Promise 2: kill -9 between the rows of one large change: its token is not yet visible, and nobody could do what
neither state allows."""

from __future__ import annotations

import asyncio
import json

import grpc
import pytest
from pydantic import TypeAdapter

from pemba.model import ObjectRef, Operation, Role, SubjectRef, Tenant, Tuple, TupleOperation, Workspace
from pemba.service.memberships import RoleAssignment
from pemba.service.mutation import Draft, Mutations
from pemba.spicedb.client import CheckQuestion, Decision, FullyConsistent, SpiceDB
from pemba.storage import outbox
from pemba.storage.outbox import shard_of
from pemba.tokens import Signer
from tests.integration.conftest import SYSTEM, Parts
from tests.integration.relay.conftest import Seized, Serving
from tests.promises.conftest import is_broken
from tests.proxy import Proxy, Side
from tests.stack import ROOT_SECRET, Calls, Processes, Refusal
from tests.truth import is_delivered, positions, require_truth, sql, stored


async def test_killed_between_the_rows_of_one_large_change(
    running: Processes, parts: Parts, store: SpiceDB, spicedb_proxy: Proxy, database_url: str
) -> None:
    """Its token is not visible, and until the next relay ends it nobody can do what neither state allows."""
    tenant, root = await parts.tenant()
    users = [f"user-{number:04}" for number in range(600)]
    await set_roles(parts, root, users, Role.VIEWER)
    second = await running.relay()
    await require_truth(database_url, store, tenant.id)
    await running.stop(second)
    token = await set_roles(parts, root, users, Role.MEMBER)
    first_seq, last_seq = await rows_of_the_last_change(database_url, tenant.id)
    assert last_seq - first_seq == 2, "DELETEs of 500, the rest of them with TOUCHes, the rest of those"
    request = spicedb_proxy.trap(await only_in_row(database_url, tenant.id, first_seq + 1), Side.REQUEST)
    first = await running.relay(spicedb_endpoint=spicedb_proxy.endpoint)
    await request.sprung.wait()
    await asyncio.to_thread(first.kill)
    assert await positions(database_url, tenant.id) == (last_seq, first_seq)
    roles = [found for found in await stored(store, tenant.id) if found.subject.id in set(users)]
    assert {found.relation for found in roles} == {"viewer"}
    assert len(roles) == 100
    serve = await running.serve(root_secrets="s" * 32)
    calls = Calls(serve.settings["PEMBA_GRPC_LISTEN"])
    async with calls.channel:
        await require_not_yet_visible(calls, root, token)
        await running.relay()
        await require_truth(database_url, store, tenant.id)
        assert await calls.may_view(root, users[0], token)
    assert {t.relation for t in await stored(store, tenant.id) if t.subject.id in set(users)} == {"member"}


async def set_roles(parts: Parts, root, users: list[str], role: Role) -> str:
    assignments = [RoleAssignment(ObjectRef("workspace", root.id), SubjectRef("user", user), role) for user in users]
    changed = await parts.memberships.set_roles(
        SYSTEM, root.tenant_id, assignments=assignments, options=parts.options("SetRoles")
    )
    return changed.token


async def rows_of_the_last_change(url: str, tenant_id: str) -> tuple[int, int]:
    rows = await sql(
        url,
        "SELECT min(seq), max(seq) FROM outbox WHERE tenant_id = $1 AND create_time ="
        " (SELECT max(create_time) FROM outbox WHERE tenant_id = $1)",
        tenant_id,
    )
    return rows[0]["min"], rows[0]["max"]


async def only_in_row(url: str, tenant_id: str, seq: int) -> bytes:
    """A user whom this row names and no earlier one of the change does."""
    rows = await sql(
        url, "SELECT ops::text FROM outbox WHERE tenant_id = $1 AND seq BETWEEN $2 AND $3", tenant_id, seq - 1, seq
    )
    earlier, this = ({o.tuple.subject.id for o in outbox.from_json(json.loads(row["ops"]))} for row in rows)
    return min(this - earlier).encode()


async def require_not_yet_visible(calls: Calls, root, token: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await calls.may_view(root, "alice", token)
    assert Refusal(error.value).reason == "TOKEN_NOT_YET_VISIBLE"


def operation(kind: Operation, resource: Workspace, relation: str, subject: SubjectRef) -> TupleOperation:
    return TupleOperation(kind, Tuple(ObjectRef("workspace", f"{resource.tenant_id}/{resource.id}"), relation, subject))


def as_parent(workspace: Workspace) -> SubjectRef:
    return SubjectRef("workspace", f"{workspace.tenant_id}/{workspace.id}")


async def halfway(parts: Parts, seized: Seized, url: str) -> tuple[Tenant, Workspace, str]:
    """A workspace that moves below one of which its admin is taken away by the same change; one of two rows is
    delivered.  Before it he may do nothing there, and after it neither.  The token is the change's."""
    tenant, root = await parts.tenant()
    before, after = [await parts.workspace(root, slug) for slug in ("before", "after")]
    moving = await parts.workspace(before, "moving")
    await parts.role(after, "mallory", Role.ADMIN)
    mallory = SubjectRef("user", "mallory")
    operations = [
        operation(Operation.DELETE, moving, "parent", as_parent(before)),
        operation(Operation.DELETE, after, "admin", mallory),
        *(operation(Operation.DELETE, after, "viewer", SubjectRef("user", f"user-{n}")) for n in range(600)),
        operation(Operation.TOUCH, moving, "parent", as_parent(after)),
    ]
    lane = await seized(shard_of(tenant.id))
    while not await is_delivered(url, tenant.id):
        await lane.run_once()

    async def body(*_: object) -> Draft[None]:
        return Draft(None, operations, f"workspace:{moving.id}")

    changed = await parts.mutations.run(SYSTEM, tenant.id, parts.options("Large"), TypeAdapter(None), body)
    await lane.run_once()
    head, delivered = await positions(url, tenant.id)
    assert head - delivered == 1
    return tenant, moving, changed.token


async def may_view(store: SpiceDB, workspace: Workspace, user: str) -> bool:
    stored_object = ObjectRef("workspace", f"{workspace.tenant_id}/{workspace.id}")
    question = CheckQuestion(stored_object, "view", SubjectRef("user", user))
    return (await store.check(question, FullyConsistent(), 5)).decision is Decision.ALLOWED


async def test_halfway_nobody_can_do_what_neither_state_allows(
    parts: Parts, seized: Seized, store: SpiceDB, database_url: str
) -> None:
    _, moving, _ = await halfway(parts, seized, database_url)
    assert not await may_view(store, moving, "mallory"), "what neither state allows"


async def test_it_is_broken_where_deletes_do_not_come_first(
    parts: Parts, seized: Seized, store: SpiceDB, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = outbox.split

    def touches_first(operations):
        rows = [list(reversed(row)) for row in reversed(split(operations))]
        flat = [operation for row in rows for operation in row]
        return [flat[:500], flat[500:]] if len(flat) > 500 else [flat]

    monkeypatch.setattr(outbox, "split", touches_first)
    with is_broken("what neither state allows"):
        await test_halfway_nobody_can_do_what_neither_state_allows(parts, seized, store, database_url)


async def test_halfway_the_token_of_the_change_is_not_yet_visible(
    parts: Parts, seized: Seized, serving: Serving, database_url: str
) -> None:
    async with serving() as calls:
        _, moving, token = await halfway(parts, seized, database_url)
        await require_not_yet_visible(calls, moving, signed_by_the_server(parts, token))


def signed_by_the_server(parts: Parts, token: str) -> str:
    """The same token, by the secret of the server that is asked."""
    return Signer((ROOT_SECRET,), parts.signer.database_epoch).token(parts.signer.positions(token).positions)


async def test_it_is_broken_where_the_token_does_not_name_the_last_row(
    parts: Parts, seized: Seized, serving: Serving, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = Mutations._append

    async def first_of(self, tx, caller, options, seq, rows, draft):
        await append(self, tx, caller, options, seq, rows, draft)
        return seq

    monkeypatch.setattr(Mutations, "_append", first_of)
    with is_broken("DID NOT RAISE"):
        await test_halfway_the_token_of_the_change_is_not_yet_visible(parts, seized, serving, database_url)
