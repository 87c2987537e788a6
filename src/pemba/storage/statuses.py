"""The stream `~`: whose status changed, in commit order, so that servers know it without asking for each check.

Its rows hold no operations; `about` names a user, a tenant, or an API key that ended or got another secret.  Other
changes of a user's record, and of keys of no tenant, are rows of it too (journal.append_global); they say nothing new
of a status.  Every server follows the head of it, whether any relay runs or not: a suspension denies although nothing
of it is delivered.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from pemba.model import GLOBAL_STREAM, ObjectRef, Seq, UserId
from pemba.storage.database import TenantTransaction, Transaction
from pemba.storage.statement import Statement

MAX_CHANGES = 1000
"""Of more changes at once nobody keeps track: whatever is remembered of statuses is forgotten."""

# The API's role sees the rows of one stream at a time.
_TURN_TO = Statement("SELECT set_config('pemba.tenant_id', :stream, true)")
_ANNOUNCE = Statement(
    f"""
    WITH head AS (
        UPDATE tenant_head SET head_seq = head_seq + 1 WHERE tenant_id = '{GLOBAL_STREAM}' RETURNING head_seq, shard
    )
    INSERT INTO outbox (tenant_id, seq, shard, ops, op_count, op_bytes, trace, about)
    SELECT '{GLOBAL_STREAM}', head_seq, shard, '[]', 0, 2, CAST(:trace AS jsonb), :about FROM head RETURNING seq
    """
)
_CHANGED = Statement(
    f"""
    SELECT about FROM outbox
    WHERE tenant_id = '{GLOBAL_STREAM}' AND seq > :after AND seq <= :until ORDER BY seq LIMIT {MAX_CHANGES}
    """
)
_INACTIVE = Statement("SELECT id FROM users WHERE status <> 'active' LIMIT :limit")
_INACTIVE_AMONG = Statement("SELECT id FROM users WHERE id = ANY (CAST(:ids AS text[])) AND status <> 'active'")


async def announce(tx: Transaction, about: ObjectRef, trace: Mapping[str, str]) -> Seq:
    """As `announce_all`, of one."""
    return await announce_all(tx, [about], trace)


async def announce_all(tx: Transaction, about: Sequence[ObjectRef], trace: Mapping[str, str]) -> Seq:
    """A row of the stream about each of these, at least one; the last one's number.

    Every change of a status takes the head of this stream, and holds it to the end of the transaction: ask late.
    """
    if isinstance(tx, TenantTransaction):
        await _TURN_TO.one(tx, stream=GLOBAL_STREAM)
    seqs = [await _append(tx, each, trace) for each in about]
    if isinstance(tx, TenantTransaction):
        await _TURN_TO.one(tx, stream=tx.tenant_id)
    return seqs[-1]


async def changed(tx: Transaction, after: Seq, until: Seq) -> set[ObjectRef] | None:
    """Whom the rows after one number, up to another, are about; None where that cannot be told any more."""
    if until - after > MAX_CHANGES:
        return None
    records = await _CHANGED.rows(tx, after=after, until=until)
    return {_parsed(r["about"]) for r in records} if len(records) == until - after else None


async def inactive(tx: Transaction, limit: int) -> set[UserId] | None:
    """All users who are suspended or deactivated; None where they are more than `limit`."""
    records = await _INACTIVE.rows(tx, limit=limit + 1)
    return {UserId(r["id"]) for r in records} if len(records) <= limit else None


async def inactive_among(tx: Transaction, users: Collection[UserId]) -> set[UserId]:
    """Those of them who are suspended or deactivated."""
    return {UserId(r["id"]) for r in await _INACTIVE_AMONG.rows(tx, ids=list(users))}


async def _append(tx: Transaction, about: ObjectRef, trace: Mapping[str, str]) -> Seq:
    return Seq((await _ANNOUNCE.one(tx, about=str(about), trace=dict(trace)))["seq"])


def _parsed(about: str) -> ObjectRef:
    type_, _, id_ = about.partition(":")
    return ObjectRef(type_, id_)
