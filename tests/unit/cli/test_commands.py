"""What commands send, and how they print what comes back."""

import json

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from pemba.v1 import (
    errors_pb2,
    memberships_pb2,
    permissions_pb2,
    tenants_pb2,
    types_pb2,
    workspaces_pb2,
)

TENANT_ID = "ten_01h455vb4pex5vsknk084sn02q"
ROOT_ID = "ws_01h455vb4pex5vsknk084sn02r"
ENG_ID = "ws_01h455vb4pex5vsknk084sn02s"
BACKEND_ID = "ws_01h455vb4pex5vsknk084sn02t"

ACME = tenants_pb2.Tenant(
    id=TENANT_ID,
    slug="acme",
    name="Acme",
    status=tenants_pb2.TENANT_STATUS_ACTIVE,
    create_time=Timestamp(seconds=1_700_000_000),
)
ENG = workspaces_pb2.Workspace(
    id=ENG_ID,
    tenant_id=TENANT_ID,
    parent_id=ROOT_ID,
    slug="eng",
    name="Engineering",
    kind=workspaces_pb2.WORKSPACE_KIND_SHARED,
)
BACKEND = workspaces_pb2.Workspace(
    id=BACKEND_ID,
    tenant_id=TENANT_ID,
    parent_id=ENG_ID,
    slug="backend",
    name="Backend",
    kind=workspaces_pb2.WORKSPACE_KIND_SHARED,
    archive_time=Timestamp(seconds=1_700_000_000),
)
GET_ACME = tenants_pb2.GetTenantResponse(tenant=ACME)
GET_ENG = workspaces_pb2.GetWorkspaceResponse(workspace=ENG)
BOB = types_pb2.SubjectRef(type="user", id="bob")


def membership(role=types_pb2.ROLE_MEMBER):
    return memberships_pb2.Membership(
        tenant_id=TENANT_ID,
        object=types_pb2.ObjectRef(type="workspace", id=ENG_ID),
        subject=BOB,
        role=role,
        join_time=Timestamp(seconds=1_700_000_000),
    )


def test_a_change_carries_key_acting_user_request_id_and_validate_only(pemba, api):
    api.answer("CreateTenant", tenants_pb2.CreateTenantResponse(tenant=ACME, token="t1"))
    done = pemba(
        *("tenant", "create", "acme", "--name", "Acme", "--first-admin", "user:alice"),
        *("--request-id", "r-1", "--validate-only", "--on-behalf-of", "user:zoë@acme#1"),
    )
    assert done.code == 0
    assert api.requests == [
        (
            "CreateTenant",
            tenants_pb2.CreateTenantRequest(
                slug="acme", name="Acme", first_admin="alice", request_id="r-1", validate_only=True
            ),
        )
    ]
    assert api.metadata[0]["authorization"] == "Bearer " + "k" * 32
    assert api.metadata[0]["pemba-on-behalf-of"] == "user:zo%C3%AB%40acme%231"


def test_a_table_shows_what_people_look_for(pemba, api):
    api.answer("GetTenant", GET_ACME)
    done = pemba("tenant", "get", "acme")
    header, row = (line.split() for line in done.out.splitlines())
    assert header == ["SLUG", "NAME", "STATUS", "ID", "CREATED"]
    assert row == ["acme", "Acme", "active", TENANT_ID, "2023-11-14", "22:13:20Z"]


def test_json_has_the_protos_names_and_empty_fields_too(pemba, api):
    api.answer("GetTenant", GET_ACME)
    answer = json.loads(pemba("tenant", "get", TENANT_ID, "--output", "json").out)
    assert api.requests[0][1] == tenants_pb2.GetTenantRequest(tenant_id=TENANT_ID)
    assert answer["tenant"]["create_time"] == "2023-11-14T22:13:20Z"
    assert answer["tenant"]["etag"] == ""
    assert answer["token"] == ""


def test_the_token_alone_is_an_output_for_shell_scripts(pemba, api):
    api.answer("GetTenant", GET_ACME)
    api.answer("SuspendTenant", tenants_pb2.SuspendTenantResponse(tenant=ACME, token="t2"))
    assert pemba("tenant", "suspend", "acme", "-o", "token").out == "t2\n"


def a_deletion(left, undelivered, *, finished):
    counts = [tenants_pb2.TenantDeletionCount(records="workspaces", total=5, left=left)]
    deletion = tenants_pb2.TenantDeletion(tenant_id=TENANT_ID, slug="acme", name="Acme", counts=counts)
    deletion.undelivered_rows = undelivered
    deletion.create_time.FromSeconds(1700000000)
    if finished:
        deletion.finish_time.FromSeconds(1700000060)
    return deletion


def test_a_tenant_is_deleted_with_its_slug_once_more(pemba, api):
    api.answer("GetTenant", GET_ACME)
    api.answer("DeleteTenant", tenants_pb2.DeleteTenantResponse(deletion=a_deletion(5, 1, finished=False), token="t9"))
    done = pemba("tenant", "delete", "acme", "--confirm", "acme", "--request-id", "r-1")
    expected = tenants_pb2.DeleteTenantRequest(tenant_id=TENANT_ID, confirm_slug="acme", request_id="r-1")
    assert api.requests[-1] == ("DeleteTenant", expected)
    header, row = done.out.splitlines()
    assert header.split() == ["SLUG", "ID", "STATE", "LEFT", "UNDELIVERED", "STARTED", "FINISHED"]
    assert row.split() == ["acme", TENANT_ID, "under", "way", "5", "of", "5", "1", "2023-11-14", "22:13:20Z"]
    missing = pemba("tenant", "delete", "acme")
    assert missing.code == 2
    assert "--confirm is missing" in missing.err


def test_a_deletion_is_waited_for_until_spicedb_has_nothing_left(pemba, api, monkeypatch):
    monkeypatch.setattr("pemba.cli.tenant.WAIT_SECONDS", 0.0)
    begun = a_deletion(5, 1, finished=False)
    api.answer("DeleteTenant", tenants_pb2.DeleteTenantResponse(deletion=begun, token="t9"))
    for now in (begun, a_deletion(0, 3, finished=True), a_deletion(0, 0, finished=True)):
        api.answer("GetTenantDeletion", tenants_pb2.GetTenantDeletionResponse(deletion=now))
    done = pemba("tenant", "delete", TENANT_ID, "--confirm", "acme", "--wait")
    assert done.code == 0
    assert [method for method, _ in api.requests] == ["DeleteTenant", *["GetTenantDeletion"] * 3]
    assert done.out.splitlines()[1].split()[2:6] == ["gone", "0", "of", "5"]
    api.answer("DeleteTenant", tenants_pb2.DeleteTenantResponse(deletion=begun))
    assert pemba("tenant", "delete", TENANT_ID, "--confirm", "acme", "--wait", "--validate-only").code == 0


@pytest.mark.parametrize(("named", "field"), [("acme", "slug"), (TENANT_ID, "tenant_id")])
def test_a_deletion_is_shown(pemba, api, named, field):
    deletion = a_deletion(0, 0, finished=True)
    api.answer("GetTenantDeletion", tenants_pb2.GetTenantDeletionResponse(deletion=deletion))
    assert "gone" in pemba("tenant", "deletion", named).out
    assert api.requests == [("GetTenantDeletion", tenants_pb2.GetTenantDeletionRequest(**{field: named}))]


def test_markup_in_a_name_is_printed_as_it_is(pemba, api):
    odd = tenants_pb2.Tenant(slug="acme", name="[red]:smile:[/red]", status=1)
    api.answer("GetTenant", tenants_pb2.GetTenantResponse(tenant=odd))
    assert "[red]:smile:[/red]" in pemba("tenant", "get", "acme").out


@pytest.fixture
def colours(monkeypatch):
    """As on a terminal that has colours, and is narrow."""
    for name in ("NO_COLOR", "TERM", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "30"}.items():
        monkeypatch.setenv(name, value)


def a_check(api):
    api.answer("Check", permissions_pb2.CheckResponse(decision=permissions_pb2.DECISION_DENIED))
    return ("check", "user:bob", "edit", f"workspace:{ENG_ID}", "-t", TENANT_ID)


def test_decisions_and_roles_have_colours_where_the_terminal_has_them(pemba, api, colours):
    assert pemba(*a_check(api)).out == "\x1b[31mDENIED\x1b[0m\n"
    api.answer("GetMembership", memberships_pb2.GetMembershipResponse(membership=membership()))
    out = pemba("member", "get", f"workspace:{ENG_ID}", "user:bob", "-t", TENANT_ID).out
    assert "\x1b[34mmember\x1b[0m" in out
    assert len(out.splitlines()) == 2  # nothing is folded: an id can be copied


def test_there_are_no_colours_in_a_pipe_nor_with_no_color(pemba, api, colours, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert pemba(*a_check(api)).out == "DENIED\n"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.delenv("FORCE_COLOR")
    assert pemba(*a_check(api)).out == "DENIED\n"
    api.answer("GetTenant", GET_ACME)
    out = pemba("tenant", "get", "acme").out
    assert "\x1b" not in out
    assert [line for line in out.splitlines() if line != line.rstrip()] == []


def test_a_list_reads_all_pages(pemba, api):
    first = tenants_pb2.ListTenantsResponse(tenants=[ACME], next_page_token="p2", token="t1")
    last = tenants_pb2.ListTenantsResponse(tenants=[ACME], token="t2")
    api.answer("ListTenants", first, last)
    answer = json.loads(pemba("tenant", "list", "-o", "json").out)
    assert [request.page_token for _, request in api.requests] == ["", "p2"]
    assert len(answer["tenants"]) == 2
    assert (answer["next_page_token"], answer["token"]) == ("", "t1")


def test_a_list_that_is_cut_off_says_so(pemba, api):
    api.answer("ListTenants", tenants_pb2.ListTenantsResponse(tenants=[ACME], next_page_token="p2"))
    done = pemba("tenant", "list", "--limit", "1")
    assert api.requests[0][1].page_size == 1
    assert "there is more; --limit" in done.err


def test_an_empty_list_is_a_line_of_column_names(pemba, api):
    api.answer("ListTenants", tenants_pb2.ListTenantsResponse())
    assert pemba("tenant", "list").out.split() == ["SLUG", "NAME", "STATUS", "ID", "CREATED"]


def test_a_workspace_is_created_under_the_path_that_leads_to_it(pemba, api):
    api.answer("GetTenant", GET_ACME)
    api.answer("GetWorkspace", GET_ENG)
    api.answer("CreateWorkspace", workspaces_pb2.CreateWorkspaceResponse(workspace=BACKEND))
    done = pemba("workspace", "create", "eng/backend", "--tenant", "acme", "--owner", "user:alice")
    assert done.code == 0
    assert api.requests[1][1] == workspaces_pb2.GetWorkspaceRequest(tenant_id=TENANT_ID, path="eng")
    assert api.requests[2][1] == workspaces_pb2.CreateWorkspaceRequest(
        tenant_id=TENANT_ID, parent_id=ENG_ID, slug="backend", name="backend", owner="alice"
    )


def test_a_parent_named_twice_is_refused(pemba, api):
    done = pemba("workspace", "create", "eng/backend", "--parent", ROOT_ID, "--tenant", TENANT_ID)
    assert done.code == 2
    assert "--parent" in done.err


def test_ids_need_no_lookup(pemba, api):
    api.answer("MoveWorkspace", workspaces_pb2.MoveWorkspaceResponse(workspace=ENG))
    pemba("workspace", "move", f"workspace:{BACKEND_ID}", ROOT_ID, "--tenant", TENANT_ID, "--etag", "e1")
    assert api.requests == [
        (
            "MoveWorkspace",
            workspaces_pb2.MoveWorkspaceRequest(
                tenant_id=TENANT_ID, workspace_id=BACKEND_ID, new_parent_id=ROOT_ID, etag="e1"
            ),
        )
    ]


@pytest.mark.parametrize("verb", ["archive", "unarchive", "delete", "update"])
def test_each_verb_of_a_workspace_calls_its_rpc(pemba, api, verb):
    method = f"{verb.title()}Workspace"
    api.answer(method, getattr(workspaces_pb2, f"{method}Response")(workspace=ENG))
    more = ["--name", "New"] if verb == "update" else []
    assert pemba("workspace", verb, ENG_ID, "-t", TENANT_ID, *more).code == 0
    [(called, request)] = api.requests
    assert (called, request.tenant_id, request.workspace_id) == (method, TENANT_ID, ENG_ID)


def test_p7_a_personal_workspace_is_shown_with_its_user(pemba, api):
    mine = workspaces_pb2.Workspace(
        id=ENG_ID, slug="personal", name="Alice", kind=workspaces_pb2.WORKSPACE_KIND_PERSONAL, personal_user_id="alice"
    )
    api.answer("EnsurePersonalWorkspace", workspaces_pb2.EnsurePersonalWorkspaceResponse(workspace=mine))
    done = pemba("workspace", "personal", "user:alice", "-t", TENANT_ID)
    assert "(of user:alice)" in done.out
    assert api.requests == [
        (
            "EnsurePersonalWorkspace",
            workspaces_pb2.EnsurePersonalWorkspaceRequest(tenant_id=TENANT_ID, user_id="alice"),
        )
    ]


def test_a_tree_shows_children_below_their_parents_and_what_is_archived(pemba, api):
    root = workspaces_pb2.Workspace(id=ROOT_ID)
    api.answer("GetWorkspace", workspaces_pb2.GetWorkspaceResponse(workspace=root))
    api.answer("ListWorkspaces", workspaces_pb2.ListWorkspacesResponse(workspaces=[ENG, BACKEND]))
    done = pemba("workspace", "list", "--tree", "--tenant", TENANT_ID)
    assert [line.rstrip() for line in done.out.splitlines()] == [
        "/",
        "└── eng",
        "    └── backend (archived)",
    ]
    assert api.requests[1][1].recursive


def test_a_recursive_list_shows_paths(pemba, api):
    api.answer("ListWorkspaces", workspaces_pb2.ListWorkspacesResponse(workspaces=[ENG, BACKEND]))
    lines = pemba("workspace", "list", ROOT_ID, "-r", "--tenant", TENANT_ID).out.splitlines()
    assert [line.split()[0] for line in lines] == ["PATH", "eng", "eng/backend"]


@pytest.mark.parametrize(
    ("word", "role"),
    [("viewer", 1), ("member", 2), ("editor", 2), ("admin", 3), ("owner", 4)],
)
def test_roles_are_words_and_editor_is_member(pemba, api, word, role):
    api.answer("SetRole", memberships_pb2.SetRoleResponse(membership=membership(role)))
    done = pemba("member", "set", f"workspace:{ENG_ID}", "user:bob", word, "-t", TENANT_ID)
    assert done.code == 0
    assert api.requests[0][1] == memberships_pb2.SetRoleRequest(
        tenant_id=TENANT_ID,
        object=types_pb2.ObjectRef(type="workspace", id=ENG_ID),
        subject=BOB,
        role=role,
    )


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["set", "workspace:eng", "user:bob", "king"], "ROLE takes viewer, member, editor, admin, owner"),
        (["set", "workspace:eng", "bob", "admin"], "SUBJECT takes user:ID"),
        (["set", "eng", "user:bob", "admin"], "OBJECT takes workspace:PATH"),
        (["transfer", "workspace:eng", "--from", "alice", "--to", "user:bob"], "--from takes user:ID"),
    ],
)
def test_a_bad_argument_is_named_with_what_it_takes(pemba, api, arguments, named):
    api.answer("GetWorkspace", GET_ENG)
    done = pemba("member", *arguments, "--tenant", TENANT_ID)
    assert done.code == 2
    assert named in done.err


def test_a_removed_member_is_shown_as_it_was_and_nothing_where_there_was_none(pemba, api):
    api.answer(
        "RemoveMember",
        memberships_pb2.RemoveMemberResponse(membership=membership(), token="t3"),
        memberships_pb2.RemoveMemberResponse(),
    )
    command = ("member", "remove", f"workspace:{ENG_ID}", "user:bob", "--allow-missing", "-t", TENANT_ID)
    assert "user:bob" in pemba(*command).out
    assert pemba(*command).out.strip() == ""
    assert api.requests[0][1].allow_missing


@pytest.mark.parametrize(
    ("answer", "line", "code"),
    [
        (permissions_pb2.CheckResponse(decision=1), "ALLOWED\n", 0),
        (permissions_pb2.CheckResponse(decision=2), "DENIED\n", 1),
        (
            permissions_pb2.CheckResponse(decision=2, reason=errors_pb2.ERROR_REASON_TENANT_SUSPENDED),
            "DENIED (TENANT_SUSPENDED)\n",
            1,
        ),
        (
            permissions_pb2.CheckResponse(decision=3, missing_context=["ip"]),
            "CONDITIONAL (needs ip)\n",
            1,
        ),
        (permissions_pb2.CheckResponse(), "UNSPECIFIED\n", 1),
    ],
)
def test_only_allowed_exits_with_0(pemba, api, answer, line, code):
    api.answer("Check", answer)
    done = pemba("check", "user:bob", "edit", f"workspace:{ENG_ID}", "--tenant", TENANT_ID)
    assert (done.out, done.code) == (line, code)


def test_a_check_sends_the_token_and_subjects_as_they_are(pemba, api):
    api.answer("Check", permissions_pb2.CheckResponse(decision=1))
    pemba("check", "user:a#b:c", "view", f"tenant:{TENANT_ID}", "-t", TENANT_ID, "--at-least-as-fresh", "t9")
    assert api.requests[0][1] == permissions_pb2.CheckRequest(
        tenant_id=TENANT_ID,
        resource=types_pb2.ObjectRef(type="tenant", id=TENANT_ID),
        permission="view",
        subject=types_pb2.SubjectRef(type="user", id="a#b:c"),
        consistency=types_pb2.Consistency(at_least_as_fresh="t9"),
    )


def test_the_tenant_can_come_from_the_environment(pemba, api, monkeypatch):
    monkeypatch.setenv("PEMBA_TENANT", TENANT_ID)
    api.answer("ListMembers", memberships_pb2.ListMembersResponse(memberships=[membership()]))
    assert "user:bob" in pemba("member", "list", f"tenant:{TENANT_ID}").out


def test_a_missing_tenant_is_a_usage_error(pemba, api):
    done = pemba("member", "list", "workspace:eng")
    assert done.code == 2
    assert "--tenant" in done.err
    assert "PEMBA_TENANT" in done.err


def test_a_check_of_every_permission_is_a_table_and_says_whether_one_is_allowed(pemba, api):
    decision = permissions_pb2.PermissionDecision
    answer = permissions_pb2.CheckAllResponse(
        permissions=[
            decision(permission="own", decision=permissions_pb2.DECISION_DENIED),
            decision(permission="view", decision=permissions_pb2.DECISION_ALLOWED),
        ]
    )
    api.answer("CheckAll", answer, permissions_pb2.CheckAllResponse(permissions=answer.permissions[:1]))
    done = pemba("check", "user:bob", f"workspace:{ENG_ID}", "--all", "-t", TENANT_ID)
    assert (done.code, done.out.split()) == (0, ["PERMISSION", "DECISION", "own", "DENIED", "view", "ALLOWED"])
    assert pemba("check", "user:bob", f"workspace:{ENG_ID}", "--all", "-t", TENANT_ID).code == 1
    resource = types_pb2.ObjectRef(type="workspace", id=ENG_ID)
    assert api.requests[0][1] == permissions_pb2.CheckAllRequest(tenant_id=TENANT_ID, resource=resource, subject=BOB)


@pytest.mark.parametrize("arguments", [("user:bob", "view"), ("user:bob", "view", f"workspace:{ENG_ID}", "--all")])
def test_a_check_with_too_few_or_too_many_arguments_names_what_is_wrong(pemba, api, arguments):
    done = pemba("check", *arguments, "-t", TENANT_ID)
    assert done.code == 2
    assert "RESOURCE" in done.err
    assert not api.requests


def stream(*messages, then=None):
    """What a fake answers with: these messages, then the end or an error."""

    def answer(context):
        yield from messages
        if then is not None:
            context.abort(then, "cut off")

    return answer


FOUND = permissions_pb2.LookupResourcesResponse(
    resource=types_pb2.ObjectRef(type="workspace", id=ENG_ID), decision=permissions_pb2.DECISION_ALLOWED, cursor="c1"
)


def not_allowed(context):
    """Who looks something up need not be allowed to list workspaces."""
    context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")


def test_a_lookup_of_objects_asks_for_the_type_and_goes_on_at_a_cursor(pemba, api):
    api.answer("LookupResources", stream(permissions_pb2.LookupResourcesResponse(token="t1"), FOUND))
    api.answer("GetWorkspace", not_allowed)
    done = pemba("lookup", "resources", "user:bob", "edit", "-t", TENANT_ID, "--limit", "5", "--cursor", "c0")
    assert (done.code, done.out.split()) == (0, ["RESOURCE", "DECISION", f"workspace:{ENG_ID}", "ALLOWED"])
    assert api.requests[0][1] == permissions_pb2.LookupResourcesRequest(
        tenant_id=TENANT_ID, type="workspace", permission="edit", subject=BOB, limit=5, cursor="c0"
    )


def test_workspaces_that_are_found_are_named_by_path_where_that_is_known(pemba, api):
    root = workspaces_pb2.Workspace(id=ROOT_ID, tenant_id=TENANT_ID)
    ids = (ROOT_ID, BACKEND_ID, "ws_01h455vb4pex5vsknk084sn02z")
    found = [types_pb2.ObjectRef(type="workspace", id=id_) for id_ in ids]
    items = [permissions_pb2.LookupResourcesResponse(resource=ref, decision=1) for ref in found]
    api.answer("LookupResources", stream(permissions_pb2.LookupResourcesResponse(token="t1"), *items))
    api.answer("GetWorkspace", workspaces_pb2.GetWorkspaceResponse(workspace=root))
    api.answer("ListWorkspaces", workspaces_pb2.ListWorkspacesResponse(workspaces=[ENG, BACKEND]))
    done = pemba("lookup", "resources", "user:bob", "edit", "-t", TENANT_ID)
    assert [line.split()[0] for line in done.out.splitlines()[1:]] == [
        "workspace:/",
        "workspace:eng/backend",
        f"workspace:{ids[2]}",
    ]


def test_a_lookup_as_json_has_the_cursor_of_each_item_and_one_token(pemba, api):
    api.answer("LookupResources", stream(permissions_pb2.LookupResourcesResponse(token="t1"), FOUND))
    done = pemba("lookup", "resources", "user:bob", "edit", "-t", TENANT_ID, "-o", "json")
    told = json.loads(done.out)
    assert (told["token"], told["reason"]) == ("t1", "ERROR_REASON_UNSPECIFIED")
    assert told["resources"] == [
        {
            "resource": {"type": "workspace", "id": ENG_ID},
            "decision": "DECISION_ALLOWED",
            "missing_context": [],
            "cursor": "c1",
        }
    ]


def test_a_lookup_of_subjects_says_why_nothing_is_listed(pemba, api):
    suspended = permissions_pb2.LookupSubjectsResponse(reason=errors_pb2.ERROR_REASON_TENANT_SUSPENDED)
    api.answer("LookupSubjects", stream(suspended))
    done = pemba("lookup", "subjects", f"workspace:{ENG_ID}", "view", "-t", TENANT_ID)
    assert (done.code, done.out.split()) == (0, ["SUBJECT", "DECISION"])
    assert "TENANT_SUSPENDED" in done.err
    assert api.requests[0][1].subject_type == "user"


def test_a_lookup_that_is_cut_off_prints_nothing_of_what_came(pemba, api):
    first = permissions_pb2.LookupResourcesResponse(token="t1")
    api.answer("LookupResources", stream(first, FOUND, then=grpc.StatusCode.INTERNAL))
    done = pemba("lookup", "resources", "user:bob", "view", "-t", TENANT_ID)
    assert (done.code, done.out) == (3, "")


def test_a_list_by_permission_sends_what_was_asked_for_and_leaves_the_parent_open(pemba, api):
    api.answer("ListWorkspaces", workspaces_pb2.ListWorkspacesResponse(workspaces=[ENG]))
    done = pemba(
        *("workspace", "list", "-r", "-t", TENANT_ID, "--subject", "user:bob", "--permission", "edit"),
        *("--order-by", "name desc", "--filter", "name:eng"),
    )
    assert done.code == 0
    request = api.requests[0][1]
    assert (request.parent_id, request.subject, request.permission) == ("", BOB, "edit")
    assert (request.order_by, request.filter, request.recursive) == ("name desc", "name:eng", True)


def test_who_has_access_is_listed_with_the_roles_that_give_it(pemba, api):
    grant = memberships_pb2.Grant(object=types_pb2.ObjectRef(type="tenant", id=TENANT_ID), role=types_pb2.ROLE_ADMIN)
    member = memberships_pb2.EffectiveMember(subject=BOB, permission="own", through=[grant])
    api.answer("ListEffectiveMembers", memberships_pb2.ListEffectiveMembersResponse(effective_members=[member]))
    done = pemba("member", "effective", f"workspace:{ENG_ID}", "-t", TENANT_ID)
    assert done.out.split()[3:] == ["user:bob", "own", "admin", "of", f"tenant:{TENANT_ID}"]
    assert api.requests[0][1].permission == "view"
