"""`max_users_per_tenant`: how many users may have roles in one tenant."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from pemba.errors import PreconditionFailed, Reason
from pemba.model import ObjectRef, Role, SubjectRef, UserId
from pemba.service.groups import GroupService
from pemba.service.memberships import MembershipService
from pemba.service.mutation import Mutations
from pemba.service.refusals import Refusals
from pemba.service.role_change import RoleAssignment
from pemba.service.user_workspace import FirstWorkspace
from pemba.service.users import UserService
from pemba.service.workspaces import WorkspaceService
from tests.integration.conftest import Parts


def limited(parts: Parts, users: int) -> Parts:
    """The services, with so many users a tenant."""
    mutations = Mutations(
        parts.database, parts.signer, parts.mutations.wakeup, Refusals(parts.database), max_users_per_tenant=users
    )
    return replace(
        parts,
        mutations=mutations,
        workspaces=WorkspaceService(mutations),
        memberships=MembershipService(mutations),
        groups=GroupService(mutations),
        users=UserService(mutations),
    )


@pytest.fixture
def three(parts: Parts) -> Parts:
    return limited(parts, 3)


async def test_i1_a_tenant_takes_no_user_more_than_its_limit_by_whatever_role(three: Parts) -> None:
    tenant, root = await three.tenant()
    eng = await three.workspace(root, "eng", owner="bob")
    await three.role(root, "carol", Role.VIEWER)
    first = FirstWorkspace(tenant.id)
    registration = {"email": "", "display_name": "", "first_workspace": first, "options": three.options()}
    for refused in (
        three.role(tenant, "dave", Role.MEMBER),
        three.role(eng, "dave", Role.VIEWER),
        three.workspace(root, "ops", owner="dave"),
        three.users.create_user(three.system, UserId("dave"), **registration),
    ):
        with pytest.raises(PreconditionFailed) as full:
            await refused
        assert full.value.reason is Reason.TOO_MANY_USERS
        assert full.value.metadata == {"limit": "3"}
    assert await three.sql("SELECT FROM memberships WHERE user_id = 'dave'") == []
    other, _ = await three.tenant()
    await three.role(other, "dave", Role.MEMBER)


async def test_who_is_in_the_tenant_gets_further_roles_and_who_leaves_makes_room(three: Parts) -> None:
    tenant, root = await three.tenant()
    eng = await three.workspace(root, "eng", owner="bob")
    await three.role(tenant, "carol", Role.MEMBER)
    await three.role(eng, "carol", Role.MEMBER)
    await three.remove(eng, "bob", transfer_to="dave")  # one goes, one comes
    await three.remove(tenant, "carol")
    await three.role(tenant, "erin", Role.MEMBER)


async def test_where_a_limit_was_lowered_those_who_are_there_stay_and_change(three: Parts) -> None:
    tenant, root = await three.tenant()
    for user in ("bob", "carol"):
        await three.role(tenant, user, Role.MEMBER)
    one = limited(three, 1)
    await one.role(root, "bob", Role.VIEWER)
    await one.role(tenant, "bob", Role.ADMIN)
    with pytest.raises(PreconditionFailed):
        await one.role(tenant, "dave", Role.MEMBER)


async def test_many_roles_at_once_are_counted_together_and_of_two_at_once_one_finds_room(three: Parts) -> None:
    tenant, root = await three.tenant()
    four = [RoleAssignment(ObjectRef("workspace", root.id), SubjectRef("user", user), Role.VIEWER) for user in "bcd"]
    options = three.options("SetRoles")
    with pytest.raises(PreconditionFailed):
        await three.memberships.set_roles(three.system, tenant.id, assignments=four, options=options)
    await three.role(tenant, "bob", Role.MEMBER)
    outcomes = await asyncio.gather(
        *(three.role(tenant, user, Role.MEMBER) for user in ("carol", "dave", "erin")), return_exceptions=True
    )
    assert [isinstance(o, PreconditionFailed) for o in outcomes].count(True) == 2


async def test_who_is_in_a_group_takes_room_as_who_has_a_role_does(three: Parts) -> None:
    tenant, root = await three.tenant()
    team = await three.group(tenant, "team", "bob")
    await three.role(root, "carol", Role.VIEWER)
    for refused in (three.join(team, "dave"), three.role(tenant, "dave", Role.MEMBER)):
        with pytest.raises(PreconditionFailed) as full:
            await refused
        assert full.value.reason is Reason.TOO_MANY_USERS
    await three.join(team, "carol")
    await three.role(tenant, "bob", Role.MEMBER)
    await three.leave(team, "bob")
    await three.remove(tenant, "bob")
    await three.join(team, "dave")


async def test_no_limit_is_no_limit(parts: Parts) -> None:
    tenant, _ = await parts.tenant()
    for n in range(5):
        await parts.role(tenant, f"user-{n}", Role.MEMBER)
