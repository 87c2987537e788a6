"""API keys: records, and the hashes that secrets are found by."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from asyncpg import Record

from pemba.model import GLOBAL_STREAM, ApiKey, ApiKeyId, Scope, Seq, TenantId, UserId, WorkspaceId
from pemba.storage.database import SystemTransaction, TenantTransaction, Transaction
from pemba.storage.statement import Statement
from pemba.storage.tenants import NOT_BEING_DELETED

_COLUMNS = (
    "id, tenant_id, user_id, workspace_id, name, prefix, scopes, expire_time, revoke_time, last_used_time, created_by,"
    " create_time, update_time, version, previous_expire_time"
)
_COLUMNS_OF_K = ", ".join(f"k.{column.strip()}" for column in _COLUMNS.split(","))
_NAMED = "id = :id AND tenant_id IS NOT DISTINCT FROM CAST(:tenant_id AS text)"

_INSERT = Statement(
    "INSERT INTO api_keys (id, tenant_id, user_id, workspace_id, name, prefix, scopes, secret_hash, expire_time,"
    " created_by) VALUES (:id, :tenant_id, :user_id, :workspace_id, :name, :prefix, :scopes, :secret_hash,"
    f" :expire_time, :created_by) RETURNING {_COLUMNS}"
)
_GET = Statement(f"SELECT {_COLUMNS} FROM api_keys WHERE {_NAMED}")
_LOCK = Statement(f"SELECT {_COLUMNS} FROM api_keys WHERE {_NAMED} FOR UPDATE")
_LIST = Statement(
    f"SELECT {_COLUMNS} FROM api_keys WHERE tenant_id IS NOT DISTINCT FROM CAST(:tenant_id AS text) AND id > :after"
    " AND (CAST(:user_id AS text) IS NULL OR user_id = :user_id)"
    " AND (CAST(:seen_by AS text) IS NULL OR user_id = :seen_by)"
    " AND (revoke_time IS NULL OR CAST(:with_revoked AS bool)) ORDER BY id LIMIT :limit"
)
_REVOKE = Statement(
    "UPDATE api_keys SET revoke_time = now(), version = version + 1, update_time = now()"
    f" WHERE id = :id RETURNING {_COLUMNS}"
)
_REVOKE_OF_USER = Statement(
    "UPDATE api_keys SET revoke_time = now(), version = version + 1, update_time = now()"
    " WHERE user_id = :user_id AND revoke_time IS NULL"
)
_ROTATE = Statement(
    "UPDATE api_keys SET previous_hash = secret_hash, previous_expire_time = now() + CAST(:overlap AS interval),"
    " secret_hash = :secret_hash, prefix = :prefix, version = version + 1, update_time = now()"
    f" WHERE id = :id RETURNING {_COLUMNS}"
)
_OF_WORKSPACE = Statement("SELECT id FROM api_keys WHERE tenant_id = :tenant_id AND workspace_id = :workspace_id")
_DELETE = Statement("DELETE FROM api_keys WHERE tenant_id = :tenant_id AND id = :id")
_MARK_SWEPT = Statement(
    "UPDATE api_keys SET swept = true WHERE tenant_id = :tenant_id AND id = ANY (CAST(:ids AS text[]))"
)
_DUE = "expire_time <= now() AND NOT swept AND tenant_id IS NOT NULL"
_TENANTS_DUE = Statement(f"SELECT DISTINCT tenant_id FROM api_keys WHERE {_DUE} AND {NOT_BEING_DELETED} LIMIT :limit")
_KEYS_DUE = Statement(f"SELECT id FROM api_keys WHERE tenant_id = :tenant_id AND {_DUE} ORDER BY id LIMIT :limit")
_SECONDS_TO_NEXT = Statement(
    "SELECT extract(epoch FROM min(expire_time) - now()) AS seconds FROM api_keys"
    f" WHERE NOT swept AND tenant_id IS NOT NULL AND {NOT_BEING_DELETED}"
)
# Not when the transaction began: who waited for a lock is to see what has expired meanwhile.
_NOW = Statement("SELECT clock_timestamp() AS now")
# With the head of `~` of the same moment: a revocation that is not in what is read is a later row of that stream.
_FIND = Statement(
    f"""
    WITH given AS (SELECT hash FROM unnest(CAST(:hashes AS bytea[])) AS given (hash)),
    found AS (
        SELECT g.hash AS found_by, true AS current, {_COLUMNS_OF_K}
        FROM given g JOIN api_keys k ON k.secret_hash = g.hash
        UNION ALL
        SELECT g.hash, false, {_COLUMNS_OF_K} FROM given g JOIN api_keys k ON k.previous_hash = g.hash
    )
    SELECT h.head_seq, f.* FROM tenant_head h LEFT JOIN found f ON true WHERE h.tenant_id = '{GLOBAL_STREAM}'
    """
)
# Rows that somebody is changing are left for the next time.
_NOTE_USES = Statement(
    """
    WITH used AS (
        SELECT k.id, given.time FROM unnest(CAST(:ids AS text[]), CAST(:times AS timestamptz[])) AS given (id, time)
        JOIN api_keys k ON k.id = given.id AND (k.last_used_time IS NULL OR k.last_used_time < given.time)
        ORDER BY k.id FOR UPDATE OF k SKIP LOCKED
    )
    UPDATE api_keys k SET last_used_time = used.time FROM used WHERE k.id = used.id
    """
)


@dataclass(frozen=True, slots=True)
class NewKey:
    """What a key is made with; `secret_hash` is the SHA-256 of the whole secret."""

    id: ApiKeyId
    tenant_id: TenantId | None
    user_id: UserId | None
    workspace_id: WorkspaceId | None
    name: str
    scopes: tuple[Scope, ...]
    expire_time: datetime | None
    created_by: UserId | None
    prefix: str
    secret_hash: bytes


@dataclass(frozen=True, slots=True)
class FoundKey:
    """The key that a secret is of; `current` is False where that is the secret before its last rotation."""

    key: ApiKey
    current: bool


async def insert(tx: Transaction, new: NewKey) -> ApiKey:
    return from_record(
        await _INSERT.one(
            tx,
            id=new.id,
            tenant_id=new.tenant_id,
            user_id=new.user_id,
            workspace_id=new.workspace_id,
            name=new.name,
            prefix=new.prefix,
            scopes=list(new.scopes),
            secret_hash=new.secret_hash,
            expire_time=new.expire_time,
            created_by=new.created_by,
        )
    )


async def get(tx: Transaction, tenant_id: TenantId | None, id_: ApiKeyId) -> ApiKey | None:
    """The key where it is confined to that tenant, or (None) to none."""
    record = await _GET.row(tx, id=id_, tenant_id=tenant_id)
    return None if record is None else from_record(record)


async def lock(tx: Transaction, tenant_id: TenantId | None, id_: ApiKeyId) -> ApiKey | None:
    """As `get`, locked to the end of the transaction."""
    record = await _LOCK.row(tx, id=id_, tenant_id=tenant_id)
    return None if record is None else from_record(record)


async def list_after(
    tx: Transaction,
    tenant_id: TenantId | None,
    *,
    user_id: UserId | None,
    seen_by: UserId | None,
    with_revoked: bool,
    after: str,
    limit: int,
) -> list[ApiKey]:
    """At most `limit` keys of the tenant, or (None) of none, whose ids follow `after`; of both users that are named."""
    records = await _LIST.rows(
        tx, tenant_id=tenant_id, user_id=user_id, seen_by=seen_by, with_revoked=with_revoked, after=after, limit=limit
    )
    return [from_record(record) for record in records]


async def revoke(tx: Transaction, id_: ApiKeyId) -> ApiKey:
    """One that is locked."""
    return from_record(await _REVOKE.one(tx, id=id_))


async def revoke_of_user(tx: SystemTransaction, user_id: UserId) -> int:
    """Every key that authenticates as the user; how many they were."""
    return await _REVOKE_OF_USER.run(tx, user_id=user_id)


async def of_workspace(tx: TenantTransaction, workspace_id: WorkspaceId) -> list[ApiKeyId]:
    """Every key that is confined to the workspace."""
    records = await _OF_WORKSPACE.rows(tx, tenant_id=tx.tenant_id, workspace_id=workspace_id)
    return [ApiKeyId(record["id"]) for record in records]


async def delete(tx: TenantTransaction, id_: ApiKeyId) -> None:
    """One that holds no roles and is in no group any more."""
    await _DELETE.run(tx, tenant_id=tx.tenant_id, id=id_)


async def rotate(tx: Transaction, id_: ApiKeyId, prefix: str, secret_hash: bytes, overlap: timedelta) -> ApiKey:
    """Another secret for one that is locked; that of now is the previous one from then on."""
    return from_record(await _ROTATE.one(tx, id=id_, prefix=prefix, secret_hash=secret_hash, overlap=overlap))


async def now(tx: Transaction) -> datetime:
    """By the database's clock, which decides when a key expires."""
    time: datetime = (await _NOW.one(tx))["now"]
    return time


async def tenants_due(tx: SystemTransaction, limit: int) -> list[TenantId]:
    """At most `limit` tenants with keys that have expired, and may still have roles."""
    return [TenantId(record["tenant_id"]) for record in await _TENANTS_DUE.rows(tx, limit=limit)]


async def due(tx: TenantTransaction, limit: int) -> list[ApiKeyId]:
    """At most `limit` such keys of the tenant."""
    return [ApiKeyId(r["id"]) for r in await _KEYS_DUE.rows(tx, tenant_id=tx.tenant_id, limit=limit)]


async def mark_swept(tx: TenantTransaction, ids: Collection[ApiKeyId]) -> None:
    """They have expired, and have no roles any more."""
    await _MARK_SWEPT.run(tx, tenant_id=tx.tenant_id, ids=list(ids))


async def seconds_to_next(tx: SystemTransaction) -> float:
    """Until the next key of a tenant expires; infinity where none does."""
    seconds = (await _SECONDS_TO_NEXT.one(tx))["seconds"]
    return math.inf if seconds is None else float(seconds)


async def find(tx: SystemTransaction, hashes: Collection[bytes]) -> tuple[Seq, dict[bytes, FoundKey]]:
    """(head of the stream `~`, keys by the hashes that they were found by), both of one moment."""
    records = await _FIND.rows(tx, hashes=list(hashes))
    found = {bytes(r["found_by"]): FoundKey(from_record(r), r["current"]) for r in records if r["id"] is not None}
    return Seq(records[0]["head_seq"]), found


async def note_uses(tx: SystemTransaction, uses: Mapping[ApiKeyId, datetime]) -> None:
    """When keys were last used; a moment that comes late never sets an earlier one."""
    await _NOTE_USES.run(tx, ids=list(uses), times=list(uses.values()))


def from_record(record: Record) -> ApiKey:
    """A key of its columns."""
    scopes: Sequence[str] = record["scopes"]
    return ApiKey(
        id=ApiKeyId(record["id"]),
        tenant_id=record["tenant_id"],
        user_id=record["user_id"],
        workspace_id=record["workspace_id"],
        name=record["name"],
        prefix=record["prefix"],
        scopes=tuple(sorted(Scope(scope) for scope in scopes)),
        expire_time=record["expire_time"],
        revoke_time=record["revoke_time"],
        previous_secret_expire_time=record["previous_expire_time"],
        last_used_time=record["last_used_time"],
        created_by=record["created_by"],
        create_time=record["create_time"],
        update_time=record["update_time"],
        etag=str(record["version"]),
    )
