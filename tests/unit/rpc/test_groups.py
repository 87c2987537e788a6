"""GroupService: shapes in, records out."""

import pytest

from pemba.model import SubjectRef as ModelSubject
from pemba.service.groups import MAX_SET_MEMBERS, GroupSearch
from pemba.service.workspace_search import TextMatch
from pemba.v1.groups_pb2 import (
    AddGroupMemberRequest,
    CreateGroupRequest,
    DeleteGroupRequest,
    GetGroupRequest,
    GroupMemberAssignment,
    ListGroupMembersRequest,
    ListGroupsRequest,
    RemoveGroupMemberRequest,
    SetGroupMembersRequest,
    UpdateGroupRequest,
)
from pemba.v1.types_pb2 import SubjectRef
from tests.unit.rpc.conftest import GROUP_ID, TENANT_ID

OTHER_ID = "grp_01kafa7q0ve8x9m1t2b3c4d5e7"
NAMED = {"tenant_id": TENANT_ID, "group_id": GROUP_ID}
ALICE = SubjectRef(type="user", id="alice")
OTHER = SubjectRef(type="group", id=OTHER_ID)


async def test_a_group_is_created_and_told(running):
    request = CreateGroupRequest(tenant_id=TENANT_ID, slug="a-team", name="A Team", external_id="okta-1")
    response = await running.call("CreateGroup", request)
    options = running.groups.calls[0].options
    assert (options["slug"], options["name"], options["external_id"]) == ("a-team", "A Team", "okta-1")
    group = response.group
    assert (group.id, group.tenant_id, group.slug, group.name) == (GROUP_ID, TENANT_ID, "a-team", "A Team")
    assert (group.external_id, group.etag) == ("okta-1", "e1")
    assert group.create_time.ToJsonString() == "2026-11-21T09:30:00Z"


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        ({"slug": "A Team"}, "slug", "INVALID_FIELD"),
        ({"slug": "admin"}, "slug", "SLUG_RESERVED"),
        ({"name": ""}, "name", "INVALID_FIELD"),
        ({"external_id": "x" * 257}, "external_id", "INVALID_FIELD"),
        ({"external_id": " x"}, "external_id", "INVALID_FIELD"),
        ({"tenant_id": GROUP_ID}, "tenant_id", "INVALID_FIELD"),
    ],
    ids=str,
)
async def test_a_group_that_cannot_be_is_refused_by_field(running, changes, field, reason):
    good = {"tenant_id": TENANT_ID, "slug": "a-team", "name": "A Team"}
    refusal = await running.refusal("CreateGroup", CreateGroupRequest(**good | changes))
    assert (list(refusal.violations), refusal.reason) == ([field], reason)
    assert not running.groups.calls


@pytest.mark.parametrize(
    ("named", "by", "value"),
    [
        ({"group_id": GROUP_ID}, "id", GROUP_ID),
        ({"slug": "a-team"}, "slug", "a-team"),
        ({"external_id": "okta 1"}, "external_id", "okta 1"),
    ],
    ids=str,
)
async def test_a_group_is_got_by_id_slug_or_external_id(running, named, by, value):
    response = await running.call("GetGroup", GetGroupRequest(tenant_id=TENANT_ID, **named))
    assert running.groups.calls[0].options == {"by": by, "value": value}
    assert (response.group.id, response.token) == (GROUP_ID, "t1")


@pytest.mark.parametrize(
    ("named", "field"),
    [
        ({}, "group_id"),
        ({"group_id": TENANT_ID}, "group_id"),
        ({"slug": "-"}, "slug"),
        ({"external_id": ""}, "external_id"),
    ],
    ids=str,
)
async def test_a_group_that_is_not_named_is_refused_by_field(running, named, field):
    refusal = await running.refusal("GetGroup", GetGroupRequest(tenant_id=TENANT_ID, **named))
    assert list(refusal.violations) == [field]


async def test_groups_are_listed_by_member_and_text(running):
    request = ListGroupsRequest(
        tenant_id=TENANT_ID, member=OTHER, filter='name:"team" AND external_id=okta-1', page_size=7
    )
    response = await running.call("ListGroups", request)
    assert running.groups.calls[0].options["search"] == GroupSearch(
        ModelSubject("group", OTHER_ID, "member"),
        (TextMatch("name", "team", whole=False), TextMatch("external_id", "okta-1", whole=True)),
    )
    assert ([group.id for group in response.groups], response.next_page_token) == ([GROUP_ID], "next")
    for wrong, field in (({"order_by": "name"}, "order_by"), ({"filter": "size=3"}, "filter")):
        refusal = await running.refusal("ListGroups", ListGroupsRequest(tenant_id=TENANT_ID, **wrong))
        assert list(refusal.violations) == [field]


async def test_what_is_set_changes_and_an_empty_external_id_is_none(running):
    await running.call("UpdateGroup", UpdateGroupRequest(**NAMED, external_id="", etag="e1"))
    options = running.groups.calls[0].options
    assert (options["name"], options["external_id"], options["options"].etag) == (None, "", "e1")
    refusal = await running.refusal("UpdateGroup", UpdateGroupRequest(**NAMED, update_mask={"paths": ["slug"]}))
    assert list(refusal.violations) == ["update_mask"]


async def test_a_group_is_deleted(running):
    response = await running.call("DeleteGroup", DeleteGroupRequest(**NAMED, etag="e1"))
    assert running.groups.calls[0].arguments[1:] == (TENANT_ID, GROUP_ID)
    assert (response.group.id, response.token) == (GROUP_ID, "t2")


async def test_a_member_comes_and_goes(running):
    added = await running.call("AddGroupMember", AddGroupMemberRequest(**NAMED, subject=ALICE, manager=True))
    options = running.groups.calls[0].options
    assert (options["subject"], options["manager"]) == (ModelSubject("user", "alice"), True)
    member = added.group_member
    assert (member.tenant_id, member.group_id, member.subject) == (TENANT_ID, GROUP_ID, ALICE)
    assert (member.manager, member.added_by) == (True, "bob")
    removed = await running.call(
        "RemoveGroupMember", RemoveGroupMemberRequest(**NAMED, subject=OTHER, allow_missing=True)
    )
    options = running.groups.calls[1].options
    assert (options["subject"], options["allow_missing"]) == (ModelSubject("group", OTHER_ID, "member"), True)
    assert not removed.HasField("group_member")


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"subject": OTHER, "manager": True}, "manager"),
        ({"subject": SubjectRef(type="api_key", id="key_01kafa7q0ve8x9m1t2b3c4d5e6"), "manager": True}, "manager"),
        ({"subject": SubjectRef(type="user", id="")}, "subject.id"),
        ({"subject": SubjectRef(type="workspace", id="x")}, "subject.type"),
    ],
    ids=str,
)
async def test_a_member_that_cannot_be_is_refused_by_field(running, given, field):
    refusal = await running.refusal("AddGroupMember", AddGroupMemberRequest(**NAMED, **given))
    assert list(refusal.violations) == [field]


async def test_a_whole_list_is_set(running):
    members = [GroupMemberAssignment(subject=ALICE, manager=True), GroupMemberAssignment(subject=OTHER)]
    await running.call("SetGroupMembers", SetGroupMembersRequest(**NAMED, members=members, etag="e1"))
    options = running.groups.calls[0].options
    assert options["members"] == {ModelSubject("user", "alice"): True, ModelSubject("group", OTHER_ID, "member"): False}
    assert options["options"].etag == "e1"


async def test_what_is_wrong_in_a_list_is_named_by_its_place(running):
    twice = [
        GroupMemberAssignment(subject=OTHER),
        GroupMemberAssignment(subject=SubjectRef(type="group", id=OTHER_ID, relation="member")),
        GroupMemberAssignment(subject=SubjectRef(type="group", id=GROUP_ID), manager=True),
    ]
    refusal = await running.refusal("SetGroupMembers", SetGroupMembersRequest(**NAMED, members=twice))
    assert list(refusal.violations) == ["members[1].subject", "members[2].manager"]
    many = [GroupMemberAssignment(subject=ALICE)] * (MAX_SET_MEMBERS + 1)
    refusal = await running.refusal("SetGroupMembers", SetGroupMembersRequest(**NAMED, members=many))
    assert refusal.violations == {"members": "takes at most 10000"}


async def test_members_are_listed(running):
    response = await running.call("ListGroupMembers", ListGroupMembersRequest(**NAMED, page_size=7))
    assert running.groups.calls[0].options == {"page_size": 7, "page_token": ""}
    assert [member.subject for member in response.group_members] == [ALICE]
