"""Finding and repair of a tenant: what was changed in SpiceDB behind Pemba's back is told and undone, and only that."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence

import pytest

from pemba.errors import NotFound, Unavailable
from pemba.model import Caller, Group, Operation, Role, Tenant, TenantId, Tuple, TupleOperation, Workspace
from pemba.service import reconciliation
from pemba.service.drift import MAX_UNDELIVERED_ROWS, Finding, Kind
from pemba.service.reconciliation import Options, Reconciler, Summary
from pemba.service.repair import repair
from pemba.spicedb.client import SpiceDB
from pemba.spicedb.stored import StoredTuples
from pemba.storage import journal
from pemba.storage.comparison import Comparison
from pemba.storage.database import Database
from tests.integration.conftest import SYSTEM, Parts
from tests.integration.instruments import Gate, one_behind_the_other
from tests.integration.relay.conftest import Relaying
from tests.truth import as_owner, eventually, is_delivered, projected, require_no_gap, require_truth, sql, stored

UNKNOWN = "01h455vb4pex5vsknk084sn02q"


@pytest.fixture
def reconciler(database: Database, database_url: str, store: SpiceDB, parts: Parts) -> Reconciler:
    return Reconciler(database, database_url, StoredTuples(store), parts.mutations.wakeup)


async def run(
    reconciler: Reconciler, tenant: Tenant, caller: Caller = SYSTEM, **options: object
) -> tuple[set[tuple[Kind, str]], Summary]:
    """What is found, as (kind, tuple), and the summary."""
    findings, summary = await told(reconciler, Options(tenant_id=tenant.id, **options), caller)
    return {(f.drift.kind, str(f.drift.tuple)) for f in findings}, summary


async def told(reconciler: Reconciler, options: Options, caller: Caller = SYSTEM) -> tuple[list[Finding], Summary]:
    events = [event async for event in reconciler.run(caller, options)]
    assert isinstance(events[-1], Summary)
    return [event for event in events if isinstance(event, Finding)], events[-1]


async def behind_its_back(store: SpiceDB, *texts: str) -> None:
    """`+tuple` and `-tuple`, written by nobody's order."""
    kinds = {"+": Operation.TOUCH, "-": Operation.DELETE}
    operations = [TupleOperation(kinds[text[0]], Tuple.parse(text[1:])) for text in texts]
    await store.write(operations, metadata={}, timeout=5)


def kinds(missing: Iterable[str] = (), too_much: Iterable[str] = ()) -> set[tuple[Kind, str]]:
    return {(Kind.MISSING, t) for t in missing} | {(Kind.TOO_MUCH, t) for t in too_much}


def on(place: Tenant | Workspace | Group, relation: str, subject: str) -> str:
    if isinstance(place, Tenant):
        return f"tenant:{place.id}/{place.id}#{relation}@{subject}"
    type_ = "group" if isinstance(place, Group) else "workspace"
    return f"{type_}:{place.tenant_id}/{place.id}#{relation}@{subject}"


async def everything(url: str) -> list[Sequence[object]]:
    """All that a dry run must leave alone in PostgreSQL."""
    return [
        tuple(row)
        for statement in (
            "SELECT tenant_id, head_seq FROM tenant_head ORDER BY 1",
            "SELECT tenant_id, seq, ops::text FROM outbox ORDER BY 1, 2",
            "SELECT id, tenant_id, seq, method FROM audit ORDER BY 1",
        )
        for row in await sql(url, statement)
    ]


class Company:
    """A delivered tenant: root, eng, eng/backend; alice its admin, bob and carol with roles; mia's team, sub in it."""

    def __init__(
        self, tenant: Tenant, root: Workspace, eng: Workspace, backend: Workspace, team: Group, sub: Group
    ) -> None:
        self.tenant, self.root, self.eng, self.backend, self.team, self.sub = tenant, root, eng, backend, team, sub


@pytest.fixture
async def company(parts: Parts, relaying: Relaying, database_url: str) -> AsyncIterator[Company]:
    """With a relay that runs."""
    async with relaying():
        made = await a_company(parts)
        await eventually(lambda: is_delivered(database_url, made.tenant.id))
        yield made


async def a_company(parts: Parts) -> Company:
    tenant, root = await parts.tenant()
    eng = await parts.workspace(root, "eng", owner="bob")
    backend = await parts.workspace(eng, "backend")
    await parts.role(backend, "carol", Role.VIEWER)
    await parts.role(tenant, "dave", Role.MEMBER)
    sub = await parts.group(tenant, "sub", "sam")
    team = await parts.group(tenant, "team", sub, "bob", manager="mia")
    await parts.role(eng, team, Role.MEMBER)
    return Company(tenant, root, eng, backend, team, sub)


def wounds(made: Company, other: Company) -> tuple[list[str], list[str]]:
    """What is taken out, and what is put in: other users, other objects, other relations, other tenants."""
    out = [
        on(made.backend, "viewer", "user:carol"),
        on(made.backend, "parent", f"workspace:{made.tenant.id}/{made.eng.id}"),
        on(made.root, "tenant", f"tenant:{made.tenant.id}/{made.tenant.id}"),
        on(made.tenant, "member", "user:dave"),
        on(made.team, "member", "user:bob"),
        on(made.team, "manager", "user:mia"),
        on(made.team, "member", f"group:{made.tenant.id}/{made.sub.id}#member"),
        on(made.eng, "member", f"group:{made.tenant.id}/{made.team.id}#member"),
    ]
    put_in = [
        on(made.eng, "admin", "user:eve"),
        on(made.eng, "viewer", "user:bob"),  # a user with another role there
        on(made.tenant, "admin", "user:dave"),
        on(made.eng, "viewer", "user:zo=C3=AB=40acme"),
        on(made.eng, "viewer", "user:=62ob"),  # spelt as Pemba spells nobody
        on(made.eng, "shared_admin", f"workspace:{made.tenant.id}/{made.root.id}#roster"),
        on(made.eng, "admin", f"group:{made.tenant.id}/grp_{UNKNOWN}#member"),
        on(made.eng, "admin", f"group:{made.tenant.id}/{made.team.id}#member"),  # a group with another role there
        on(made.team, "member", "user:eve"),
        on(made.team, "manager", "user:bob"),  # a member who manages nothing
        on(made.sub, "member", f"group:{made.tenant.id}/{made.team.id}#member"),  # a cycle
        on(made.sub, "member", f"group:{other.tenant.id}/{other.sub.id}#member"),  # another tenant's
        f"group:{made.tenant.id}/grp_{UNKNOWN}#member@user:eve",
        on(made.eng, "parent", f"workspace:{made.tenant.id}/{made.backend.id}"),  # a cycle
        on(made.eng, "parent", f"workspace:{other.tenant.id}/{other.root.id}"),  # another tenant's admins
        f"workspace:{made.tenant.id}/ws_{UNKNOWN}#owner@user:eve",
        f"workspace:{made.tenant.id}/{other.eng.id}#owner@user:eve",  # another tenant's, under this one's prefix
        f"workspace:{made.tenant.id}/x#owner@user:eve",
        f"tenant:{made.tenant.id}/{other.tenant.id}#admin@user:eve",
    ]
    return out, put_in


async def test_what_was_taken_out_and_put_in_behind_pembas_back_is_told_and_a_dry_run_changes_nothing(
    company: Company, parts: Parts, reconciler: Reconciler, store: SpiceDB, database_url: str
) -> None:
    out, put_in = wounds(company, await a_company(parts))
    await behind_its_back(store, *(f"-{t}" for t in out), *(f"+{t}" for t in put_in))
    before = await stored(store, company.tenant.id), await everything(database_url)
    found, summary = await run(reconciler, company.tenant)
    assert found == kinds(out, put_in)
    assert (summary.missing, summary.too_much, summary.foreign) == (len(out), len(put_in), 0)
    assert (summary.repaired, summary.undelivered, summary.positions) == (0, 0, {})
    assert summary.projected == len(await projected(database_url, company.tenant.id))
    assert (await stored(store, company.tenant.id), await everything(database_url)) == before


async def test_it_is_repaired_by_ordinary_rows_of_exactly_these_tuples_and_audited(
    company: Company, parts: Parts, reconciler: Reconciler, store: SpiceDB, database_url: str
) -> None:
    out, put_in = wounds(company, await a_company(parts))
    head = await require_no_gap(database_url, company.tenant.id)
    await behind_its_back(store, *(f"-{t}" for t in out), *(f"+{t}" for t in put_in))
    found, summary = await run(reconciler, company.tenant, apply=True, max_deletions=len(put_in), wait=True)
    assert found == kinds(out, put_in)
    assert (summary.repaired, summary.deletions_withheld) == (len(found), False)
    assert await stored(store, company.tenant.id) == await projected(database_url, company.tenant.id)
    await require_truth(database_url, store, company.tenant.id)
    rows = await parts.sql(
        "SELECT a.seq, a.ops, a.ops = o.ops AS same, a.method, a.principal, a.object, a.request_id"
        " FROM audit a JOIN outbox o USING (tenant_id, seq) WHERE tenant_id = $1 AND seq > $2 ORDER BY seq",
        company.tenant.id,
        head,
    )
    written = [(o["op"], o["tuple"]) for row in rows for o in row["ops"]]
    assert sorted(written) == sorted([*(("touch", t) for t in out), *(("delete", t) for t in put_in)])
    assert {(r["method"], r["principal"], r["object"], r["same"]) for r in rows} == {
        ("Reconcile", SYSTEM.principal, f"tenant:{company.tenant.id}", True)
    }
    assert summary.positions == {company.tenant.id: rows[-1]["seq"]}
    assert await run(reconciler, company.tenant) == (set(), summary_without_drift(summary))


def summary_without_drift(after: Summary) -> Summary:
    held = after.projected
    return Summary(
        stored=held,
        projected=held,
        missing=0,
        too_much=0,
        foreign=0,
        undelivered=0,
        repaired=0,
        deletions_withheld=False,
        max_deletions=10,
        positions={},
    )


async def test_findings_say_it_in_callers_ids_with_the_names_of_the_records(
    company: Company, reconciler: Reconciler, store: SpiceDB
) -> None:
    made = company
    await behind_its_back(
        store,
        "-" + on(made.backend, "parent", f"workspace:{made.tenant.id}/{made.eng.id}"),
        "-" + on(made.root, "tenant", f"tenant:{made.tenant.id}/{made.tenant.id}"),
        "+" + on(made.backend, "admin", "user:zo=C3=AB=40acme"),
        f"+workspace:{made.tenant.id}/ws_{UNKNOWN}#admin@user:eve",
    )
    findings, _ = await told(reconciler, Options(tenant_id=made.tenant.id))
    slug = made.tenant.slug
    assert {
        (str(f.object), f.object_name, f.drift.tuple.relation, str(f.subject), f.subject_name) for f in findings
    } == {
        (f"workspace:{made.backend.id}", f"{slug}/eng/backend", "parent", f"workspace:{made.eng.id}", f"{slug}/eng"),
        (f"workspace:{made.root.id}", f"{slug}/", "tenant", f"tenant:{made.tenant.id}", slug),
        (f"workspace:{made.backend.id}", f"{slug}/eng/backend", "admin", "user:zoë@acme", ""),
        (f"workspace:ws_{UNKNOWN}", "", "admin", "user:eve", ""),
    }
    assert {f.tenant_slug for f in findings} == {slug}


async def test_what_is_archived_and_whoever_is_suspended_project_nothing(
    company: Company, parts: Parts, reconciler: Reconciler, store: SpiceDB, database_url: str
) -> None:
    made = company
    await parts.workspaces.archive_workspace(SYSTEM, made.tenant.id, made.backend.id, options=parts.options())
    await parts.suspend("bob")
    await eventually(lambda: is_delivered(database_url, made.tenant.id))
    found, summary = await run(reconciler, made.tenant)
    # The job has not begun: bob's role and his place in the team are on their way.
    assert (found, summary.undelivered) == (set(), 2)
    await parts.all_jobs()
    await eventually(lambda: is_delivered(database_url, made.tenant.id))
    found, summary = await run(reconciler, made.tenant)
    assert (found, summary.undelivered) == (set(), 0)

    back = [
        on(made.backend, "viewer", "user:carol"),
        on(made.eng, "owner", "user:bob"),
        on(made.team, "member", "user:bob"),
    ]
    await behind_its_back(store, *(f"+{t}" for t in back))
    found, _ = await run(reconciler, made.tenant, apply=True, wait=True)
    assert found == kinds(too_much=back)
    await require_truth(database_url, store, made.tenant.id)


async def test_whoever_is_being_activated_projects_what_is_theirs(
    company: Company, parts: Parts, reconciler: Reconciler, store: SpiceDB, database_url: str
) -> None:
    """Tuples come first and the status last: a repair in between must not take away what the job gave back."""
    made = company
    await parts.suspend("bob")
    await parts.all_jobs()
    await eventually(lambda: is_delivered(database_url, made.tenant.id))
    await as_owner(database_url, "users", "UPDATE users SET activating = true WHERE id = 'bob'")
    theirs = [on(made.eng, "owner", "user:bob"), on(made.team, "member", "user:bob")]
    assert (await run(reconciler, made.tenant, apply=True))[0] == kinds(missing=theirs)


async def test_what_is_not_delivered_yet_is_no_drift_and_hides_none(
    parts: Parts, reconciler: Reconciler, relaying: Relaying, store: SpiceDB, database_url: str
) -> None:
    async with relaying():
        made = await a_company(parts)
        await eventually(lambda: is_delivered(database_url, made.tenant.id))
    await parts.role(made.backend, "frank", Role.ADMIN)  # nobody delivers it
    await parts.role(made.backend, "carol", Role.ADMIN)
    lost = on(made.eng, "owner", "user:bob")
    await behind_its_back(store, f"-{lost}")
    found, summary = await run(reconciler, made.tenant)
    assert found == kinds(missing=[lost])
    assert summary.undelivered == 3
    for number in range(MAX_UNDELIVERED_ROWS):
        await parts.role(made.root, f"user-{number}", Role.VIEWER)
    found, summary = await run(reconciler, made.tenant)
    assert (found, summary.undelivered) == (set(), 4 + MAX_UNDELIVERED_ROWS)


async def test_a_change_that_is_delivered_between_the_two_readings_is_no_drift(
    company: Company, parts: Parts, database: Database, database_url: str, store: SpiceDB
) -> None:
    class Slow(StoredTuples):
        async def scan(self, type_: str, id_prefix: str):
            async for found in super().scan(type_, id_prefix):
                yield found
            if type_ == "workspace":
                await parts.role(company.backend, "frank", Role.ADMIN)
                await parts.remove(company.backend, "carol")
                await eventually(lambda: is_delivered(database_url, company.tenant.id))

    found, summary = await run(Reconciler(database, database_url, Slow(store), parts.mutations.wakeup), company.tenant)
    assert (found, summary.undelivered) == (set(), 0)


async def test_a_change_that_is_delivered_during_the_second_look_is_no_drift(
    company: Company, parts: Parts, database: Database, database_url: str, store: SpiceDB
) -> None:
    class Slow(StoredTuples):
        async def holding(self, tuples: Sequence[Tuple]) -> set[Tuple]:
            await parts.remove(company.backend, "carol")
            await eventually(lambda: is_delivered(database_url, company.tenant.id))
            return await super().holding(tuples)

    await behind_its_back(store, "-" + on(company.backend, "viewer", "user:carol"))
    found, summary = await run(Reconciler(database, database_url, Slow(store), parts.mutations.wakeup), company.tenant)
    assert (found, summary.undelivered) == (set(), 1)


async def test_a_finding_that_is_stale_when_it_is_repaired_changes_nothing_and_undoes_no_revoke(
    company: Company, parts: Parts, reconciler: Reconciler, store: SpiceDB, database_url: str, monkeypatch
) -> None:
    """Promise 12, forced: after the second look and before the repair, the record changes to the contrary."""
    made = company
    revoked, granted = on(made.backend, "viewer", "user:carol"), on(made.eng, "admin", "user:eve")
    await behind_its_back(store, f"-{revoked}", f"+{granted}")
    repair_it = reconciliation.repair

    async def after_a_change(database, wakeup, caller, tenant_id, tuples):
        if revoked in map(str, tuples):
            await parts.remove(made.backend, "carol")
        else:
            await parts.role(made.eng, "eve", Role.ADMIN)
        return await repair_it(database, wakeup, caller, tenant_id, tuples)

    monkeypatch.setattr(reconciliation, "repair", after_a_change)
    found, summary = await run(reconciler, made.tenant, apply=True, wait=True)
    assert found == kinds([revoked], [granted])
    held = {str(t) for t in await stored(store, made.tenant.id)}
    assert (revoked in held, granted in held) == (False, True)
    await require_truth(database_url, store, made.tenant.id)
    assert summary.repaired == 2


async def test_a_repair_that_waits_for_a_revoke_under_way_sees_it(
    company: Company, parts: Parts, database: Database, store: SpiceDB, database_url: str, monkeypatch
) -> None:
    """Promise 12, forced: the repair begins before the revoke commits, and its row comes after the revoke's."""
    made, revoked = company, on(company.backend, "viewer", "user:carol")

    def repairing() -> Awaitable[object]:
        return repair(database, parts.mutations.wakeup, SYSTEM, made.tenant.id, [Tuple.parse(revoked)])

    gate = Gate(monkeypatch, journal, "append")
    outcomes = await one_behind_the_other(parts, gate, parts.remove(made.backend, "carol"), repairing)
    assert not any(isinstance(outcome, BaseException) for outcome in outcomes)
    assert (await parts.operations(made.tenant))[-2:] == [["-viewer@user:carol"]] * 2
    await require_truth(database_url, store, made.tenant.id)


async def test_beyond_the_budget_nothing_is_deleted_and_what_is_missing_is_added(
    company: Company, reconciler: Reconciler, store: SpiceDB, database_url: str
) -> None:
    made = company
    lost = on(made.backend, "viewer", "user:carol")
    ghosts = [on(made.eng, "viewer", f"user:ghost-{n}") for n in range(11)]
    await behind_its_back(store, f"-{lost}", *(f"+{t}" for t in ghosts))
    found, summary = await run(reconciler, made.tenant, apply=True, wait=True)
    assert found == kinds([lost], ghosts)
    assert (summary.repaired, summary.deletions_withheld, summary.max_deletions) == (1, True, 10)
    held = {str(t) for t in await stored(store, made.tenant.id)}
    assert held == {str(t) for t in await projected(database_url, made.tenant.id)} | set(ghosts)
    _, summary = await run(reconciler, made.tenant, apply=True, max_deletions=10)
    assert (summary.repaired, summary.deletions_withheld) == (0, True)
    _, summary = await run(reconciler, made.tenant, apply=True, max_deletions=11, wait=True)
    assert (summary.repaired, summary.deletions_withheld) == (11, False)
    await require_truth(database_url, store, made.tenant.id)


async def test_one_runs_at_a_time_and_one_that_is_abandoned_makes_room(
    company: Company, reconciler: Reconciler, database_url: str
) -> None:
    async with Comparison.connect(database_url):
        with pytest.raises(Unavailable, match="another reconciliation is under way"):
            await run(reconciler, company.tenant)
    events = reconciler.run(SYSTEM, Options(tenant_id=company.tenant.id))
    await anext(events)
    with pytest.raises(Unavailable, match="another reconciliation is under way"):
        await run(reconciler, company.tenant)
    await events.aclose()
    assert (await run(reconciler, company.tenant))[0] == set()


async def test_a_tenant_that_has_no_stream_is_not_found(reconciler: Reconciler) -> None:
    with pytest.raises(NotFound):
        await told(reconciler, Options(tenant_id=TenantId(f"ten_{UNKNOWN}")))
