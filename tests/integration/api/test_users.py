"""Users over gRPC on real servers, with a relay that carries out what changes of their status leave to do."""

from __future__ import annotations

import grpc
import pytest

from pemba.spicedb.client import SpiceDB
from pemba.v1 import errors_pb2, memberships_pb2, permissions_pb2, types_pb2, users_pb2
from pemba.v1.types_pb2 import ROLE_ADMIN, ROLE_MEMBER, ROLE_OWNER
from tests.integration.api.company import PERMISSIONS, found_company, fresh, user_ref
from tests.stack import Refusal
from tests.truth import eventually, stored


@pytest.fixture
async def store(spicedb):
    store = SpiceDB.connect(spicedb.endpoint, spicedb.key)
    yield store
    await store.close()


async def call(api, method: str, user: str, **given):
    request = getattr(users_pb2, f"{method}Request")(user_id=user, **given)
    return await getattr(api.users, method)(request, metadata=api.metadata())


async def refused(calling) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await calling
    refusal = Refusal(error.value)
    return refusal.code, refusal.reason, {k: v for k, v in refusal.metadata.items() if k != "request_id"}


async def reason_of(api, company, user: str, token: str = "") -> tuple[int, int]:
    request = permissions_pb2.CheckRequest(
        tenant_id=company.tenant_id,
        resource=types_pb2.ObjectRef(type="workspace", id=company.workspaces["backend"].id),
        permission="view",
        subject=user_ref(user),
        consistency=fresh(token),
    )
    answer = await api.permissions.Check(request, metadata=api.metadata())
    return answer.decision, answer.reason


async def subjects(store: SpiceDB, tenant_id: str) -> set[str]:
    return {found.subject.id for found in await stored(store, tenant_id)}


DENIED = (permissions_pb2.DECISION_DENIED, errors_pb2.ERROR_REASON_USER_SUSPENDED)


async def test_i1_a_suspended_user_is_denied_at_once_and_restored_intact(api, store) -> None:
    company = await found_company(api)
    before = {permission: await company.allowed("ella", permission, company.token) for permission in PERMISSIONS}
    assert before["view"]
    suspended = await call(api, "SuspendUser", "ella")
    assert suspended.user.status == users_pb2.USER_STATUS_SUSPENDED
    assert await reason_of(api, company, "ella") == DENIED, "without a token too, on the server that was told"
    assert await reason_of(api, company, "ella", suspended.token) == DENIED

    async def withdrawn() -> bool:
        return "ella" not in await subjects(store, company.tenant_id)

    await eventually(withdrawn)
    await company.role("north", "ella", ROLE_MEMBER)
    await company.remove("north", "ella")
    active = await call(api, "ActivateUser", "ella")
    assert active.user.status == users_pb2.USER_STATUS_ACTIVE
    after = {permission: await company.allowed("ella", permission, active.token) for permission in PERMISSIONS}
    assert after == before


async def test_i1_an_activation_in_many_tenants_is_over_when_get_user_says_so(api, store) -> None:
    tenants = [await api.tenant(f"acme-{n}") for n in range(16)]
    for tenant in tenants:
        request = {"tenant_id": tenant.tenant.id, "role": ROLE_MEMBER, "subject": user_ref("bob")}
        object_ = types_pb2.ObjectRef(type="workspace", id=tenant.root_workspace.id)
        await api.memberships.SetRole(
            memberships_pb2.SetRoleRequest(**request, object=object_), metadata=api.metadata()
        )
    await call(api, "SuspendUser", "bob")
    activating = await call(api, "ActivateUser", "bob")
    assert (activating.user.activating, activating.token) == (True, "")

    async def is_active() -> users_pb2.GetUserResponse | None:
        got = await call(api, "GetUser", "bob")
        return got if got.user.status == users_pb2.USER_STATUS_ACTIVE else None

    got = await eventually(is_active)
    assert not got.user.activating

    async def may_edit_everywhere() -> bool:
        return all([await api.check(t.root_workspace, "bob", "edit", got.token) for t in tenants])

    await eventually(may_edit_everywhere)


async def test_i1_a_deactivated_user_loses_every_role_and_gets_none(api, store) -> None:
    company = await found_company(api)
    await company.role("storage", "ella", ROLE_OWNER)
    gone = await call(api, "DeactivateUser", "stan")
    assert await reason_of(api, company, "stan", gone.token) == DENIED

    async def holds_nothing() -> bool:
        return not (await call(api, "ListUserMemberships", "stan")).memberships

    await eventually(holds_nothing)

    async def withdrawn() -> bool:
        return "stan" not in await subjects(store, company.tenant_id)

    await eventually(withdrawn)
    failed = grpc.StatusCode.FAILED_PRECONDITION
    assert (await refused(company.role("root", "stan", ROLE_MEMBER)))[:2] == (failed, "USER_DEACTIVATED")
    assert (await refused(call(api, "ActivateUser", "stan")))[:2] == (failed, "USER_DEACTIVATED")
    assert await refused(call(api, "DeactivateUser", "ella")) == (
        failed,
        "LAST_OWNER",
        {"tenant": company.tenant_id, "workspace": company.workspaces["storage"].id},
    )


async def test_i3_the_last_admin_of_a_tenant_is_suspended_by_force_alone(api) -> None:
    company = await found_company(api)
    assert await refused(call(api, "SuspendUser", "alice")) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "LAST_ADMIN",
        {"tenant": company.tenant_id},
    )
    await company.role("tenant", "beth", ROLE_ADMIN)
    await call(api, "SuspendUser", "alice")
    assert (await refused(call(api, "SuspendUser", "beth")))[1] == "LAST_ADMIN"
    assert (await call(api, "SuspendUser", "beth", force=True)).user.status == users_pb2.USER_STATUS_SUSPENDED


async def test_w1_one_call_registers_a_user_with_a_workspace_that_they_own_and_work_in(api) -> None:
    tenant = await api.tenant("acme")
    request = users_pb2.CreateUserRequest(
        id="zoë@acme.example", email="zoe@acme.example", display_name="Zoë", request_id="r-1"
    )
    request.create_workspace.tenant_id = tenant.tenant.id
    created = await api.users.CreateUser(request, metadata=api.metadata())
    again = await api.users.CreateUser(request, metadata=api.metadata())
    assert (again.user, again.workspace, again.token, again.replayed) == (
        created.user, created.workspace, created.token, True
    )  # fmt: skip
    assert await api.check(created.workspace, "zoë@acme.example", "own", created.token)
    acting = api.metadata(pemba_on_behalf_of="user:zo%C3%AB@acme.example")
    current = await api.users.GetCurrentWorkspace(users_pb2.GetCurrentWorkspaceRequest(), metadata=acting)
    assert (current.workspace, current.chosen) == (created.workspace, True)
    taken = users_pb2.CreateUserRequest(id="zoe", email="ZOE@acme.example")
    assert (await refused(api.users.CreateUser(taken, metadata=api.metadata())))[:2] == (
        grpc.StatusCode.ALREADY_EXISTS,
        "EMAIL_TAKEN",
    )
