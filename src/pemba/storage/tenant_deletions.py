"""Deletions of tenants: what was asked for, how much is left, and the removal of a tenant's rows, some at a time.

A row says that the tenant is gone, from its commit on: row-level security keeps every record of it from the API's role.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from asyncpg import Record

from pemba.model import DeletionCount, TenantDeletion, TenantId
from pemba.storage import api_keys, group_members, groups, memberships, shares, workspaces
from pemba.storage.database import SystemTransaction
from pemba.storage.statement import Statement

_LOCK_KEY = 0x74656E_64656C  # "tendel"


_RECORDS: dict[str, Callable[[Record], object]] = {
    "shares": shares.from_record,
    "memberships": memberships.from_record,
    "group_members": group_members.from_record,
    "groups": groups.from_record,
    "api_keys": api_keys.from_record,
    "workspaces": workspaces.from_record,
}


@dataclass(frozen=True, slots=True)
class Rows:
    """A table of a tenant's rows; `key` tells them apart, and `at_once` of them go in one step."""

    table: str
    key: str
    at_once: int


# Children first: whatever refers to a table stands before it.  What an outbox row holds of operations is bounded: the
# manager of a group has two tuples; and each API key is announced.
ORDER = (
    Rows("shares", "id", 500),
    # While the head is held nobody else touches these, and their key may hold a NULL.
    Rows("memberships", "ctid", 500),
    Rows("group_members", "group_id, subject_type, subject_id", 250),
    Rows("groups", "id", 500),
    Rows("invitations", "id", 500),
    Rows("workspace_settings", "workspace_id, namespace, name", 500),
    Rows("user_current_workspace", "user_id", 500),
    Rows("idempotency", "principal, acting_user, method, request_id", 500),
    Rows("api_keys", "id", 50),
    Rows("workspaces", "id", 500),
)
KEPT = ("tenant_head", "outbox", "tenant_delivery", "parked_operation", "audit", "audit_mention", "tenant_deletion")
"""Of a tenant that is gone: its stream with what is known of its delivery, and who did what."""

_IS_LEAF = "AND NOT EXISTS (SELECT FROM workspaces c WHERE c.tenant_id = w.tenant_id AND c.parent_id = w.id)"

_REMOVE = {
    rows.table: Statement(
        f"""
        DELETE FROM {rows.table} WHERE tenant_id = :tenant_id AND ({rows.key}) IN (
            SELECT {", ".join(f"w.{column}" for column in rows.key.split(", "))} FROM {rows.table} w
            WHERE w.tenant_id = :tenant_id {_IS_LEAF if rows.table == "workspaces" else ""} LIMIT {rows.at_once}
        ) RETURNING *
        """
    )
    for rows in ORDER
}
_COUNTED = [rows.table for rows in ORDER if rows.table != "idempotency"]
_COUNT = Statement(
    "SELECT "
    + ", ".join(f"(SELECT count(*) FROM {table} WHERE tenant_id = :tenant_id) AS {table}" for table in _COUNTED)
)
_REMOVE_TENANT = Statement("DELETE FROM tenants WHERE id = :tenant_id AND status = 'deleting'")
_COLUMNS = "tenant_id, slug, name, counts, create_time, finish_time"
_BEGIN = Statement(
    "INSERT INTO tenant_deletion (tenant_id, slug, name, request_id, counts)"
    f" VALUES (:tenant_id, :slug, :name, :request_id, :counts) RETURNING {_COLUMNS}"
)
# Its slug is free from then on.
_MARK = Statement(
    "UPDATE tenants SET status = 'deleting', suspend_time = NULL, slug = id, update_time = now() WHERE id = :tenant_id"
)
_GET = Statement(f"SELECT {_COLUMNS} FROM tenant_deletion WHERE tenant_id = :tenant_id")
_LATEST_OF_SLUG = Statement(
    f"SELECT {_COLUMNS} FROM tenant_deletion WHERE slug = :slug ORDER BY create_time DESC LIMIT 1"
)
# The one that was longest without a step: a large tenant holds up no other.
_NEXT = Statement(
    "SELECT tenant_id FROM tenant_deletion WHERE finish_time IS NULL ORDER BY update_time, tenant_id LIMIT 1"
)
_TRY_TURN = Statement(f"SELECT pg_try_advisory_xact_lock({_LOCK_KEY}) AS taken")
_LOCK = Statement("SELECT request_id, finish_time FROM tenant_deletion WHERE tenant_id = :tenant_id FOR UPDATE")
_STEP = Statement("UPDATE tenant_deletion SET update_time = clock_timestamp() WHERE tenant_id = :tenant_id")
_FINISH = Statement(
    "UPDATE tenant_deletion SET finish_time = clock_timestamp(), update_time = clock_timestamp()"
    f" WHERE tenant_id = :tenant_id RETURNING {_COLUMNS}"
)


async def begin(tx: SystemTransaction, tenant_id: TenantId, slug: str, name: str, request_id: str) -> TenantDeletion:
    """Under the tenant's head: from the commit on no caller sees anything of it.  It is in no deletion yet."""
    totals = await left(tx, tenant_id)
    record = await _BEGIN.one(tx, tenant_id=tenant_id, slug=slug, name=name, request_id=request_id, counts=dict(totals))
    await _MARK.run(tx, tenant_id=tenant_id)
    return _deletion(record, totals)


async def left(tx: SystemTransaction, tenant_id: TenantId) -> Mapping[str, int]:
    """How many records of each kind there are now."""
    record = await _COUNT.one(tx, tenant_id=tenant_id)
    return {table: record[table] for table in _COUNTED}


async def get(tx: SystemTransaction, tenant_id: TenantId | None, slug: str) -> TenantDeletion | None:
    """Of a tenant by its id, or (None) of the last one with that slug; with what is left of it now."""
    record = await (_LATEST_OF_SLUG.row(tx, slug=slug) if tenant_id is None else _GET.row(tx, tenant_id=tenant_id))
    if record is None:
        return None
    return _deletion(record, await left(tx, TenantId(record["tenant_id"])))


async def next_of_turn(tx: SystemTransaction) -> TenantId | None:
    """The tenant whose turn it is, not locked; None where there is none."""
    record = await _NEXT.row(tx)
    return None if record is None else TenantId(record["tenant_id"])


async def take_turn(tx: SystemTransaction) -> bool:
    """To the end of the transaction; False where another relay has it."""
    return bool((await _TRY_TURN.one(tx))["taken"])


async def lock_open(tx: SystemTransaction, tenant_id: TenantId) -> str | None:
    """Lock the deletion: the request that asked for it, None where it is finished."""
    record = await _LOCK.one(tx, tenant_id=tenant_id)
    return None if record["finish_time"] is not None else record["request_id"]


async def remove_some(tx: SystemTransaction, tenant_id: TenantId) -> tuple[str, Sequence[object]]:
    """Some rows of the first table that has any: its name, and the records as they were (of what is none, its key).

    Nothing where none are left.
    """
    for rows in ORDER:
        if gone := await _REMOVE[rows.table].rows(tx, tenant_id=tenant_id):
            read = _RECORDS.get(rows.table)
            return rows.table, [read(row) if read else [row[name] for name in rows.key.split(", ")] for row in gone]
    return "", ()


async def note_step(tx: SystemTransaction, tenant_id: TenantId) -> None:
    """The others come first now."""
    await _STEP.run(tx, tenant_id=tenant_id)


async def finish(tx: SystemTransaction, tenant_id: TenantId) -> TenantDeletion:
    """Remove the tenant itself, of which nothing is left."""
    await _REMOVE_TENANT.run(tx, tenant_id=tenant_id)
    return _deletion(await _FINISH.one(tx, tenant_id=tenant_id), {})


def _deletion(record: Record, there: Mapping[str, int]) -> TenantDeletion:
    totals: dict[str, int] = record["counts"]
    return TenantDeletion(
        tenant_id=TenantId(record["tenant_id"]),
        slug=record["slug"],
        name=record["name"],
        create_time=record["create_time"],
        finish_time=record["finish_time"],
        counts=tuple(DeletionCount(table, total, there.get(table, 0)) for table, total in totals.items()),
    )
