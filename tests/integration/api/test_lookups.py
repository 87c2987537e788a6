"""Lookups both ways agree with checks, over gRPC on real servers."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from pemba.model import ObjectRef, SystemScope
from pemba.storage import statuses
from pemba.v1 import errors_pb2, permissions_pb2, tenants_pb2, types_pb2, workspaces_pb2
from pemba.v1.types_pb2 import ROLE_MEMBER, ROLE_VIEWER
from tests.integration.api.company import PERMISSIONS, USERS, found_company, fresh, user_ref
from tests.truth import eventually


def resources_request(company, user: str, permission: str, **given):
    arguments = {"type": "workspace", "subject": user_ref(user), "consistency": fresh(company.token)} | given
    return permissions_pb2.LookupResourcesRequest(tenant_id=company.tenant_id, permission=permission, **arguments)


def subjects_request(company, slug: str, permission: str, **given):
    resource = types_pb2.ObjectRef(type="workspace", id=company.workspaces[slug].id)
    arguments = {"subject_type": "user", "resource": resource, "consistency": fresh(company.token)} | given
    return permissions_pb2.LookupSubjectsRequest(tenant_id=company.tenant_id, permission=permission, **arguments)


async def stream(api, request, **metadata: str):
    """The first message, and the rest of the stream."""
    by_type = {
        permissions_pb2.LookupResourcesRequest: api.permissions.LookupResources,
        permissions_pb2.LookupSubjectsRequest: api.permissions.LookupSubjects,
    }
    first, *items = [message async for message in by_type[type(request)](request, metadata=api.metadata(**metadata))]
    return first, items


async def found(api, request, **metadata: str) -> list[str]:
    """Ids; each is ALLOWED, and all come in order."""
    first, items = await stream(api, request, **metadata)
    assert first.token
    assert all(item.decision == permissions_pb2.DECISION_ALLOWED for item in items)
    ids = [item.resource.id if hasattr(item, "resource") else item.subject.id for item in items]
    assert ids == sorted(ids)
    return ids


async def found_in_parts(api, request, limit: int) -> list[str]:
    """Ids, `limit` at a time."""
    ids: list[str] = []
    request.limit = limit
    tokens = set()
    while True:
        first, items = await stream(api, request)
        tokens.add(first.token)
        ids += [item.resource.id if hasattr(item, "resource") else item.subject.id for item in items]
        assert len(items) <= limit
        if len(items) < limit:
            assert len(tokens) == 1
            return ids
        request.cursor = items[-1].cursor


async def refusal(api, request, reason, **metadata: str):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stream(api, request, **metadata)
    return refused.value.code(), reason(refused.value)


async def test_z2_lookups_both_ways_say_what_checks_say(api) -> None:
    company = await found_company(api)
    await found_company(api, "globex")  # the same people with the same roles, in another tenant
    slugs = {workspace.id: slug for slug, workspace in company.workspaces.items()}
    for permission in PERMISSIONS:
        by_check = {user: await company.allowed(user, permission, company.token) for user in USERS}
        for user in USERS:
            ids = await found(api, resources_request(company, user, permission))
            assert (len(ids), set(ids)) == (len(set(ids)), by_check[user])
        for id_, slug in slugs.items():
            users = await found(api, subjects_request(company, slug, permission))
            assert users == sorted(user for user in USERS if id_ in by_check[user])


async def test_z2_lookups_of_tenants_are_of_the_one_that_is_asked_about(api) -> None:
    company = await found_company(api)
    await found_company(api, "globex")
    for user, expected in (("alice", [company.tenant_id]), ("rita", [])):
        assert await found(api, resources_request(company, user, "view", type="tenant")) == expected
    tenant = types_pb2.ObjectRef(type="tenant", id=company.tenant_id)
    assert await found(api, subjects_request(company, "root", "administer", resource=tenant)) == ["alice"]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 9, 1000])
async def test_z2_in_parts_of_every_size_each_is_listed_once(api, limit) -> None:
    company = await found_company(api)
    whole = await found(api, resources_request(company, "rita", "view"))
    assert len(whole) == 8
    assert await found_in_parts(api, resources_request(company, "rita", "view"), limit) == whole
    users = await found(api, subjects_request(company, "storage", "view"))
    assert len(users) == 6
    assert await found_in_parts(api, subjects_request(company, "storage", "view"), limit) == users


async def test_parts_are_of_one_moment_whatever_changes_between_them(api) -> None:
    company = await found_company(api)
    request = resources_request(company, "rita", "view", limit=3)
    before = await found(api, resources_request(company, "rita", "view"))
    _, items = await stream(api, request)
    await company.remove("root", "rita")
    assert await found(api, resources_request(company, "rita", "view")) == []
    request.cursor = items[-1].cursor
    assert await found_in_parts(api, request, 3) == before[3:]


async def test_z2_while_roles_change_a_lookup_with_the_changes_token_agrees_with_it(api) -> None:
    company = await found_company(api)
    below_sales = {company.workspaces[slug].id for slug in ("sales", "north", "south")}

    async def others() -> None:
        for n in range(30):
            await company.role("backend", f"other-{n}", ROLE_VIEWER)

    async def one() -> None:
        for _ in range(10):
            token = await company.role("sales", "carl", ROLE_MEMBER)
            request = resources_request(company, "carl", "edit", consistency=fresh(token))
            assert set(await found_in_parts(api, request, 2)) == below_sales
            assert "carl" in await found(api, subjects_request(company, "north", "edit", consistency=fresh(token)))
            token = await company.remove("sales", "carl")
            assert await found(api, resources_request(company, "carl", "view", consistency=fresh(token))) == []
            users = await found_in_parts(api, subjects_request(company, "north", "view", consistency=fresh(token)), 1)
            assert "carl" not in users

    await asyncio.gather(others(), one())


async def test_what_is_archived_or_unknown_is_not_listed(api) -> None:
    company = await found_company(api)
    archive = workspaces_pb2.ArchiveWorkspaceRequest(
        tenant_id=company.tenant_id, workspace_id=company.workspaces["sales"].id
    )
    company.token = (await api.workspaces.ArchiveWorkspace(archive, metadata=api.metadata())).token
    assert len(await found(api, resources_request(company, "rita", "view"))) == 5
    assert await found(api, subjects_request(company, "north", "view")) == []
    assert await found(api, resources_request(company, "stranger", "view")) == []
    group = types_pb2.SubjectRef(type="group", id="grp_01kafa7q0ve8x9m1t2b3c4d5e6", relation="member")
    assert await found(api, resources_request(company, "", "view", subject=group)) == []
    assert await found(api, subjects_request(company, "root", "view", subject_type="group")) == []


async def test_of_a_suspended_tenant_nothing_is_listed_and_the_reason_is_checks(api) -> None:
    company = await found_company(api)
    await stream(api, resources_request(company, "rita", "view"))  # with the token: then all is delivered
    request = resources_request(company, "rita", "view", limit=2, consistency=None)
    _, items = await stream(api, request)
    suspend = tenants_pb2.SuspendTenantRequest(tenant_id=company.tenant_id)
    await api.tenants.SuspendTenant(suspend, metadata=api.metadata())
    going_on = resources_request(company, "rita", "view", limit=2, consistency=None, cursor=items[-1].cursor)
    for asked in (request, going_on, subjects_request(company, "root", "view")):
        first, items = await stream(api, asked)
        assert (first.reason, items) == (errors_pb2.ERROR_REASON_TENANT_SUSPENDED, [])
        assert first.token


async def test_a_suspended_user_is_listed_nowhere_from_the_record_on(api, database) -> None:
    company = await found_company(api)
    request = resources_request(company, "rita", "view", limit=2)
    _, items = await stream(api, request)
    assert "rita" in await found(api, subjects_request(company, "sales", "view"))
    async with database.begin(SystemScope("test")) as tx:
        await tx.connection.execute("UPDATE users SET status = 'suspended', suspend_time = now() WHERE id = 'rita'")
        await statuses.announce(tx, ObjectRef("user", "rita"), {})

    async def is_known() -> bool:
        first, _ = await stream(api, request)
        return first.reason == errors_pb2.ERROR_REASON_USER_SUSPENDED

    await eventually(is_known)
    going_on = resources_request(company, "rita", "view", limit=2, cursor=items[-1].cursor)
    for asked in (request, going_on):
        first, items = await stream(api, asked)
        assert (first.reason, items) == (errors_pb2.ERROR_REASON_USER_SUSPENDED, [])
    assert "rita" not in await found(api, subjects_request(company, "sales", "view"))


async def test_who_acts_as_a_user_looks_up_their_own_and_others_where_they_administer(api, reason) -> None:
    company = await found_company(api)
    await company.role("tenant", "rita", ROLE_MEMBER)

    def acting(user: str) -> dict[str, str]:
        return {"pemba_on_behalf_of": f"user:{user}"}

    own = await found(api, resources_request(company, "beth", "view"), **acting("beth"))
    assert set(own) == {company.workspaces[slug].id for slug in ("backend", "storage")}
    assert set(await found(api, resources_request(company, "beth", "view"), **acting("alice"))) == set(own)
    missing = (grpc.StatusCode.PERMISSION_DENIED, "ROLE_MISSING")
    unseen = (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    assert await refusal(api, resources_request(company, "beth", "view"), reason, **acting("rita")) == missing
    assert await refusal(api, resources_request(company, "beth", "view"), reason, **acting("ella")) == unseen
    assert "stan" in await found(api, subjects_request(company, "storage", "view"), **acting("beth"))
    assert await refusal(api, subjects_request(company, "storage", "view"), reason, **acting("ella")) == missing
    assert await refusal(api, subjects_request(company, "sales", "view"), reason, **acting("ella")) == unseen


async def test_a_cursor_is_good_for_its_own_lookup_alone(api, reason) -> None:
    company = await found_company(api)
    other = await found_company(api, "globex")
    _, items = await stream(api, resources_request(company, "rita", "view", limit=2))
    cursor = items[-1].cursor
    _, subjects = await stream(api, subjects_request(company, "root", "view", limit=1))
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    for wrong in (
        resources_request(company, "alice", "view", limit=2, cursor=cursor),
        resources_request(company, "rita", "edit", limit=2, cursor=cursor),
        resources_request(company, "rita", "view", limit=3, cursor=cursor),
        resources_request(company, "rita", "view", limit=2, cursor=cursor, consistency=None),
        resources_request(other, "rita", "view", limit=2, cursor=cursor, consistency=fresh(company.token)),
        subjects_request(company, "root", "view", limit=2, cursor=cursor),
        subjects_request(company, "sales", "view", limit=1, cursor=subjects[-1].cursor),
    ):
        assert await refusal(api, wrong, reason) == (invalid, "INVALID_FIELD")
    forged = cursor[:-4] + ("AAAA" if cursor[-4:] != "AAAA" else "BBBB")
    for text in (forged, "nonsense", "é"):
        wrong = resources_request(company, "rita", "view", limit=2, cursor=text)
        assert await refusal(api, wrong, reason) == (invalid, "TOKEN_INVALID")
    acting = {"pemba_on_behalf_of": "user:rita"}
    mine = resources_request(company, "rita", "view", limit=2, cursor=cursor)
    assert await refusal(api, mine, reason, **acting) == (invalid, "INVALID_FIELD")


async def test_a_cursor_ends_after_an_hour(api, reason, monkeypatch) -> None:
    company = await found_company(api)
    request = resources_request(company, "rita", "view", limit=2)
    _, items = await stream(api, request)
    request.cursor = items[-1].cursor
    monkeypatch.setattr("pemba.authorizer.lookups.MAX_CURSOR_AGE_SECONDS", -1)
    assert await refusal(api, request, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "CURSOR_EXPIRED")


async def test_more_than_the_bound_is_an_error_and_never_a_part(api, reason, monkeypatch) -> None:
    company = await found_company(api)
    monkeypatch.setattr("pemba.authorizer.lookups.MAX_FOUND", 7)
    request = resources_request(company, "rita", "view")
    assert await refusal(api, request, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "RESULT_TOO_LARGE")
    assert len(await found(api, resources_request(company, "ella", "view"))) == 4


async def test_lookups_beyond_what_may_run_at_once_are_refused(api, reason, monkeypatch) -> None:
    company = await found_company(api)
    monkeypatch.setattr("pemba.authorizer.lookups.MAX_CONCURRENT", 0)
    request = resources_request(company, "rita", "view")
    assert await refusal(api, request, reason) == (grpc.StatusCode.UNAVAILABLE, "OVERLOADED")


async def test_a_lookup_of_an_unknown_tenant_is_not_found(api, reason) -> None:
    company = await found_company(api)
    request = resources_request(company, "rita", "view", consistency=None)
    request.tenant_id = "ten_01kafa7q0ve8x9m1t2b3c4d5e6"
    assert await refusal(api, request, reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
