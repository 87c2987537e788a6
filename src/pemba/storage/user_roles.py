"""The roles of one user in every tenant: for lists of them, and for guards."""

from __future__ import annotations

from pemba.model import Membership, TenantId, UserId
from pemba.storage.database import SystemTransaction
from pemba.storage.memberships import COLUMNS_OF_M, from_record
from pemba.storage.statement import Statement
from pemba.storage.tenants import NOT_BEING_DELETED

_GUARDED = f"""
    (m.workspace_id IS NULL AND m.role = 'admin' OR m.role = 'owner' AND CAST(:with_owned AS bool))
    AND EXISTS (SELECT FROM users u WHERE u.id = m.user_id AND u.status = 'active') AND m.{NOT_BEING_DELETED}
    AND NOT EXISTS (
        SELECT FROM workspaces w WHERE w.tenant_id = m.tenant_id AND w.id = m.workspace_id AND w.kind = 'personal'
    )
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
_AFTER = Statement(
    f"""
    SELECT {COLUMNS_OF_M} FROM memberships m
    WHERE m.user_id = :user_id AND (CAST(:tenant_id AS text) IS NULL OR m.tenant_id = :tenant_id)
        AND (m.tenant_id, coalesce(m.workspace_id, '')) > (CAST(:after_tenant AS text), CAST(:after_workspace AS text))
        AND m.{NOT_BEING_DELETED}
    ORDER BY m.tenant_id, coalesce(m.workspace_id, '') LIMIT :limit
    """
)

Place = tuple[str, str]
"""Where a list of what a user holds goes on: (tenant, workspace or group), '' for the tenant itself and the start."""

START: Place = ("", "")


async def guarded_tenants(tx: SystemTransaction, user_id: UserId, limit: int, *, with_owned: bool) -> list[TenantId]:
    """Where the user, being active, is an admin of the tenant, or `with_owned` an owner of a workspace; sorted."""
    records = await _GUARDED_TENANTS.rows(tx, user_id=user_id, with_owned=with_owned, limit=limit)
    return [TenantId(r["tenant_id"]) for r in records]


async def held_alone(tx: SystemTransaction, user_id: UserId, *, with_owned: bool) -> Membership | None:
    """The first of those roles that no other active user holds there."""
    record = await _HELD_ALONE.row(tx, user_id=user_id, with_owned=with_owned)
    return None if record is None else from_record(record)


async def after(
    tx: SystemTransaction, user_id: UserId, place: Place, limit: int, tenant_id: TenantId | None = None
) -> list[Membership]:
    """The user's roles that follow `place`, by tenant and workspace, of one tenant or of all; at most `limit`."""
    records = await _AFTER.rows(
        tx, user_id=user_id, tenant_id=tenant_id, after_tenant=place[0], after_workspace=place[1], limit=limit
    )
    return [from_record(record) for record in records]


def place_of(membership: Membership) -> Place:
    return membership.tenant_id, membership.workspace_id or ""
