"""Every permission of one object, over gRPC on real servers."""

from __future__ import annotations

import grpc
import pytest

from pemba.v1 import errors_pb2, permissions_pb2, tenants_pb2, types_pb2
from tests.integration.api.company import PERMISSIONS, USERS, found_company, fresh, user_ref


async def check_all(api, tenant_id: str, type_: str, id_: str, user: str, token: str = "", **metadata: str):
    request = permissions_pb2.CheckAllRequest(
        tenant_id=tenant_id,
        resource=types_pb2.ObjectRef(type=type_, id=id_),
        subject=user_ref(user),
        consistency=fresh(token),
    )
    return await api.permissions.CheckAll(request, metadata=api.metadata(**metadata))


def allowed(answer) -> list[str]:
    return [p.permission for p in answer.permissions if p.decision == permissions_pb2.DECISION_ALLOWED]


async def test_z1_all_permissions_of_an_object_are_what_single_checks_say(api) -> None:
    company = await found_company(api)
    for user in USERS:
        by_check = {p: await company.allowed(user, p, company.token) for p in PERMISSIONS}
        for workspace in company.workspaces.values():
            answer = await check_all(api, company.tenant_id, "workspace", workspace.id, user, company.token)
            assert [p.permission for p in answer.permissions] == list(PERMISSIONS)
            assert allowed(answer) == [p for p in PERMISSIONS if workspace.id in by_check[p]]
            assert answer.token
    answer = await check_all(api, company.tenant_id, "tenant", company.tenant_id, "alice", company.token)
    assert allowed(answer) == ["administer", "view"]


async def test_nothing_is_allowed_in_a_suspended_tenant_and_the_reason_is_checks(api) -> None:
    company = await found_company(api)
    suspend = tenants_pb2.SuspendTenantRequest(tenant_id=company.tenant_id)
    await api.tenants.SuspendTenant(suspend, metadata=api.metadata())
    answer = await check_all(api, company.tenant_id, "tenant", company.tenant_id, "alice")
    assert (len(answer.permissions), allowed(answer)) == (2, [])
    assert answer.reason == errors_pb2.ERROR_REASON_TENANT_SUSPENDED


async def test_asking_about_others_takes_administer_there(api, reason) -> None:
    company = await found_company(api)
    backend = company.workspaces["backend"].id
    own = await check_all(
        api, company.tenant_id, "workspace", backend, "ella", company.token, pemba_on_behalf_of="user:ella"
    )
    assert allowed(own) == ["edit", "view"]
    for asking, expected in (("ella", "ROLE_MISSING"), ("nobody", "NOT_FOUND")):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await check_all(api, company.tenant_id, "workspace", backend, "beth", pemba_on_behalf_of=f"user:{asking}")
        assert reason(refused.value) == expected
