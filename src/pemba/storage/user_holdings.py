"""All that one user holds in every tenant, roles and places in groups: to withdraw, to restore and to remove it."""

from __future__ import annotations

from dataclasses import dataclass

from asyncpg import Record

from pemba.model import GroupMember, Membership, Seq, TenantId, UserId
from pemba.storage import group_members, memberships
from pemba.storage.database import SystemTransaction
from pemba.storage.statement import Statement
from pemba.storage.user_roles import Place

_COUNTS = Statement(
    """
    SELECT tenant_id, count(*) AS holdings FROM (
        SELECT tenant_id FROM memberships WHERE user_id = :user_id
        UNION ALL
        SELECT tenant_id FROM group_members WHERE user_id = :user_id
    ) AS held
    GROUP BY tenant_id ORDER BY tenant_id LIMIT :limit
    """
)
# Ids of groups and of workspaces differ by their prefixes, so both can stand in one order.
_AFTER = Statement(
    """
    WITH held AS (
        (
            SELECT tenant_id, coalesce(workspace_id, '') AS place, NULL AS group_id, workspace_id, role, update_time,
                changed_seq, NULL::bool AS manager, invited_by AS by_user, join_time
            FROM memberships
            WHERE user_id = :user_id AND (CAST(:tenant_id AS text) IS NULL OR tenant_id = :tenant_id)
                AND (tenant_id, coalesce(workspace_id, '')) > (CAST(:after_tenant AS text), CAST(:after_place AS text))
            ORDER BY tenant_id, coalesce(workspace_id, '') LIMIT :limit
        )
        UNION ALL
        (
            SELECT tenant_id, group_id, group_id, NULL, NULL, NULL, NULL, manager, added_by, join_time
            FROM group_members
            WHERE user_id = :user_id AND (CAST(:tenant_id AS text) IS NULL OR tenant_id = :tenant_id)
                AND (tenant_id, group_id) > (CAST(:after_tenant AS text), CAST(:after_place AS text))
            ORDER BY tenant_id, group_id LIMIT :limit
        )
    )
    SELECT h.*, 'user' AS subject_type, CAST(:user_id AS text) AS subject_id, h.by_user AS invited_by,
        h.by_user AS added_by, w.archive_time IS NOT NULL AS archived
    FROM held h LEFT JOIN workspaces w ON w.tenant_id = h.tenant_id AND w.id = h.workspace_id
    ORDER BY h.tenant_id, h.place LIMIT :limit
    """
)
_DELETE = Statement(
    """
    WITH left_groups AS (
        DELETE FROM group_members WHERE tenant_id = :tenant_id AND user_id = :user_id
            AND group_id = ANY (CAST(:places AS text[]))
        RETURNING group_id
    ), touched AS (
        UPDATE groups SET changed_seq = :seq, update_time = now()
        WHERE tenant_id = :tenant_id AND id IN (SELECT group_id FROM left_groups)
    )
    DELETE FROM memberships WHERE tenant_id = :tenant_id AND user_id = :user_id
        AND coalesce(workspace_id, '') = ANY (CAST(:places AS text[]))
    """
)


@dataclass(frozen=True, slots=True)
class Holding:
    """A role of the user, or their place in a group; `archived`: whether what the role is on is."""

    record: Membership | GroupMember
    archived: bool

    @property
    def tenant_id(self) -> TenantId:
        return self.record.tenant_id

    @property
    def place(self) -> Place:
        if isinstance(self.record, GroupMember):
            return self.tenant_id, self.record.group_id
        return self.tenant_id, self.record.workspace_id or ""


async def counts(tx: SystemTransaction, user_id: UserId, limit: int) -> dict[TenantId, int]:
    """How much the user holds by tenant; the first `limit` tenants, sorted."""
    return {TenantId(r["tenant_id"]): r["holdings"] for r in await _COUNTS.rows(tx, user_id=user_id, limit=limit)}


async def after(
    tx: SystemTransaction, user_id: UserId, place: Place, limit: int, tenant_id: TenantId | None = None
) -> list[Holding]:
    """What follows `place`, by tenant, then groups before workspaces, of one tenant or of all; at most `limit`."""
    records = await _AFTER.rows(
        tx, user_id=user_id, tenant_id=tenant_id, after_tenant=place[0], after_place=place[1], limit=limit
    )
    return [_holding(record) for record in records]


async def delete(tx: SystemTransaction, user_id: UserId, held: list[Holding], seq: Seq) -> None:
    """Some of what the user holds in one tenant; the groups get another etag."""
    await _DELETE.run(
        tx, tenant_id=held[0].tenant_id, user_id=user_id, places=[each.place[1] for each in held], seq=seq
    )


def _holding(record: Record) -> Holding:
    of = group_members if record["group_id"] is not None else memberships
    return Holding(of.from_record(record), record["archived"])
