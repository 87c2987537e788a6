"""`pemba user`: what it sends, and how it prints what comes back."""

import json

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from pemba.v1 import memberships_pb2, tenants_pb2, types_pb2, users_pb2, workspaces_pb2

TENANT_ID = "ten_01h455vb4pex5vsknk084sn02q"
ENG_ID = "ws_01h455vb4pex5vsknk084sn02s"
THEN = Timestamp(seconds=1_700_000_000)
ALICE = users_pb2.User(
    id="alice",
    email="alice@acme.test",
    display_name="Alice A",
    status=users_pb2.USER_STATUS_ACTIVE,
    last_login_time=THEN,
    create_time=THEN,
)
ENG = workspaces_pb2.Workspace(id=ENG_ID, tenant_id=TENANT_ID, slug="eng", name="Engineering")


def sent(api):
    return api.requests[-1]


def test_create_makes_a_workspace_in_a_tenant_by_its_slug(pemba, api):
    api.answer("GetTenant", tenants_pb2.GetTenantResponse(tenant=tenants_pb2.Tenant(id=TENANT_ID)))
    api.answer("CreateUser", users_pb2.CreateUserResponse(user=ALICE, workspace=ENG, token="t1"))
    done = pemba(
        *("user", "create", "user:alice", "--email", "alice@acme.test", "--name", "Alice A"),
        *("--workspace-in", "acme", "--request-id", "r-1", "--output", "token"),
    )
    assert (done.code, done.out.strip()) == (0, "t1")
    assert sent(api) == (
        "CreateUser",
        users_pb2.CreateUserRequest(
            id="alice",
            email="alice@acme.test",
            display_name="Alice A",
            create_workspace=users_pb2.CreateUserWorkspace(tenant_id=TENANT_ID),
            request_id="r-1",
        ),
    )


@pytest.mark.parametrize(("text", "id_"), [("user:alice", "alice"), ("alice", "alice"), ("user:a:b#c", "a:b#c")])
def test_a_user_is_named_as_elsewhere_or_by_the_id_alone(pemba, api, text, id_):
    api.answer("GetUser", users_pb2.GetUserResponse(user=ALICE))
    done = pemba("user", "get", text)
    assert sent(api)[1].user_id == id_
    assert done.out.split() == [
        *("USER", "EMAIL", "NAME", "STATUS", "LAST", "LOGIN", "CREATED"),
        *(
            "user:alice",
            "alice@acme.test",
            "Alice",
            "A",
            "active",
            "2023-11-14",
            "22:13:20Z",
            "2023-11-14",
            "22:13:20Z",
        ),
    ]


def test_no_user_is_a_usage_error(pemba, api):
    done = pemba("user", "get", "user:")
    assert done.code == 2
    assert "USER takes user:ID" in done.err


def test_list_passes_its_order_and_filter_on(pemba, api):
    api.answer("ListUsers", users_pb2.ListUsersResponse(users=[ALICE]))
    done = pemba("user", "list", "--order-by", "email desc", "--filter", "status=suspended", "-o", "json")
    assert (sent(api)[1].order_by, sent(api)[1].filter) == ("email desc", "status=suspended")
    assert json.loads(done.out)["users"][0]["id"] == "alice"


def test_update_changes_what_is_given_and_an_empty_text_takes_away(pemba, api):
    api.answer("UpdateUser", users_pb2.UpdateUserResponse(user=ALICE))
    pemba("user", "update", "alice", "--email", "")
    assert sent(api)[1] == users_pb2.UpdateUserRequest(user_id="alice", email="")
    assert "--email or --name is missing" in pemba("user", "update", "alice").err


@pytest.mark.parametrize(
    ("command", "method"), [("suspend", "SuspendUser"), ("activate", "ActivateUser"), ("deactivate", "DeactivateUser")]
)
def test_a_status_is_changed_with_an_etag(pemba, api, command, method):
    api.answer(method, getattr(users_pb2, f"{method}Response")(user=ALICE))
    assert pemba("user", command, "alice", "--etag", "4", "--validate-only").code == 0
    request = getattr(users_pb2, f"{method}Request")(user_id="alice", etag="4", validate_only=True)
    assert sent(api) == (method, request)


def test_suspend_by_force_and_an_activation_under_way(pemba, api):
    api.answer("SuspendUser", users_pb2.SuspendUserResponse(user=ALICE))
    pemba("user", "suspend", "alice", "--force")
    assert sent(api)[1].force
    activating = users_pb2.User(id="alice", status=users_pb2.USER_STATUS_SUSPENDED, activating=True)
    api.answer("ActivateUser", users_pb2.ActivateUserResponse(user=activating))
    assert "suspended, being activated" in pemba("user", "activate", "alice").out


def test_memberships_are_listed_over_all_tenants(pemba, api):
    membership = memberships_pb2.Membership(
        tenant_id=TENANT_ID,
        object=types_pb2.ObjectRef(type="workspace", id=ENG_ID),
        role=types_pb2.ROLE_OWNER,
        join_time=THEN,
    )
    api.answer("ListUserMemberships", users_pb2.ListUserMembershipsResponse(memberships=[membership]))
    done = pemba("user", "memberships", "alice")
    assert sent(api)[1].tenant_id == ""
    assert done.out.splitlines()[1].split()[:3] == [TENANT_ID, f"workspace:{ENG_ID}", "owner"]


def test_current_shows_and_chooses(pemba, api):
    api.answer("GetCurrentWorkspace", users_pb2.GetCurrentWorkspaceResponse(workspace=ENG, chosen=False))
    assert "no, the default" in pemba("user", "current", "alice").out
    assert sent(api)[1] == users_pb2.GetCurrentWorkspaceRequest(user_id="alice")
    api.answer("SetCurrentWorkspace", users_pb2.SetCurrentWorkspaceResponse(workspace=ENG))
    assert pemba("user", "current", "alice", ENG_ID, "--tenant", TENANT_ID).code == 0
    request = users_pb2.SetCurrentWorkspaceRequest(user_id="alice", tenant_id=TENANT_ID, workspace_id=ENG_ID)
    assert sent(api) == ("SetCurrentWorkspace", request)


def test_record_login(pemba, api):
    api.answer("RecordLogin", users_pb2.RecordLoginResponse(user=ALICE))
    assert pemba("user", "record-login", "alice").code == 0
    assert sent(api)[1] == users_pb2.RecordLoginRequest(user_id="alice")
