"""The rules of groups: who is in them, what follows from it, and what goes when they, or those in them, go."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from pemba.errors import PembaError, Reason
from pemba.model import MAX_GROUP_DEPTH, ObjectRef, Permission, Role, SubjectRef, TenantScope, UserId
from pemba.service import group_change
from pemba.service.groups import GroupSearch
from pemba.service.role_change import RoleAssignment
from pemba.service.workspace_search import Search, TextMatch
from pemba.storage import authority, journal
from tests.integration.conftest import Parts, subject
from tests.integration.instruments import Gate, counted_statements, one_behind_the_other


async def refusal(call) -> Reason:
    with pytest.raises(PembaError) as refused:
        await call
    return refused.value.reason


def reason(outcome: object) -> Reason | None:
    return outcome.reason if isinstance(outcome, PembaError) else None


async def told(parts: Parts, tenant, about: str = "group:") -> set[str]:
    """The tuples that the tenant's stream comes to, those with `about` in them, without the tenant's id."""
    found: set[str] = set()
    for row in await parts.sql("SELECT ops FROM outbox WHERE tenant_id = $1 ORDER BY seq", tenant.id):
        for operation in row["ops"]:
            (found.add if operation["op"] == "touch" else found.discard)(operation["tuple"])
    return {text for text in (t.replace(f"{tenant.id}/", "") for t in found) if about in text}


async def set_members(parts: Parts, group, members: dict, caller=None, **options):
    return await parts.groups.set_group_members(
        caller or parts.system,
        group.tenant_id,
        group.id,
        members={subject(member): manager for member, manager in members.items()},
        options=parts.options("SetGroupMembers", **options),
    )


async def listed(parts: Parts, group, caller=None, size: int = 100) -> list[tuple[str, bool]]:
    found, page_token = [], ""
    while True:
        page = await parts.groups.list_group_members(
            caller or parts.system, group.tenant_id, group.id, page_size=size, page_token=page_token
        )
        found += [(str(member.subject), member.manager) for member in page.records]
        page_token = page.next_page_token
        if not page_token:
            return found


async def delete(parts: Parts, group, caller=None, **options):
    return await parts.groups.delete_group(
        caller or parts.system, group.tenant_id, group.id, options=parts.options("DeleteGroup", **options)
    )


async def update(parts: Parts, group, caller=None, *, name=None, external_id=None, **options):
    return await parts.groups.update_group(
        caller or parts.system,
        group.tenant_id,
        group.id,
        name=name,
        external_id=external_id,
        options=parts.options("UpdateGroup", **options),
    )


async def get(parts: Parts, group, caller=None, by: str = "id", value: str = ""):
    found = await parts.groups.get_group(caller or parts.system, group.tenant_id, by=by, value=value or group.id)
    return found.record


async def slugs(parts: Parts, tenant, caller=None, size: int = 100, **search) -> list[str]:
    found, page_token = [], ""
    while True:
        page = await parts.groups.list_groups(
            caller or parts.system, tenant.id, search=GroupSearch(**search), page_size=size, page_token=page_token
        )
        found += [group.slug for group in page.records]
        page_token = page.next_page_token
        if not page_token:
            return found


async def held(parts: Parts, workspace, user: str) -> Permission | None:
    async with parts.database.begin(TenantScope(workspace.tenant_id)) as tx:
        return await authority.on_workspace(tx, UserId(user), workspace.id)


async def with_access(parts: Parts, workspace) -> dict[str, list[tuple]]:
    """By user, but the first admin: (role, share, group) of each grant."""
    page = await parts.memberships.list_effective_members(
        parts.system,
        workspace.tenant_id,
        object=ObjectRef("workspace", workspace.id),
        permission=Permission.VIEW,
        page_size=100,
        page_token="",
    )
    told = {m.subject.id: [(g.role, g.share_id, g.group_id) for g in m.through] for m in page.records}
    return {user: grants for user, grants in told.items() if user != "alice"}


async def chain(parts: Parts, tenant, length: int) -> list:
    """Groups each in the one before it."""
    made = [await parts.group(tenant, f"level-{n}") for n in range(length)]
    for outer, inner in itertools.pairwise(made):
        await parts.join(outer, inner)
    return made


# -- who is in a group ---------------------------------------------------------------------------------------


async def test_members_come_change_and_go_with_their_tuples(parts: Parts) -> None:
    tenant, _ = await parts.tenant()
    team, sub = await parts.group(tenant, "team"), await parts.group(tenant, "sub")
    joined = await parts.join(team, "bob")
    assert (joined.record.subject, joined.record.manager) == (SubjectRef("user", "bob"), False)
    assert await told(parts, tenant) == {f"group:{team.id}#member@user:bob"}
    managing = await parts.join(team, "bob", manager=True)
    assert managing.record.join_time == joined.record.join_time
    await parts.join(team, sub)
    assert await told(parts, tenant) == {
        f"group:{team.id}#member@user:bob",
        f"group:{team.id}#manager@user:bob",
        f"group:{team.id}#member@group:{sub.id}#member",
    }
    assert await listed(parts, team, size=1) == [(f"group:{sub.id}#member", False), ("user:bob", True)]
    await parts.join(team, "bob")
    await parts.leave(team, sub)
    assert await told(parts, tenant) == {f"group:{team.id}#member@user:bob"}
    gone = await parts.leave(team, "bob")
    assert (gone.record.subject.id, await told(parts, tenant)) == ("bob", set())
    assert await refusal(parts.leave(team, "bob")) is Reason.NOT_FOUND
    assert (await parts.leave(team, "bob", allow_missing=True)).token == ""


async def test_what_is_so_already_changes_nothing_and_the_etag_is_that_of_the_members_too(parts: Parts) -> None:
    tenant, _ = await parts.tenant()
    team = await parts.group(tenant, "team", "bob")
    first = await get(parts, team)
    assert first.etag != team.etag
    again = await parts.join(team, "bob", etag=first.etag)
    assert (again.token, await get(parts, team)) == ("", first)
    assert (await set_members(parts, team, {"bob": False}, etag=first.etag)).token == ""
    await parts.join(team, "carol", etag=first.etag)
    for stale in (
        parts.join(team, "dave", etag=first.etag),
        parts.leave(team, "bob", etag=first.etag),
        set_members(parts, team, {}, etag=first.etag),
        update(parts, team, name="Other", etag=first.etag),
        delete(parts, team, etag=first.etag),
    ):
        assert await refusal(stale) is Reason.ETAG_MISMATCH
    assert await listed(parts, team) == [("user:bob", False), ("user:carol", False)]


async def test_a_whole_list_is_set_at_once_and_who_stays_keeps_the_time_of_joining(parts: Parts) -> None:
    tenant, _ = await parts.tenant()
    sub = await parts.group(tenant, "sub")
    team = await parts.group(tenant, "team", "bob", "carol", sub, manager="dave")
    before = {r["subject_id"]: r["join_time"] for r in await parts.sql("SELECT * FROM group_members")}
    head = len(await parts.operations(tenant))
    answer = await set_members(parts, team, {"bob": True, "dave": False, "erin": False})
    assert parts.signer.positions(answer.token).positions == {tenant.id: head + 1}
    assert answer.record == await get(parts, team)
    assert (await parts.operations(tenant))[-1] == [
        "-manager@user:dave",
        f"-member@group:{sub.id}#member",
        "-member@user:carol",
        "+manager@user:bob",
        "+member@user:erin",
    ]
    assert await listed(parts, team) == [("user:bob", True), ("user:dave", False), ("user:erin", False)]
    after = {r["subject_id"]: r["join_time"] for r in await parts.sql("SELECT * FROM group_members")}
    assert {user: after[user] for user in ("bob", "dave")} == {user: before[user] for user in ("bob", "dave")}
    [row] = await parts.sql("SELECT object, before, after FROM audit WHERE method = 'SetGroupMembers'")
    assert row["object"] == f"group:{team.id}"
    assert sorted(m["subject"]["id"] for m in row["before"]) == sorted(["bob", "carol", "dave", sub.id])
    assert {m["subject"]["id"]: m["manager"] for m in row["after"]} == {"bob": True, "dave": False, "erin": False}


async def test_what_refuses_one_of_a_list_refuses_all_of_it(parts: Parts) -> None:
    tenant, _ = await parts.tenant()
    other, _ = await parts.tenant()
    team, theirs = await parts.group(tenant, "team", "bob"), await parts.group(other, "theirs")
    await parts.deactivate((await parts.join(team, "zoe")).record.subject.id)
    await parts.all_jobs()
    head = len(await parts.operations(tenant))
    assert await refusal(set_members(parts, team, {"carol": False, theirs: False})) is Reason.NOT_FOUND
    assert await refusal(set_members(parts, team, {"carol": False, "zoe": False})) is Reason.USER_DEACTIVATED
    assert await refusal(set_members(parts, team, {"carol": False, team: False})) is Reason.CYCLE
    assert len(await parts.operations(tenant)) == head
    assert await listed(parts, team) == [("user:bob", False)]


async def test_thousands_of_members_are_set_in_a_few_statements_deletes_first(parts: Parts) -> None:
    tenant, _ = await parts.tenant()
    team = await parts.group(tenant, "team")
    await set_members(parts, team, {f"user-{n}": False for n in range(3000)})
    async with counted_statements() as statements:
        await set_members(parts, team, {f"user-{n}": True for n in range(2000, 5000)})
    assert len(statements) < 20
    rows = (await parts.operations(tenant))[-14:]
    assert [len(row) for row in rows] == [500] * 14
    assert [row[0][0] for row in rows] == ["-"] * 4 + ["+"] * 10
    assert len(await parts.sql("SELECT FROM group_members WHERE manager")) == 3000


async def test_validate_only_and_a_replay(parts: Parts) -> None:
    tenant, _ = await parts.tenant()
    team = await parts.group(tenant, "team")
    dry = await parts.join(team, "bob", validate_only=True)
    assert (dry.record.subject.id, dry.token, await listed(parts, team)) == ("bob", "", [])
    first = await parts.join(team, "bob", manager=True, request_id="r1", body_digest=b"x")
    await parts.leave(team, "bob")
    again = await parts.join(team, "bob", manager=True, request_id="r1", body_digest=b"x")
    assert (again.record, again.token, again.replayed) == (first.record, first.token, True)
    assert await listed(parts, team) == []


# -- groups in groups ----------------------------------------------------------------------------------------


async def test_a_group_is_never_in_itself_by_however_many_steps(parts: Parts) -> None:
    tenant, _ = await parts.tenant()
    outer, middle, inner = await chain(parts, tenant, 3)
    for group in (outer, middle, inner):
        assert await refusal(parts.join(inner, group)) is Reason.CYCLE
    assert await refusal(set_members(parts, inner, {"bob": False, outer: False})) is Reason.CYCLE
    await parts.join(outer, inner)  # twice by different ways is no circle
    await parts.leave(middle, inner)
    assert await refusal(parts.join(inner, outer)) is Reason.CYCLE
    await parts.join(inner, middle)


async def test_groups_in_groups_go_ten_levels_deep_counted_along_the_longest_way(parts: Parts) -> None:
    tenant, _ = await parts.tenant()
    line = await chain(parts, tenant, MAX_GROUP_DEPTH)
    one = await parts.group(tenant, "one")
    for too_deep in (parts.join(line[-1], one), parts.join(one, line[0])):
        with pytest.raises(PembaError) as refused:
            await too_deep
        assert (refused.value.reason, refused.value.metadata) == (Reason.TOO_DEEP, {"max_depth": "10"})
    await parts.join(line[-2], one)
    pair = await parts.group(tenant, "pair", await parts.group(tenant, "last"))
    assert await refusal(parts.join(line[-2], pair)) is Reason.TOO_DEEP
    await parts.join(line[-3], pair)
    assert await refusal(parts.join(line[4], line[2])) is Reason.CYCLE


async def test_of_two_opposite_nestings_at_once_one_is_refused(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant, _ = await parts.tenant()
    one, two = await parts.group(tenant, "one"), await parts.group(tenant, "two")
    gate = Gate(monkeypatch, group_change.group_members, "height")  # found no circle, and stored nothing
    outcomes = await one_behind_the_other(parts, gate, parts.join(one, two), lambda: parts.join(two, one))
    assert [reason(o) for o in outcomes] == [None, Reason.CYCLE]
    assert (await listed(parts, one), await listed(parts, two)) == ([(f"group:{two.id}#member", False)], [])


async def test_of_two_nestings_at_once_that_are_too_deep_together_one_is_refused(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant, _ = await parts.tenant()
    line = await chain(parts, tenant, MAX_GROUP_DEPTH - 1)
    above, below = await parts.group(tenant, "above"), await parts.group(tenant, "below")
    gate = Gate(monkeypatch, group_change.group_members, "depth")
    outcomes = await one_behind_the_other(parts, gate, parts.join(above, line[0]), lambda: parts.join(line[-1], below))
    assert [reason(o) for o in outcomes] == [None, Reason.TOO_DEEP]


# -- what a group holds, all in it hold ----------------------------------------------------------------------


async def test_roles_of_a_group_are_those_of_everybody_in_it_by_the_records(parts: Parts) -> None:
    tenant, root = await parts.tenant()
    eng = await parts.workspace(root, "eng")
    outer, _, inner = await chain(parts, tenant, 3)
    await parts.join(inner, "bob")
    given = await parts.role(eng, outer, Role.ADMIN)
    assert given.record.subject == SubjectRef("group", outer.id, "member")
    assert await told(parts, tenant, f"@group:{outer.id}") == {f"workspace:{eng.id}#admin@group:{outer.id}#member"}
    assert (await held(parts, eng, "bob"), await held(parts, root, "bob")) == (Permission.ADMINISTER, None)
    await parts.role(eng, "carol", Role.VIEWER, parts.acting("bob"))
    await parts.role(eng, outer, Role.VIEWER)
    assert await held(parts, eng, "bob") is Permission.VIEW
    await parts.role(eng, "bob", Role.MEMBER)
    assert await held(parts, eng, "bob") is Permission.EDIT, "the strongest counts"
    await parts.remove(eng, "bob")
    await parts.leave(inner, "bob")
    assert await held(parts, eng, "bob") is None


async def test_a_share_reaches_those_in_the_groups_that_have_a_role_on_the_other_workspace(parts: Parts) -> None:
    tenant, root = await parts.tenant()
    lab, guests = await parts.workspace(root, "lab"), await parts.workspace(root, "guests")
    outer, inner = await chain(parts, tenant, 2)
    await parts.join(inner, "bob")
    await parts.role(guests, outer, Role.VIEWER)
    share = (await parts.share(lab, guests, Role.MEMBER)).record
    assert (await held(parts, lab, "bob"), await held(parts, guests, "bob")) == (Permission.EDIT, Permission.VIEW)
    assert await with_access(parts, lab) == {"bob": [(Role.MEMBER, share.id, outer.id)]}
    page = await parts.workspaces.list_workspaces(
        parts.system,
        tenant.id,
        parent_id=None,
        recursive=True,
        include_archived=False,
        page_size=10,
        page_token="",
        search=Search(UserId("bob"), Permission.EDIT),
    )
    assert [workspace.slug for workspace in page.records] == ["lab"]
    await parts.role(guests, "bob", Role.VIEWER)
    await parts.role(lab, inner, Role.ADMIN)
    assert await with_access(parts, lab) == {
        "bob": [
            (Role.ADMIN, None, inner.id),
            (Role.MEMBER, share.id, None),
            (Role.MEMBER, share.id, outer.id),
        ]
    }
    await parts.leave(inner, "bob")
    assert await with_access(parts, lab) == {"bob": [(Role.MEMBER, share.id, None)]}
    await parts.remove(guests, "bob")
    assert (await held(parts, lab, "bob"), await with_access(parts, lab)) == (None, {})


async def test_who_sees_from_above_by_a_group_what_is_shared_with_is_not_of_its_roster(parts: Parts) -> None:
    tenant, root = await parts.tenant()
    lab, above = await parts.workspace(root, "lab"), await parts.workspace(root, "above")
    guests = await parts.workspace(above, "guests")
    team = await parts.group(tenant, "team")
    await parts.join(team, "bob")
    await parts.role(above, team, Role.ADMIN)
    await parts.share(lab, guests, Role.MEMBER)
    assert (await held(parts, lab, "bob"), await with_access(parts, lab)) == (None, {})


async def test_who_administers_the_tenant_through_a_group_has_the_rights_of_an_admin(parts: Parts) -> None:
    tenant, root = await parts.tenant()
    admins = await parts.group(tenant, "admins", "bob")
    await parts.role(tenant, admins, Role.ADMIN)
    assert await held(parts, await parts.workspace(root, "eng"), "bob") is Permission.OWN
    bob = parts.acting("bob")
    await parts.role(tenant, "carol", Role.MEMBER, bob)
    made = await parts.groups.create_group(
        bob, tenant.id, slug="more", name="More", external_id="", options=parts.options()
    )
    await parts.join(made.record, "carol", bob)
    await parts.role(tenant, admins, Role.MEMBER)
    assert await refusal(parts.join(made.record, "dave", bob)) is Reason.NOT_FOUND


async def test_i3_a_group_of_admins_does_not_stand_in_for_the_last_admin(parts: Parts) -> None:
    """However many are in it: a tenant keeps an active user who is an admin by themselves."""
    tenant, _ = await parts.tenant("alice")
    admins = await parts.group(tenant, "admins", "bob", "carol")
    await parts.role(tenant, admins, Role.ADMIN)
    for refused in (
        parts.remove(tenant, "alice"),
        parts.role(tenant, "alice", Role.MEMBER),
        parts.suspend("alice"),
        parts.deactivate("alice"),
    ):
        assert await refusal(refused) is Reason.LAST_ADMIN
    await parts.role(tenant, admins.id, Role.MEMBER)  # a user of that name is another subject
    await parts.suspend("alice", force=True)
    await parts.role(tenant, admins, Role.MEMBER)  # no guard holds a group's role
    await parts.activate("alice")
    await parts.remove(tenant, admins)
    await parts.role(tenant, "bob", Role.ADMIN)
    await parts.remove(tenant, "alice")


async def test_roles_of_groups_are_set_with_others_and_listed(parts: Parts) -> None:
    tenant, root = await parts.tenant()
    other, _ = await parts.tenant()
    team, theirs = await parts.group(tenant, "team"), await parts.group(other, "theirs")
    on_root = ObjectRef("workspace", root.id)

    async def set_roles(*subjects):
        given = [RoleAssignment(on_root, subject(s), Role.VIEWER) for s in subjects]
        return await parts.memberships.set_roles(
            parts.system, tenant.id, assignments=given, options=parts.options("SetRoles")
        )

    assert await refusal(set_roles("bob", theirs)) is Reason.NOT_FOUND
    await set_roles("bob", team)
    page = await parts.memberships.list_members(parts.system, tenant.id, object=on_root, page_size=10, page_token="")
    assert [str(m.subject) for m in page.records] == [f"group:{team.id}#member", "user:bob"]
    removed = await parts.remove(root, team)
    assert removed.record.subject.id == team.id
    assert await refusal(parts.remove(root, team)) is Reason.NOT_FOUND


async def test_a_group_that_loses_its_role_on_the_tenant_keeps_the_others(parts: Parts) -> None:
    tenant, root = await parts.tenant()
    team = await parts.group(tenant, "team", "bob")
    for on in (tenant, root):
        await parts.role(on, team, Role.MEMBER)
    await parts.remove(tenant, team)
    assert await told(parts, tenant) == {
        f"workspace:{root.id}#member@group:{team.id}#member",
        f"group:{team.id}#member@user:bob",
    }


async def test_an_archived_workspace_takes_the_roles_of_groups_along_and_brings_them_back(parts: Parts) -> None:
    tenant, root = await parts.tenant()
    eng = await parts.workspace(root, "eng")
    team = await parts.group(tenant, "team")
    await parts.role(eng, team, Role.ADMIN)
    for change in (parts.workspaces.archive_workspace, parts.workspaces.unarchive_workspace):
        before = await told(parts, tenant)
        await change(parts.system, tenant.id, eng.id, options=parts.options())
        assert before != await told(parts, tenant) in (set(), {f"workspace:{eng.id}#admin@group:{team.id}#member"})
    await parts.workspaces.delete_workspace(parts.system, tenant.id, eng.id, options=parts.options())
    assert await told(parts, tenant) == set()


async def test_w2_who_has_access_through_a_group_has_a_current_workspace(parts: Parts) -> None:
    tenant, root = await parts.tenant()
    eng = await parts.workspace(root, "eng")
    outer, inner = await chain(parts, tenant, 2)
    await parts.join(inner, "bob")
    assert await refusal(parts.users.get_current_workspace(parts.system, UserId("bob"), tenant_id=None)) is (
        Reason.NOT_FOUND
    )
    await parts.role(eng, outer, Role.VIEWER)
    found = await parts.users.get_current_workspace(parts.system, UserId("bob"), tenant_id=None)
    assert (found.record.workspace, found.record.chosen) == (eng, False)


# -- who may do what -----------------------------------------------------------------------------------------


async def test_managers_and_tenant_admins_change_a_group_members_see_it_and_to_others_it_is_not_there(
    parts: Parts,
) -> None:
    tenant, root = await parts.tenant("alice")
    sub = await parts.group(tenant, "sub", "mia")
    team = await parts.group(tenant, "team", "vic", sub, manager="max")
    await parts.role(root, "otto", Role.OWNER)  # of everything but the tenant
    await parts.role(tenant, "tom", Role.MEMBER)

    def changes(caller):
        return [
            lambda: update(parts, team, caller, name="Other"),
            lambda: parts.join(team, "dave", caller),
            lambda: parts.leave(team, "dave", caller, allow_missing=True),
            lambda: set_members(parts, team, {"vic": False, sub: False, "max": True}, caller),
        ]

    for user in ("max", "alice"):
        for change in changes(parts.acting(user)):
            await change()
    for user in ("vic", "mia"):
        assert (await get(parts, team, parts.acting(user))).slug == "team"
        for change in [*changes(parts.acting(user)), lambda: delete(parts, team, parts.acting(user))]:  # noqa: B023
            assert await refusal(change()) is Reason.ROLE_MISSING
    for user in ("otto", "tom", "mallory"):
        caller = parts.acting(user)
        asked = [lambda: get(parts, team, caller), lambda: listed(parts, team, caller)]  # noqa: B023
        for call in [*asked, *changes(caller), lambda: delete(parts, team, caller)]:  # noqa: B023
            assert await refusal(call()) is Reason.NOT_FOUND
    for user in ("max", "vic", "otto", "mallory"):
        creating = parts.groups.create_group(
            parts.acting(user), tenant.id, slug="new", name="N", external_id="", options=parts.options()
        )
        assert await refusal(creating) in (Reason.NOT_FOUND, Reason.ROLE_MISSING)
    await parts.suspend("max")
    assert await refusal(parts.join(team, "dave", parts.acting("max"))) is Reason.NOT_FOUND
    await parts.activate("max")
    await delete(parts, team, parts.acting("max"))


async def test_everybody_may_leave_a_group(parts: Parts) -> None:
    tenant, _ = await parts.tenant()
    sub = await parts.group(tenant, "sub", "mia")
    team = await parts.group(tenant, "team", "vic", sub)
    await parts.leave(team, "vic", parts.acting("vic"))
    assert await refusal(parts.leave(team, "mia", parts.acting("mia"))) is Reason.NOT_FOUND, "in it through another"
    assert await refusal(parts.leave(team, "vic", parts.acting("vic"))) is Reason.NOT_FOUND


async def test_a_manager_nests_and_an_admin_of_a_workspace_names_only_groups_that_they_see(parts: Parts) -> None:
    tenant, root = await parts.tenant()
    eng = await parts.workspace(root, "eng")
    secret, known = await parts.group(tenant, "secret"), await parts.group(tenant, "known", "max")
    team = await parts.group(tenant, "team", manager="max")
    await parts.role(eng, "max", Role.ADMIN)
    max_ = parts.acting("max")
    assert await refusal(parts.join(team, secret, max_)) is Reason.NOT_FOUND
    await parts.join(team, known, max_)
    assert await refusal(parts.role(eng, secret, Role.VIEWER, max_)) is Reason.NOT_FOUND
    await parts.role(eng, known, Role.VIEWER, max_)
    await parts.role(eng, secret, Role.VIEWER)
    await parts.role(eng, secret, Role.MEMBER, max_)  # who sees the workspace sees that it has a role there
    await parts.remove(eng, secret, max_)


async def test_who_is_in_a_group_belongs_to_the_tenant_and_lists_their_own_groups(parts: Parts) -> None:
    tenant, _ = await parts.tenant("alice")
    sub = await parts.group(tenant, "sub", "mia")
    await parts.group(tenant, "team", "vic", sub)
    await parts.group(tenant, "other")
    assert await slugs(parts, tenant, size=1) == ["other", "sub", "team"]
    assert await slugs(parts, tenant, parts.acting("alice"), size=2) == ["other", "sub", "team"]
    assert await slugs(parts, tenant, parts.acting("mia")) == ["sub", "team"]
    assert await slugs(parts, tenant, parts.acting("vic")) == ["team"]
    assert await refusal(slugs(parts, tenant, parts.acting("mallory"))) is Reason.NOT_FOUND


async def test_groups_are_found_by_member_slug_name_and_external_id(parts: Parts) -> None:
    tenant, _ = await parts.tenant()
    sub = await parts.group(tenant, "sub", "mia", external_id="okta-2")
    team = await parts.group(tenant, "the-team", "vic", sub, external_id="okta-1")
    assert await slugs(parts, tenant, member=SubjectRef("user", "vic")) == ["the-team"]
    assert await slugs(parts, tenant, member=SubjectRef("user", "mia")) == ["sub"]
    assert await slugs(parts, tenant, member=subject(sub)) == ["the-team"]
    assert await slugs(parts, tenant, member=SubjectRef("user", sub.id)) == []
    for match, expected in (
        (TextMatch("name", "TEAM", whole=False), ["the-team"]),
        (TextMatch("slug", "sub", whole=True), ["sub"]),
        (TextMatch("external_id", "okta-1", whole=True), ["the-team"]),
        (TextMatch("external_id", "okta", whole=False), ["sub", "the-team"]),
        (TextMatch("external_id", "okta", whole=True), []),
    ):
        assert await slugs(parts, tenant, matches=(match,)) == expected
    assert await get(parts, team, by="slug", value="the-team") == await get(
        parts, team, by="external_id", value="okta-1"
    )
    other, _ = await parts.tenant()
    with pytest.raises(PembaError, match=r"^group the-team was not found$"):
        await parts.groups.get_group(parts.system, other.id, by="slug", value="the-team")


async def test_slugs_and_external_ids_are_unique_in_a_tenant(parts: Parts) -> None:
    tenant, _ = await parts.tenant()
    other, _ = await parts.tenant()
    team = await parts.group(tenant, "team", external_id="okta-1")
    more = await parts.group(tenant, "more")
    await parts.group(other, "team", external_id="okta-1")
    assert await refusal(parts.group(tenant, "team")) is Reason.SLUG_TAKEN
    assert await refusal(parts.group(tenant, "new", external_id="okta-1")) is Reason.EXTERNAL_ID_TAKEN
    assert await refusal(update(parts, more, external_id="okta-1")) is Reason.EXTERNAL_ID_TAKEN
    changed = (await update(parts, team, name="The Team", external_id="")).record
    assert (changed.slug, changed.name, changed.external_id) == ("team", "The Team", "")
    assert changed.etag != team.etag
    unchanged = await update(parts, team, name="The Team")
    assert (unchanged.record, unchanged.token) == (changed, "")
    await update(parts, more, external_id="okta-1")


# -- what goes -----------------------------------------------------------------------------------------------


async def test_k4_a_deleted_group_takes_its_members_roles_and_places_along_tuples_on_both_sides(parts: Parts) -> None:
    tenant, root = await parts.tenant()
    eng, away = await parts.workspace(root, "eng"), await parts.workspace(root, "away")
    outer, team, inner = await chain(parts, tenant, 3)
    await parts.join(team, "bob", manager=True)
    for on, role in ((tenant, Role.ADMIN), (eng, Role.VIEWER), (away, Role.ADMIN)):
        await parts.role(on, team, role)
    await parts.workspaces.archive_workspace(parts.system, tenant.id, away.id, options=parts.options())
    before = await get(parts, outer)
    removed = await delete(parts, team)
    assert (removed.record.slug, bool(removed.token)) == ("level-1", True)
    assert await told(parts, tenant) == set()
    assert sorted((await parts.operations(tenant))[-1]) == sorted(
        [
            f"-member@group:{team.id}#member",
            f"-admin@group:{team.id}#member",
            f"-viewer@group:{team.id}#member",
            f"-member@group:{inner.id}#member",
            "-member@user:bob",
            "-manager@user:bob",
        ]
    )
    assert await parts.sql("SELECT FROM memberships WHERE subject_type = 'group'") == []
    assert await parts.sql("SELECT FROM group_members") == []
    assert (await get(parts, outer)).etag != before.etag
    assert await refusal(delete(parts, team)) is Reason.NOT_FOUND
    await parts.workspaces.unarchive_workspace(parts.system, tenant.id, away.id, options=parts.options())
    assert await told(parts, tenant) == set()
    assert (await parts.group(tenant, "level-1")).id != team.id, "its slug is free"


@pytest.mark.parametrize("first", ["delete", "add"])
async def test_a_group_deleted_against_one_who_is_added_leaves_no_tuple(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    tenant, _ = await parts.tenant()
    outer, team = await chain(parts, tenant, 2)
    gate = Gate(monkeypatch, journal, "append")
    calls = [lambda: delete(parts, team), lambda: parts.join(team, "bob")]
    early, late = calls if first == "delete" else reversed(calls)
    outcomes = await one_behind_the_other(parts, gate, early(), late)
    assert [reason(o) for o in outcomes] == [None, Reason.NOT_FOUND if first == "delete" else None]
    assert await told(parts, tenant) == set()
    assert await listed(parts, outer) == []


@pytest.mark.parametrize("first", ["delete", "role"])
async def test_a_group_deleted_against_a_role_for_it_leaves_no_tuple(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    tenant, root = await parts.tenant()
    team = await parts.group(tenant, "team")
    gate = Gate(monkeypatch, journal, "append")
    calls = [lambda: delete(parts, team), lambda: parts.role(root, team, Role.ADMIN)]
    early, late = calls if first == "delete" else reversed(calls)
    outcomes = await one_behind_the_other(parts, gate, early(), late)
    assert [reason(o) for o in outcomes] == [None, Reason.NOT_FOUND if first == "delete" else None]
    assert await told(parts, tenant) == set()


async def test_who_is_removed_from_the_tenant_is_out_of_its_groups_too(parts: Parts) -> None:
    tenant, root = await parts.tenant()
    other, _ = await parts.tenant()
    team, more = await parts.group(tenant, "team", "carol"), await parts.group(tenant, "more", "bob")
    elsewhere = await parts.group(other, "elsewhere", "bob")
    await parts.join(team, "bob", manager=True)
    await parts.role(tenant, "bob", Role.MEMBER)
    await parts.role(root, "bob", Role.VIEWER)
    etags = [(await get(parts, group)).etag for group in (team, more)]
    removed = await parts.remove(tenant, "bob")
    assert removed.record.role is Role.MEMBER
    assert await told(parts, tenant, "user:bob") == set()
    assert await told(parts, tenant) == {f"group:{team.id}#member@user:carol"}
    assert len((await parts.operations(tenant))[-1]) == 5
    assert [r["group_id"] for r in await parts.sql("SELECT group_id FROM group_members WHERE user_id = 'bob'")] == [
        elsewhere.id
    ]
    assert all(a != b for a, b in zip(etags, [(await get(parts, g)).etag for g in (team, more)], strict=True))
    [row] = await parts.sql("SELECT before FROM audit WHERE method = 'RemoveMember'")
    assert [record.get("role", record.get("group_id")) for record in row["before"]] == [
        *("member", "viewer"), *sorted([team.id, more.id]),
    ]  # fmt: skip
    await parts.remove(other, "bob", allow_missing=True)
    assert await parts.sql("SELECT FROM group_members WHERE user_id = 'bob'") == []


# -- users who are not active --------------------------------------------------------------------------------


async def test_i1_a_suspended_user_is_out_of_groups_in_spicedb_and_back_as_it_was(parts: Parts) -> None:
    tenant, _ = await parts.tenant()
    team, more = await parts.group(tenant, "team", manager="bob"), await parts.group(tenant, "more", "bob")
    before = await told(parts, tenant)
    places = await parts.sql("SELECT * FROM group_members ORDER BY group_id")
    await parts.suspend("bob")
    assert await told(parts, tenant) == before
    assert await parts.all_jobs() == 2
    assert await told(parts, tenant) == set()
    await parts.join(more, "bob", manager=True)
    assert await told(parts, tenant) == set()
    active = await parts.activate("bob")
    assert await told(parts, tenant) == before | {f"group:{more.id}#manager@user:bob"}
    assert tenant.id in parts.signer.positions(active.token).positions
    await parts.join(more, "bob")
    assert await told(parts, tenant) == before
    assert await parts.sql("SELECT * FROM group_members ORDER BY group_id") == places
    assert await get(parts, team) == await get(parts, team, by="slug", value="team")


async def test_a_change_of_who_manages_leaves_what_a_suspension_has_not_withdrawn_yet_to_its_job(parts: Parts) -> None:
    tenant, _ = await parts.tenant()
    team = await parts.group(tenant, "team", manager="bob")
    await parts.suspend("bob")
    assert (await parts.join(team, "bob")).token
    assert await told(parts, tenant) == {f"group:{team.id}#member@user:bob"}
    assert (await parts.join(team, "bob", manager=True)).token == ""
    await parts.all_jobs()
    assert await told(parts, tenant) == set()
    await parts.leave(team, "bob")
    await parts.activate("bob")
    assert await told(parts, tenant) == set()


@pytest.mark.parametrize("first", ["AddGroupMember", "SuspendUser"])
async def test_suspend_against_add_leaves_no_tuple(parts: Parts, monkeypatch: pytest.MonkeyPatch, first: str) -> None:
    """Whichever has the user first: the other waits for it, and the job finds what both have done."""
    tenant, _ = await parts.tenant()
    team = await parts.group(tenant, "team")
    await parts.role(tenant, "bob", Role.MEMBER)

    async def suspend() -> None:
        await parts.suspend("bob")
        await parts.all_jobs()

    async def add() -> None:
        await parts.join(team, "bob", manager=True)

    gate = Gate(monkeypatch, journal, "append" if first == "AddGroupMember" else "append_global")
    early, late = (add, suspend) if first == "AddGroupMember" else (suspend, add)
    assert await one_behind_the_other(parts, gate, early(), late) == [None, None]
    await parts.all_jobs()
    assert await told(parts, tenant, "user:bob") == set()
    await parts.activate("bob")
    assert await told(parts, tenant) == {f"group:{team.id}#member@user:bob", f"group:{team.id}#manager@user:bob"}


async def test_an_activation_that_meets_a_new_place_in_another_tenant_restores_that_too(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant, _ = await parts.tenant()
    other, _ = await parts.tenant()
    await parts.group(tenant, "team", "bob")
    theirs = await parts.group(other, "theirs")
    await parts.suspend("bob")
    await parts.all_jobs()
    gate = Gate(monkeypatch, journal, "append")  # the add has the user, and its tuples were computed: none
    outcomes = await one_behind_the_other(parts, gate, parts.join(theirs, "bob"), lambda: parts.activate("bob"))
    assert [reason(o) for o in outcomes] == [None, None]
    assert await told(parts, other) == {f"group:{theirs.id}#member@user:bob"}


async def test_i1_a_deactivated_user_is_out_of_every_group_for_good(parts: Parts) -> None:
    tenant, _ = await parts.tenant()
    team = await parts.group(tenant, "team", "carol", manager="bob")
    await parts.role(tenant, "bob", Role.MEMBER)
    before = await get(parts, team)
    await parts.deactivate("bob")
    assert await parts.all_jobs() == 2
    assert await listed(parts, team) == [("user:carol", False)]
    assert await told(parts, tenant, "user:bob") == set()
    assert (await get(parts, team)).etag != before.etag
    [row] = await parts.sql("SELECT before FROM audit WHERE principal = 'pemba:maintenance'")
    assert [record.get("role", record.get("group_id")) for record in row["before"]] == ["member", team.id]
    assert await refusal(parts.join(team, "bob")) is Reason.USER_DEACTIVATED


async def test_many_groups_of_a_user_go_and_come_in_rows_of_at_most_500(parts: Parts) -> None:
    """Who manages one has two tuples there, so a step takes fewer of those."""
    tenant, _ = await parts.tenant()
    await parts.role(tenant, "bob", Role.MEMBER)
    await parts.sql(
        "WITH made AS (INSERT INTO groups (tenant_id, id, slug, name, changed_seq)"
        " SELECT $1, 'grp_' || n, 'g-' || n, 'G', 1 FROM generate_series(1, 600) n RETURNING id)"
        " INSERT INTO group_members (tenant_id, group_id, subject_type, subject_id, manager)"
        " SELECT $1, id, 'user', 'bob', true FROM made",
        tenant.id,
    )
    head = len(await parts.operations(tenant))
    await parts.suspend("bob")
    await parts.all_jobs()
    assert [len(row) for row in (await parts.operations(tenant))[head:]] == [499, 500, 202]
    await parts.activate("bob")
    assert [len(row) for row in (await parts.operations(tenant))[head + 3 :]] == [500, 500, 201]
    await parts.deactivate("bob")
    await parts.all_jobs()
    assert await parts.sql("SELECT FROM group_members") == []


async def test_two_changes_of_one_group_at_once_come_one_after_the_other(parts: Parts) -> None:
    tenant, _ = await parts.tenant()
    team = await parts.group(tenant, "team")
    first = await get(parts, team)
    outcomes = await asyncio.gather(
        *(set_members(parts, team, {f"user-{n}": False}, etag=first.etag) for n in range(5)), return_exceptions=True
    )
    assert sorted(str(reason(o)) for o in outcomes) == ["ETAG_MISMATCH"] * 4 + ["None"]
    assert len(await listed(parts, team)) == 1
