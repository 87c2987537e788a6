"""WorkspaceService: shapes in, records out."""

import grpc
import pytest

from pemba.model import WorkspaceKind
from pemba.service.workspace_search import Search
from pemba.v1.workspaces_pb2 import (
    WORKSPACE_KIND_PERSONAL,
    WORKSPACE_KIND_ROOT,
    WORKSPACE_KIND_SHARED,
    ArchiveWorkspaceRequest,
    CreateWorkspaceRequest,
    DeleteWorkspaceRequest,
    EnsurePersonalWorkspaceRequest,
    GetWorkspaceRequest,
    ListWorkspacesRequest,
    MoveWorkspaceRequest,
    UnarchiveWorkspaceRequest,
    UpdateWorkspaceRequest,
)

TENANT_ID = "ten_01kafa7q0ve8x9m1t2b3c4d5e6"
WORKSPACE_ID = "ws_01kafa7q0ve8x9m1t2b3c4d5e6"
OTHER_ID = "ws_01kafa7q0ve8x9m1t2b3c4d5e7"
NAMED = {"tenant_id": TENANT_ID, "workspace_id": WORKSPACE_ID}


def create(**changes):
    return CreateWorkspaceRequest(
        **{"tenant_id": TENANT_ID, "parent_id": WORKSPACE_ID, "slug": "eng", "name": "Engineering"} | changes
    )


async def test_a_workspace_is_created_below_its_parent(running):
    await running.call("CreateWorkspace", create(owner="alice", kind=WORKSPACE_KIND_SHARED))
    options = dict(running.workspaces.calls[0].options)
    assert options.pop("options").method == "CreateWorkspace"
    assert options == {"parent_id": WORKSPACE_ID, "slug": "eng", "name": "Engineering", "owner": "alice"}


async def test_an_owner_need_not_be_named(running):
    await running.call("CreateWorkspace", create())
    assert running.workspaces.calls[0].options["owner"] is None


@pytest.mark.parametrize(
    ("changes", "field", "text"),
    [
        ({"parent_id": ""}, "parent_id", "is required"),
        ({"parent_id": TENANT_ID}, "parent_id", "takes a workspace id"),
        ({"slug": "Eng"}, "slug", "takes 3 to 64"),
        ({"name": ""}, "name", "takes 1 to 200"),
        ({"owner": " "}, "owner", "takes a user id"),
        ({"kind": WORKSPACE_KIND_PERSONAL, "slug": "", "owner": "alice"}, "parent_id", "leave it empty"),
        ({"kind": WORKSPACE_KIND_PERSONAL, "parent_id": ""}, "slug", "leave it empty"),
        ({"kind": WORKSPACE_KIND_ROOT}, "kind", "takes WORKSPACE_KIND_SHARED"),
        ({"kind": 99}, "kind", "takes WORKSPACE_KIND_SHARED"),
        ({"personal_user_id": "alice"}, "personal_user_id", "for personal workspaces alone"),
    ],
    ids=str,
)
async def test_a_workspace_that_cannot_be_is_refused_by_field(running, changes, field, text):
    acting = ("pemba-on-behalf-of", "user:alice")
    refusal = await running.refusal("CreateWorkspace", create(**changes), acting)
    assert list(refusal.violations) == [field]
    assert text in refusal.violations[field]


@pytest.mark.parametrize(
    ("by", "named"),
    [
        ({"workspace_id": WORKSPACE_ID}, {"workspace_id": WORKSPACE_ID, "path": None}),
        ({"path": "eng/backend"}, {"workspace_id": None, "path": "eng/backend"}),
        ({"path": ""}, {"workspace_id": None, "path": ""}),
    ],
    ids=["id", "path", "root"],
)
async def test_a_workspace_is_got_by_id_or_by_path(running, by, named):
    response = await running.call("GetWorkspace", GetWorkspaceRequest(tenant_id=TENANT_ID, **by))
    assert running.workspaces.calls[0].options == named
    assert (response.workspace.id, response.workspace.tenant_id, response.token) == (WORKSPACE_ID, TENANT_ID, "t1")


async def test_neither_id_nor_path_is_refused_and_not_the_root(running):
    refusal = await running.refusal("GetWorkspace", GetWorkspaceRequest(tenant_id=TENANT_ID))
    assert list(refusal.violations) == ["workspace_id"]


async def test_the_workspace_of_the_metadata_stands_in_for_an_unnamed_one(running):
    await running.call("GetWorkspace", GetWorkspaceRequest(tenant_id=TENANT_ID), ("pemba-workspace", WORKSPACE_ID))
    assert running.workspaces.calls[0].options == {"workspace_id": WORKSPACE_ID, "path": None}


async def test_a_list_says_how_deep_and_whether_archived_ones_count(running):
    request = ListWorkspacesRequest(tenant_id=TENANT_ID, parent_id=OTHER_ID, recursive=True, include_archived=True)
    response = await running.call("ListWorkspaces", request)
    assert running.workspaces.calls[0].options == {
        "parent_id": OTHER_ID,
        "recursive": True,
        "include_archived": True,
        "page_size": 100,
        "page_token": "",
        "search": Search(),
    }
    assert [workspace.id for workspace in response.workspaces] == [WORKSPACE_ID]


async def test_a_list_without_a_parent_is_of_the_root(running):
    await running.call("ListWorkspaces", ListWorkspacesRequest(tenant_id=TENANT_ID))
    assert running.workspaces.calls[0].options["parent_id"] is None


async def test_a_name_is_changed(running):
    await running.call("UpdateWorkspace", UpdateWorkspaceRequest(**NAMED, name="New", etag="e1"))
    noted = running.workspaces.calls[0]
    assert noted.arguments[1:] == (TENANT_ID, WORKSPACE_ID)
    assert (noted.options["name"], noted.options["options"].etag) == ("New", "e1")


async def test_p1_a_personal_workspace_is_made_for_the_user_who_is_named_or_acts(running):
    request = create(kind=WORKSPACE_KIND_PERSONAL, parent_id="", slug="", name="", personal_user_id="bob", owner="bob")
    await running.call("CreateWorkspace", request)
    [made] = running.workspaces.calls
    assert (made.method, made.options["user_id"], made.options["name"]) == ("create_personal_workspace", "bob", "")
    acting = ("pemba-on-behalf-of", "user:alice")
    request = create(kind=WORKSPACE_KIND_PERSONAL, parent_id="", slug="", name="Mine")
    await running.call("CreateWorkspace", request, acting)
    assert running.workspaces.calls[1].options["user_id"] == "alice"
    assert "personal_user_id" in (await running.refusal("CreateWorkspace", request)).violations
    request = create(kind=WORKSPACE_KIND_PERSONAL, parent_id="", slug="", personal_user_id="bob", owner="alice")
    assert list((await running.refusal("CreateWorkspace", request)).violations) == ["owner"]


async def test_p4_a_personal_user_of_another_kind_has_a_reason_of_its_own(running):
    refusal = await running.refusal("CreateWorkspace", create(personal_user_id="alice"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "OWNER_ONLY_ON_PERSONAL")


async def test_p7_the_personal_workspace_is_that_of_the_user_who_is_named_or_acts(running):
    answer = await running.call(
        "EnsurePersonalWorkspace", EnsurePersonalWorkspaceRequest(tenant_id=TENANT_ID, user_id="bob")
    )
    assert (answer.workspace.id, answer.created, answer.token) == (WORKSPACE_ID, True, "t2")
    acting = ("pemba-on-behalf-of", "user:alice")
    request = EnsurePersonalWorkspaceRequest(tenant_id=TENANT_ID)
    await running.call("EnsurePersonalWorkspace", request, acting)
    assert [noted.options["user_id"] for noted in running.workspaces.calls] == ["bob", "alice"]
    assert list((await running.refusal("EnsurePersonalWorkspace", request)).violations) == ["user_id"]


@pytest.mark.parametrize(
    ("given", "kind", "user"),
    [
        ({"name": "New"}, None, None),
        ({"name": "New", "kind": WORKSPACE_KIND_PERSONAL, "personal_user_id": "bob"}, WorkspaceKind.PERSONAL, "bob"),
        ({"name": "New", "update_mask": {"paths": ["*"]}}, None, None),
        ({"name": "New", "kind": WORKSPACE_KIND_ROOT, "update_mask": {"paths": ["*"]}}, WorkspaceKind.ROOT, None),
        ({"name": "New", "kind": WORKSPACE_KIND_ROOT, "update_mask": {"paths": ["name"]}}, None, None),
        ({"update_mask": {"paths": ["personal_user_id"]}}, None, ""),
    ],
)
async def test_p2_p3_an_update_says_what_the_record_is(running, given, kind, user):
    await running.call("UpdateWorkspace", UpdateWorkspaceRequest(**NAMED, **given))
    options = running.workspaces.calls[0].options
    assert (options["kind"], options["personal_user_id"]) == (kind, user)


@pytest.mark.parametrize("given", [{"kind": 0}, {"kind": 99}, {"update_mask": {"paths": ["kind"]}}], ids=str)
async def test_an_update_to_no_kind_is_refused(running, given):
    refusal = await running.refusal("UpdateWorkspace", UpdateWorkspaceRequest(**NAMED, **given))
    assert list(refusal.violations) == ["kind"]


async def test_a_move_names_the_new_parent(running):
    await running.call("MoveWorkspace", MoveWorkspaceRequest(**NAMED, new_parent_id=OTHER_ID))
    assert running.workspaces.calls[0].options["new_parent_id"] == OTHER_ID
    refusal = await running.refusal("MoveWorkspace", MoveWorkspaceRequest(**NAMED))
    assert list(refusal.violations) == ["new_parent_id"]


@pytest.mark.parametrize(
    ("method", "request_type"),
    [
        ("ArchiveWorkspace", ArchiveWorkspaceRequest),
        ("UnarchiveWorkspace", UnarchiveWorkspaceRequest),
        ("DeleteWorkspace", DeleteWorkspaceRequest),
    ],
)
async def test_a_workspace_is_named_by_tenant_and_id(running, method, request_type):
    response = await running.call(method, request_type(**NAMED, request_id="i1"))
    assert (response.workspace.id, response.token) == (WORKSPACE_ID, "t2")
    noted = running.workspaces.calls[0]
    assert noted.arguments[1:] == (TENANT_ID, WORKSPACE_ID)
    assert (noted.options["options"].method, noted.options["options"].request_id) == (method, "i1")
    assert set((await running.refusal(method, request_type())).violations) == {"tenant_id", "workspace_id"}
