"""What must be true in the end: the outbox without a gap, and SpiceDB equal to what the records project to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar

import asyncpg

from pemba import projection
from pemba.model import (
    GroupId,
    GroupMember,
    Membership,
    Role,
    SubjectRef,
    TenantId,
    Tuple,
    UserStatus,
    Workspace,
    WorkspaceId,
    WorkspaceKind,
)
from pemba.spicedb.client import FullyConsistent, SpiceDB
from pemba.storage.database import SYSTEM_ROLE
from pemba.storage.shares import from_record

T = TypeVar("T")

_NEVER = datetime(2000, 1, 1, tzinfo=UTC)


async def eventually(ask: Callable[[], Awaitable[T]], seconds: float = 10.0, *, every: float = 0.01) -> T:
    """What `ask` gives, once that is true.  Fails after `seconds` with what it gave last."""
    deadline = time.monotonic() + seconds
    while not (answer := await ask()):
        assert time.monotonic() < deadline, f"{ask.__qualname__} still gives {answer!r} after {seconds} s"
        await asyncio.sleep(every)
    return answer


async def sql(url: str, statement: str, *arguments: object) -> list[asyncpg.Record]:
    """Rows, of every tenant."""
    connection = await asyncpg.connect(url, server_settings={"role": SYSTEM_ROLE}, timeout=5)
    try:
        return await connection.fetch(statement, *arguments)
    finally:
        await connection.close()


async def as_owner(url: str, table: str, statement: str, *arguments: object) -> None:
    """Change rows of a table as none of Pemba's roles may."""
    connection = await asyncpg.connect(url, timeout=5)
    try:
        async with connection.transaction():
            await connection.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
            await connection.execute(statement, *arguments)
            await connection.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    finally:
        await connection.close()


async def positions(url: str, tenant_id: str) -> tuple[int, int]:
    """Head and delivered position of a tenant's stream."""
    [record] = await sql(
        url,
        "SELECT h.head_seq, coalesce(d.delivered_seq, 0) AS delivered FROM tenant_head h"
        " LEFT JOIN tenant_delivery d ON d.tenant_id = h.tenant_id WHERE h.tenant_id = $1",
        tenant_id,
    )
    return record["head_seq"], record["delivered"]


async def is_delivered(url: str, tenant_id: str) -> bool:
    """Whether everything that is committed is delivered."""
    head, delivered = await positions(url, tenant_id)
    return head == delivered


async def require_no_gap(url: str, tenant_id: str) -> int:
    """The head; every number up to it has its outbox row and its audit row, and no other number has."""
    head, _ = await positions(url, tenant_id)
    for table in ("outbox", "audit"):
        rows = await sql(
            url, f"SELECT seq FROM {table} WHERE tenant_id = $1 AND seq IS NOT NULL ORDER BY seq", tenant_id
        )
        assert [row["seq"] for row in rows] == list(range(1, head + 1)), table
    return head


async def projected(url: str, tenant_id: str) -> set[Tuple]:
    """The tuples that the records of a tenant stand for."""
    places = await sql(url, "SELECT * FROM workspaces WHERE tenant_id = $1", tenant_id)
    roles = await sql(
        url,
        "SELECT m.*, u.status, w.archive_time FROM memberships m LEFT JOIN users u ON u.id = m.user_id"
        " LEFT JOIN workspaces w ON w.tenant_id = m.tenant_id AND w.id = m.workspace_id WHERE m.tenant_id = $1",
        tenant_id,
    )
    members = await sql(
        url,
        "SELECT g.*, u.status FROM group_members g LEFT JOIN users u ON u.id = g.user_id WHERE g.tenant_id = $1",
        tenant_id,
    )
    found: set[Tuple] = set()
    for member in members:
        found |= projection.group_tuples(_group_member(member), subject_is_active=_projects(member))
    for place in places:
        found |= projection.workspace_tuples(_workspace(place))
    for role in roles:
        found |= projection.membership_tuples(
            _membership(role),
            subject_is_active=_projects(role),
            object_is_archived=role["archive_time"] is not None,
        )
    shares = await sql(
        url,
        "SELECT s.*, w.archive_time IS NOT NULL OR v.archive_time IS NOT NULL AS archived FROM shares s"
        " JOIN workspaces w ON w.tenant_id = s.tenant_id AND w.id = s.workspace_id"
        " JOIN workspaces v ON v.tenant_id = s.tenant_id AND v.id = s.with_workspace_id WHERE s.tenant_id = $1",
        tenant_id,
    )
    for share in shares:
        found |= projection.share_tuples(from_record(share), either_is_archived=share["archived"])
    return found


async def stored(spicedb: SpiceDB, tenant_id: str) -> set[Tuple]:
    """The tuples on the objects of a tenant that SpiceDB holds now."""
    return {
        found
        for type_ in projection.TYPES
        async for found in spicedb.read_tuples(type_, FullyConsistent(), 5, id_prefix=f"{tenant_id}/")
    }


async def require_truth(url: str, spicedb: SpiceDB, tenant_id: str, seconds: float = 40.0) -> int:
    """Wait until all is delivered; then the outbox has no gap and SpiceDB holds exactly the projection.  The head."""
    await eventually(lambda: is_delivered(url, tenant_id), seconds)
    there, wanted = await stored(spicedb, tenant_id), await projected(url, tenant_id)
    assert there == wanted, f"missing: {sorted(map(str, wanted - there))}, too much: {sorted(map(str, there - wanted))}"
    return await require_no_gap(url, tenant_id)


def _projects(record: asyncpg.Record) -> bool:
    return record["subject_type"] != "user" or record["status"] == UserStatus.ACTIVE


def _group_member(record: asyncpg.Record) -> GroupMember:
    return GroupMember(
        tenant_id=TenantId(record["tenant_id"]),
        group_id=GroupId(record["group_id"]),
        subject=SubjectRef(record["subject_type"], record["subject_id"]),
        manager=record["manager"],
        join_time=_NEVER,
        added_by=None,
    )


def _workspace(record: asyncpg.Record) -> Workspace:
    return Workspace(
        tenant_id=TenantId(record["tenant_id"]),
        id=WorkspaceId(record["id"]),
        parent_id=record["parent_id"],
        slug=record["slug"],
        name=record["name"],
        kind=WorkspaceKind(record["kind"]),
        archive_time=record["archive_time"],
        archived_with=record["archived_with"],
        creator_id=record["creator_id"],
        create_time=_NEVER,
        update_time=_NEVER,
        etag="",
    )


def _membership(record: asyncpg.Record) -> Membership:
    return Membership(
        tenant_id=TenantId(record["tenant_id"]),
        workspace_id=record["workspace_id"],
        subject=SubjectRef(record["subject_type"], record["subject_id"]),
        role=Role(record["role"]),
        join_time=_NEVER,
        update_time=_NEVER,
        invited_by=None,
        etag="",
    )
