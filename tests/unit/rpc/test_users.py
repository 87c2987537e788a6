"""UserService: requests, each of their fields, and answers."""

from __future__ import annotations

import pytest

from pemba.model import UserId, UserStatus
from pemba.service.user_workspace import FirstWorkspace
from pemba.service.users import UserSearch
from pemba.v1 import users_pb2, workspaces_pb2
from tests.unit.rpc.conftest import TENANT_ID, WORKSPACE_ID, Running

BEHALF = ("pemba-on-behalf-of", "user:alice")


async def test_w1_create_user_passes_on_the_workspace_to_make(running: Running) -> None:
    request = users_pb2.CreateUserRequest(id="alice", email="alice@acme.test", display_name="Alice", request_id="r1")
    request.create_workspace.tenant_id = TENANT_ID
    answer = await running.call("CreateUser", request)
    [noted] = running.users.calls
    assert noted.arguments[1] == UserId("alice")
    assert noted.options["first_workspace"] == FirstWorkspace(TENANT_ID)
    assert (noted.options["email"], noted.options["display_name"]) == ("alice@acme.test", "Alice")
    assert (noted.options["options"].method, noted.options["options"].request_id) == ("CreateUser", "r1")
    assert (answer.user.id, answer.workspace.id, answer.token) == ("alice", WORKSPACE_ID, "t1")
    assert (answer.user.status, answer.user.HasField("last_login_time")) == (users_pb2.USER_STATUS_ACTIVE, False)


async def test_without_a_workspace_none_is_made(running: Running) -> None:
    await running.call("CreateUser", users_pb2.CreateUserRequest(id="alice"))
    assert running.users.calls[0].options["first_workspace"] is None


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("id", {"id": ""}),
        ("id", {"id": " alice"}),
        ("id", {"id": "é" * 129}),
        ("email", {"email": "alice"}),
        ("email", {"email": "@acme.test"}),
        ("email", {"email": "a b@acme.test"}),
        ("email", {"email": "a@b@c"}),
        ("email", {"email": "a" * 320 + "@x.y"}),
        ("display_name", {"display_name": "A\n"}),
        ("display_name", {"display_name": "A" * 201}),
        ("create_workspace.tenant_id", {"create_workspace": {"tenant_id": "acme"}}),
        ("create_workspace.slug", {"create_workspace": {"tenant_id": TENANT_ID, "slug": "No"}}),
        ("create_workspace.name", {"create_workspace": {"tenant_id": TENANT_ID, "name": " x"}}),
        ("create_workspace.kind", {"create_workspace": {"tenant_id": TENANT_ID, "kind": "WORKSPACE_KIND_ROOT"}}),
    ],
)
async def test_a_bad_field_is_named(running: Running, field: str, given: dict) -> None:
    refusal = await running.refusal("CreateUser", users_pb2.CreateUserRequest(**{"id": "alice", **given}))
    assert list(refusal.violations) == [field]
    assert running.users.calls == []


async def test_a_personal_workspace_has_no_slug(running: Running) -> None:
    request = users_pb2.CreateUserRequest(id="alice")
    request.create_workspace.tenant_id = TENANT_ID
    request.create_workspace.kind = workspaces_pb2.WORKSPACE_KIND_PERSONAL
    await running.call("CreateUser", request)
    assert running.users.calls[0].options["first_workspace"] == FirstWorkspace(TENANT_ID, personal=True)
    request.create_workspace.slug = "mine"
    refusal = await running.refusal("CreateUser", request)
    assert refusal.violations == {"create_workspace.slug": "a personal workspace has none: leave it empty"}


@pytest.mark.parametrize(
    ("given", "email", "name"),
    [
        ({"display_name": "A"}, None, "A"),
        ({"email": ""}, "", None),
        ({"email": "a@b", "display_name": "A", "update_mask": {"paths": ["email"]}}, "a@b", None),
        ({"display_name": "A", "update_mask": {"paths": ["*"]}}, "", "A"),
        ({}, None, None),
    ],
)
async def test_update_changes_what_the_mask_names_or_what_is_set(running: Running, given, email, name) -> None:
    await running.call("UpdateUser", users_pb2.UpdateUserRequest(user_id="alice", **given))
    [noted] = running.users.calls
    assert (noted.options["email"], noted.options["display_name"]) == (email, name)


async def test_an_unknown_field_of_a_mask_is_refused(running: Running) -> None:
    request = users_pb2.UpdateUserRequest(user_id="alice", update_mask={"paths": ["status"]})
    refusal = await running.refusal("UpdateUser", request)
    assert refusal.violations == {"update_mask": "has no field 'status'; it takes email, display_name"}


@pytest.mark.parametrize(
    ("method", "request_type"),
    [
        ("GetUser", users_pb2.GetUserRequest),
        ("UpdateUser", users_pb2.UpdateUserRequest),
        ("RecordLogin", users_pb2.RecordLoginRequest),
        ("ListUserMemberships", users_pb2.ListUserMembershipsRequest),
        ("GetCurrentWorkspace", users_pb2.GetCurrentWorkspaceRequest),
    ],
)
async def test_no_user_is_the_acting_user(running: Running, method: str, request_type: type) -> None:
    await running.call(method, request_type(), BEHALF)
    assert running.users.calls[0].arguments[1] == "alice"
    assert list((await running.refusal(method, request_type())).violations) == ["user_id"]


async def test_the_metadata_names_the_tenant_of_a_current_workspace(running: Running) -> None:
    request = users_pb2.SetCurrentWorkspaceRequest(workspace_id=WORKSPACE_ID)
    answer = await running.call("SetCurrentWorkspace", request, BEHALF, ("pemba-tenant", TENANT_ID))
    assert running.users.calls[0].arguments[1:] == ("alice", TENANT_ID, WORKSPACE_ID)
    assert answer.workspace.id == WORKSPACE_ID
    found = await running.call("GetCurrentWorkspace", users_pb2.GetCurrentWorkspaceRequest(), BEHALF)
    assert (found.chosen, found.workspace.id, found.token) == (True, WORKSPACE_ID, "t1")


@pytest.mark.parametrize("method", ["SuspendUser", "ActivateUser", "DeactivateUser"])
async def test_a_status_is_changed_of_a_user_who_is_named(running: Running, method: str) -> None:
    request_type = getattr(users_pb2, f"{method}Request")
    answer = await running.call(method, request_type(user_id="alice", etag="e1"))
    [noted] = running.users.calls
    assert (noted.arguments[1], noted.options["options"].etag, answer.token) == ("alice", "e1", "t2")
    assert list((await running.refusal(method, request_type(), BEHALF)).violations) == ["user_id"]


@pytest.mark.parametrize(
    ("filter_", "order_by", "search"),
    [
        ("", "", UserSearch()),
        ("", "email desc", UserSearch(order="email", descending=True)),
        ("status=suspended", "", UserSearch(status=UserStatus.SUSPENDED)),
        ('email:ali AND display_name="Alice A"', "id", UserSearch(email_begins="ali", name="Alice A")),
        ("email=a AND display_name:b", "", UserSearch(email="a", name_begins="b")),
    ],
)
async def test_a_list_of_users_is_searched(running: Running, filter_, order_by, search) -> None:
    answer = await running.call("ListUsers", users_pb2.ListUsersRequest(filter=filter_, order_by=order_by))
    assert running.users.calls[0].options["search"] == search
    assert (answer.users[0].id, answer.next_page_token, answer.token) == ("alice", "next", "t1")


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("filter", {"filter": "status=gone"}),
        ("filter", {"filter": "status:active"}),
        ("filter", {"filter": "email:a AND email=b"}),
        ("filter", {"filter": "id=alice"}),
        ("order_by", {"order_by": "status"}),
        ("page_size", {"page_size": -1}),
    ],
)
async def test_what_a_list_of_users_does_not_take_is_named(running: Running, field: str, given: dict) -> None:
    refusal = await running.refusal("ListUsers", users_pb2.ListUsersRequest(**given))
    assert list(refusal.violations) == [field]
