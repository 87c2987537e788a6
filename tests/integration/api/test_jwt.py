"""Users who come with a JWT: what they may do is what their roles say, in what their token confines them to."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from pemba.v1 import memberships_pb2, tenants_pb2, types_pb2, users_pb2, workspaces_pb2
from tests.integration.api.conftest import Api, a_whole_pemba, reason_of
from tests.unit.rpc.signing import AUDIENCE, ISSUER, serving_jwks, token

CODE = grpc.StatusCode
OTHER = "https://login.example.test"


class World:
    """Acme, where alice is an admin and bob a viewer of `lab`; umbrella, where alice is one too."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.refused: list[str] = []

    async def fill(self) -> World:
        self.acme = await self.api.tenant("acme")
        self.umbrella = await self.api.tenant("umbrella")
        self.lab = (await self.api.workspace(self.acme.root_workspace, "lab")).workspace
        self.bench = (await self.api.workspace(self.lab, "bench")).workspace
        self.sales = (await self.api.workspace(self.acme.root_workspace, "sales")).workspace
        request = memberships_pb2.SetRoleRequest(
            tenant_id=self.acme.tenant.id,
            object=types_pb2.ObjectRef(type="workspace", id=self.lab.id),
            subject=types_pb2.SubjectRef(type="user", id="bob"),
            role=types_pb2.ROLE_VIEWER,
        )
        await self.api.memberships.SetRole(request, metadata=self.api.metadata())
        return self

    async def sees(self, place: workspaces_pb2.Workspace, /, **claims: Any) -> str:
        """`yes`, or the code and reason with which it is refused."""
        request = workspaces_pb2.GetWorkspaceRequest(tenant_id=place.tenant_id, workspace_id=place.id)
        return await outcome(self.api.workspaces.GetWorkspace, request, token(**claims))


async def outcome(method: Any, request: Any, secret: str, **extra: str) -> str:
    metadata = (("authorization", f"Bearer {secret}"), *((name.replace("_", "-"), of) for name, of in extra.items()))
    try:
        await method(request, metadata=metadata, timeout=10)
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name} {reason_of(error)}"
    return "yes"


@pytest.fixture
async def world(database_url: str, spicedb: Any, tmp_path: Any) -> AsyncIterator[World]:
    async with serving_jwks() as served:
        common = {"audience": AUDIENCE, "algorithms": ["RS256", "ES256"], "jwks_url": served.url}
        claims = {"tenant_claim": "tenant", "workspace_claim": "workspace"}
        issuers = [{"issuer": ISSUER, **common, **claims}, {"issuer": OTHER, "user_prefix": "okta:", **common}]
        (tmp_path / "issuers.json").write_text(json.dumps(issuers))
        settings = {
            "database_url": database_url,
            "spicedb_endpoint": spicedb.endpoint,
            "spicedb_key": spicedb.key,
            "jwt_issuers_file": tmp_path / "issuers.json",
        }
        async with a_whole_pemba(settings) as api:
            yield await World(api).fill()


async def test_a_token_is_good_for_what_its_user_may_do_and_for_nothing_else(world: World) -> None:
    assert await world.sees(world.lab, sub="bob") == "yes"
    assert await world.sees(world.bench, sub="bob", algorithm="ES256") == "yes"
    assert await world.sees(world.sales, sub="bob") == "NOT_FOUND NOT_FOUND"
    assert await world.sees(world.sales, sub="alice") == "yes"
    assert await world.sees(world.lab, sub="carol") == "NOT_FOUND NOT_FOUND", "nobody knows her"
    assert await world.sees(world.lab, sub="bob", iss=OTHER) == "NOT_FOUND NOT_FOUND", "that is another bob"
    assert await world.sees(world.lab, sub="bob", aud="another") == "UNAUTHENTICATED KEY_INVALID"
    assert await world.sees(world.lab, sub="bob", exp=1) == "UNAUTHENTICATED KEY_EXPIRED"


async def test_a_token_is_never_a_system_key(world: World) -> None:
    alice, tenants, users = token(sub="alice"), world.api.tenants, world.api.users
    new = tenants_pb2.CreateTenantRequest(slug="mine", name="Mine", first_admin="alice")
    assert await outcome(tenants.CreateTenant, new, alice) == "PERMISSION_DENIED ROLE_MISSING"
    assert await outcome(users.ListUsers, users_pb2.ListUsersRequest(), alice) == "PERMISSION_DENIED ROLE_MISSING"
    root = tenants_pb2.GetTenantRequest(slug="acme")
    for_bob = await outcome(tenants.GetTenant, root, alice, pemba_on_behalf_of="user:bob")
    assert for_bob == "PERMISSION_DENIED SCOPE_MISSING"


async def test_claims_restrict_by_id_or_slug_and_never_grant(world: World) -> None:
    acme, umbrella, missing = world.acme.tenant, world.umbrella.root_workspace, "NOT_FOUND NOT_FOUND"
    for tenant in (acme.slug, acme.id):
        assert await world.sees(world.lab, tenant=tenant) == "yes"
        assert await world.sees(umbrella, tenant=tenant) == missing
    assert await world.sees(umbrella) == "yes", "without a claim she is an admin of both"
    for lab in ("lab", world.lab.id):
        assert await world.sees(world.bench, tenant="acme", workspace=lab) == "yes"
        assert await world.sees(world.sales, tenant="acme", workspace=lab) == missing
    assert await world.sees(world.bench, tenant="acme", workspace="lab/bench") == "yes"
    assert await world.sees(world.lab, tenant="acme", workspace="lab/bench") == missing
    assert await world.sees(world.sales, sub="bob", tenant="acme", workspace="sales") == missing
    cut = umbrella.tenant_id[:-1]
    for wrong in ({"tenant": "nowhere"}, {"tenant": "acme", "workspace": "nowhere"}, {"tenant": cut}):
        assert await world.sees(world.lab, **wrong) == missing
    of_another = {"tenant": "umbrella", "workspace": world.lab.id}
    assert await world.sees(world.lab, **of_another) == missing
    assert await world.sees(world.lab, workspace="lab") == "UNAUTHENTICATED KEY_INVALID"
    contradicting = tenants_pb2.GetTenantRequest(slug="umbrella")
    alice = token(tenant="acme")
    metadata = {"pemba_tenant": umbrella.tenant_id}
    assert await outcome(world.api.tenants.GetTenant, contradicting, alice, **metadata) == missing


async def test_a_suspended_user_has_nothing_with_a_good_token_as_with_a_key_that_acts_for_them(world: World) -> None:
    assert await world.sees(world.lab, sub="bob") == "yes"
    suspend = users_pb2.SuspendUserRequest(user_id="bob")
    await world.api.users.SuspendUser(suspend, metadata=world.api.metadata())
    assert await world.sees(world.lab, sub="bob") == "NOT_FOUND NOT_FOUND"
    login = users_pb2.RecordLoginRequest(user_id="bob")
    refused = await outcome(world.api.users.RecordLogin, login, token(sub="bob"))
    assert refused == "FAILED_PRECONDITION USER_SUSPENDED"
