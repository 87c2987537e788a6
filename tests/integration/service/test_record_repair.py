"""Repair of records: what is found, what is repaired in one audited row, and what is left for a person."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from pemba.errors import NotFound
from pemba.model import Role
from pemba.service.ids import new_workspace_id
from pemba.service.record_repair import AUTOMATIC, PRINCIPAL, RecordRepair
from pemba.storage.invariants import Broken
from tests.breaking import breaking, personal_workspace


@pytest.fixture
def repair(parts: Any) -> RecordRepair:
    return RecordRepair(parts.database)


async def found(repair: RecordRepair) -> list[tuple[Broken, str, str]]:
    return [(each.broken, each.about, each.detail) for each in await repair.find()]


async def roles(parts: Any, workspace_id: str) -> dict[str, str]:
    rows = await parts.sql("SELECT subject_id, role FROM memberships WHERE workspace_id = $1", workspace_id)
    return dict(rows)


async def test_nothing_is_found_where_all_is_well(parts: Any, repair: RecordRepair) -> None:
    tenant, root = await parts.tenant()
    eng = await parts.workspace(root, "eng", owner="bob")
    below = await parts.workspace(eng, "below")
    await parts.role(tenant, "carol", Role.MEMBER)
    await parts.workspaces.archive_workspace(parts.system, tenant.id, below.id, options=parts.options())
    await parts.suspend("carol")
    assert await repair.find() == []


async def test_p6_a_personal_workspace_is_its_users_alone_again(
    parts: Any, repair: RecordRepair, database_url: str
) -> None:
    tenant, root = await parts.tenant()
    eng = await parts.workspace(root, "eng", owner="bob")
    await parts.role(tenant, "eve", Role.MEMBER)
    own = new_workspace_id()
    async with breaking(database_url) as broken:
        await personal_workspace(broken, tenant.id, own, "bob", ("bob", "viewer"), ("eve", "admin"))
        await broken.execute(
            "INSERT INTO shares (tenant_id, id, workspace_id, with_workspace_id, role, changed_seq)"
            " VALUES ($1, 'shr_01h455vb4pex5vsknk084sn02q', $2, $3, 'viewer', 1)",
            *(tenant.id, own, eng.id),
        )
    about = f"workspace:{own}"
    assert await found(repair) == [
        (Broken.PERSONAL_STRANGER, about, "user:bob is viewer"),
        (Broken.PERSONAL_STRANGER, about, "user:eve is admin"),
        (Broken.PERSONAL_WITHOUT_OWNER, about, "user:bob"),
        (Broken.PERSONAL_SHARED, about, "shr_01h455vb4pex5vsknk084sn02q"),
    ]
    before = len(await parts.operations(tenant))
    assert await repair.repair((await repair.find())[0])
    assert await found(repair) == []
    assert await roles(parts, own) == {"bob": "owner"}
    assert await parts.sql("SELECT id FROM shares") == []
    [row] = (await parts.operations(tenant))[before:]
    assert {operation for operation in row if "@user:" in operation} == {
        *("-viewer@user:bob", "-admin@user:eve", "+owner@user:bob")
    }
    assert any("shared_viewer" in operation for operation in row if operation.startswith("-"))
    [audit] = await parts.sql("SELECT principal, before, after FROM audit WHERE method = 'Repair'")
    assert audit["principal"] == PRINCIPAL
    assert [each["subject"]["id"] for each in _plain(audit["after"])["memberships"]] == ["bob"]
    assert len(_plain(audit["before"])["memberships"]) == 2


def _plain(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


async def test_a_second_repair_changes_nothing_also_when_both_come_at_once(
    parts: Any, repair: RecordRepair, database_url: str
) -> None:
    tenant, _ = await parts.tenant()
    await parts.role(tenant, "bob", Role.MEMBER)
    async with breaking(database_url) as broken:
        await personal_workspace(broken, tenant.id, new_workspace_id(), "bob")
    [finding] = await repair.find()
    before = len(await parts.operations(tenant))
    assert sorted(await asyncio.gather(*(repair.repair(finding) for _ in range(3)))) == [False, False, True]
    assert len(await parts.operations(tenant)) == before + 1
    assert await repair.find() == []


async def test_who_is_suspended_becomes_owner_without_a_tuple(
    parts: Any, repair: RecordRepair, database_url: str
) -> None:
    tenant, _ = await parts.tenant()
    await parts.role(tenant, "bob", Role.MEMBER)
    await parts.suspend("bob")
    await parts.all_jobs()
    own = new_workspace_id()
    async with breaking(database_url) as broken:
        await personal_workspace(broken, tenant.id, own, "bob", ("alice", "owner"))
    before = len(await parts.operations(tenant))
    assert await repair.repair((await repair.find())[0])
    assert (await parts.operations(tenant))[before:] == [["-owner@user:alice"]]
    assert await roles(parts, own) == {"bob": "owner"}
    assert await repair.find() == []


async def test_the_personal_workspace_of_who_is_deactivated_is_for_a_person_to_decide(
    parts: Any, repair: RecordRepair, database_url: str
) -> None:
    tenant, root = await parts.tenant()
    await parts.role(tenant, "bob", Role.MEMBER)
    await parts.deactivate("bob")
    await parts.all_jobs()
    own = new_workspace_id()
    async with breaking(database_url) as broken:
        await personal_workspace(broken, tenant.id, own, "bob", ("alice", "owner"))
        await broken.execute(
            "INSERT INTO shares (tenant_id, id, workspace_id, with_workspace_id, role, changed_seq)"
            " VALUES ($1, 'shr_01h455vb4pex5vsknk084sn02q', $2, $3, 'viewer', 1)",
            *(tenant.id, root.id, own),
        )
    findings = await repair.find()
    assert [each.broken for each in findings] == [Broken.PERSONAL_SHARED, Broken.PERSONAL_OF_NOBODY]
    assert await repair.repair(findings[0])
    assert [each.broken for each in await repair.find()] == [Broken.PERSONAL_OF_NOBODY]
    assert await roles(parts, own) == {"alice": "owner"}


async def test_what_a_person_must_decide_is_told_and_left(parts: Any, repair: RecordRepair, database_url: str) -> None:
    tenant, root = await parts.tenant()
    eng = await parts.workspace(root, "eng")
    below = await parts.workspace(eng, "below")
    one, two, child = new_workspace_id(), new_workspace_id(), new_workspace_id()
    other, _ = await parts.tenant(admin="dave")
    await parts.role(tenant, "bob", Role.MEMBER)
    async with breaking(database_url) as broken:
        await broken.execute("RESET ROLE")
        await broken.execute("DROP INDEX IF EXISTS workspaces_one_personal_key")
        await broken.execute("SET ROLE pemba_system")
        for id_ in (one, two):
            await personal_workspace(broken, tenant.id, id_, "bob", ("bob", "owner"))
        await broken.execute(
            "INSERT INTO workspaces (tenant_id, id, parent_id, slug, name, kind, changed_seq)"
            " VALUES ($1, $2, $3, 'child', 'Child', 'shared', 1)",
            *(tenant.id, child, one),
        )
        await broken.execute("UPDATE workspaces SET archive_time = now(), archived_with = id WHERE id = $1", eng.id)
        await broken.execute("UPDATE users SET status = 'suspended', suspend_time = now() WHERE id = 'dave'")
    assert [(each.broken, each.about) for each in await repair.find()] == [
        (Broken.PERSONAL_CHILDREN, f"workspace:{one}"),
        (Broken.PERSONAL_TWICE, "user:bob"),
        (Broken.ADMIN_MISSING, f"tenant:{other.id}"),
        (Broken.ARCHIVE_BROKEN, f"workspace:{below.id}"),
    ]
    assert not {each.broken for each in await repair.find()} & AUTOMATIC
    assert {each.broken for each in await repair.find(other.id)} == {Broken.ADMIN_MISSING}


async def test_a_circle_of_workspaces_is_found(parts: Any, repair: RecordRepair, database_url: str) -> None:
    tenant, root = await parts.tenant()
    eng = await parts.workspace(root, "eng")
    below = await parts.workspace(eng, "below")
    async with breaking(database_url) as broken:
        await broken.execute("UPDATE workspaces SET parent_id = $1 WHERE id = $2", below.id, eng.id)
    assert {(each.broken, each.id) for each in await repair.find(tenant.id)} == {
        *((Broken.TREE_BROKEN, eng.id), (Broken.TREE_BROKEN, below.id))
    }


async def test_a_stream_without_head_goes_on_where_it_was(parts: Any, repair: RecordRepair, database_url: str) -> None:
    tenant, root = await parts.tenant()
    await parts.workspace(root, "eng")
    async with breaking(database_url) as broken:
        await broken.execute("RESET ROLE")
        await broken.execute("ALTER TABLE tenant_head NO FORCE ROW LEVEL SECURITY")
        await broken.execute("DELETE FROM tenant_head WHERE tenant_id = $1", tenant.id)
        await broken.execute("ALTER TABLE tenant_head FORCE ROW LEVEL SECURITY")
        await broken.execute("SET ROLE pemba_system")
    with pytest.raises(NotFound):
        await parts.workspace(root, "ops")
    [finding] = await repair.find()
    assert finding.broken is Broken.HEAD_MISSING
    assert await repair.repair(finding)
    await parts.workspace(root, "ops")
    assert [r["seq"] for r in await parts.sql("SELECT seq FROM outbox WHERE tenant_id = $1", tenant.id)] == [1, 2, 3]
    assert await repair.find() == []


async def test_a_change_of_status_that_lost_its_job_is_carried_out(parts: Any, repair: RecordRepair) -> None:
    tenant, _ = await parts.tenant()
    await parts.role(tenant, "bob", Role.MEMBER)
    await parts.role(tenant, "carol", Role.MEMBER)
    await parts.deactivate("carol")
    await parts.sql("DELETE FROM user_job")
    await parts.sql("UPDATE users SET status = 'suspended', suspend_time = now(), activating = true WHERE id = 'bob'")
    findings = await repair.find()
    assert [(each.broken, each.about) for each in findings] == [
        (Broken.JOB_MISSING, "user:bob"),
        (Broken.JOB_MISSING, "user:carol"),
    ]
    for finding in findings:
        assert await repair.repair(finding)
    await parts.all_jobs()
    assert await parts.sql("SELECT status FROM users WHERE id = 'bob'") == [("active",)]
    assert await parts.sql("SELECT * FROM memberships WHERE user_id = 'carol'") == []
    assert await repair.find() == []
