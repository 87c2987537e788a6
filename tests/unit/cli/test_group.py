"""`pemba group`: what it sends, and how it prints what comes back."""

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from pemba.v1 import groups_pb2, memberships_pb2, types_pb2

TENANT_ID = "ten_01h455vb4pex5vsknk084sn02q"
TEAM_ID = "grp_01h455vb4pex5vsknk084sn02s"
OTHER_ID = "grp_01h455vb4pex5vsknk084sn02t"
THEN = Timestamp(seconds=1_700_000_000)
TEAM = groups_pb2.Group(id=TEAM_ID, tenant_id=TENANT_ID, slug="a-team", name="A Team", create_time=THEN)
OTHER = groups_pb2.Group(id=OTHER_ID, tenant_id=TENANT_ID, slug="b-team", name="B", create_time=THEN)
ALICE = types_pb2.SubjectRef(type="user", id="alice")
IN_TENANT = ("--tenant", TENANT_ID)
NAMED = {"tenant_id": TENANT_ID, "group_id": TEAM_ID}


def sent(api):
    return api.requests[-1]


def member(subject, **given):
    return groups_pb2.GroupMember(tenant_id=TENANT_ID, group_id=TEAM_ID, subject=subject, join_time=THEN, **given)


def group_ref(id_, relation=""):
    return types_pb2.SubjectRef(type="group", id=id_, relation=relation)


def test_create_is_called_as_its_slug_where_no_name_is_given(pemba, api):
    api.answer("CreateGroup", groups_pb2.CreateGroupResponse(group=TEAM))
    done = pemba("group", "create", "a-team", "--external-id", "okta-1", *IN_TENANT)
    assert done.code == 0
    assert sent(api) == (
        "CreateGroup",
        groups_pb2.CreateGroupRequest(tenant_id=TENANT_ID, slug="a-team", name="a-team", external_id="okta-1"),
    )
    assert done.out.splitlines()[1].split()[0] == "a-team"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (TEAM_ID, {"group_id": TEAM_ID}),
        ("a-team", {"slug": "a-team"}),
        ("group:a-team", {"slug": "a-team"}),
        (f"group:{TEAM_ID}", {"group_id": TEAM_ID}),
    ],
)
def test_a_group_is_named_by_slug_or_id(pemba, api, text, named):
    api.answer("GetGroup", groups_pb2.GetGroupResponse(group=TEAM))
    assert pemba("group", "get", text, *IN_TENANT).code == 0
    assert sent(api) == ("GetGroup", groups_pb2.GetGroupRequest(tenant_id=TENANT_ID, **named))


def test_list_passes_member_and_filter_on(pemba, api):
    api.answer("ListGroups", groups_pb2.ListGroupsResponse(groups=[TEAM, OTHER]))
    done = pemba("group", "list", "--member", "user:alice", "--filter", "name:team", *IN_TENANT)
    assert (sent(api)[1].member, sent(api)[1].filter) == (ALICE, "name:team")
    assert [line.split()[0] for line in done.out.splitlines()[1:]] == ["a-team", "b-team"]


def test_update_changes_what_is_given_and_an_empty_text_takes_away(pemba, api):
    api.answer("UpdateGroup", groups_pb2.UpdateGroupResponse(group=TEAM))
    pemba("group", "update", TEAM_ID, "--external-id", "", "--etag", "4", *IN_TENANT)
    assert sent(api)[1] == groups_pb2.UpdateGroupRequest(**NAMED, external_id="", etag="4")
    assert "--name or --external-id is missing" in pemba("group", "update", TEAM_ID, *IN_TENANT).err


def test_delete(pemba, api):
    api.answer("GetGroup", groups_pb2.GetGroupResponse(group=TEAM))
    api.answer("DeleteGroup", groups_pb2.DeleteGroupResponse(group=TEAM, token="t2"))
    done = pemba("group", "delete", "a-team", "--etag", "4", "--output", "token", *IN_TENANT)
    assert (done.out.strip(), sent(api)[1]) == ("t2", groups_pb2.DeleteGroupRequest(**NAMED, etag="4"))


def test_add_takes_users_and_groups_by_slug(pemba, api):
    api.answer("AddGroupMember", groups_pb2.AddGroupMemberResponse(group_member=member(ALICE, manager=True)))
    done = pemba("group", "add", TEAM_ID, "user:alice", "--manager", *IN_TENANT)
    assert sent(api)[1] == groups_pb2.AddGroupMemberRequest(**NAMED, subject=ALICE, manager=True)
    assert done.out.splitlines()[1].split() == ["user:alice", "yes", "2023-11-14", "22:13:20Z"]
    api.answer("GetGroup", groups_pb2.GetGroupResponse(group=OTHER))
    api.answer("AddGroupMember", groups_pb2.AddGroupMemberResponse(group_member=member(group_ref(OTHER_ID))))
    pemba("group", "add", TEAM_ID, "group:b-team", *IN_TENANT)
    assert sent(api)[1] == groups_pb2.AddGroupMemberRequest(**NAMED, subject=group_ref(OTHER_ID))


def test_remove(pemba, api):
    api.answer("RemoveGroupMember", groups_pb2.RemoveGroupMemberResponse())
    assert pemba("group", "remove", TEAM_ID, "user:alice", "--allow-missing", *IN_TENANT).code == 0
    assert sent(api)[1] == groups_pb2.RemoveGroupMemberRequest(**NAMED, subject=ALICE, allow_missing=True)


def test_set_names_all_members_managers_too(pemba, api):
    api.answer("SetGroupMembers", groups_pb2.SetGroupMembersResponse(group=TEAM))
    pemba("group", "set", TEAM_ID, "user:bob", f"group:{OTHER_ID}", "--manager", "user:alice", *IN_TENANT)
    assert [(m.subject.id, m.manager) for m in sent(api)[1].members] == [
        ("alice", True), ("bob", False), (OTHER_ID, False),
    ]  # fmt: skip


def test_set_empties_a_group_by_empty_alone(pemba, api):
    for arguments in ((), ("user:bob", "--empty")):
        done = pemba("group", "set", TEAM_ID, *arguments, *IN_TENANT)
        assert (done.code, "--empty" in done.err) == (2, True)
    assert not api.requests
    api.answer("SetGroupMembers", groups_pb2.SetGroupMembersResponse(group=TEAM))
    assert pemba("group", "set", TEAM_ID, "--empty", *IN_TENANT).code == 0
    assert sent(api)[1] == groups_pb2.SetGroupMembersRequest(**NAMED)


def test_members_are_listed_groups_by_their_slugs(pemba, api):
    members = [member(group_ref(OTHER_ID, "member")), member(ALICE, manager=True)]
    api.answer("ListGroupMembers", groups_pb2.ListGroupMembersResponse(group_members=members))
    api.answer("ListGroups", groups_pb2.ListGroupsResponse(groups=[OTHER]))
    done = pemba("group", "members", TEAM_ID, *IN_TENANT)
    assert [line.split()[0] for line in done.out.splitlines()] == ["SUBJECT", "group:b-team", "user:alice"]


def test_a_group_gets_a_role_by_its_slug(pemba, api):
    membership = memberships_pb2.Membership(subject=group_ref(TEAM_ID, "member"), role=types_pb2.ROLE_ADMIN)
    api.answer("GetGroup", groups_pb2.GetGroupResponse(group=TEAM))
    api.answer("SetRole", memberships_pb2.SetRoleResponse(membership=membership))
    done = pemba("member", "set", f"tenant:{TENANT_ID}", "group:a-team", "admin", *IN_TENANT)
    assert sent(api)[1].subject == group_ref(TEAM_ID)
    assert f"group:{TEAM_ID}#member" in done.out


def test_who_has_access_through_a_group_is_told_its_slug(pemba, api):
    grants = [
        memberships_pb2.Grant(object=types_pb2.ObjectRef(type="tenant", id=TENANT_ID), role=types_pb2.ROLE_ADMIN),
        memberships_pb2.Grant(
            object=types_pb2.ObjectRef(type="tenant", id=TENANT_ID), role=types_pb2.ROLE_MEMBER, group_id=TEAM_ID
        ),
    ]
    who = memberships_pb2.EffectiveMember(subject=ALICE, permission="administer", through=grants)
    api.answer("ListEffectiveMembers", memberships_pb2.ListEffectiveMembersResponse(effective_members=[who]))
    api.answer("ListGroups", groups_pb2.ListGroupsResponse(groups=[TEAM]))
    done = pemba("member", "effective", f"tenant:{TENANT_ID}", *IN_TENANT)
    assert done.out.splitlines()[1].endswith(
        f"admin of tenant:{TENANT_ID}, member of tenant:{TENANT_ID} by group:a-team"
    )
