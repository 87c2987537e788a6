"""Tenants.  One that is being deleted (storage/tenant_deletions.py) is not there any more."""

from __future__ import annotations

from asyncpg import Record

from pemba.model import Seq, Tenant, TenantId, TenantStatus
from pemba.storage.database import SystemTransaction, TenantTransaction
from pemba.storage.statement import Statement

_COLUMNS = "id, slug, name, status, create_time, update_time, changed_seq"
_IS_THERE = "status <> 'deleting'"
NOT_BEING_DELETED = "tenant_id NOT IN (SELECT tenant_id FROM tenant_deletion WHERE finish_time IS NULL)"
"""Of any row of a tenant, where every tenant's are seen."""

_INSERT = Statement(
    f"INSERT INTO tenants (id, slug, name, changed_seq) VALUES (:id, :slug, :name, 1) RETURNING {_COLUMNS}"
)
_GET = Statement(f"SELECT {_COLUMNS} FROM tenants WHERE id = :id AND {_IS_THERE}")
_GET_BY_SLUG = Statement(f"SELECT {_COLUMNS} FROM tenants WHERE slug = :slug AND {_IS_THERE}")
_LIST = Statement(f"SELECT {_COLUMNS} FROM tenants WHERE slug > :after AND {_IS_THERE} ORDER BY slug LIMIT :limit")
_UPDATE = Statement(
    f"UPDATE tenants SET name = :name, changed_seq = :seq, update_time = now() WHERE id = :id RETURNING {_COLUMNS}"
)
_SET_STATUS = Statement(
    "UPDATE tenants SET status = :status, changed_seq = :seq, update_time = now(),"
    " suspend_time = CASE WHEN :status = 'suspended' THEN now() END"
    f" WHERE id = :id RETURNING {_COLUMNS}"
)


async def insert(tx: SystemTransaction, tenant_id: TenantId, slug: str, name: str) -> Tenant:
    """A new tenant, changed at its sequence 1.  Raises AlreadyExists (SLUG_TAKEN)."""
    return _tenant(await _INSERT.one(tx, id=tenant_id, slug=slug, name=name))


async def get(tx: TenantTransaction) -> Tenant | None:
    """The transaction's own tenant."""
    record = await _GET.row(tx, id=tx.tenant_id)
    return None if record is None else _tenant(record)


async def get_by_slug(tx: SystemTransaction, slug: str) -> Tenant | None:
    record = await _GET_BY_SLUG.row(tx, slug=slug)
    return None if record is None else _tenant(record)


async def list_after(tx: SystemTransaction, after: str, limit: int) -> list[Tenant]:
    """At most `limit` tenants whose slugs follow `after`, by slug."""
    return [_tenant(record) for record in await _LIST.rows(tx, after=after, limit=limit)]


async def update(tx: TenantTransaction, name: str, seq: Seq) -> Tenant:
    return _tenant(await _UPDATE.one(tx, id=tx.tenant_id, name=name, seq=seq))


async def set_status(tx: TenantTransaction, status: TenantStatus, seq: Seq) -> Tenant:
    return _tenant(await _SET_STATUS.one(tx, id=tx.tenant_id, status=status, seq=seq))


def _tenant(record: Record) -> Tenant:
    return Tenant(
        id=TenantId(record["id"]),
        slug=record["slug"],
        name=record["name"],
        status=TenantStatus(record["status"]),
        create_time=record["create_time"],
        update_time=record["update_time"],
        etag=str(record["changed_seq"]),
    )
