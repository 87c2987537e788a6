"""Invitations.  When one expires is judged by the database's clock, at each reading."""

from __future__ import annotations

from datetime import timedelta

from asyncpg import Record

from pemba.model import Invitation, InvitationId, InvitationStatus, Role, Seq, TenantId, UserId, WorkspaceId
from pemba.storage.database import TenantTransaction
from pemba.storage.statement import Statement

_COLUMNS = (
    "tenant_id, id, workspace_id, email, role, invited_by, accepted_by, expire_time, end_time, create_time,"
    " changed_seq, coalesce(outcome, CASE WHEN expire_time <= now() THEN 'expired' ELSE 'pending' END) AS status"
)

_INSERT = Statement(
    "INSERT INTO invitations (tenant_id, id, workspace_id, email, role, invited_by, expire_time, changed_seq)"
    " VALUES (:tenant_id, :id, :workspace_id, :email, :role, :invited_by, now() + CAST(:good_for AS interval), :seq)"
    f" RETURNING {_COLUMNS}"
)
_GET = Statement(f"SELECT {_COLUMNS} FROM invitations WHERE tenant_id = :tenant_id AND id = :id")
_LIST = Statement(
    f"SELECT {_COLUMNS} FROM invitations WHERE tenant_id = :tenant_id"
    " AND workspace_id IS NOT DISTINCT FROM CAST(:workspace_id AS text) AND id > :after"
    " AND (:with_ended OR (outcome IS NULL AND expire_time > now())) ORDER BY id LIMIT :limit"
)
_END_IF_OPEN = Statement(
    "UPDATE invitations SET outcome = :outcome, accepted_by = :accepted_by, end_time = now(), changed_seq = :seq"
    f" WHERE tenant_id = :tenant_id AND id = :id AND outcome IS NULL RETURNING {_COLUMNS}"
)
_HAS_ROLE = Statement(
    """
    SELECT EXISTS (
        SELECT FROM memberships m JOIN users u ON u.id = m.user_id
        WHERE m.tenant_id = :tenant_id AND m.workspace_id IS NOT DISTINCT FROM CAST(:workspace_id AS text)
            AND lower(u.email) = lower(:email)
    ) AS found
    """
)


async def insert(
    tx: TenantTransaction,
    id_: InvitationId,
    workspace_id: WorkspaceId | None,
    email: str,
    role: Role,
    invited_by: UserId | None,
    good_for: timedelta,
    seq: Seq,
) -> Invitation:
    return _invitation(
        await _INSERT.one(
            tx,
            tenant_id=tx.tenant_id,
            id=id_,
            workspace_id=workspace_id,
            email=email,
            role=role,
            invited_by=invited_by,
            good_for=good_for,
            seq=seq,
        )
    )


async def get(tx: TenantTransaction, id_: InvitationId) -> Invitation | None:
    record = await _GET.row(tx, tenant_id=tx.tenant_id, id=id_)
    return None if record is None else _invitation(record)


async def list_after(
    tx: TenantTransaction, workspace_id: WorkspaceId | None, after: str, limit: int, *, with_ended: bool
) -> list[Invitation]:
    """At most `limit` of those to the tenant itself (None) or to the workspace; they follow `after`, by id."""
    records = await _LIST.rows(
        tx, tenant_id=tx.tenant_id, workspace_id=workspace_id, after=after, limit=limit, with_ended=with_ended
    )
    return [_invitation(record) for record in records]


async def end_if_open(
    tx: TenantTransaction, id_: InvitationId, outcome: InvitationStatus, seq: Seq, accepted_by: UserId | None = None
) -> Invitation | None:
    """Accepted, declined or revoked, for good; None where it was one of these already."""
    record = await _END_IF_OPEN.row(
        tx, tenant_id=tx.tenant_id, id=id_, outcome=outcome, accepted_by=accepted_by, seq=seq
    )
    return None if record is None else _invitation(record)


async def has_role(tx: TenantTransaction, workspace_id: WorkspaceId | None, email: str) -> bool:
    """Whether a user whose record has this email has a role of their own there."""
    record = await _HAS_ROLE.one(tx, tenant_id=tx.tenant_id, workspace_id=workspace_id, email=email)
    return bool(record["found"])


def _invitation(record: Record) -> Invitation:
    return Invitation(
        tenant_id=TenantId(record["tenant_id"]),
        id=InvitationId(record["id"]),
        workspace_id=None if record["workspace_id"] is None else WorkspaceId(record["workspace_id"]),
        email=record["email"],
        role=Role(record["role"]),
        status=InvitationStatus(record["status"]),
        invited_by=None if record["invited_by"] is None else UserId(record["invited_by"]),
        accepted_by=None if record["accepted_by"] is None else UserId(record["accepted_by"]),
        expire_time=record["expire_time"],
        end_time=record["end_time"],
        create_time=record["create_time"],
        etag=str(record["changed_seq"]),
    )
