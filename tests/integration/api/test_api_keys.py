"""API keys over gRPC: every method walked with every kind of key, and what each kind of caller is let in to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp

from pemba import app
from pemba.model import Scope
from pemba.rpc.scopes import SCOPES
from pemba.rpc.server import SERVICES
from pemba.v1 import (
    api_keys_pb2,
    groups_pb2,
    invitations_pb2,
    memberships_pb2,
    permissions_pb2,
    shares_pb2,
    tenants_pb2,
    types_pb2,
    users_pb2,
    workspaces_pb2,
)
from tests.truth import eventually

METHODS = [method for service in SERVICES for method in service.methods]
ALL = [str(scope) for scope in Scope]
OF_USERS = [scope for scope in ALL if scope != Scope.ACT_AS]
TABLES = (
    *(
        "users",
        "tenants",
        "workspaces",
        "memberships",
        "groups",
        "group_members",
        "shares",
        "api_keys",
        "invitations",
        "outbox",
    ),
    *("idempotency", "user_current_workspace", "user_job"),
)
CODE = grpc.StatusCode
FOR_SYSTEM_KEYS = {
    *("CreateTenant", "ListTenants", "DeleteTenant", "GetTenantDeletion"),
    *("CreateUser", "ListUsers", "SuspendUser", "ActivateUser", "DeactivateUser"),
    *("GetRelayStatus", "Reconcile", "ListParkedOperations", "RetryParked", "TailOutbox", "ReencryptSecrets"),
}
OF_WHOM_THEY_ARE_FOR = {
    "AcceptInvitation": (CODE.PERMISSION_DENIED, "ROLE_MISSING"),
    "DeclineInvitation": (CODE.FAILED_PRECONDITION, "INVITATION_EMAIL_MISMATCH"),
}
"""What takes the secret of an invitation; only a system key says for whom it calls, and with which email."""
TELLTALE = "Moonshot"
"""In every name that nobody is to learn from a refusal."""


@dataclass
class World:
    """A tenant with something of everything, another tenant, and keys."""

    api: Any
    tenant: tenants_pb2.Tenant
    root: workspaces_pb2.Workspace
    lab: workspaces_pb2.Workspace
    bench: workspaces_pb2.Workspace
    other: tenants_pb2.Tenant
    group_id: str
    share_id: str
    database: asyncpg.Connection
    api_key_id: str = ""
    invitation: Any = None
    secrets: dict[str, str] = field(default_factory=dict)

    async def rows(self) -> dict[str, int]:
        counts = {table: await self.database.fetchval(f"SELECT count(*) FROM {table}") for table in TABLES}
        return counts | {"heads": await self.database.fetchval("SELECT sum(head_seq) FROM tenant_head")}

    async def key(self, name: str, scopes: list[str], **given: Any) -> api_keys_pb2.ApiKey:
        """A new key, whose secret is remembered under its name."""
        request = api_keys_pb2.CreateApiKeyRequest(name=name, scopes=scopes, **given)
        made = await self.api.keys.CreateApiKey(request, metadata=self.api.metadata())
        self.secrets[name] = made.secret
        return made.api_key

    async def revoke(self, key: api_keys_pb2.ApiKey) -> None:
        request = api_keys_pb2.RevokeApiKeyRequest(tenant_id=key.tenant_id, api_key_id=key.id)
        await self.api.keys.RevokeApiKey(request, metadata=self.api.metadata())

    def metadata(self, name: str, **extra: str) -> tuple[tuple[str, str], ...]:
        named = {key.replace("_", "-"): value for key, value in extra.items()}
        return (("authorization", f"Bearer {self.secrets[name]}"), *named.items())

    def request(self, method: MethodDescriptor) -> Any:
        """One that could succeed, about what is the tenant's."""
        return self._filled(GetMessageClass(method.input_type)())

    async def outcome(self, method: MethodDescriptor, metadata: tuple[tuple[str, str], ...]) -> grpc.aio.AioRpcError:
        path = f"/{method.containing_service.full_name}/{method.name}"
        body = self.request(method).SerializeToString()
        if method.server_streaming:
            answer = self.api.channel.unary_stream(path)(body, metadata=metadata, timeout=10).read()
        else:
            answer = self.api.channel.unary_unary(path)(body, metadata=metadata, timeout=10)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await answer
        return caught.value

    def _filled(self, message: Any) -> Any:
        values: dict[str, Any] = {
            "tenant_id": self.tenant.id,
            "workspace_id": self.lab.id,
            "parent_id": self.root.id,
            "new_parent_id": self.bench.id,
            "group_id": self.group_id,
            "share_id": self.share_id,
            "api_key_id": self.api_key_id,
            "invitation_id": self.invitation.invitation.id,
            "token": self.invitation.token,
            "email": "new@acme.test",
            "user_id": "alice",
            "id": "newcomer",
            "slug": "new-slug",
            "confirm_slug": "acme",
            "name": f"{TELLTALE}-new",
            "first_admin": "alice",
            "scopes": ["read"],
            "tenant_ids": [self.tenant.id],
            "permission": "view",
            "type": "workspace",
            "subject_type": "user",
            "namespace": "mail",
            "role": types_pb2.ROLE_VIEWER,
            "direction": shares_pb2.SHARE_DIRECTION_OUTGOING,
            "from_user": "alice",
            "to_user": "olga",
            "workspace": self._ref(self.lab),
            "object": self._ref(self.lab),
            "resource": self._ref(self.lab),
            "with_workspace": self._ref(self.bench),
            "subject": types_pb2.SubjectRef(type="user", id="alice"),
        }
        for each in message.DESCRIPTOR.fields:
            if each.containing_oneof is not None and message.WhichOneof(each.containing_oneof.name):
                continue
            value = values.get(each.name)
            if each.message_type is None and value is not None and not isinstance(value, list):
                setattr(message, each.name, value)
            elif value is not None and isinstance(value, list):
                getattr(message, each.name).extend(value)
            elif each.message_type is not None and value is not None:
                getattr(message, each.name).CopyFrom(value)
            elif each.message_type is not None and each.message_type.GetOptions().map_entry:
                if each.message_type.fields_by_name["value"].message_type is not None:
                    getattr(message, each.name)["port"].number_value = 25
            elif each.message_type is not None and each.is_repeated:
                self._filled(getattr(message, each.name).add())
        return message

    @staticmethod
    def _ref(workspace: workspaces_pb2.Workspace) -> types_pb2.ObjectRef:
        return types_pb2.ObjectRef(type="workspace", id=workspace.id)


@pytest.fixture
async def world(api, database_url: str) -> AsyncIterator[World]:
    created = await api.tenant("acme")
    root, key = created.root_workspace, {"metadata": api.metadata()}
    lab, bench = [(await api.workspace(parent, slug)).workspace for parent, slug in ((root, "lab"), (root, "bench"))]
    tenant_id = created.tenant.id
    group = groups_pb2.CreateGroupRequest(tenant_id=tenant_id, slug="team", name=f"{TELLTALE} team")
    share = shares_pb2.CreateShareRequest(
        tenant_id=tenant_id, workspace=World._ref(bench), with_workspace=World._ref(lab), role=types_pb2.ROLE_VIEWER
    )
    other = (await api.tenant("globex", "mallory")).tenant
    await api.users.CreateUser(users_pb2.CreateUserRequest(id="bob", email="bob@acme.test"), **key)
    database = await asyncpg.connect(database_url)
    made = World(
        *(api, created.tenant, root, lab, bench, other),
        (await api.groups.CreateGroup(group, **key)).group.id,
        (await api.shares.CreateShare(share, **key)).share.id,
        database,
    )
    invite = invitations_pb2.CreateInvitationRequest(
        tenant_id=tenant_id, workspace=World._ref(lab), email="carol@acme.test", role=types_pb2.ROLE_VIEWER
    )
    made.invitation = await api.invitations.CreateInvitation(invite, **key)
    made.api_key_id = (await made.key(f"{TELLTALE} key", ["read"], tenant_id=tenant_id)).id
    yield made
    await database.close()


# -- the walk ---------------------------------------------------------------------------------------------


async def test_no_method_is_open_to_who_may_not_call_it_and_a_refusal_writes_and_tells_nothing(
    world: World, reason
) -> None:
    tenant_id = world.tenant.id
    await world.key("theirs", ALL, tenant_id=world.other.id)
    await world.key("mallory's", OF_USERS, user_id="mallory")
    await world.key("bob's", OF_USERS, user_id="bob")
    await world.key("bob's here", OF_USERS, user_id="bob", tenant_id=tenant_id)
    for scope in ALL:
        await world.key(f"without {scope}", [each for each in ALL if each != scope], tenant_id=tenant_id)
    revoked = await world.key("revoked", ALL, tenant_id=tenant_id)
    expired = await world.key("expired", ALL, tenant_id=tenant_id, expire_time=Timestamp(seconds=int(time.time()) + 2))
    await world.revoke(revoked)

    async def has_expired() -> bool:
        return bool(await world.database.fetchval("SELECT swept FROM api_keys WHERE id = $1", expired.id))

    await eventually(has_expired)
    world.secrets["unknown"] = world.secrets["theirs"][:-4] + "AAAA"
    names = {world.metadata(name): name for name in world.secrets}
    wrong: list[tuple[str | None, ...]] = []
    before = await world.rows()
    audited = await world.database.fetchval("SELECT max(id) FROM audit")
    for method in METHODS:
        scope = SCOPES[f"/{method.containing_service.full_name}/{method.name}"]
        for_system = method.name in FOR_SYSTEM_KEYS
        names_tenant = "tenant_id" in method.input_type.fields_by_name
        refused = CODE.PERMISSION_DENIED, "ROLE_MISSING"
        unseen = CODE.NOT_FOUND, "NOT_FOUND"
        expected = {
            (): (CODE.UNAUTHENTICATED, "KEY_INVALID"),
            world.metadata("unknown"): (CODE.UNAUTHENTICATED, "KEY_INVALID"),
            world.metadata("revoked"): (CODE.UNAUTHENTICATED, "KEY_REVOKED"),
            world.metadata("expired"): (CODE.UNAUTHENTICATED, "KEY_EXPIRED"),
            world.metadata(f"without {scope}"): (CODE.PERMISSION_DENIED, "SCOPE_MISSING"),
            world.metadata("theirs"): unseen if names_tenant or not for_system else refused,
            world.metadata("mallory's"): refused if for_system else unseen,
            world.metadata("bob's"): refused if for_system else unseen,
            world.metadata("bob's here"): refused if for_system else unseen,
        }
        if method.name in OF_WHOM_THEY_ARE_FOR:
            theirs = [world.metadata(name) for name in ("mallory's", "bob's", "bob's here")]
            expected |= dict.fromkeys(theirs, OF_WHOM_THEY_ARE_FOR[method.name])
        for metadata, (code, why) in expected.items():
            if method.name == "BatchCheck" and (code, why) == unseen and metadata != world.metadata("theirs"):
                continue  # each item has an answer of its own: below
            error = await world.outcome(method, metadata)
            if (error.code(), reason(error)) != (code, why):
                wrong.append((method.name, names.get(metadata), reason(error), error.details()))
            assert TELLTALE not in error.details()
            for secret in world.secrets.values():
                assert secret not in error.details() + repr(error.trailing_metadata())
    assert wrong == []
    assert await world.rows() == before
    rows = await world.database.fetch("SELECT reason, after FROM audit WHERE id > $1", audited)
    assert all(row["reason"] is not None and row["after"] is None for row in rows)


async def test_the_items_of_a_batch_are_each_for_who_may_ask_them(world: World) -> None:
    await world.key("bob's", ["check"], user_id="bob")
    method = next(method for method in METHODS if method.name == "BatchCheck")
    answer = await world.api.permissions.BatchCheck(world.request(method), metadata=world.metadata("bob's"))
    assert [result.error.code for result in answer.results] == [CODE.NOT_FOUND.value[0]]


# -- whom a key makes its caller --------------------------------------------------------------------------


async def test_a_tenants_key_does_what_a_tenant_admin_may_and_nothing_beyond(world: World, reason) -> None:
    await world.key("acme", ALL, tenant_id=world.tenant.id)
    key, api = {"metadata": world.metadata("acme")}, world.api
    assert (await api.tenants.GetTenant(tenants_pb2.GetTenantRequest(), **key)).tenant.id == world.tenant.id
    assert (await api.tenants.GetTenant(tenants_pb2.GetTenantRequest(slug="acme"), **key)).tenant.slug == "acme"
    made = await api.workspaces.CreateWorkspace(
        workspaces_pb2.CreateWorkspaceRequest(parent_id=world.root.id, slug="made", name="Made", owner="olga"), **key
    )
    await api.workspaces.ArchiveWorkspace(workspaces_pb2.ArchiveWorkspaceRequest(workspace_id=made.workspace.id), **key)
    check = permissions_pb2.CheckRequest(
        resource=World._ref(world.lab),
        permission="own",
        subject=types_pb2.SubjectRef(type="user", id="alice"),
        consistency=types_pb2.Consistency(fully_consistent=True),
    )
    assert (await api.permissions.Check(check, **key)).decision == permissions_pb2.DECISION_ALLOWED
    for call, code, why in (
        (api.tenants.GetTenant(tenants_pb2.GetTenantRequest(slug="globex"), **key), CODE.NOT_FOUND, "NOT_FOUND"),
        (api.tenants.ListTenants(tenants_pb2.ListTenantsRequest(), **key), CODE.PERMISSION_DENIED, "ROLE_MISSING"),
        (
            api.tenants.SuspendTenant(tenants_pb2.SuspendTenantRequest(), **key),
            *(CODE.PERMISSION_DENIED, "ROLE_MISSING"),
        ),
        (api.users.GetUser(users_pb2.GetUserRequest(user_id="alice"), **key), CODE.NOT_FOUND, "NOT_FOUND"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert (refused.value.code(), reason(refused.value)) == (code, why)


async def test_on_behalf_of_a_user_a_tenants_key_is_bound_by_their_roles_and_by_its_tenant(
    world: World, reason
) -> None:
    await world.key("acme", ALL, tenant_id=world.tenant.id)
    await give(world, world.lab, "bob", types_pb2.ROLE_MEMBER)
    api, as_bob = world.api, {"metadata": world.metadata("acme", pemba_on_behalf_of="user:bob")}
    get = workspaces_pb2.GetWorkspaceRequest
    assert (await api.workspaces.GetWorkspace(get(workspace_id=world.lab.id), **as_bob)).workspace.id == world.lab.id
    update = workspaces_pb2.UpdateWorkspaceRequest(workspace_id=world.lab.id, name="Bob's")
    for call, why in (
        (api.workspaces.GetWorkspace(get(workspace_id=world.root.id), **as_bob), "NOT_FOUND"),
        (api.workspaces.UpdateWorkspace(update, **as_bob), "ROLE_MISSING"),
        (api.users.GetUser(users_pb2.GetUserRequest(user_id="bob"), **as_bob), "NOT_FOUND"),
        (api.users.UpdateUser(users_pb2.UpdateUserRequest(user_id="bob", display_name="B"), **as_bob), "NOT_FOUND"),
        (api.users.RecordLogin(users_pb2.RecordLoginRequest(user_id="bob"), **as_bob), "NOT_FOUND"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert reason(refused.value) == why
    roles = users_pb2.ListUserMembershipsRequest(user_id="bob")
    assert len((await api.users.ListUserMemberships(roles, **as_bob)).memberships) == 1


async def test_a_users_key_is_the_user_in_every_tenant_or_in_one(world: World, reason) -> None:
    await world.key("bob's", OF_USERS, user_id="bob")
    await world.key("bob's there", OF_USERS, user_id="bob", tenant_id=world.other.id)
    await give(world, world.lab, "bob", types_pb2.ROLE_VIEWER)
    get = workspaces_pb2.GetWorkspaceRequest(tenant_id=world.tenant.id, workspace_id=world.lab.id)
    api = world.api
    assert (await api.workspaces.GetWorkspace(get, metadata=world.metadata("bob's"))).workspace.id == world.lab.id
    assert (await api.users.GetUser(users_pb2.GetUserRequest(), metadata=world.metadata("bob's"))).user.id == "bob"
    for name, extra, why in (
        ("bob's there", {}, "NOT_FOUND"),
        ("bob's", {"pemba_on_behalf_of": "user:alice"}, "SCOPE_MISSING"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await api.workspaces.GetWorkspace(get, metadata=world.metadata(name, **extra))
        assert reason(refused.value) == why


async def test_users_make_list_rotate_and_revoke_their_own_keys_with_a_key(world: World, reason) -> None:
    await world.key("bob's", OF_USERS, user_id="bob")
    mine, keys = {"metadata": world.metadata("bob's")}, world.api.keys
    request = api_keys_pb2.CreateApiKeyRequest(user_id="bob", name="laptop", scopes=["read"])
    made = await keys.CreateApiKey(request, **mine)
    assert len((await keys.ListApiKeys(api_keys_pb2.ListApiKeysRequest(), **mine)).api_keys) == 2
    named = {"api_key_id": made.api_key.id}
    rotated = await keys.RotateApiKey(api_keys_pb2.RotateApiKeyRequest(**named), **mine)
    assert rotated.secret not in ("", made.secret)
    assert (await keys.RevokeApiKey(api_keys_pb2.RevokeApiKeyRequest(**named), **mine)).api_key.HasField("revoke_time")
    request = api_keys_pb2.CreateApiKeyRequest(user_id="bob", name="laptop", scopes=["read", "act_as"])
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await keys.CreateApiKey(request, **mine)
    assert reason(refused.value) == "INVALID_FIELD"


async def test_a_workspaces_key_administers_that_and_all_below_and_sees_nothing_else(world: World, reason) -> None:
    await world.key("lab", ALL, tenant_id=world.tenant.id, workspace_id=world.lab.id)
    api, key = world.api, {"metadata": world.metadata("lab")}
    request = workspaces_pb2.CreateWorkspaceRequest(parent_id=world.lab.id, slug="below", name="Below")
    below = (await api.workspaces.CreateWorkspace(request, **key)).workspace
    get, archive = workspaces_pb2.GetWorkspaceRequest, workspaces_pb2.ArchiveWorkspaceRequest
    for inside in (world.lab, below):
        assert (await api.workspaces.GetWorkspace(get(workspace_id=inside.id), **key)).workspace.id == inside.id
        await api.workspaces.UpdateWorkspace(
            workspaces_pb2.UpdateWorkspaceRequest(workspace_id=inside.id, name="Mine"), **key
        )
        asked = question(inside, "alice")
        assert (await api.permissions.Check(asked, **key)).decision == permissions_pb2.DECISION_ALLOWED
    await api.memberships.SetRole(
        memberships_pb2.SetRoleRequest(
            object=World._ref(below),
            subject=types_pb2.SubjectRef(type="user", id="bob"),
            role=types_pb2.ROLE_MEMBER,
        ),
        **key,
    )
    owned = workspaces_pb2.CreateWorkspaceRequest(parent_id=world.lab.id, slug="owned", name="Owned", owner="bob")
    whom = types_pb2.SubjectRef(type="user", id="bob")
    resources = permissions_pb2.LookupResourcesRequest(type="workspace", permission="view", subject=whom)
    refused: dict[str, list[Any]] = {
        "ONLY_OWNER_MAKES_OWNERS": [api.workspaces.CreateWorkspace(owned, **key)],
        "ROLE_MISSING": [api.workspaces.ArchiveWorkspace(archive(workspace_id=below.id), **key)],
        "NOT_FOUND": [
            *(api.workspaces.GetWorkspace(get(workspace_id=w.id), **key) for w in (world.root, world.bench)),
            api.workspaces.GetWorkspace(get(path=""), **key),
            api.tenants.GetTenant(tenants_pb2.GetTenantRequest(), **key),
            api.permissions.Check(question(world.bench, "alice"), **key),
            api.permissions.LookupResources(resources, **key).read(),
            api.workspaces.ListWorkspaces(workspaces_pb2.ListWorkspacesRequest(), **key),
            api.workspaces.ListWorkspaces(
                workspaces_pb2.ListWorkspacesRequest(subject=whom, permission="view", recursive=True),
                metadata=world.metadata("lab", pemba_on_behalf_of="user:bob"),
            ),
            api.groups.ListGroups(groups_pb2.ListGroupsRequest(), **key),
            api.groups.GetGroup(groups_pb2.GetGroupRequest(group_id=world.group_id), **key),
            api.keys.ListApiKeys(api_keys_pb2.ListApiKeysRequest(), **key),
            api.users.ListUserMemberships(
                users_pb2.ListUserMembershipsRequest(user_id="bob"),
                metadata=world.metadata("lab", pemba_on_behalf_of="user:bob"),
            ),
        ],
    }
    for why, calls in refused.items():
        for call in calls:
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await call
            assert reason(error.value) == why
    children = workspaces_pb2.ListWorkspacesRequest(parent_id=world.lab.id)
    assert [w.id for w in (await api.workspaces.ListWorkspaces(children, **key)).workspaces] == [below.id]
    await give(world, world.bench, "bob", types_pb2.ROLE_ADMIN)
    as_bob = {"metadata": world.metadata("lab", pemba_on_behalf_of="user:bob")}
    assert (await api.workspaces.GetWorkspace(get(workspace_id=below.id), **as_bob)).workspace.id == below.id
    for outside in (world.bench, world.lab):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await api.workspaces.GetWorkspace(get(workspace_id=outside.id), **as_bob)
        assert reason(error.value) == "NOT_FOUND", "neither what the user may see elsewhere nor what they may not here"


# -- how it ends ------------------------------------------------------------------------------------------


async def test_a_revoked_key_is_refused_at_once_where_that_was_asked_and_soon_everywhere(
    world: World, database_url: str, spicedb, make_serve_settings, make_api, until_serving, reason
) -> None:
    settings = {"database_url": database_url, "spicedb_endpoint": spicedb.endpoint, "spicedb_key": spicedb.key}
    key = await world.key("acme", ALL, tenant_id=world.tenant.id)
    get, metadata = tenants_pb2.GetTenantRequest(), world.metadata("acme")

    async def refused_by(api) -> str:
        try:
            await api.tenants.GetTenant(get, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            return reason(error)
        return ""

    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(app.serving(make_serve_settings(settings), asyncio.Event()))
        assert await until_serving(running.grpc_port)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{running.grpc_port}"))
        there = make_api(channel)
        assert (await refused_by(world.api), await refused_by(there)) == ("", "")
        await world.revoke(key)
        assert await refused_by(world.api) == "KEY_REVOKED"

        async def refused_there() -> bool:
            return await refused_by(there) == "KEY_REVOKED"

        await eventually(refused_there, 5)


async def test_when_a_key_was_last_used_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    key = await world.key("acme", ALL, tenant_id=world.tenant.id)
    await world.api.tenants.GetTenant(tenants_pb2.GetTenantRequest(), metadata=world.metadata("acme"))
    request = api_keys_pb2.GetApiKeyRequest(tenant_id=world.tenant.id, api_key_id=key.id)

    async def told() -> bool:
        answer = await world.api.keys.GetApiKey(request, metadata=world.api.metadata())
        return answer.api_key.HasField("last_used_time")

    await eventually(told, 20)


def question(workspace: workspaces_pb2.Workspace, user: str) -> permissions_pb2.CheckRequest:
    return permissions_pb2.CheckRequest(
        resource=World._ref(workspace),
        permission="own",
        subject=types_pb2.SubjectRef(type="user", id=user),
        consistency=types_pb2.Consistency(fully_consistent=True),
    )


async def give(world: World, workspace: workspaces_pb2.Workspace, user: str, role: types_pb2.Role) -> None:
    request = memberships_pb2.SetRoleRequest(
        tenant_id=world.tenant.id,
        object=World._ref(workspace),
        subject=types_pb2.SubjectRef(type="user", id=user),
        role=role,
    )
    await world.api.memberships.SetRole(request, metadata=world.api.metadata())
