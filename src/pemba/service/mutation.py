"""One mutation of a tenant, from its first lock to its token (the package's prose draws it)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import structlog
from pydantic import TypeAdapter

from pemba.errors import (
    ConcurrentUpdate,
    Forbidden,
    NotFound,
    PreconditionFailed,
    Reason,
    invalid_field,
)
from pemba.model import (
    GLOBAL_STREAM,
    Caller,
    ObjectRef,
    Seq,
    Tenant,
    TenantId,
    TenantScope,
    TenantStatus,
    TupleOperation,
    UserId,
)
from pemba.service import guards, rights
from pemba.service.preview import Preview, PreviewedRecord
from pemba.service.refusals import Refusals
from pemba.service.results import Changed
from pemba.storage import journal, outbox, statuses, tenants
from pemba.storage.database import Database, TenantTransaction
from pemba.storage.journal import AuditEntry, IdempotencyKey, RememberedResponse
from pemba.telemetry import Event
from pemba.tokens import Signer

T = TypeVar("T")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class MutationOptions:
    """What every mutation carries besides its own arguments.

    `request_id` is an idempotency key of at most 128 characters, empty for none; `body_digest` tells whether a
    second call with it is the same request; `etag` is compared where it is not empty.  `about` is what the request
    names, in text, the object first: for the audit, where it is refused.
    """

    method: str
    request_id: str = ""
    body_digest: bytes = b""
    etag: str = ""
    validate_only: bool = False
    preview: Preview = field(default_factory=Preview, compare=False)
    """Of a mutation with `validate_only`: what it would do."""
    about: tuple[str, ...] = ()


DomainEvent = tuple[Event, Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Draft(Generic[T]):
    """What the body of a mutation did: the answer, the tuples to write, and what audit keeps.

    `status_of` names a user or tenant whose status this changed: a check can see that although it writes no tuple.
    """

    record: T
    operations: Sequence[TupleOperation]
    object_text: str
    before: object = None
    after: object = None
    status_of: ObjectRef | None = None
    announced: Sequence[ObjectRef] = ()
    """What servers are to forget, and no check can see: API keys that ended, or have another secret."""
    added: Sequence[UserId] = ()
    """Who got a role, and may have had none in the tenant before."""
    events: Sequence[DomainEvent] = ()
    """What the log tells once it is committed."""


class Wakeup(Protocol):
    """Tells the relay that a tenant has something due; may be lost, polling is the guarantee."""

    def notify(self, tenant_id: TenantId) -> None: ...


Body = Callable[[TenantTransaction, Seq], Awaitable[Draft[T]]]
TakeNote = Callable[[], Awaitable[None]]
"""Looks what statuses there are now; never fails."""


class Mutations:
    """Runs mutations: transaction, order, idempotency, outbox, audit, token."""

    def __init__(
        self,
        database: Database,
        signer: Signer,
        wakeup: Wakeup,
        refusals: Refusals,
        take_note: TakeNote | None = None,
        max_users_per_tenant: int = 0,
    ) -> None:
        """`take_note` is awaited before a change of a status is answered: this server's next check knows of it."""
        self.database = database
        self.signer = signer
        self.wakeup = wakeup
        self.refusals = refusals
        self.take_note = take_note
        self.max_users_per_tenant = max_users_per_tenant

    async def run(
        self,
        caller: Caller,
        tenant_id: TenantId,
        options: MutationOptions,
        answer: TypeAdapter[T],
        body: Body[T],
        *,
        while_suspended: bool = False,
    ) -> Changed[T]:
        """Carry out `body` as one mutation of the tenant.

        `answer` turns the record into JSON and back, for a replay.  Raises NotFound for an unknown tenant,
        PreconditionFailed (TENANT_SUSPENDED) for a suspended one, and whatever `body` raises; then nothing is written.
        """
        try:
            return await self._run(caller, tenant_id, options, answer, body, while_suspended)
        except (Forbidden, PreconditionFailed) as refusal:
            if not options.validate_only:
                await self.refusals.record(caller, tenant_id, options.method, refusal, options.about)
            raise

    async def _run(
        self,
        caller: Caller,
        tenant_id: TenantId,
        options: MutationOptions,
        answer: TypeAdapter[T],
        body: Body[T],
        while_suspended: bool,
    ) -> Changed[T]:
        key = idempotency_key(caller, tenant_id, options)
        async with self.database.begin(TenantScope(tenant_id)) as tx:
            seq = await outbox.advance(tx)
            if seq is None:
                raise NotFound(f"tenant {tenant_id}")
            if options.request_id and (earlier := await journal.recall(tx, key)):
                tx.discard()
                return replay(earlier, options, answer)
            await rights.require_belongs(tx, caller)
            require_usable(await tenants.get(tx), tx.tenant_id, while_suspended)
            # A dry run's etag is nobody's: with the number itself it would be that of the next real change.
            draft = await body(tx, Seq(0) if options.validate_only else seq)
            await guards.require_room(tx, draft.added, self.max_users_per_tenant)
            rows = outbox.split(draft.operations)
            last = await self._append(tx, caller, options, seq, rows, draft)
            positions = {tenant_id: last} if draft.operations or draft.status_of else {}
            if about := [*draft.announced, *([draft.status_of] if draft.status_of else [])]:
                told = await statuses.announce_all(tx, about, {"request_id": caller.request_id})
                positions |= {GLOBAL_STREAM: told} if draft.status_of else {}
            token = self.signer.token(positions) if positions else ""
            if options.request_id:
                response = answer.dump_python(draft.record, mode="json")
                await journal.remember(tx, key, RememberedResponse(options.body_digest, response, token))
            if options.validate_only:
                options.preview.note(PreviewedRecord(draft.object_text, draft.before, draft.after), draft.operations)
                tx.discard()
                return Changed(draft.record, "")
        self.wakeup.notify(tenant_id)
        tell(draft.events, options.method, draft.object_text)
        if draft.status_of is not None or draft.announced:
            await self.status_changed()
        return Changed(draft.record, token)

    async def status_changed(self) -> None:
        """After the commit of a row of the stream `~`."""
        self.wakeup.notify(GLOBAL_STREAM)
        if self.take_note is not None:
            await self.take_note()

    async def _append(
        self,
        tx: TenantTransaction,
        caller: Caller,
        options: MutationOptions,
        seq: Seq,
        rows: list[list[TupleOperation]],
        draft: Draft[Any],
    ) -> Seq:
        if len(rows) > 1:
            await outbox.advance(tx, len(rows) - 1)
        entry = AuditEntry(caller, options.method, draft.object_text, draft.before, draft.after)
        await journal.append(tx, tx.tenant_id, seq, rows, entry)
        return Seq(seq + len(rows) - 1)


def cascade(**counts: int) -> list[DomainEvent]:
    """That a change took these along, where it took any."""
    return [(Event.CASCADE_COMMITTED, counts)] if any(counts.values()) else []


def tell(events: Sequence[DomainEvent], method: str, about: str) -> None:
    """In the log, what is committed."""
    for event, fields in events:
        log.info(event, **{"method": method, "about": about, **fields})


def idempotency_key(caller: Caller, tenant_id: TenantId, options: MutationOptions) -> IdempotencyKey:
    """Scoped to caller, acting user, tenant and method: a key of one means nothing to another."""
    return IdempotencyKey(tenant_id, caller.principal, caller.acting_user or "", options.method, options.request_id)


def replay(earlier: RememberedResponse, options: MutationOptions, answer: TypeAdapter[T]) -> Changed[T]:
    """The stored response with its token.  Raises InvalidRequest (REQUEST_ID_REUSED) for another body."""
    if earlier.body_digest != options.body_digest:
        raise invalid_field("request_id", "was used with another request; take a new one", Reason.REQUEST_ID_REUSED)
    return Changed(answer.validate_python(earlier.response, strict=False), earlier.token, replayed=True)


def require_etag(etag: str, options: MutationOptions) -> None:
    """Raises ConcurrentUpdate (ETAG_MISMATCH, AIP-154) unless the request has no etag or the record's own."""
    if options.etag and options.etag != etag:
        raise ConcurrentUpdate(
            Reason.ETAG_MISMATCH, "etag: the record was changed since; read it again", {"etag": etag}
        )


def require_usable(tenant: Tenant | None, tenant_id: TenantId, while_suspended: bool) -> None:
    """Raises NotFound, and PreconditionFailed (TENANT_SUSPENDED) unless `while_suspended`."""
    if tenant is None:
        raise NotFound(f"tenant {tenant_id}")
    if tenant.status is TenantStatus.SUSPENDED and not while_suspended:
        raise PreconditionFailed(Reason.TENANT_SUSPENDED, "the tenant is suspended; activate it first")
