"""WorkspaceService: shapes in, records out."""

import pytest

from pemba.service.workspace_search import Search
from pemba.v1.workspaces_pb2 import (
    WORKSPACE_KIND_PERSONAL,
    WORKSPACE_KIND_ROOT,
    WORKSPACE_KIND_SHARED,
    ArchiveWorkspaceRequest,
    CreateWorkspaceRequest,
    DeleteWorkspaceRequest,
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
        ({"kind": WORKSPACE_KIND_PERSONAL}, "kind", "not available yet"),
        ({"kind": WORKSPACE_KIND_ROOT}, "kind", "takes WORKSPACE_KIND_SHARED"),
        ({"kind": 99}, "kind", "takes WORKSPACE_KIND_SHARED"),
        ({"personal_user_id": "alice"}, "personal_user_id", "not available yet"),
    ],
    ids=str,
)
async def test_a_workspace_that_cannot_be_is_refused_by_field(running, changes, field, text):
    refusal = await running.refusal("CreateWorkspace", create(**changes))
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
