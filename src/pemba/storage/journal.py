"""What every mutation writes last: its outbox rows with an audit row beside each, and its remembered response.

Also audit rows of what took no number: what was refused, and who read.  They are written while the tenant's head is
held as well, so the ids of a tenant's events grow in the order of the commits: whoever has read up to one has them all.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pemba.model import GLOBAL_STREAM, Caller, Seq, TenantId, TupleOperation
from pemba.storage import mentions, outbox
from pemba.storage.database import SystemTransaction, TenantTransaction, Transaction
from pemba.storage.statement import Statement

# The first audit row holds the records before and after; every one holds the operations of its outbox row.
# With the last outbox row in force, the tenant's tuples are what the records say, and the first of them to expire is
# theirs.  With an earlier one, tuples may stand of which no record tells any more: from then on, any moment may be it.
_APPEND = Statement(
    """
    WITH given AS (
        SELECT seq, CAST(ops AS jsonb) AS ops, octet_length(ops) AS op_bytes, ordinality = 1 AS first,
            ordinality - 1 AS part, cardinality(CAST(:seqs AS bigint[])) AS parts,
            ordinality = cardinality(CAST(:seqs AS bigint[])) AS last,
            ARRAY(SELECT jsonb_array_elements_text(CAST(about AS jsonb))) AS about
        FROM unnest(CAST(:seqs AS bigint[]), CAST(:ops AS text[]), CAST(:about AS text[]))
            WITH ORDINALITY AS rows (seq, ops, about, ordinality)
    ), appended AS (
        INSERT INTO outbox (tenant_id, seq, shard, ops, op_count, op_bytes, trace, store_epoch, next_expiry)
        SELECT CAST(:tenant_id AS text), seq, CAST(:shard AS smallint), ops, jsonb_array_length(ops), op_bytes,
            CAST(:trace AS jsonb), CAST(:store_epoch AS uuid), CASE WHEN last THEN
                (SELECT min(expire_time) FROM shares WHERE tenant_id = CAST(:tenant_id AS text))
            ELSE 'epoch' END
        FROM given
    ), audited AS (
        INSERT INTO audit (tenant_id, seq, part, parts, principal, acting_user, peer, request_id, method, object,
            before, after, ops, about)
        SELECT CAST(:tenant_id AS text), seq, part, parts, :principal, :acting_user, :peer, :call_id, :method, :object,
            CASE WHEN first THEN CAST(:before AS jsonb) END, CASE WHEN first THEN CAST(:after AS jsonb) END, ops, about
        FROM given ORDER BY seq RETURNING id, about
    )
    INSERT INTO audit_mention (tenant_id, object, audit_id)
    SELECT CAST(:tenant_id AS text), unnest(about), id FROM audited
    """
)
# Of a mutation that belongs to no tenant: its row of the stream `~`, which names the user, and the audit row beside it.
_APPEND_GLOBAL = Statement(
    f"""
    WITH head AS (
        UPDATE tenant_head SET head_seq = head_seq + 1 WHERE tenant_id = '{GLOBAL_STREAM}' RETURNING head_seq, shard
    ), appended AS (
        INSERT INTO outbox (tenant_id, seq, shard, ops, op_count, op_bytes, trace, about)
        SELECT '{GLOBAL_STREAM}', head_seq, shard, '[]', 0, 2, CAST(:trace AS jsonb), :object FROM head
    )
    INSERT INTO audit (tenant_id, seq, principal, acting_user, peer, request_id, method, object, before, after, ops)
    SELECT '{GLOBAL_STREAM}', head_seq, :principal, :acting_user, :peer, :call_id, :method, :object,
        CAST(:before AS jsonb), CAST(:after AS jsonb), '[]' FROM head
    RETURNING seq
    """
)
# Nothing where there is no such tenant.
_UNNUMBERED = Statement(
    """
    WITH head AS (
        SELECT tenant_id FROM tenant_head WHERE tenant_id = CAST(:tenant_id AS text) FOR NO KEY UPDATE
    ), audited AS (
        INSERT INTO audit
            (tenant_id, outcome, principal, acting_user, peer, request_id, method, object, reason, after, about, ops)
        SELECT head.tenant_id, :outcome, given.principal, given.acting_user, given.peer, given.call_id,
            given.method, given.object, given.reason, CAST(given.after AS jsonb),
            ARRAY(SELECT jsonb_array_elements_text(CAST(given.about AS jsonb))), '[]'
        FROM head, unnest(
            CAST(:principals AS text[]), CAST(:acting_users AS text[]), CAST(:peers AS text[]),
            CAST(:call_ids AS text[]), CAST(:methods AS text[]), CAST(:objects AS text[]), CAST(:reasons AS text[]),
            CAST(:afters AS text[]), CAST(:abouts AS text[])
        ) AS given (principal, acting_user, peer, call_id, method, object, reason, after, about)
        RETURNING id, tenant_id, about
    ), mentioned AS (
        INSERT INTO audit_mention (tenant_id, object, audit_id) SELECT tenant_id, unnest(about), id FROM audited
    )
    SELECT count(*) AS written FROM audited
    """
)
_RECALL = Statement(
    """
    SELECT body_digest, response, token FROM idempotency
    WHERE tenant_id = :tenant_id AND principal = :principal AND acting_user = :acting_user
        AND method = :method AND request_id = :request_id
    """
)
_REMEMBER = Statement(
    """
    INSERT INTO idempotency (tenant_id, principal, acting_user, method, request_id, body_digest, response, token)
    VALUES (:tenant_id, :principal, :acting_user, :method, :request_id, :body_digest, :response, :token)
    """
)
_CLAIM = Statement(
    """
    INSERT INTO idempotency (tenant_id, principal, acting_user, method, request_id, body_digest)
    VALUES (:tenant_id, :principal, :acting_user, :method, :request_id, :body_digest)
    ON CONFLICT ON CONSTRAINT idempotency_pkey DO NOTHING
    """
)
_COMPLETE = Statement(
    """
    UPDATE idempotency SET response = :response, token = :token
    WHERE tenant_id = :tenant_id AND principal = :principal AND acting_user = :acting_user
        AND method = :method AND request_id = :request_id
    """
)


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """Names one mutation of one caller; the tenant is `~` where the mutation belongs to none."""

    tenant_id: TenantId
    principal: str
    acting_user: str
    method: str
    request_id: str

    def columns(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class RememberedResponse:
    body_digest: bytes
    response: Any
    token: str


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who did what: `object_text` as `workspace:ws_...`, the record before and after in JSON.

    `about` is what else it is about, in text; what records and operations name need not be said.
    """

    caller: Caller
    method: str
    object_text: str
    before: object = None
    after: object = None
    about: Sequence[str] = ()
    reason: str | None = None
    """Why it was refused."""


async def append(
    tx: TenantTransaction | SystemTransaction,
    tenant_id: TenantId,
    first_seq: Seq,
    rows: Sequence[Sequence[TupleOperation]],
    entry: AuditEntry,
    store_epoch: uuid.UUID | None = None,
) -> None:
    """Consecutive outbox rows from `first_seq` on, each with its audit row.

    With `store_epoch` everything of the tenant is in that life of the store once they are delivered.
    """
    await _APPEND.run(
        tx,
        seqs=[first_seq + i for i in range(len(rows))],
        ops=[outbox.to_json(row) for row in rows],
        about=[json.dumps(_about(tenant_id, entry, row, first=i == 0)) for i, row in enumerate(rows)],
        tenant_id=tenant_id,
        shard=outbox.shard_of(tenant_id),
        trace={"request_id": entry.caller.request_id},
        store_epoch=store_epoch,
        before=entry.before,
        after=entry.after,
        **_who(entry),
    )


async def append_global(tx: SystemTransaction, entry: AuditEntry) -> Seq:
    """A row of the stream `~` about the object of `entry`, and its audit row; the number they have.

    The head of that stream is held to the end of the transaction: ask late.
    """
    record = await _APPEND_GLOBAL.one(
        tx, trace={"request_id": entry.caller.request_id}, before=entry.before, after=entry.after, **_who(entry)
    )
    return Seq(record["seq"])


async def append_refused(tx: TenantTransaction | SystemTransaction, tenant_id: TenantId, entry: AuditEntry) -> bool:
    """An audit row for what was refused, with its reason; it takes no number.  False where there is no such tenant."""
    return await _append_unnumbered(tx, tenant_id, "refused", [entry]) == 1


async def append_read(
    tx: TenantTransaction | SystemTransaction, tenant_id: TenantId, entries: Sequence[AuditEntry]
) -> bool:
    """Audit rows for what was read.  False where there is no such tenant."""
    return await _append_unnumbered(tx, tenant_id, "read", entries) > 0


async def _append_unnumbered(
    tx: TenantTransaction | SystemTransaction, tenant_id: TenantId, outcome: str, entries: Sequence[AuditEntry]
) -> int:
    record = await _UNNUMBERED.one(
        tx,
        tenant_id=tenant_id,
        outcome=outcome,
        principals=[e.caller.principal for e in entries],
        acting_users=[e.caller.acting_user for e in entries],
        peers=[e.caller.peer for e in entries],
        call_ids=[e.caller.request_id for e in entries],
        methods=[e.method for e in entries],
        objects=[e.object_text for e in entries],
        reasons=[e.reason for e in entries],
        afters=[None if e.after is None else json.dumps(e.after) for e in entries],
        abouts=[json.dumps(mentions.others(e.object_text, e.about)) for e in entries],
    )
    return int(record["written"])


def _about(tenant_id: TenantId, entry: AuditEntry, row: Sequence[TupleOperation], *, first: bool) -> list[str]:
    """What one of the rows of a change is about; the first has its records."""
    named = [*entry.about, *mentions.of_records([entry.before, entry.after])] if first else []
    return mentions.others(entry.object_text, named, mentions.of_operations(tenant_id, row))


def _who(entry: AuditEntry) -> dict[str, object]:
    return {
        "principal": entry.caller.principal,
        "acting_user": entry.caller.acting_user,
        "peer": entry.caller.peer,
        "call_id": entry.caller.request_id,
        "method": entry.method,
        "object": entry.object_text,
    }


async def recall(tx: Transaction, key: IdempotencyKey) -> RememberedResponse | None:
    """The response to an earlier call of that key.  Ask while holding the head, or a COMMIT in doubt is missed."""
    record = await _RECALL.row(tx, **key.columns())
    if record is None:
        return None
    return RememberedResponse(record["body_digest"], record["response"], record["token"])


async def remember(tx: TenantTransaction, key: IdempotencyKey, remembered: RememberedResponse) -> None:
    await _REMEMBER.run(
        tx,
        body_digest=remembered.body_digest,
        response=remembered.response,
        token=remembered.token,
        **key.columns(),
    )


async def claim(tx: SystemTransaction, key: IdempotencyKey, body_digest: bytes) -> bool:
    """Take the key before anything else, where no head serialises; waits for another taker to end.

    False: the other committed, and `recall` has its response.
    """
    return await _CLAIM.run(tx, body_digest=body_digest, **key.columns()) == 1


async def complete(tx: SystemTransaction, key: IdempotencyKey, response: object, token: str) -> None:
    """Give a claimed key its response."""
    await _COMPLETE.run(tx, response=response, token=token, **key.columns())
