"""MembershipService: shapes in, records out."""

import pytest

from pemba.model import ObjectRef as ModelObject
from pemba.model import Role
from pemba.model import SubjectRef as ModelSubject
from pemba.service.role_change import RoleAssignment as Assignment
from pemba.v1.memberships_pb2 import (
    GetMembershipRequest,
    ListMembersRequest,
    RemoveMemberRequest,
    RoleAssignment,
    SetRoleRequest,
    SetRolesRequest,
    TransferOwnershipRequest,
)
from pemba.v1.types_pb2 import ROLE_ADMIN, ROLE_OWNER, ROLE_UNSPECIFIED, ROLE_VIEWER, ObjectRef, SubjectRef

TENANT_ID = "ten_01kafa7q0ve8x9m1t2b3c4d5e6"
WORKSPACE_ID = "ws_01kafa7q0ve8x9m1t2b3c4d5e6"
KEY_ID = "key_01kafa7q0ve8x9m1t2b3c4d5e6"
GROUP_ID = "grp_01kafa7q0ve8x9m1t2b3c4d5e6"
TENANT = ObjectRef(type="tenant", id=TENANT_ID)
WORKSPACE = ObjectRef(type="workspace", id=WORKSPACE_ID)
ALICE = SubjectRef(type="user", id="alice")
NAMED = {"tenant_id": TENANT_ID, "object": WORKSPACE, "subject": ALICE}


async def test_a_role_is_set_and_told(running):
    response = await running.call("SetRole", SetRoleRequest(**NAMED, role=ROLE_OWNER, etag="e1"))
    options = running.memberships.calls[0].options
    assert (options["object"], options["subject"], options["role"], options["options"].etag) == (
        ModelObject("workspace", WORKSPACE_ID),
        ModelSubject("user", "alice"),
        Role.OWNER,
        "e1",
    )
    membership = response.membership
    assert (membership.tenant_id, membership.object, membership.subject) == (TENANT_ID, WORKSPACE, ALICE)
    assert (membership.role, membership.invited_by, membership.etag) == (ROLE_ADMIN, "bob", "e1")
    assert membership.join_time.ToJsonString() == "2026-11-21T09:30:00Z"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"role": ROLE_UNSPECIFIED}, "role"),
        ({"role": 99}, "role"),
        ({"object": TENANT, "role": ROLE_OWNER}, "role"),
        ({"object": TENANT, "role": ROLE_VIEWER}, "role"),
        ({"object": ObjectRef(type="group", id=GROUP_ID)}, "object.type"),
        ({"object": ObjectRef(type="workspace", id="root")}, "object.id"),
        ({"subject": SubjectRef(type="group", id=GROUP_ID), "role": ROLE_OWNER}, "role"),
        ({"subject": SubjectRef(type="group", id="staff")}, "subject.id"),
        ({"subject": SubjectRef(type="group", id=GROUP_ID, relation="manager")}, "subject.relation"),
        ({"subject": SubjectRef(type="api_key", id=KEY_ID), "role": ROLE_OWNER}, "role"),
        ({"subject": SubjectRef(type="api_key", id="ci")}, "subject.id"),
        ({"subject": SubjectRef(type="api_key", id=KEY_ID, relation="member")}, "subject.relation"),
        ({"subject": SubjectRef(type="user", id="")}, "subject.id"),
        ({"tenant_id": WORKSPACE_ID}, "tenant_id"),
    ],
    ids=str,
)
async def test_a_role_that_cannot_be_is_refused_by_field(running, changes, field):
    refusal = await running.refusal("SetRole", SetRoleRequest(**NAMED | {"role": ROLE_ADMIN} | changes))
    assert list(refusal.violations) == [field]
    assert not running.memberships.calls


async def test_several_roles_are_set_in_their_order(running):
    request = SetRolesRequest(
        tenant_id=TENANT_ID,
        assignments=[
            RoleAssignment(object=WORKSPACE, subject=ALICE, role=ROLE_VIEWER),
            RoleAssignment(object=TENANT, subject=ALICE, role=ROLE_ADMIN),
        ],
    )
    response = await running.call("SetRoles", request)
    subject = ModelSubject("user", "alice")
    assert running.memberships.calls[0].options["assignments"] == [
        Assignment(ModelObject("workspace", WORKSPACE_ID), subject, Role.VIEWER),
        Assignment(ModelObject("tenant", TENANT_ID), subject, Role.ADMIN),
    ]
    assert (len(response.memberships), response.token) == (1, "t2")


async def test_the_assignment_that_is_wrong_is_named_by_its_place(running):
    good = RoleAssignment(object=WORKSPACE, subject=ALICE, role=ROLE_VIEWER)
    bad = RoleAssignment(object=TENANT, subject=ALICE, role=ROLE_VIEWER)
    refusal = await running.refusal("SetRoles", SetRolesRequest(tenant_id=TENANT_ID, assignments=[good, bad]))
    assert list(refusal.violations) == ["assignments[1].role"]


@pytest.mark.parametrize("count", [0, 1001])
async def test_1_to_1000_roles_are_set_at_once(running, count):
    one = RoleAssignment(object=WORKSPACE, subject=ALICE, role=ROLE_VIEWER)
    refusal = await running.refusal("SetRoles", SetRolesRequest(tenant_id=TENANT_ID, assignments=[one] * count))
    assert refusal.violations == {"assignments": "takes 1 to 1000"}


async def test_a_membership_is_got(running):
    response = await running.call("GetMembership", GetMembershipRequest(**NAMED))
    assert (response.membership.subject, response.token) == (ALICE, "t1")


async def test_removing_what_is_not_there_answers_without_a_membership(running):
    response = await running.call("RemoveMember", RemoveMemberRequest(**NAMED, allow_missing=True, transfer_to="bob"))
    options = running.memberships.calls[0].options
    assert (options["allow_missing"], options["transfer_to"]) == (True, "bob")
    assert not response.HasField("membership")


@pytest.mark.parametrize("relation", ["", "member"])
async def test_a_group_is_named_with_or_without_its_relation(running, relation):
    named = NAMED | {"subject": SubjectRef(type="group", id=GROUP_ID, relation=relation)}
    await running.call("SetRole", SetRoleRequest(**named, role=ROLE_ADMIN))
    await running.call("GetMembership", GetMembershipRequest(**named))
    await running.call("RemoveMember", RemoveMemberRequest(**named))
    assert [call.options["subject"] for call in running.memberships.calls] == [
        ModelSubject("group", GROUP_ID, "member")
    ] * 3


async def test_ownership_goes_from_one_user_to_another(running):
    request = TransferOwnershipRequest(tenant_id=TENANT_ID, object=WORKSPACE, from_user="alice", to_user="bob")
    await running.call("TransferOwnership", request)
    options = running.memberships.calls[0].options
    assert (options["from_user"], options["to_user"]) == ("alice", "bob")


async def test_ownership_is_the_acting_users_own_where_nobody_is_named(running):
    request = TransferOwnershipRequest(tenant_id=TENANT_ID, object=WORKSPACE, to_user="bob")
    await running.call("TransferOwnership", request, ("pemba-on-behalf-of", "user:alice"))
    assert running.memberships.calls[0].options["from_user"] == "alice"
    assert list((await running.refusal("TransferOwnership", request)).violations) == ["from_user"]


async def test_a_tenant_has_no_owner_to_transfer(running):
    request = TransferOwnershipRequest(tenant_id=TENANT_ID, object=TENANT, from_user="alice", to_user="bob")
    assert list((await running.refusal("TransferOwnership", request)).violations) == ["object.type"]


async def test_members_are_listed(running):
    request = ListMembersRequest(tenant_id=TENANT_ID, object=TENANT, page_size=7)
    response = await running.call("ListMembers", request)
    options = running.memberships.calls[0].options
    assert options == {"object": ModelObject("tenant", TENANT_ID), "page_size": 7, "page_token": ""}
    assert [m.subject for m in response.memberships] == [ALICE]
    refusal = await running.refusal("ListMembers", ListMembersRequest(tenant_id=TENANT_ID, object=TENANT, filter="x"))
    assert list(refusal.violations) == ["filter"]
