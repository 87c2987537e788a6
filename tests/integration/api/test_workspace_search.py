"""Lists of workspaces by permission, order and filter agree with checks and with each other, over gRPC."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from pemba.model import SystemScope
from pemba.v1 import errors_pb2, tenants_pb2, types_pb2, workspaces_pb2
from pemba.v1.types_pb2 import ROLE_MEMBER, ROLE_VIEWER
from tests.integration.api.company import PERMISSIONS, USERS, found_company, user_ref


def request(company, **given) -> workspaces_pb2.ListWorkspacesRequest:
    return workspaces_pb2.ListWorkspacesRequest(**{"tenant_id": company.tenant_id, "recursive": True} | given)


async def listed(api, asked, page_size: int = 1000, **metadata: str) -> list[workspaces_pb2.Workspace]:
    """All pages; none is longer than asked for."""
    found: list[workspaces_pb2.Workspace] = []
    asked.page_size = page_size
    while True:
        page = await api.workspaces.ListWorkspaces(asked, metadata=api.metadata(**metadata))
        assert len(page.workspaces) <= page_size
        found += page.workspaces
        if not page.next_page_token:
            return found
        asked.page_token = page.next_page_token


def slugs(found) -> list[str]:
    return [workspace.slug for workspace in found]


async def refusal(api, asked, reason, **metadata: str):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await listed(api, asked, **metadata)
    return refused.value.code(), reason(refused.value), refused.value.details()


async def test_b3_a_list_by_permission_is_what_checks_say(api) -> None:
    company = await found_company(api)
    await found_company(api, "globex")
    root = company.workspaces["root"].id
    for user in USERS:
        for permission in PERMISSIONS:
            asked = request(company, subject=user_ref(user), permission=permission)
            ids = [workspace.id for workspace in await listed(api, asked)]
            assert len(ids) == len(set(ids))
            assert set(ids) == await company.allowed(user, permission, company.token) - {root}


@pytest.mark.parametrize("page_size", [1, 2, 3, 6, 7, 8])
@pytest.mark.parametrize("order_by", ["", "slug", "slug desc", "name", "name desc", "create_time", "create_time desc"])
async def test_b3_in_pages_of_every_size_each_is_listed_once_in_every_order(api, page_size, order_by) -> None:
    company = await found_company(api)
    for slug in ("north", "south"):  # the same name twice
        rename = workspaces_pb2.UpdateWorkspaceRequest(
            tenant_id=company.tenant_id, workspace_id=company.workspaces[slug].id, name="Region"
        )
        await api.workspaces.UpdateWorkspace(rename, metadata=api.metadata())
    found = await listed(
        api, request(company, subject=user_ref("rita"), permission="view", order_by=order_by), page_size
    )
    assert len({workspace.id for workspace in found}) == len(found) == 7
    keys = {"slug": lambda w: w.slug, "name": lambda w: w.name, "create_time": lambda w: w.create_time.ToNanoseconds()}
    field, _, direction = order_by.partition(" ")
    if field:
        values = [keys[field](workspace) for workspace in found]
        assert values == sorted(values, reverse=direction == "desc")
    else:
        assert slugs(found) == ["engineering", "backend", "storage", "frontend", "sales", "north", "south"]


async def test_b3_search_takes_names_and_slugs(api) -> None:
    company = await found_company(api)
    rename = workspaces_pb2.UpdateWorkspaceRequest(
        tenant_id=company.tenant_id, workspace_id=company.workspaces["north"].id, name='North "50%" \\ _Pole'
    )
    await api.workspaces.UpdateWorkspace(rename, metadata=api.metadata())
    for text, expected in (
        ("slug:END", ["backend", "frontend"]),
        ('name:"end" AND slug:front', ["frontend"]),
        ("slug=end", []),
        ("slug=backend", ["backend"]),
        ("name=Backend", ["backend"]),
        ("name=backend", []),
        ('name:"50%"', ["north"]),
        ('name:"\\"50%\\" \\\\ _p"', ["north"]),
        ('name:"5_%"', []),
        ('name:""', ["engineering", "backend", "storage", "frontend", "sales", "north", "south"]),
    ):
        assert slugs(await listed(api, request(company, filter=text))) == expected, text
    of_saul = request(company, subject=user_ref("saul"), permission="view", filter="slug:o", order_by="slug desc")
    assert slugs(await listed(api, of_saul, 1)) == ["storage", "south", "north"]


async def test_what_a_list_does_not_take_is_refused_by_name(api, reason) -> None:
    company = await found_company(api)
    rita = user_ref("rita")
    for field, given in (
        ("filter", {"filter": "kind=shared"}),
        ("filter", {"filter": "name:a OR slug:b"}),
        ("filter", {"filter": "name:a AND"}),
        ("filter", {"filter": 'name:"a'}),
        ("filter", {"filter": "a"}),
        ("filter", {"filter": "NOT name:a"}),
        ("filter", {"filter": "name:a slug:b"}),
        ("order_by", {"order_by": "kind"}),
        ("order_by", {"order_by": "name, slug"}),
        ("order_by", {"order_by": "name up"}),
        ("subject.type", {"permission": "view"}),
        ("permission", {"subject": rita}),
        ("permission", {"subject": rita, "permission": "fly"}),
        ("include_archived", {"subject": rita, "permission": "view", "include_archived": True}),
        ("subject.type", {"subject": types_pb2.SubjectRef(type="tenant", id="x"), "permission": "view"}),
    ):
        code, why, text = await refusal(api, request(company, **given), reason)
        assert (code, why) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"), given
        assert text.startswith(f"{field}:"), given


async def test_a_page_token_is_good_for_its_own_search_alone(api, reason) -> None:
    company = await found_company(api)
    first = await api.workspaces.ListWorkspaces(
        request(company, subject=user_ref("rita"), permission="view", page_size=2), metadata=api.metadata()
    )
    for given in (
        {"subject": user_ref("alice"), "permission": "view"},
        {"subject": user_ref("rita"), "permission": "edit"},
        {"subject": user_ref("rita"), "permission": "view", "order_by": "name"},
        {"subject": user_ref("rita"), "permission": "view", "filter": "name:a"},
        {},
    ):
        code, _, text = await refusal(api, request(company, page_token=first.next_page_token, **given), reason)
        assert (code, text.partition(":")[0]) == (grpc.StatusCode.INVALID_ARGUMENT, "page_token")


async def test_b3_while_roles_change_a_list_has_every_change_that_was_answered(api) -> None:
    company = await found_company(api)
    asked = {"subject": user_ref("carl"), "permission": "edit"}

    async def others() -> None:
        for n in range(30):
            await company.role("backend", f"other-{n}", ROLE_VIEWER)

    async def one() -> None:
        for _ in range(10):
            await company.role("sales", "carl", ROLE_MEMBER)
            assert slugs(await listed(api, request(company, **asked), 2)) == ["sales", "north", "south"]
            await company.remove("sales", "carl")
            assert await listed(api, request(company, **asked)) == []

    await asyncio.gather(others(), one())


async def test_of_archived_and_suspended_nothing_is_listed_by_permission(api, database) -> None:
    company = await found_company(api)
    asked = {"subject": user_ref("saul"), "permission": "administer"}
    archive = workspaces_pb2.ArchiveWorkspaceRequest(
        tenant_id=company.tenant_id, workspace_id=company.workspaces["north"].id
    )
    await api.workspaces.ArchiveWorkspace(archive, metadata=api.metadata())
    assert slugs(await listed(api, request(company, **asked))) == ["sales", "south"]
    async with database.begin(SystemScope("test")) as tx:
        await tx.connection.execute("UPDATE users SET status = 'suspended', suspend_time = now() WHERE id = 'saul'")
    answer = await api.workspaces.ListWorkspaces(request(company, **asked), metadata=api.metadata())
    assert (list(answer.workspaces), answer.reason) == ([], errors_pb2.ERROR_REASON_USER_SUSPENDED)
    suspend = tenants_pb2.SuspendTenantRequest(tenant_id=company.tenant_id)
    await api.tenants.SuspendTenant(suspend, metadata=api.metadata())
    of_rita = request(company, subject=user_ref("rita"), permission="view")
    answer = await api.workspaces.ListWorkspaces(of_rita, metadata=api.metadata())
    assert (list(answer.workspaces), answer.reason) == ([], errors_pb2.ERROR_REASON_TENANT_SUSPENDED)


async def test_who_acts_as_a_user_lists_their_own_and_others_where_they_administer(api, reason) -> None:
    company = await found_company(api)
    of_stan = {"subject": user_ref("stan"), "permission": "view"}
    own = await listed(api, request(company, **of_stan), pemba_on_behalf_of="user:stan")
    assert slugs(own) == ["storage"]  # of a tree whose root they may not see
    backend = {"parent_id": company.workspaces["backend"].id}
    assert slugs(await listed(api, request(company, **of_stan, **backend), pemba_on_behalf_of="user:beth")) == [
        "storage"
    ]
    mine = request(company, subject=user_ref("nobody"), permission="view")
    _, why, _ = await refusal(api, mine, reason, pemba_on_behalf_of="user:nobody")
    assert why == "NOT_FOUND"  # as a tenant that is not there
    unseen = request(company, **of_stan, parent_id=company.workspaces["sales"].id)
    _, why, _ = await refusal(api, unseen, reason, pemba_on_behalf_of="user:stan")
    assert why == "NOT_FOUND"
    for asking, expected in (("rita", "ROLE_MISSING"), ("beth", "NOT_FOUND")):
        _, why, _ = await refusal(api, request(company, **of_stan), reason, pemba_on_behalf_of=f"user:{asking}")
        assert why == expected
    _, why, _ = await refusal(api, request(company), reason, pemba_on_behalf_of="user:stan")
    assert why == "NOT_FOUND"
