"""Who has access, and through what, agrees with checks and lookups, over gRPC on real servers."""

from __future__ import annotations

import grpc
import pytest

from pemba.model import SystemScope
from pemba.v1 import errors_pb2, memberships_pb2, tenants_pb2, types_pb2, workspaces_pb2
from pemba.v1.types_pb2 import ROLE_ADMIN, ROLE_MEMBER, ROLE_VIEWER
from tests.integration.api.company import PERMISSIONS, USERS, found_company


def request(company, slug: str, permission: str = "", **given) -> memberships_pb2.ListEffectiveMembersRequest:
    object_ = types_pb2.ObjectRef(type="tenant", id=company.tenant_id)
    if slug != "tenant":
        object_ = types_pb2.ObjectRef(type="workspace", id=company.workspaces[slug].id)
    return memberships_pb2.ListEffectiveMembersRequest(
        tenant_id=company.tenant_id, object=object_, permission=permission, **given
    )


async def listed(api, asked, page_size: int = 1000, **metadata: str) -> list[memberships_pb2.EffectiveMember]:
    found: list[memberships_pb2.EffectiveMember] = []
    asked.page_size = page_size
    while True:
        page = await api.memberships.ListEffectiveMembers(asked, metadata=api.metadata(**metadata))
        assert len(page.effective_members) <= page_size
        found += page.effective_members
        if not page.next_page_token:
            return found
        asked.page_token = page.next_page_token


def through(company, member) -> list[tuple[str, int]]:
    slugs = {workspace.id: slug for slug, workspace in company.workspaces.items()} | {company.tenant_id: "tenant"}
    return [(slugs[grant.object.id], grant.role) for grant in member.through]


@pytest.mark.parametrize("page_size", [1, 2, 5, 1000])
async def test_who_has_access_is_who_checks_allow_in_pages_of_every_size(api, page_size) -> None:
    company = await found_company(api)
    await found_company(api, "globex")
    for permission in PERMISSIONS:
        by_check = {user: await company.allowed(user, permission, company.token) for user in USERS}
        for slug, workspace in company.workspaces.items():
            members = await listed(api, request(company, slug, permission), page_size)
            assert [m.subject.id for m in members] == sorted(u for u in USERS if workspace.id in by_check[u])


async def test_each_is_listed_once_with_the_roles_that_give_access_and_the_strongest_permission(api) -> None:
    company = await found_company(api)
    await company.role("tenant", "stan", ROLE_MEMBER)  # sees the tenant, and no workspace by it
    members = {m.subject.id: m for m in await listed(api, request(company, "storage"), 2)}
    assert through(company, members["alice"]) == [("tenant", ROLE_ADMIN)]
    assert through(company, members["ella"]) == [("backend", ROLE_VIEWER), ("engineering", ROLE_MEMBER)]
    assert through(company, members["rita"]) == [("root", ROLE_VIEWER)]
    assert through(company, members["stan"]) == [("storage", types_pb2.ROLE_OWNER)]
    assert {id_: m.permission for id_, m in members.items()} == {
        "alice": "own", "stan": "own", "beth": "administer", "ella": "edit", "rita": "view", "saul": "view",
    }  # fmt: skip
    of_tenant = {m.subject.id: m for m in await listed(api, request(company, "tenant"))}
    assert {id_: m.permission for id_, m in of_tenant.items()} == {"alice": "administer", "stan": "view"}
    admins = await listed(api, request(company, "tenant", "administer"))
    assert [(m.subject.id, through(company, m)) for m in admins] == [("alice", [("tenant", ROLE_ADMIN)])]


async def test_nobody_has_access_to_what_is_archived_nor_has_who_is_suspended(api, database) -> None:
    company = await found_company(api)
    async with database.begin(SystemScope("test")) as tx:
        await tx.connection.execute("UPDATE users SET status = 'suspended', suspend_time = now() WHERE id = 'stan'")
    assert "stan" not in [m.subject.id for m in await listed(api, request(company, "storage"))]
    archive = workspaces_pb2.ArchiveWorkspaceRequest(
        tenant_id=company.tenant_id, workspace_id=company.workspaces["backend"].id
    )
    await api.workspaces.ArchiveWorkspace(archive, metadata=api.metadata())
    assert await listed(api, request(company, "storage")) == []
    suspend = tenants_pb2.SuspendTenantRequest(tenant_id=company.tenant_id)
    await api.tenants.SuspendTenant(suspend, metadata=api.metadata())
    page = await api.memberships.ListEffectiveMembers(request(company, "sales"), metadata=api.metadata())
    assert (list(page.effective_members), page.reason) == ([], errors_pb2.ERROR_REASON_TENANT_SUSPENDED)


async def test_who_sees_a_workspace_sees_who_has_access_and_nobody_else_does(api, reason) -> None:
    company = await found_company(api)
    members = await listed(api, request(company, "storage"), pemba_on_behalf_of="user:rita")
    assert len(members) == 6
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await listed(api, request(company, "sales"), pemba_on_behalf_of="user:ella")
    assert reason(refused.value) == "NOT_FOUND"


@pytest.mark.parametrize(("slug", "permission"), [("storage", "fly"), ("tenant", "own")])
async def test_a_permission_that_the_object_does_not_have_is_refused(api, reason, slug, permission) -> None:
    company = await found_company(api)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await listed(api, request(company, slug, permission))
    assert (refused.value.code(), reason(refused.value)) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")


async def test_a_page_token_is_good_for_its_own_list_alone(api) -> None:
    company = await found_company(api)
    first = await api.memberships.ListEffectiveMembers(
        request(company, "storage", page_size=2), metadata=api.metadata()
    )
    for wrong in (request(company, "sales"), request(company, "storage", "own")):
        wrong.page_token = first.next_page_token
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await listed(api, wrong)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
