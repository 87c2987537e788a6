"""What one user holds in every tenant: for lists of it, for guards, and to withdraw or restore their tuples."""

from __future__ import annotations

from dataclasses import dataclass

from asyncpg import Record

from pemba.model import Membership, TenantId, UserId, WorkspaceId
from pemba.storage.database import SystemTransaction
from pemba.storage.memberships import COLUMNS_OF_M, from_record
from pemba.storage.statement import Statement

_GUARDED = """
    (m.workspace_id IS NULL AND m.role = 'admin' OR m.role = 'owner' AND CAST(:with_owned AS bool))
    AND EXISTS (SELECT FROM users u WHERE u.id = m.user_id AND u.status = 'active')
"""
_GUARDED_TENANTS = Statement(
    f"SELECT DISTINCT m.tenant_id FROM memberships m WHERE m.user_id = :user_id AND {_GUARDED}"
    " ORDER BY m.tenant_id LIMIT :limit"
)
_HELD_ALONE = Statement(
    f"""
    SELECT {COLUMNS_OF_M} FROM memberships m WHERE m.user_id = :user_id AND {_GUARDED} AND NOT EXISTS (
        SELECT FROM memberships o JOIN users u ON u.id = o.user_id AND u.status = 'active'
        WHERE o.tenant_id = m.tenant_id AND o.role = m.role AND o.user_id <> m.user_id
            AND (o.workspace_id = m.workspace_id OR o.workspace_id IS NULL AND m.workspace_id IS NULL)
    )
    ORDER BY m.tenant_id, m.workspace_id NULLS FIRST LIMIT 1
    """
)
_COUNTS = Statement(
    "SELECT tenant_id, count(*) AS roles FROM memberships WHERE user_id = :user_id"
    " GROUP BY tenant_id ORDER BY tenant_id LIMIT :limit"
)
_AFTER = Statement(
    f"""
    SELECT {COLUMNS_OF_M}, w.archive_time IS NOT NULL AS archived
    FROM memberships m LEFT JOIN workspaces w ON w.tenant_id = m.tenant_id AND w.id = m.workspace_id
    WHERE m.user_id = :user_id AND (CAST(:tenant_id AS text) IS NULL OR m.tenant_id = :tenant_id)
        AND (m.tenant_id, coalesce(m.workspace_id, '')) > (CAST(:after_tenant AS text), CAST(:after_workspace AS text))
    ORDER BY m.tenant_id, coalesce(m.workspace_id, '') LIMIT :limit
    """
)
_DELETE = Statement(
    """
    DELETE FROM memberships WHERE tenant_id = :tenant_id AND user_id = :user_id
        AND coalesce(workspace_id, '') = ANY (CAST(:places AS text[]))
    """
)

Place = tuple[str, str]
"""Where a list of a user's roles goes on: (tenant, workspace), '' for the tenant itself and before the first."""

START: Place = ("", "")


@dataclass(frozen=True, slots=True)
class HeldRole:
    """A membership, and whether what it is on is archived."""

    membership: Membership
    archived: bool

    @property
    def place(self) -> Place:
        return self.membership.tenant_id, self.membership.workspace_id or ""


async def guarded_tenants(tx: SystemTransaction, user_id: UserId, limit: int, *, with_owned: bool) -> list[TenantId]:
    """Where the user, being active, is an admin of the tenant, or `with_owned` an owner of a workspace; sorted."""
    records = await _GUARDED_TENANTS.rows(tx, user_id=user_id, with_owned=with_owned, limit=limit)
    return [TenantId(r["tenant_id"]) for r in records]


async def held_alone(tx: SystemTransaction, user_id: UserId, *, with_owned: bool) -> Membership | None:
    """The first of those roles that no other active user holds there."""
    record = await _HELD_ALONE.row(tx, user_id=user_id, with_owned=with_owned)
    return None if record is None else from_record(record)


async def counts(tx: SystemTransaction, user_id: UserId, limit: int) -> dict[TenantId, int]:
    """How many roles the user holds by tenant; the first `limit` tenants, sorted."""
    return {TenantId(r["tenant_id"]): r["roles"] for r in await _COUNTS.rows(tx, user_id=user_id, limit=limit)}


async def after(
    tx: SystemTransaction, user_id: UserId, place: Place, limit: int, tenant_id: TenantId | None = None
) -> list[HeldRole]:
    """The user's roles that follow `place`, by tenant and workspace, of one tenant or of all; at most `limit`."""
    records = await _AFTER.rows(
        tx, user_id=user_id, tenant_id=tenant_id, after_tenant=place[0], after_workspace=place[1], limit=limit
    )
    return [_held(record) for record in records]


async def delete(tx: SystemTransaction, tenant_id: TenantId, user_id: UserId, places: list[WorkspaceId | None]) -> None:
    """The user's roles on these workspaces of the tenant; None: on the tenant itself."""
    await _DELETE.run(tx, tenant_id=tenant_id, user_id=user_id, places=[place or "" for place in places])


def _held(record: Record) -> HeldRole:
    return HeldRole(from_record(record), record["archived"])
