"""What the audit holds, who may read it, and that whatever is looked for a look is bounded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta

import pytest

from pemba.errors import Forbidden, InvalidRequest, NotFound, PreconditionFailed, Reason, Unavailable
from pemba.model import GLOBAL_STREAM, Caller, Role, TenantId, TenantScope, UserId
from pemba.service import roster_reads
from pemba.service.audit import MAX_EXPORTS, AuditEvent, AuditFilter, AuditService, Exported, Outcome
from pemba.service.refusals import Refusals
from pemba.service.role_change import RoleAssignment
from pemba.service.roster_reads import RosterReads
from pemba.storage import audit, delivery, journal, outbox
from pemba.storage.journal import AuditEntry
from tests.integration.conftest import SYSTEM, Parts, ref, subject
from tests.truth import as_owner, eventually

UNKNOWN = TenantId("ten_01h455vb4pex5vsknk084sn02q")


class Audit:
    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.service = AuditService(parts.database, parts.signer)

    async def page(
        self, tenant, caller: Caller = SYSTEM, *, newest_first: bool = False, size: int = 100, token: str = "", **wanted
    ):
        return await self.service.list_events(
            caller,
            tenant and tenant.id,
            wanted=AuditFilter(**wanted),
            newest_first=newest_first,
            page_size=size,
            page_token=token,
        )

    async def events(self, tenant, **given) -> list[AuditEvent]:
        """Without who read the audit."""
        page = await self.page(tenant, **given)
        return [event for event in page.records if event.method not in ("ListAuditEvents", "ExportAuditEvents")]

    async def found(self, tenant, **given) -> list[str]:
        return [event.method for event in await self.events(tenant, **given)]

    def export(self, tenant, caller: Caller = SYSTEM, cursor: str = "", **wanted) -> AsyncIterator[Exported]:
        return self.service.export_events(caller, tenant and tenant.id, wanted=AuditFilter(**wanted), cursor=cursor)

    async def exported(self, tenant, cursor: str = "", **wanted) -> list[Exported]:
        async with aclosing(self.export(tenant, cursor=cursor, **wanted)) as messages:
            return [each async for each in messages]


@pytest.fixture
def audited(parts: Parts) -> Audit:
    return Audit(parts)


# -- what it holds ------------------------------------------------------------------------------------------


async def test_a4_a_change_has_who_what_from_where_and_the_records_before_and_after(audited: Audit) -> None:
    parts = audited.parts
    tenant, root = await parts.tenant()
    eng = await parts.workspace(root, "eng")
    await parts.role(eng, "bob", Role.VIEWER)
    await parts.role(eng, "bob", Role.ADMIN, parts.acting("alice"))
    event = (await audited.events(tenant))[-1]
    assert (event.principal, event.acting_user, event.peer, event.request_id) == (
        *("system_key:test", "alice", "ipv4:127.0.0.1", "call-1"),
    )
    assert (event.method, event.object, event.about) == ("SetRole", f"workspace:{eng.id}", ("user:bob",))
    assert (event.outcome, event.reason, event.seq, event.part, event.parts) == (Outcome.CHANGED, "", 4, 0, 1)
    assert [(r["role"], r["subject"]["id"]) for r in (*event.before, *event.after)] == [
        ("viewer", "bob"),
        ("admin", "bob"),
    ]
    assert [str(o.tuple).partition("#")[2] for o in event.operations] == ["viewer@user:bob", "admin@user:bob"]


async def test_what_is_made_is_audited_with_the_roles_that_come_with_it_and_what_is_deleted_has_no_after(
    audited: Audit,
) -> None:
    parts = audited.parts
    tenant, root = await parts.tenant()
    eng = await parts.workspace(root, "eng", owner="bob")
    await parts.workspaces.delete_workspace(SYSTEM, tenant.id, eng.id, options=parts.options("DeleteWorkspace"))
    made, owned, deleted = await audited.events(tenant)
    assert [r.get("role") for r in made.after] == [None, None, "admin"]
    assert set(made.about) == {f"workspace:{root.id}", "user:alice"}
    assert (owned.after[1]["subject"]["id"], owned.after[1]["role"]) == ("bob", "owner")
    assert (deleted.before["slug"], deleted.after) == ("eng", None)
    assert "user:bob" in deleted.about, "whose role went with it"


async def test_a_change_of_several_rows_has_an_event_for_each_and_what_each_is_about(audited: Audit) -> None:
    parts = audited.parts
    tenant, root = await parts.tenant()
    assignments = [RoleAssignment(ref(root), subject(f"u{n:03}"), Role.VIEWER) for n in range(501)]
    await parts.memberships.set_roles(SYSTEM, tenant.id, assignments=assignments, options=parts.options("SetRoles"))
    first, second = (await audited.events(tenant))[1:]
    assert [(e.part, e.parts, len(e.operations)) for e in (first, second)] == [(0, 2, 500), (1, 2, 1)]
    assert (len(first.after), second.after) == (501, None)
    assert "user:u500" in second.about
    assert len(await audited.events(tenant, subject="user:u499")) == 1


async def test_roles_of_a_suspended_user_are_found_by_them_though_no_tuple_names_them(audited: Audit) -> None:
    parts = audited.parts
    tenant, root = await parts.tenant()
    await parts.role(root, "bob", Role.VIEWER)
    await parts.suspend("bob")
    await parts.all_jobs()
    await parts.role(root, "bob", Role.ADMIN)
    last = (await audited.events(tenant, subject="user:bob"))[-1]
    assert (last.method, [o.operation for o in last.operations]) == ("SetRole", ["delete"])


async def test_a_refusal_is_about_what_the_request_named(audited: Audit) -> None:
    parts = audited.parts
    tenant, root = await parts.tenant()
    await parts.role(root, "bob", Role.VIEWER)
    about = (f"workspace:{root.id}", "user:eve", f"tenant:{tenant.id}")
    with pytest.raises(Forbidden):
        await parts.role(root, "eve", Role.OWNER, parts.acting("bob"), about=about)
    [event] = await audited.events(tenant, outcome=Outcome.REFUSED)
    assert (event.object, event.about, event.reason, event.seq) == (about[0], about[1:], "ROLE_MISSING", None)
    assert await audited.found(tenant, subject="user:eve") == ["SetRole"]


async def test_a_refused_tenant_is_in_the_installations_audit(audited: Audit) -> None:
    parts = audited.parts
    with pytest.raises(Forbidden):
        await parts.tenants.create_tenant(
            parts.acting("eve"), slug="acme", name="A", first_admin=UserId("eve"), options=parts.options("CreateTenant")
        )
    [event] = await audited.events(None)
    assert (event.method, event.object, event.acting_user, event.outcome) == (
        *("CreateTenant", "tenant:acme", "eve", Outcome.REFUSED),
    )


async def test_what_was_refused_of_a_tenant_that_there_is_not_is_the_installations(audited: Audit) -> None:
    refusals = Refusals(audited.parts.database)
    missing = Forbidden(Reason.SCOPE_MISSING, "no")
    await refusals.record(SYSTEM, UNKNOWN, "SetRole", missing, (f"tenant:{UNKNOWN}",))
    [event] = await audited.events(None)
    assert (event.object, event.reason) == (f"tenant:{UNKNOWN}", "SCOPE_MISSING")
    assert await audited.parts.sql("SELECT FROM audit WHERE tenant_id = $1", UNKNOWN) == []


async def test_refusals_beyond_the_rate_are_not_written(audited: Audit, monkeypatch) -> None:
    monkeypatch.setattr("pemba.service.refusals.BURST", 2.0)
    monkeypatch.setattr("pemba.service.refusals.PER_SECOND", 0.0)
    refusals = Refusals(audited.parts.database)
    refusals._tokens = 2.0
    for _ in range(3):
        await refusals.record(SYSTEM, GLOBAL_STREAM, "SetRole", Forbidden(Reason.SCOPE_MISSING, "no"))
    assert len(await audited.events(None)) == 2


async def test_events_of_a_tenant_have_ids_in_the_order_of_their_commits(audited: Audit) -> None:
    """Also those that take no number: they wait for whoever is changing the tenant."""
    parts = audited.parts
    tenant, _ = await parts.tenant()
    refusals = Refusals(parts.database)
    async with parts.database.begin(TenantScope(tenant.id)) as tx:
        await outbox.advance(tx)
        recording = asyncio.create_task(
            refusals.record(SYSTEM, tenant.id, "SetRole", Forbidden(Reason.ROLE_MISSING, "no"))
        )
        await eventually(lambda: parts.sql("SELECT FROM pg_locks WHERE NOT granted"))
        await journal.append(tx, tenant.id, 2, [[]], AuditEntry(SYSTEM, "Test", "x"))
    await recording
    assert await audited.found(tenant) == ["CreateTenant", "Test", "SetRole"]


# -- who read -----------------------------------------------------------------------------------------------


async def test_rosters_are_noted_once_a_minute_for_each_caller_and_roster(audited: Audit, monkeypatch) -> None:
    parts = audited.parts
    tenant, _ = await parts.tenant()
    reads = RosterReads(parts.database)
    roster = ("workspace:ws_1", f"tenant:{tenant.id}")
    for caller in (SYSTEM, SYSTEM, parts.acting("alice")):
        reads.note(caller, tenant.id, "ListMembers", roster)
    reads.note(SYSTEM, tenant.id, "ListMembers", ("workspace:ws_2",))
    reads.note(SYSTEM, None, "ListUsers", ())
    await reads.flush()
    read = await audited.events(tenant, outcome=Outcome.READ)
    assert [(e.method, e.object, e.acting_user, e.seq) for e in read] == [
        ("ListMembers", "workspace:ws_1", "", None),
        ("ListMembers", "workspace:ws_1", "alice", None),
        ("ListMembers", "workspace:ws_2", "", None),
    ]
    assert [e.object for e in await audited.events(None)] == ["installation"]
    monkeypatch.setattr(roster_reads, "AGAIN_SECONDS", 0.0)
    reads.note(SYSTEM, tenant.id, "ListMembers", roster)
    await reads.flush()
    assert len(await audited.events(tenant, outcome=Outcome.READ)) == 4


async def test_what_is_noted_is_bounded_and_written_at_the_end(audited: Audit, monkeypatch) -> None:
    monkeypatch.setattr(roster_reads, "MAX_NOTED", 2)
    parts = audited.parts
    tenant, _ = await parts.tenant()
    reads = RosterReads(parts.database)
    running = asyncio.create_task(reads.run())
    await asyncio.sleep(0)
    for n in range(5):
        reads.note(SYSTEM, tenant.id, "ListMembers", (f"workspace:ws_{n}",))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [e.object for e in await audited.events(tenant, outcome=Outcome.READ)] == [
        "workspace:ws_0",
        "workspace:ws_1",
    ]


async def test_whoever_reads_the_audit_is_in_it_before_anything_is_told(audited: Audit) -> None:
    tenant, _ = await audited.parts.tenant()
    await audited.page(tenant, actor="user:alice")
    async with aclosing(audited.export(tenant)) as messages:
        await anext(messages)
    page = await audited.page(tenant, outcome=Outcome.READ)
    assert [(e.method, e.object, e.after) for e in page.records] == [
        ("ListAuditEvents", f"tenant:{tenant.id}", {"actor": "user:alice"}),
        ("ExportAuditEvents", f"tenant:{tenant.id}", None),
    ]


# -- who may read it ----------------------------------------------------------------------------------------


async def test_a_tenants_audit_is_for_its_admins_and_the_installations_for_system_keys(audited: Audit) -> None:
    parts = audited.parts
    tenant, root = await parts.tenant()
    other, _ = await parts.tenant()
    await parts.role(tenant, "mia", Role.MEMBER)
    await parts.role(root, "bob", Role.OWNER)
    assert await audited.found(tenant, caller=parts.acting("alice"), method="CreateTenant") == ["CreateTenant"]
    key = replace(SYSTEM, tenant_id=tenant.id)
    assert await audited.found(tenant, caller=key, method="CreateTenant") == ["CreateTenant"]
    for caller, of, error in (
        (parts.acting("mia"), tenant, Forbidden),
        (parts.acting("bob"), tenant, NotFound),
        (parts.acting("eve"), tenant, NotFound),
        (key, other, NotFound),
        (replace(key, workspace_id=root.id), tenant, NotFound),
        (replace(key, workspace_id=root.id, acting_user=UserId("alice")), tenant, NotFound),
        (replace(key, acting_user=UserId("mia")), tenant, Forbidden),
        (SYSTEM, replace(tenant, id=UNKNOWN), NotFound),
        (parts.acting("alice"), None, Forbidden),
        (key, None, Forbidden),
    ):
        with pytest.raises(error):
            await audited.page(of, caller)
        with pytest.raises(error):
            await anext(audited.export(of, caller))


# -- looking for events -------------------------------------------------------------------------------------


async def test_each_filter_finds_its_events_and_together_they_find_what_has_all(audited: Audit) -> None:
    parts = audited.parts
    tenant, root = await parts.tenant()
    eng = await parts.workspace(root, "eng")
    group = await parts.group(tenant, "team")
    await parts.role(eng, group, Role.VIEWER, replace(SYSTEM, principal="api_key:key_1", request_id="r-9"))
    await parts.role(root, "bob", Role.VIEWER, parts.acting("alice"))
    with pytest.raises(PreconditionFailed):
        await parts.workspaces.archive_workspace(SYSTEM, tenant.id, root.id, options=parts.options("ArchiveWorkspace"))
    every = ["CreateTenant", "CreateWorkspace", "CreateGroup", "SetRole", "SetRole", "ArchiveWorkspace"]
    assert await audited.found(tenant) == every
    assert await audited.found(tenant, newest_first=True) == every[::-1]
    for wanted, found in (
        ({"object": f"workspace:{eng.id}"}, every[1:2] + every[3:4]),
        ({"object": f"group:{group.id}"}, ["CreateGroup", "SetRole"]),
        ({"subject": f"group:{group.id}"}, ["CreateGroup", "SetRole"]),
        ({"subject": "user:bob"}, ["SetRole"]),
        ({"actor": "user:alice"}, ["SetRole"]),
        ({"actor": "api_key:key_1"}, ["SetRole"]),
        ({"method": "SetRole"}, ["SetRole", "SetRole"]),
        ({"request_id": "r-9"}, ["SetRole"]),
        ({"outcome": Outcome.REFUSED}, ["ArchiveWorkspace"]),
        ({"outcome": Outcome.CHANGED}, every[:-1]),
        ({"object": f"workspace:{eng.id}", "method": "SetRole"}, ["SetRole"]),
        ({"object": f"workspace:{eng.id}", "subject": "user:bob"}, []),
        ({"method": "SetRole", "actor": "user:alice", "outcome": Outcome.CHANGED}, ["SetRole"]),
        ({"method": "SetRole", "outcome": Outcome.REFUSED}, []),
        ({"request_id": "r-9", "actor": "user:alice"}, []),
    ):
        assert await audited.found(tenant, **wanted) == found, wanted
        assert await audited.found(tenant, newest_first=True, **wanted) == found[::-1], wanted


async def test_times_are_exact_though_ids_only_follow_them(audited: Audit) -> None:
    """What took long was begun before what came before it."""
    parts = audited.parts
    tenant, _ = await parts.tenant()
    [first] = await parts.sql("SELECT create_time FROM audit")
    for seconds in (300, 290, 600, 560):
        await at_second(parts, tenant, seconds)
    for since, until, found in (
        (None, None, [0, 300, 290, 600, 560]),
        (290, None, [300, 290, 600, 560]),
        (291, None, [300, 600, 560]),
        (None, 300, [0, 290]),
        (295, 600, [300, 560]),
        (601, None, []),
        (None, 0, []),
    ):
        given = {"since": since, "until": until}
        wanted = {k: first["create_time"] + timedelta(seconds=v) for k, v in given.items() if v is not None}
        async with parts.database.begin(TenantScope(tenant.id)) as tx:
            look = await audit.look(tx, AuditFilter(**wanted), 0, audit.NEWEST, 10, newest_first=False)
        assert [round((e.create_time - first["create_time"]).total_seconds()) for e in look.events] == found


async def at_second(parts: Parts, tenant, seconds: float) -> None:
    """An event that began so long after the first."""
    async with parts.database.begin(TenantScope(tenant.id)) as tx:
        await tx.connection.execute(
            "INSERT INTO audit (tenant_id, principal, peer, request_id, method, object, ops, create_time)"
            " SELECT tenant_id, '', '', '', 'Test', '', '[]', create_time + make_interval(secs => $1)"
            " FROM audit WHERE method = 'CreateTenant'",
            seconds,
        )


@pytest.mark.parametrize("newest_first", [False, True])
async def test_pages_go_on_where_the_last_ended_and_what_comes_meanwhile_is_on_none(
    audited: Audit, newest_first: bool
) -> None:
    parts = audited.parts
    tenant, root = await parts.tenant()
    for n in range(6):
        await parts.role(root, f"u{n}", Role.VIEWER)
    pages, token = [], ""
    while True:
        page = await audited.page(tenant, newest_first=newest_first, size=2, token=token)
        pages.append([event.seq for event in page.records])
        token = page.next_page_token
        if not token:
            break
        await parts.role(root, f"v{len(pages)}", Role.VIEWER)
    seqs = [1, 2, 3, 4, 5, 6, 7]
    assert [seq for page in pages for seq in page] == (seqs[::-1] if newest_first else seqs)


async def test_a_page_token_is_of_one_list_of_one_caller(audited: Audit) -> None:
    parts = audited.parts
    tenant, root = await parts.tenant()
    await parts.role(root, "bob", Role.VIEWER)
    token = (await audited.page(tenant, size=1)).next_page_token
    for given in ({"method": "SetRole"}, {"caller": parts.acting("alice")}, {"newest_first": True}):
        with pytest.raises(InvalidRequest):
            await audited.page(tenant, size=1, token=token, **given)


async def test_a_look_ends_after_as_many_as_it_may_look_at_and_the_next_goes_on(audited: Audit, monkeypatch) -> None:
    monkeypatch.setattr(audit, "MAX_LOOKED", 4)
    monkeypatch.setattr(audit, "STEP", 2)
    parts = audited.parts
    tenant, root = await parts.tenant()
    for n in range(7):
        await parts.role(root, f"u{n}", Role.VIEWER)
    wanted = {"method": "SetRole", "subject": "user:u6", "object": f"workspace:{root.id}"}
    found, pages, token = [], 0, ""
    while pages == 0 or token:
        page = await audited.page(tenant, token=token, **wanted)
        found += page.records
        token = page.next_page_token
        pages += 1
    assert [event.seq for event in found] == [8]
    assert pages == 3, "of eight that are about the workspace four at a time"


async def test_a_page_ends_where_it_gets_too_large_and_records_that_are_are_left_out(
    audited: Audit, monkeypatch
) -> None:
    parts = audited.parts
    tenant, _ = await parts.tenant()
    async with parts.database.begin(TenantScope(tenant.id)) as tx:
        for size in (900_000, 900_000, 900_000, 1_200_000):
            seq = await outbox.advance(tx)
            await journal.append(tx, tenant.id, seq, [[]], AuditEntry(SYSTEM, "Test", "x", after={"text": "x" * size}))
    first = await audited.page(tenant, method="Test")
    assert [len(json.dumps(e.after)) > 900_000 for e in first.records] == [True, True, True]
    second = await audited.page(tenant, token=first.next_page_token, method="Test")
    assert [(e.after, e.records_left_out) for e in second.records] == [(None, True)]
    assert not second.next_page_token


# -- export -------------------------------------------------------------------------------------------------


async def test_an_export_goes_on_from_any_of_its_cursors(audited: Audit) -> None:
    parts = audited.parts
    tenant, root = await parts.tenant()
    for n in range(4):
        await parts.role(root, f"u{n}", Role.VIEWER)
    exported = await audited.exported(tenant, outcome=Outcome.CHANGED)
    assert [each.event.seq for each in exported[:-1]] == [1, 2, 3, 4, 5]
    assert exported[-1].event is None
    for done, each in enumerate(exported[:-1], 1):
        again = await audited.exported(tenant, each.cursor, outcome=Outcome.CHANGED)
        assert [one.event.seq for one in again[:-1]] == [1, 2, 3, 4, 5][done:]
    await parts.role(root, "last", Role.VIEWER)
    came_since = await audited.exported(tenant, exported[-1].cursor, outcome=Outcome.CHANGED)
    assert [one.event.seq for one in came_since[:-1]] == [6]


async def test_an_export_whose_cursor_is_older_than_the_audit_says_so(audited: Audit) -> None:
    parts = audited.parts
    tenant, root = await parts.tenant()
    await parts.role(root, "bob", Role.VIEWER)
    cursor = (await audited.exported(tenant))[-1].cursor
    await parts.role(root, "carol", Role.VIEWER)
    async with parts.database.begin_relay() as tx:
        assert await delivery.prune_audit(tx, -60, 1000) == 4
    assert await parts.sql("SELECT FROM audit_mention") == []
    with pytest.raises(PreconditionFailed) as caught:
        await audited.exported(tenant, cursor)
    assert caught.value.reason is Reason.CURSOR_EXPIRED
    assert [each.event.method for each in await audited.exported(tenant) if each.event]


async def test_so_many_exports_run_at_a_time(audited: Audit) -> None:
    tenant, _ = await audited.parts.tenant()
    running = [audited.export(tenant) for _ in range(MAX_EXPORTS)]
    for each in running:
        await anext(each)
    with pytest.raises(Unavailable):
        await audited.exported(tenant)
    for each in running:
        await each.aclose()
    assert await audited.exported(tenant)


# -- how much is read ---------------------------------------------------------------------------------------

EVENTS = 20_000
NAMED = {
    "request_id": {"request_id": "r-7"},
    "object": {"object": "workspace:ws_7"},
    "subject": {"subject": "user:u7"},
    "acting_user": {"actor": "user:a7"},
    "principal": {"actor": "key_7"},
    "method": {"method": "M7"},
    "outcome": {"outcome": Outcome.REFUSED},
    "": {},
    "since": {"since": timedelta(seconds=-60)},
    "until": {"until": timedelta(seconds=-19_000)},
}


@pytest.fixture
async def many_events(parts: Parts, database_url: str):
    """A second apart, of a hundred kinds."""
    tenant, _ = await parts.tenant()
    async with parts.database.begin(TenantScope(tenant.id)) as tx:
        await tx.connection.execute(
            "INSERT INTO audit (tenant_id, principal, acting_user, peer, request_id, method, object, ops, about,"
            "  outcome, reason, create_time)"
            " SELECT $1, 'key_' || n % 100, 'a' || n % 100, '', 'r-' || n, 'M' || n % 100, 'workspace:ws_' || n % 100,"
            "  '[]', ARRAY['user:u' || n % 100], CASE WHEN n % 100 = 7 THEN 'refused' ELSE 'changed' END,"
            "  CASE WHEN n % 100 = 7 THEN 'X' END, now() - make_interval(secs => $2 - n)"
            " FROM generate_series(1, $2) AS n",
            tenant.id,
            EVENTS,
        )
        await tx.connection.execute(
            "INSERT INTO audit_mention SELECT tenant_id, unnest(about), id FROM audit WHERE principal LIKE 'key%'"
        )
    await as_owner(database_url, "audit", "ANALYZE audit, audit_mention")
    return tenant


def outline(node, depth: int = 0):
    """A line for each node: what it does, along which index, and for how many rows."""
    named = (node.get(key, "") for key in ("Node Type", "Scan Direction", "Index Name", "Index Cond", "Actual Rows"))
    yield "  " * depth + " ".join(str(each) for each in named)
    for child in node.get("Plans", ()):
        yield from outline(child, depth + 1)


@pytest.mark.parametrize("newest_first", [False, True], ids=["oldest first", "newest first"])
@pytest.mark.parametrize("by", NAMED)
async def test_a_page_reads_along_an_index_no_more_than_it_tells(
    parts: Parts, many_events, monkeypatch, by: str, newest_first: bool
) -> None:
    """As the API's role, whose every row is looked at twice; by the pages of tables and indexes that it touches."""
    tenant = many_events
    now = (await parts.sql("SELECT now() AS now"))[0]["now"]
    wanted = {k: now + v if isinstance(v, timedelta) else v for k, v in NAMED[by].items()}
    touched = 0
    plans = []

    async def explained(statement, tx, **parameters):
        nonlocal touched
        explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement.sql}"
        [plan] = json.loads(await tx.connection.fetchval(explain, *statement.arguments(parameters)))
        plans.append("\n".join(outline(plan["Plan"])))
        touched += plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]
        return await tx.connection.fetch(statement.sql, *statement.arguments(parameters))

    async def first(statement, tx, **parameters):
        return next(iter(await explained(statement, tx, **parameters)), None)

    monkeypatch.setattr(audit.Statement, "rows", explained)
    monkeypatch.setattr(audit.Statement, "row", first)
    async with parts.database.begin(TenantScope(tenant.id)) as tx:
        look = await audit.look(tx, AuditFilter(**wanted), 0, audit.NEWEST, 20, newest_first=newest_first)
    assert look.events
    told = "\n\n".join(plans)
    assert "Seq Scan" not in told, told
    assert touched < 2500, f"{touched} pages:\n{told}"
