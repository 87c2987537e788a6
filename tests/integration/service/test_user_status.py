"""Suspending, activating and deactivating users: guards, races, and the job that follows with the tuples."""

from __future__ import annotations

import asyncio

import pytest

from pemba.errors import PembaError, PreconditionFailed, Reason
from pemba.model import ObjectRef, Role, UserId, UserStatus
from pemba.service import user_jobs as service_jobs
from pemba.service import user_status
from pemba.storage import journal
from tests.integration.instruments import Gate, one_behind_the_other
from tests.truth import eventually


async def told(parts, tenant) -> set[str]:
    """The tuples of users that the tenant's stream comes to, in short: `admin@user:alice`."""
    found: set[str] = set()
    for operation in [o for row in await parts.operations(tenant) for o in row]:
        (found.add if operation[0] == "+" else found.discard)(operation[1:])
    return {t for t in found if "@user:" in t}


async def remaining(parts, table: str) -> int:
    return (await parts.sql(f"SELECT count(*) FROM {table}"))[0][0]


def reason(outcome: object) -> Reason | None:
    return outcome.reason if isinstance(outcome, PembaError) else None


async def in_tenants(parts, count: int, user: str = "bob") -> list:
    """So many tenants in which the user is a member."""
    made = [await parts.tenant() for _ in range(count)]
    for tenant, _ in made:
        await parts.role(tenant, user, Role.MEMBER)
    return [tenant for tenant, _ in made]


# -- suspend and activate ------------------------------------------------------------------------------------


async def test_i1_a_suspended_user_is_told_at_once_their_tuples_go_after_it_and_all_is_restored(parts) -> None:
    tenant, root = await parts.tenant()
    eng, put_away = await parts.workspace(root, "eng"), await parts.workspace(root, "away")
    for on, role in ((tenant, Role.MEMBER), (eng, Role.OWNER), (put_away, Role.VIEWER)):
        await parts.role(on, "bob", role)
    await parts.workspaces.archive_workspace(parts.system, tenant.id, put_away.id, options=parts.options())
    held = await parts.sql("SELECT * FROM memberships WHERE user_id = 'bob' ORDER BY workspace_id")
    before = await told(parts, tenant)
    assert before == {"admin@user:alice", "member@user:bob", "owner@user:bob"}

    suspended = await parts.suspend("bob")
    assert suspended.record.status is UserStatus.SUSPENDED
    assert parts.signer.positions(suspended.token).positions == {"~": 1}
    assert await told(parts, tenant) == before
    assert await parts.all_jobs() == 2
    assert await told(parts, tenant) == {"admin@user:alice"}
    assert await remaining(parts, "user_job") == 0

    active = await parts.activate("bob")
    assert (active.record.status, active.record.activating) == (UserStatus.ACTIVE, False)
    assert await told(parts, tenant) == before
    head = len(await parts.operations(tenant))
    assert parts.signer.positions(active.token).positions == {tenant.id: head, "~": 2}
    assert await parts.sql("SELECT * FROM memberships WHERE user_id = 'bob' ORDER BY workspace_id") == held
    assert not await parts.jobs.run_once()


async def test_the_job_says_in_the_audit_who_asked_for_it_and_what_it_did(parts) -> None:
    tenant, _ = await parts.tenant()
    await parts.role(tenant, "bob", Role.MEMBER)
    await parts.suspend("bob")
    await parts.all_jobs()
    [row] = await parts.sql("SELECT * FROM audit WHERE principal = 'pemba:maintenance'")
    assert (row["tenant_id"], row["seq"], row["method"], row["object"]) == (tenant.id, 3, "SuspendUser", "user:bob")
    assert row["request_id"] == "call-1"
    assert [o["op"] for o in row["ops"]] == ["delete"]


async def test_a_status_that_is_so_already_changes_nothing(parts) -> None:
    await parts.role((await parts.tenant())[0], "bob", Role.MEMBER)
    assert (await parts.activate("bob")).token == ""
    first = await parts.suspend("bob", request_id="r1", body_digest=b"x")
    again = await parts.suspend("bob", request_id="r1", body_digest=b"x")
    assert (again.record, again.token, again.replayed) == (first.record, first.token, True)
    unchanged = await parts.suspend("bob")
    assert (unchanged.record, unchanged.token) == (first.record, "")
    assert len(await parts.sql("SELECT FROM outbox WHERE tenant_id = '~'")) == 1


async def test_validate_only_suspends_nobody(parts) -> None:
    await parts.role((await parts.tenant())[0], "bob", Role.MEMBER)
    assert (await parts.suspend("bob", validate_only=True)).record.status is UserStatus.SUSPENDED
    assert (await parts.user("bob")).status is UserStatus.ACTIVE
    assert await remaining(parts, "user_job") == 0


async def test_a_role_given_to_a_suspended_user_projects_nothing_until_they_are_active(parts) -> None:
    tenant, root = await parts.tenant()
    await parts.role(tenant, "bob", Role.MEMBER)
    await parts.suspend("bob")
    eng = await parts.workspace(root, "eng", owner="bob")
    await parts.role(root, "bob", Role.VIEWER)
    assert await told(parts, tenant) == {"admin@user:alice", "member@user:bob"}, "the old one awaits the job"
    await parts.role(tenant, "bob", Role.ADMIN)
    assert await told(parts, tenant) == {"admin@user:alice"}, "a change of it takes it out"
    await parts.workspaces.archive_workspace(parts.system, tenant.id, eng.id, options=parts.options())
    await parts.workspaces.unarchive_workspace(parts.system, tenant.id, eng.id, options=parts.options())
    await parts.all_jobs()
    assert await told(parts, tenant) == {"admin@user:alice"}
    await parts.activate("bob")
    assert await told(parts, tenant) == {"admin@user:alice", "admin@user:bob", "owner@user:bob", "viewer@user:bob"}


async def test_an_activation_that_meets_a_new_role_starts_over_and_restores_that_too(
    parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant, other = await in_tenants(parts, 2)
    await parts.remove(other, "bob")
    await parts.suspend("bob")
    await parts.all_jobs()
    gate = Gate(monkeypatch, journal, "append")  # SetRole has the user, and its tuples were computed: none
    outcomes = await one_behind_the_other(
        parts, gate, parts.role(other, "bob", Role.ADMIN), lambda: parts.activate("bob")
    )
    assert [reason(o) for o in outcomes] == [None, None]
    assert set(parts.signer.positions(outcomes[1].token).positions) == {tenant.id, other.id, "~"}
    assert await told(parts, other) == {"admin@user:alice", "admin@user:bob"}


# -- guards --------------------------------------------------------------------------------------------------


async def test_i3_the_last_active_admin_of_a_tenant_is_not_suspended_unless_by_force(parts) -> None:
    tenant, _ = await parts.tenant()
    await parts.tenant("zoe")
    await parts.role(tenant, "bob", Role.ADMIN)
    await parts.suspend("bob")
    with pytest.raises(PreconditionFailed) as refused:
        await parts.suspend("alice")
    assert refused.value.reason is Reason.LAST_ADMIN
    assert refused.value.metadata == {"tenant": tenant.id}
    [row] = await parts.sql("SELECT object, seq FROM audit WHERE reason = 'LAST_ADMIN'")
    assert tuple(row) == ("user:alice", None)
    assert (await parts.suspend("alice", force=True)).record.status is UserStatus.SUSPENDED


async def test_i3_an_owner_is_suspended_and_then_no_other_owner_may_go(parts) -> None:
    """Suspending asks for admins alone; the guards of everything else count active users."""
    _, root = await parts.tenant()
    eng = await parts.workspace(root, "eng", owner="bob")
    await parts.role(eng, "carol", Role.OWNER)
    await parts.suspend("bob")
    for refused in (parts.remove(eng, "carol"), parts.role(eng, "carol", Role.ADMIN), parts.deactivate("carol")):
        with pytest.raises(PreconditionFailed) as guard:
            await refused
        assert guard.value.reason is Reason.LAST_OWNER
    await parts.activate("bob")
    await parts.remove(eng, "carol")


async def test_i3_of_two_admins_suspended_at_once_one_stays(parts, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant, _ = await parts.tenant()
    await parts.role(tenant, "bob", Role.ADMIN)
    gate = Gate(monkeypatch, user_status.user_roles, "held_alone")
    outcomes = await one_behind_the_other(parts, gate, parts.suspend("alice"), lambda: parts.suspend("bob"))
    assert [reason(o) for o in outcomes] == [None, Reason.LAST_ADMIN]


@pytest.mark.parametrize("first", ["suspension", "demotion"])
async def test_i3_a_suspension_and_the_demotion_of_the_other_admin_at_once_leave_one(
    parts, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    tenant, _ = await parts.tenant()
    await parts.role(tenant, "bob", Role.ADMIN)
    name = "append_global" if first == "suspension" else "append"
    gate = Gate(monkeypatch, journal, name)
    calls = [lambda: parts.suspend("alice"), lambda: parts.role(tenant, "bob", Role.MEMBER)]
    early, late = calls if first == "suspension" else reversed(calls)
    outcomes = await one_behind_the_other(parts, gate, early(), late)
    assert [reason(o) for o in outcomes] == [None, Reason.LAST_ADMIN]


async def test_i3_an_admin_of_a_moment_ago_is_suspended_with_the_guards_of_that_tenant_too(
    parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the suspension has to lock grew while it waited for the user: it locks that as well, and looks again."""
    tenant, _ = await parts.tenant()
    await parts.role(tenant, "bob", Role.MEMBER)
    promoting, asking = Gate(monkeypatch, journal, "append"), Gate(monkeypatch, user_status.user_roles, "held_alone")
    promotion = asyncio.ensure_future(parts.role(tenant, "bob", Role.ADMIN))
    await promoting.reached.wait()
    suspension = asyncio.ensure_future(parts.suspend("bob"))
    await eventually(lambda: parts.sql("SELECT FROM pg_locks WHERE NOT granted"))
    promoting.open()
    await promotion
    outcomes = await one_behind_the_other(parts, asking, suspension, lambda: parts.role(tenant, "alice", Role.MEMBER))
    assert [reason(o) for o in outcomes] == [None, Reason.LAST_ADMIN]


async def test_i3_of_two_owners_deactivated_at_once_one_stays(parts, monkeypatch: pytest.MonkeyPatch) -> None:
    _, root = await parts.tenant()
    eng = await parts.workspace(root, "eng", owner="bob")
    await parts.role(eng, "carol", Role.OWNER)
    gate = Gate(monkeypatch, user_status.user_roles, "held_alone")
    outcomes = await one_behind_the_other(parts, gate, parts.deactivate("bob"), lambda: parts.deactivate("carol"))
    assert [reason(o) for o in outcomes] == [None, Reason.LAST_OWNER]


async def test_i3_a_deactivation_and_the_removal_of_the_other_owner_at_once_leave_one(
    parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, root = await parts.tenant()
    eng = await parts.workspace(root, "eng", owner="bob")
    await parts.role(eng, "carol", Role.OWNER)
    gate = Gate(monkeypatch, journal, "append_global")
    outcomes = await one_behind_the_other(parts, gate, parts.deactivate("bob"), lambda: parts.remove(eng, "carol"))
    assert [reason(o) for o in outcomes] == [None, Reason.LAST_OWNER]


async def test_who_administers_more_than_16_tenants_is_suspended_by_force_and_deactivated_after_it(parts) -> None:
    tenants = [(await parts.tenant("bob"))[0] for _ in range(17)]
    for tenant in tenants:
        await parts.role(tenant, "alice", Role.ADMIN)
    for refused in (parts.suspend("bob"), parts.deactivate("bob")):
        with pytest.raises(PreconditionFailed, match="force") as guard:
            await refused
        assert guard.value.reason is Reason.CHANGE_TOO_LARGE
    await parts.suspend("bob", force=True)
    await parts.deactivate("bob")
    await parts.all_jobs()
    assert await parts.sql("SELECT FROM memberships WHERE user_id = 'bob'") == []


# -- deactivation ---------------------------------------------------------------------------------------------


async def test_i1_a_deactivated_user_loses_every_role_for_good(parts) -> None:
    tenant, root = await parts.tenant()
    other, _ = await parts.tenant()
    eng = await parts.workspace(root, "eng", owner="bob")
    for on, role in ((eng, Role.OWNER), (tenant, Role.MEMBER)):
        await parts.role(on, "carol", role)
    await parts.role(other, "carol", Role.ADMIN)
    answer = await parts.deactivate("carol")
    assert answer.record.status is UserStatus.DEACTIVATED
    assert parts.signer.positions(answer.token).positions == {"~": 1}
    assert await parts.all_jobs() == 3
    assert await parts.sql("SELECT FROM memberships WHERE user_id = 'carol'") == []
    assert await told(parts, tenant) == {"admin@user:alice", "owner@user:bob"}
    assert await told(parts, other) == {"admin@user:alice"}
    removed = await parts.sql("SELECT tenant_id, before FROM audit WHERE principal = 'pemba:maintenance'")
    assert {r["tenant_id"]: [m["role"] for m in r["before"]] for r in removed} == {
        tenant.id: ["member", "owner"],
        other.id: ["admin"],
    }
    again = await parts.deactivate("carol")
    assert (again.record.status, again.token) == (UserStatus.DEACTIVATED, "")


async def test_a_deactivated_user_is_neither_activated_nor_suspended_nor_given_a_role(parts) -> None:
    tenant, root = await parts.tenant()
    eng = await parts.workspace(root, "eng", owner="bob")
    await parts.role(tenant, "carol", Role.MEMBER)
    await parts.deactivate("carol")
    transfer = parts.memberships.transfer_ownership(
        parts.system,
        tenant.id,
        object=ObjectRef("workspace", eng.id),
        from_user=UserId("bob"),
        to_user=UserId("carol"),
        options=parts.options(),
    )
    for refused in (
        parts.activate("carol"),
        parts.suspend("carol"),
        parts.role(root, "carol", Role.VIEWER),
        parts.role(tenant, "carol", Role.ADMIN),
        parts.workspace(root, "ops", owner="carol"),
        parts.tenant("carol"),
        parts.remove(eng, "bob", transfer_to="carol"),
        transfer,
    ):
        with pytest.raises(PreconditionFailed) as guard:
            await refused
        assert guard.value.reason is Reason.USER_DEACTIVATED
    await parts.remove(tenant, "carol")
    assert await parts.all_jobs() == 1, "nothing was left for it"


async def test_i3_the_last_admin_and_the_last_owner_are_not_deactivated(parts) -> None:
    tenant, root = await parts.tenant()
    with pytest.raises(PreconditionFailed) as admin:
        await parts.deactivate("alice")
    assert (admin.value.reason, admin.value.metadata) == (Reason.LAST_ADMIN, {"tenant": tenant.id})
    eng = await parts.workspace(root, "eng", owner="bob")
    await parts.workspaces.archive_workspace(parts.system, tenant.id, eng.id, options=parts.options())
    with pytest.raises(PreconditionFailed) as owner:
        await parts.deactivate("bob")
    assert owner.value.reason is Reason.LAST_OWNER
    assert owner.value.metadata == {"tenant": tenant.id, "workspace": eng.id}
    assert (await parts.user("bob")).status is UserStatus.ACTIVE


# -- the job --------------------------------------------------------------------------------------------------


async def test_an_activation_in_many_tenants_restores_tenant_after_tenant_and_the_status_last(parts) -> None:
    tenants = await in_tenants(parts, 16)
    await parts.suspend("bob")
    await parts.all_jobs()
    answer = await parts.activate("bob")
    assert (answer.record.status, answer.record.activating, answer.token) == (UserStatus.SUSPENDED, True, "")
    assert (await parts.activate("bob")).record == answer.record
    for _ in range(16):
        assert (await parts.user("bob")).status is UserStatus.SUSPENDED
        assert await parts.jobs.run_once()
    assert [await told(parts, t) for t in tenants] == [{"admin@user:alice", "member@user:bob"}] * 16
    assert await parts.all_jobs() == 1
    done = await parts.user("bob")
    assert (done.status, done.activating) == (UserStatus.ACTIVE, False)
    rows = await parts.sql("SELECT principal FROM audit WHERE tenant_id = '~' ORDER BY seq")
    assert [r["principal"] for r in rows] == ["system_key:test"] * 2 + ["pemba:maintenance"]


async def test_a_role_given_or_unarchived_behind_the_job_while_a_user_is_being_activated_has_its_tuple(parts) -> None:
    tenants = await in_tenants(parts, 16)
    first = min(tenants, key=lambda t: t.id)
    [root] = await parts.sql("SELECT id FROM workspaces WHERE tenant_id = $1", first.id)
    found = await parts.workspaces.get_workspace(parts.system, first.id, workspace_id=root["id"], path=None)
    eng = await parts.workspace(found.record, "eng")
    await parts.role(eng, "bob", Role.VIEWER)
    await parts.workspaces.archive_workspace(parts.system, first.id, eng.id, options=parts.options())
    await parts.suspend("bob")
    await parts.all_jobs()
    await parts.activate("bob")
    await parts.jobs.run_once()
    await parts.role(first, "bob", Role.ADMIN)
    await parts.workspaces.unarchive_workspace(parts.system, first.id, eng.id, options=parts.options())
    await parts.workspace(found.record, "ops", owner="bob")
    await parts.all_jobs()
    assert (await parts.user("bob")).status is UserStatus.ACTIVE
    given = {"admin@user:bob", "viewer@user:bob", "owner@user:bob"}
    assert await told(parts, first) == {"admin@user:alice"} | given


async def test_a_suspension_overtakes_an_activation_that_is_under_way(parts) -> None:
    tenants = await in_tenants(parts, 16)
    await parts.suspend("bob")
    await parts.all_jobs()
    await parts.activate("bob")
    for _ in range(5):
        await parts.jobs.run_once()
    again = await parts.suspend("bob")
    assert (again.record.status, again.record.activating) == (UserStatus.SUSPENDED, False)
    assert again.token
    assert await parts.all_jobs() == 17, "from the start, and the end"
    assert [await told(parts, t) for t in tenants] == [{"admin@user:alice"}] * 16
    assert (await parts.user("bob")).status is UserStatus.SUSPENDED


async def test_a_step_that_is_overtaken_by_another_status_writes_nothing(parts, monkeypatch) -> None:
    """The step has the tenant's head; the activation, which wants it, comes after the step or before it."""
    tenant, _ = await parts.tenant()
    await parts.role(tenant, "bob", Role.MEMBER)
    await parts.suspend("bob")
    gate = Gate(monkeypatch, service_jobs.user_jobs, "next_of_turn")  # it has read the job, and locked nothing
    step = asyncio.ensure_future(parts.jobs.run_once())
    await gate.reached.wait()
    await parts.activate("bob")
    head = len(await parts.operations(tenant))
    gate.open()
    assert await step
    assert len(await parts.operations(tenant)) == head
    assert await told(parts, tenant) == {"admin@user:alice", "member@user:bob"}


async def test_several_relays_at_one_job_take_each_step_once(parts) -> None:
    tenants = await in_tenants(parts, 8)
    await parts.suspend("bob")

    async def relay() -> int:
        steps = 0
        while await remaining(parts, "user_job"):
            steps += await parts.jobs.run_once()
        return steps

    assert sum(await asyncio.gather(*(relay() for _ in range(4)))) >= 9
    for tenant in tenants:
        assert (await parts.operations(tenant))[2:] == [["-member@user:bob"]]


async def test_jobs_take_turns(parts) -> None:
    await in_tenants(parts, 6, "bob")
    last = await in_tenants(parts, 1, "carol")
    await parts.suspend("bob")
    await parts.suspend("carol")
    for _ in range(3):
        await parts.jobs.run_once()
    assert await told(parts, last[0]) == {"admin@user:alice"}


async def test_more_than_500_roles_in_a_tenant_go_and_come_in_rows_of_at_most_500(parts) -> None:
    tenant, root = await parts.tenant()
    await parts.role(tenant, "bob", Role.MEMBER)
    await parts.sql(
        "WITH made AS (INSERT INTO workspaces (tenant_id, id, parent_id, slug, name, kind, changed_seq)"
        " SELECT $1, 'ws_' || n, $2, 's-' || n, 'W', 'shared', 1 FROM generate_series(1, 1100) n RETURNING id)"
        " INSERT INTO memberships (tenant_id, workspace_id, subject_type, subject_id, role, changed_seq)"
        " SELECT $1, id, 'user', 'bob', 'viewer', 1 FROM made",
        tenant.id,
        root.id,
    )
    await parts.suspend("bob")
    await parts.all_jobs()
    assert [len(row) for row in (await parts.operations(tenant))[2:]] == [500, 500, 101]
    active = await parts.activate("bob")
    assert [len(row) for row in (await parts.operations(tenant))[5:]] == [500, 500, 101]
    assert parts.signer.positions(active.token).positions == {tenant.id: 8, "~": 2}
    await parts.role(tenant, "carol", Role.ADMIN)
    await parts.deactivate("bob")
    await parts.all_jobs()
    assert await parts.sql("SELECT FROM memberships WHERE user_id = 'bob'") == []


async def test_a_step_that_fails_at_its_commit_is_taken_again(parts, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant, _ = await parts.tenant()
    await parts.role(tenant, "bob", Role.MEMBER)
    await parts.suspend("bob")

    async def fails(*_: object) -> None:
        raise ConnectionError("cut")

    with monkeypatch.context() as broken:
        broken.setattr(service_jobs.user_jobs, "advance", fails)
        with pytest.raises(PembaError):
            await parts.jobs.run_once()
    assert len(await parts.operations(tenant)) == 2
    assert await parts.all_jobs() == 2
    assert await told(parts, tenant) == {"admin@user:alice"}


async def test_an_unknown_user_is_not_found(parts) -> None:
    for change in (parts.suspend, parts.activate, parts.deactivate):
        with pytest.raises(PembaError) as refused:
            await change("nobody")
        assert refused.value.reason is Reason.NOT_FOUND
    assert await remaining(parts, "outbox") == 0
