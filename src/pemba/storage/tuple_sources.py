"""The records that tuples stand for: all of them, page after page, or those that given tuples can come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from asyncpg import Record

from pemba.model import GroupId, GroupMember, Membership, Share, SubjectRef, TenantId, Workspace, WorkspaceId
from pemba.storage import group_members, memberships, shares, workspaces
from pemba.storage.database import Transaction
from pemba.storage.group_members import COLUMNS_OF_G
from pemba.storage.statement import Statement

_HELD = f"{memberships.COLUMNS_OF_M}, {memberships.HAS_TUPLES}"
_ARCHIVED = "w.archive_time IS NOT NULL AS archived"

PAGE = 1000
"""Records of a page; one that is shorter is the last."""

# Each goes along an index, so that a page costs the same wherever it is.  PostgreSQL may read and sort all that follows
# where it does not know how short a page is: so that number stands in the text, and the page is cut before the join.
_WORKSPACES = Statement(
    f"""
    SELECT {workspaces.COLUMNS_OF_W} FROM workspaces w
    WHERE (w.tenant_id, w.id) > (:after_tenant, :after_id) AND w.tenant_id <= :last_tenant
    ORDER BY w.tenant_id, w.id LIMIT {PAGE}
    """
)
_ON_TENANTS = Statement(
    f"""
    SELECT {_HELD}, false AS archived
    FROM (
        SELECT * FROM memberships WHERE workspace_id IS NULL AND tenant_id <= :last_tenant
            AND (tenant_id, subject_type, subject_id) > (:after_tenant, :after_type, :after_subject)
        ORDER BY tenant_id, subject_type, subject_id LIMIT {PAGE}
    ) m
    LEFT JOIN users u ON u.id = m.user_id
    ORDER BY m.tenant_id, m.subject_type, m.subject_id
    """
)
_ON_WORKSPACES = Statement(
    f"""
    SELECT {_HELD}, {_ARCHIVED}
    FROM (
        SELECT * FROM memberships WHERE workspace_id IS NOT NULL AND tenant_id <= :last_tenant
            AND (tenant_id, workspace_id, subject_type, subject_id)
                > (:after_tenant, :after_workspace, :after_type, :after_subject)
        ORDER BY tenant_id, workspace_id, subject_type, subject_id LIMIT {PAGE}
    ) m
    JOIN workspaces w ON w.tenant_id = m.tenant_id AND w.id = m.workspace_id
    LEFT JOIN users u ON u.id = m.user_id
    ORDER BY m.tenant_id, m.workspace_id, m.subject_type, m.subject_id
    """
)
_WORKSPACES_NAMED = Statement(
    f"""
    SELECT {workspaces.COLUMNS_OF_W}
    FROM unnest(CAST(:tenant_ids AS text[]), CAST(:ids AS text[])) AS named (tenant_id, id)
    JOIN workspaces w ON w.tenant_id = named.tenant_id AND w.id = named.id
    """
)
_MEMBERSHIPS_NAMED = Statement(
    f"""
    WITH named AS (
        SELECT * FROM unnest(
            CAST(:tenant_ids AS text[]), CAST(:workspace_ids AS text[]), CAST(:types AS text[]), CAST(:ids AS text[])
        ) AS named (tenant_id, workspace_id, subject_type, subject_id)
    )
    SELECT {_HELD}, {_ARCHIVED} FROM named n
    JOIN memberships m ON m.tenant_id = n.tenant_id AND m.workspace_id = n.workspace_id
        AND m.subject_type = n.subject_type AND m.subject_id = n.subject_id
    JOIN workspaces w ON w.tenant_id = m.tenant_id AND w.id = m.workspace_id
    LEFT JOIN users u ON u.id = m.user_id
    UNION ALL
    SELECT {_HELD}, false FROM named n
    JOIN memberships m ON m.tenant_id = n.tenant_id AND m.workspace_id IS NULL AND n.workspace_id IS NULL
        AND m.subject_type = n.subject_type AND m.subject_id = n.subject_id
    LEFT JOIN users u ON u.id = m.user_id
    """
)

_SHARES = Statement(
    f"""
    SELECT {shares.COLUMNS_OF_S}, {shares.EITHER_ARCHIVED}
    FROM (
        SELECT * FROM shares WHERE (tenant_id, id) > (:after_tenant, :after_id) AND tenant_id <= :last_tenant
        ORDER BY tenant_id, id LIMIT {PAGE}
    ) s {shares.WORKSPACES_OF_S}
    ORDER BY s.tenant_id, s.id
    """
)
_SHARES_NAMED = Statement(
    f"""
    SELECT {shares.COLUMNS_OF_S}, {shares.EITHER_ARCHIVED}
    FROM unnest(
        CAST(:tenant_ids AS text[]), CAST(:workspace_ids AS text[]), CAST(:with_workspace_ids AS text[])
    ) AS named (tenant_id, workspace_id, with_workspace_id)
    JOIN shares s USING (tenant_id, workspace_id, with_workspace_id) {shares.WORKSPACES_OF_S}
    """
)

_GROUP_MEMBERS = Statement(
    f"""
    SELECT {COLUMNS_OF_G}, {memberships.HAS_TUPLES}
    FROM (
        SELECT * FROM group_members WHERE tenant_id <= :last_tenant
            AND (tenant_id, group_id, subject_type, subject_id)
                > (:after_tenant, :after_group, :after_type, :after_subject)
        ORDER BY tenant_id, group_id, subject_type, subject_id LIMIT {PAGE}
    ) g
    LEFT JOIN users u ON u.id = g.user_id
    ORDER BY g.tenant_id, g.group_id, g.subject_type, g.subject_id
    """
)
_GROUP_MEMBERS_NAMED = Statement(
    f"""
    SELECT {COLUMNS_OF_G}, {memberships.HAS_TUPLES}
    FROM unnest(
        CAST(:tenant_ids AS text[]), CAST(:group_ids AS text[]), CAST(:types AS text[]), CAST(:ids AS text[])
    ) AS named (tenant_id, group_id, subject_type, subject_id)
    JOIN group_members g USING (tenant_id, group_id, subject_type, subject_id)
    LEFT JOIN users u ON u.id = g.user_id
    """
)

_LAST_TENANT = "zzz"
"""Sorts after every tenant's id, which begins with `ten_`."""


@dataclass(frozen=True, slots=True)
class ProjectedRole:
    """A membership, and what decides whether it stands for a tuple."""

    membership: Membership
    subject_is_active: bool
    object_is_archived: bool


@dataclass(frozen=True, slots=True)
class ProjectedShare:
    """A share, and what decides whether it stands for a tuple."""

    share: Share
    either_is_archived: bool


@dataclass(frozen=True, slots=True)
class ProjectedMember:
    """A member of a group, and what decides whether that stands for a tuple."""

    member: GroupMember
    subject_is_active: bool


GroupMemberName = tuple[TenantId, GroupId, SubjectRef]
MembershipName = tuple[TenantId, WorkspaceId | None, SubjectRef]
ShareName = tuple[TenantId, WorkspaceId, WorkspaceId]
"""(tenant, the workspace that is shared, the one it is shared with)"""


async def workspaces_after(tx: Transaction, tenant_id: TenantId | None, after: Workspace | None) -> list[Workspace]:
    """The next page of workspaces, of one tenant or (None) of all, archived ones too."""
    records = await _WORKSPACES.rows(
        tx,
        after_tenant=after.tenant_id if after else tenant_id or "",
        after_id=after.id if after else "",
        last_tenant=tenant_id or _LAST_TENANT,
    )
    return [workspaces.from_record(record) for record in records]


async def on_tenants_after(
    tx: Transaction, tenant_id: TenantId | None, after: ProjectedRole | None
) -> list[ProjectedRole]:
    """The next page of roles on tenants themselves, of one tenant or (None) of all."""
    at = after.membership if after else None
    records = await _ON_TENANTS.rows(
        tx,
        after_tenant=at.tenant_id if at else tenant_id or "",
        after_type=at.subject.type if at else "",
        after_subject=at.subject.id if at else "",
        last_tenant=tenant_id or _LAST_TENANT,
    )
    return [_held(record) for record in records]


async def on_workspaces_after(
    tx: Transaction, tenant_id: TenantId | None, after: ProjectedRole | None
) -> list[ProjectedRole]:
    """The next page of roles on workspaces, of one tenant or (None) of all."""
    at = after.membership if after else None
    records = await _ON_WORKSPACES.rows(
        tx,
        after_tenant=at.tenant_id if at else tenant_id or "",
        after_workspace=at.workspace_id if at else "",
        after_type=at.subject.type if at else "",
        after_subject=at.subject.id if at else "",
        last_tenant=tenant_id or _LAST_TENANT,
    )
    return [_held(record) for record in records]


async def group_members_after(
    tx: Transaction, tenant_id: TenantId | None, after: ProjectedMember | None
) -> list[ProjectedMember]:
    """The next page of the members of groups, of one tenant or (None) of all."""
    at = after.member if after else None
    records = await _GROUP_MEMBERS.rows(
        tx,
        after_tenant=at.tenant_id if at else tenant_id or "",
        after_group=at.group_id if at else "",
        after_type=at.subject.type if at else "",
        after_subject=at.subject.id if at else "",
        last_tenant=tenant_id or _LAST_TENANT,
    )
    return [_member(record) for record in records]


async def group_members_named(tx: Transaction, names: Sequence[GroupMemberName]) -> list[ProjectedMember]:
    """Those of these members of groups that there are."""
    records = await _GROUP_MEMBERS_NAMED.rows(
        tx,
        tenant_ids=[tenant_id for tenant_id, _, _ in names],
        group_ids=[group_id for _, group_id, _ in names],
        types=[subject.type for _, _, subject in names],
        ids=[subject.id for _, _, subject in names],
    )
    return [_member(record) for record in records]


async def workspaces_named(tx: Transaction, names: Sequence[tuple[TenantId, WorkspaceId]]) -> list[Workspace]:
    """Those of these workspaces that there are."""
    records = await _WORKSPACES_NAMED.rows(tx, tenant_ids=[t for t, _ in names], ids=[id_ for _, id_ in names])
    return [workspaces.from_record(record) for record in records]


async def memberships_named(tx: Transaction, names: Sequence[MembershipName]) -> list[ProjectedRole]:
    """Those of these memberships that there are."""
    records = await _MEMBERSHIPS_NAMED.rows(
        tx,
        tenant_ids=[tenant_id for tenant_id, _, _ in names],
        workspace_ids=[workspace_id for _, workspace_id, _ in names],
        types=[subject.type for _, _, subject in names],
        ids=[subject.id for _, _, subject in names],
    )
    return [_held(record) for record in records]


async def shares_after(
    tx: Transaction, tenant_id: TenantId | None, after: ProjectedShare | None
) -> list[ProjectedShare]:
    """The next page of shares, of one tenant or (None) of all, expired ones too."""
    records = await _SHARES.rows(
        tx,
        after_tenant=after.share.tenant_id if after else tenant_id or "",
        after_id=after.share.id if after else "",
        last_tenant=tenant_id or _LAST_TENANT,
    )
    return [_shared(record) for record in records]


async def shares_named(tx: Transaction, names: Sequence[ShareName]) -> list[ProjectedShare]:
    """Those of these shares that there are."""
    records = await _SHARES_NAMED.rows(
        tx,
        tenant_ids=[tenant_id for tenant_id, _, _ in names],
        workspace_ids=[workspace_id for _, workspace_id, _ in names],
        with_workspace_ids=[with_workspace_id for _, _, with_workspace_id in names],
    )
    return [_shared(record) for record in records]


def _shared(record: Record) -> ProjectedShare:
    return ProjectedShare(shares.from_record(record), record["archived"])


def _held(record: Record) -> ProjectedRole:
    return ProjectedRole(memberships.from_record(record), record["has_tuples"], record["archived"])


def _member(record: Record) -> ProjectedMember:
    return ProjectedMember(group_members.from_record(record), record["has_tuples"])
