"""Bad input: each its documented code and reason, and nothing written."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace

import asyncpg
import grpc
import pytest

from pemba.model import MAX_WORKSPACE_DEPTH
from pemba.v1 import memberships_pb2, permissions_pb2, tenants_pb2, types_pb2, workspaces_pb2

INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
FAILED, EXISTS = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.ALREADY_EXISTS

TABLES = ("users", "tenants", "workspaces", "memberships", "outbox", "idempotency", "tenant_head")


@pytest.fixture
async def world(api, database_url: str) -> AsyncIterator[SimpleNamespace]:
    """A tenant with a chain as deep as may be and an owner, and another tenant."""
    created = await api.tenant("acme")
    line = [created.root_workspace]
    while len(line) < MAX_WORKSPACE_DEPTH:
        line.append((await api.workspace(line[-1], f"level-{len(line)}")).workspace)
    side = (await api.workspace(line[0], "side")).workspace
    other = await api.tenant("globex")
    connection = await asyncpg.connect(database_url)
    await api.memberships.SetRole(
        memberships_pb2.SetRoleRequest(
            tenant_id=created.tenant.id,
            object=types_pb2.ObjectRef(type="workspace", id=side.id),
            subject=types_pb2.SubjectRef(type="user", id="olga"),
            role=types_pb2.ROLE_OWNER,
        ),
        metadata=api.metadata(),
    )

    async def rows() -> dict[str, int]:
        counts = {table: await connection.fetchval(f"SELECT count(*) FROM {table}") for table in TABLES}
        return counts | {"heads": await connection.fetchval("SELECT sum(head_seq) FROM tenant_head")}

    yield SimpleNamespace(
        tenant=created.tenant, root=line[0], line=line, deepest=line[-1], side=side, other=other, rows=rows
    )
    await connection.close()


def create_workspace(w, **given):
    base = {"tenant_id": w.tenant.id, "parent_id": w.root.id, "slug": "fine", "name": "Fine"}
    return workspaces_pb2.CreateWorkspaceRequest(**{**base, **given})


def move(w, workspace, parent):
    return workspaces_pb2.MoveWorkspaceRequest(
        tenant_id=w.tenant.id, workspace_id=workspace.id, new_parent_id=parent.id
    )


def set_role(w, kind="workspace", id_=None, subject=("user", "bob"), role=types_pb2.ROLE_VIEWER, **given):
    return memberships_pb2.SetRoleRequest(
        **{"tenant_id": w.tenant.id, **given},
        object=types_pb2.ObjectRef(type=kind, id=w.side.id if id_ is None else id_),
        subject=types_pb2.SubjectRef(type=subject[0], id=subject[1]),
        role=role,
    )


def check(w, kind="workspace", id_=None, permission="view", subject=("user", "bob", ""), consistency=None, tenant=None):
    return permissions_pb2.CheckRequest(
        tenant_id=w.tenant.id if tenant is None else tenant,
        resource=types_pb2.ObjectRef(type=kind, id=w.side.id if id_ is None else id_),
        permission=permission,
        subject=types_pb2.SubjectRef(type=subject[0], id=subject[1], relation=subject[2]),
        consistency=consistency,
    )


def create_tenant(_, **given):
    return tenants_pb2.CreateTenantRequest(**{"slug": "fine", "name": "Fine", "first_admin": "alice", **given})


UNKNOWN_TENANT = "ten_01h455vb4pex5vsknk084sn02q"
UNKNOWN = "ws_01h455vb4pex5vsknk084sn02q"

# What is sent, and the code, the reason, and what the message must name.
BAD = {
    "a malformed tenant": (lambda w: create_workspace(w, tenant_id="acme"), INVALID, "INVALID_FIELD", "tenant_id"),
    "an id of another kind": (
        lambda w: create_workspace(w, tenant_id=w.root.id),
        INVALID,
        "INVALID_FIELD",
        "tenant_id",
    ),
    "no tenant": (lambda w: create_workspace(w, tenant_id=""), INVALID, "INVALID_FIELD", "tenant_id"),
    "an unknown tenant": (
        lambda w: create_workspace(w, tenant_id=UNKNOWN_TENANT),
        NOT_FOUND,
        "NOT_FOUND",
        UNKNOWN_TENANT,
    ),
    "a malformed parent": (lambda w: create_workspace(w, parent_id="ws_1"), INVALID, "INVALID_FIELD", "parent_id"),
    "an unknown parent": (lambda w: create_workspace(w, parent_id=UNKNOWN), NOT_FOUND, "NOT_FOUND", UNKNOWN),
    "another tenant's parent": (
        lambda w: create_workspace(w, parent_id=w.other.root_workspace.id),
        NOT_FOUND,
        "NOT_FOUND",
        "parent",
    ),
    "too deep": (lambda w: create_workspace(w, parent_id=w.deepest.id), FAILED, "TOO_DEEP", str(MAX_WORKSPACE_DEPTH)),
    "a slug in capitals": (lambda w: create_workspace(w, slug="Fine"), INVALID, "INVALID_FIELD", "slug"),
    "a slug that is too short": (lambda w: create_workspace(w, slug="ab"), INVALID, "INVALID_FIELD", "slug"),
    "a slug that is too long": (lambda w: create_workspace(w, slug="a" * 65), INVALID, "INVALID_FIELD", "slug"),
    "a slug with a dash last": (lambda w: create_workspace(w, slug="fine-"), INVALID, "INVALID_FIELD", "slug"),
    "a slug with a line end": (lambda w: create_workspace(w, slug="fine\n"), INVALID, "INVALID_FIELD", "slug"),
    "a reserved slug": (lambda w: create_workspace(w, slug="admin"), INVALID, "SLUG_RESERVED", "slug"),
    "a taken slug": (lambda w: create_workspace(w, slug="side"), EXISTS, "SLUG_TAKEN", "slug"),
    "no name": (lambda w: create_workspace(w, name=""), INVALID, "INVALID_FIELD", "name"),
    "a name with a NUL": (lambda w: create_workspace(w, name="a\0b"), INVALID, "INVALID_FIELD", "name"),
    "a name that is too long": (lambda w: create_workspace(w, name="a" * 201), INVALID, "INVALID_FIELD", "name"),
    "an owner's id that is too long": (
        lambda w: create_workspace(w, owner="a" * 257),
        INVALID,
        "INVALID_FIELD",
        "owner",
    ),
    "a request id that is too long": (
        lambda w: create_workspace(w, request_id="r" * 129),
        INVALID,
        "INVALID_FIELD",
        "request_id",
    ),
    "a request id with a NUL": (
        lambda w: create_workspace(w, request_id="a\0b"),
        INVALID,
        "INVALID_FIELD",
        "request_id",
    ),
    "a personal workspace in the tree": (
        lambda w: create_workspace(w, kind=workspaces_pb2.WORKSPACE_KIND_PERSONAL, slug="", personal_user_id="bob"),
        INVALID,
        "INVALID_FIELD",
        "parent_id",
    ),
    "a personal user of another kind": (
        lambda w: create_workspace(w, personal_user_id="bob"),
        INVALID,
        "OWNER_ONLY_ON_PERSONAL",
        "personal_user_id",
    ),
    "a cycle": (lambda w: move(w, w.line[1], w.line[5]), FAILED, "CYCLE", "below"),
    "a move below itself": (lambda w: move(w, w.line[1], w.line[1]), FAILED, "CYCLE", "itself"),
    "a move of the root": (lambda w: move(w, w.root, w.side), FAILED, "ROOT_WORKSPACE", "root"),
    "a move that is too deep": (lambda w: move(w, w.side, w.deepest), FAILED, "TOO_DEEP", str(MAX_WORKSPACE_DEPTH)),
    "a move to another tenant": (lambda w: move(w, w.side, w.other.root_workspace), NOT_FOUND, "NOT_FOUND", "parent"),
    "no role": (lambda w: set_role(w, role=0), INVALID, "INVALID_FIELD", "role"),
    "an unknown role": (lambda w: set_role(w, role=99), INVALID, "INVALID_FIELD", "role"),
    "an owner of a tenant": (
        lambda w: set_role(w, kind="tenant", id_=w.tenant.id, role=types_pb2.ROLE_OWNER),
        INVALID,
        "INVALID_FIELD",
        "role",
    ),
    "a viewer of a tenant": (
        lambda w: set_role(w, kind="tenant", id_=w.tenant.id, role=types_pb2.ROLE_VIEWER),
        INVALID,
        "INVALID_FIELD",
        "role",
    ),
    "a role on a user": (lambda w: set_role(w, kind="user", id_="bob"), INVALID, "INVALID_FIELD", "object"),
    "a role of a tenant": (lambda w: set_role(w, subject=("tenant", "x")), INVALID, "INVALID_FIELD", "subject"),
    "a role of nobody": (lambda w: set_role(w, subject=("user", "")), INVALID, "INVALID_FIELD", "subject"),
    "a role on another tenant's workspace": (
        lambda w: set_role(w, id_=w.other.root_workspace.id),
        NOT_FOUND,
        "NOT_FOUND",
        "workspace",
    ),
    "a demotion of the last owner": (
        lambda w: set_role(w, subject=("user", "olga")),
        FAILED,
        "LAST_OWNER",
        "owner",
    ),
    "a reserved slug of a tenant": (lambda w: create_tenant(w, slug="pemba"), INVALID, "SLUG_RESERVED", "slug"),
    "a taken slug of a tenant": (lambda w: create_tenant(w, slug="acme"), EXISTS, "SLUG_TAKEN", "slug"),
    "no first admin": (lambda w: create_tenant(w, first_admin=""), INVALID, "INVALID_FIELD", "first_admin"),
    "an unknown permission": (lambda w: check(w, permission="fly"), INVALID, "INVALID_FIELD", "administer, edit"),
    "a tenant's permission on a workspace's type": (
        lambda w: check(w, kind="tenant", id_=w.tenant.id, permission="own"),
        INVALID,
        "INVALID_FIELD",
        "administer, view",
    ),
    "an unknown type": (lambda w: check(w, kind="document", id_="x"), INVALID, "INVALID_FIELD", "workspace"),
    "a malformed workspace": (lambda w: check(w, id_="ws_x"), INVALID, "INVALID_FIELD", "resource"),
    "an unknown type of subject": (
        lambda w: check(w, subject=("robot", "x", "")),
        INVALID,
        "INVALID_FIELD",
        "subject",
    ),
    "a check under an unknown tenant": (
        lambda w: check(w, tenant=UNKNOWN_TENANT),
        NOT_FOUND,
        "NOT_FOUND",
        UNKNOWN_TENANT,
    ),
    "a forged token": (
        lambda w: check(w, consistency=types_pb2.Consistency(at_least_as_fresh="AAAA")),
        INVALID,
        "TOKEN_INVALID",
        "at_least_as_fresh",
    ),
    "no items": (lambda w: permissions_pb2.BatchCheckRequest(tenant_id=w.tenant.id), INVALID, "INVALID_FIELD", "items"),
    "a negative page size": (
        lambda w: tenants_pb2.ListTenantsRequest(page_size=-1),
        INVALID,
        "INVALID_FIELD",
        "page_size",
    ),
    "a forged page token": (
        lambda w: tenants_pb2.ListTenantsRequest(page_token="x"),
        INVALID,
        "TOKEN_INVALID",
        "page_token",
    ),
}


async def send(api, request, **options):
    """By the request's type: every one has its method."""
    method = type(request).__name__.removesuffix("Request")
    for stub in (api.permissions, api.tenants, api.workspaces, api.memberships):
        if hasattr(stub, method):
            return await getattr(stub, method)(request, **{"metadata": api.metadata(), **options})
    raise AssertionError(method)


async def test_bad_input_gets_its_code_and_reason_names_what_is_wrong_and_writes_nothing(
    api, world: SimpleNamespace, reason, subtests
) -> None:
    before = await world.rows()
    for what, (make, code, expected, named) in BAD.items():
        with subtests.test(what):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await send(api, make(world))
            assert (refused.value.code(), reason(refused.value)) == (code, expected), refused.value.details()
            assert named in refused.value.details()
    assert await world.rows() == before


@pytest.mark.parametrize("key", ["", "Bearer", "Bearer wrong-key-wrong-key-wrong-key-wrong-key", "Basic abc"])
async def test_a_wrong_key_is_unauthenticated_and_writes_nothing(api, world: SimpleNamespace, reason, key: str) -> None:
    before = await world.rows()
    metadata = (("authorization", key),) if key else ()
    for request in (create_tenant(None), check(world), create_workspace(world)):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await send(api, request, metadata=metadata)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert reason(refused.value) == "KEY_INVALID"
    assert await world.rows() == before


async def test_an_oversized_message_is_refused_by_its_size_and_writes_nothing(api, world: SimpleNamespace) -> None:
    before = await world.rows()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await send(api, create_workspace(world, name="x" * 5_000_000))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await world.rows() == before


async def test_a_deadline_of_a_tenth_of_a_second_ends_the_call_and_writes_nothing(
    api, world: SimpleNamespace, database_url: str
) -> None:
    """The tenant's head is locked by somebody else, so the mutation cannot be done in time."""
    before = await world.rows()
    holder = await asyncpg.connect(database_url)
    async with holder.transaction():
        await holder.execute("SELECT FROM tenant_head WHERE tenant_id = $1 FOR UPDATE", world.tenant.id)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await send(api, create_workspace(world), timeout=0.1)
        assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        while await holder.fetchval(waiting):  # the server gives up too: nobody waits for the lock any more
            pass
    await holder.close()
    assert await world.rows() == before
    await send(api, create_workspace(world))


async def test_a_batch_gives_each_item_its_own_answer_or_error(api, world: SimpleNamespace) -> None:
    good = permissions_pb2.BatchCheckItem(
        resource=types_pb2.ObjectRef(type="workspace", id=world.side.id),
        permission="own",
        subject=types_pb2.SubjectRef(type="user", id="olga"),
    )
    bad = permissions_pb2.BatchCheckItem()
    bad.CopyFrom(good)
    bad.permission = "fly"
    elsewhere = permissions_pb2.BatchCheckItem()
    elsewhere.CopyFrom(good)
    elsewhere.tenant_id = UNKNOWN_TENANT
    request = permissions_pb2.BatchCheckRequest(
        tenant_id=world.tenant.id,
        items=[good, bad, elsewhere, good],
        consistency=types_pb2.Consistency(fully_consistent=True),
    )
    answer = await send(api, request)
    assert [r.error.code for r in answer.results] == [0, INVALID.value[0], NOT_FOUND.value[0], 0]
    assert [r.decision for r in answer.results] == [
        permissions_pb2.DECISION_ALLOWED,
        permissions_pb2.DECISION_UNSPECIFIED,
        permissions_pb2.DECISION_UNSPECIFIED,
        permissions_pb2.DECISION_ALLOWED,
    ]
    assert answer.token
