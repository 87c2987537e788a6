"""One mutation of what belongs to no tenant: users, and tenants that are about to be.

No head serialises these, so the idempotency row comes first.  Then the heads of the tenants that it reads or writes, in
the order of their ids, then users, and last the stream `~`, in which each change of a user is a row.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pydantic import TypeAdapter

from pemba.errors import ConcurrentUpdate, Forbidden, PreconditionFailed, Reason, Unavailable
from pemba.model import GLOBAL_STREAM, Caller, Seq, SystemScope, TenantId
from pemba.service.mutation import DomainEvent, MutationOptions, Mutations, idempotency_key, replay, tell
from pemba.service.preview import PreviewedRecord
from pemba.service.results import Changed
from pemba.storage import journal
from pemba.storage.database import SystemTransaction
from pemba.storage.journal import AuditEntry

T = TypeVar("T")

TRIES = 5


@dataclass(frozen=True, slots=True)
class GlobalDraft(Generic[T]):
    """What the body of a mutation did.

    `changed`: whether a user's record changed, which is announced; `status_changed`: in a way that a check can see;
    `positions` are the tenants' rows that the body itself wrote.
    """

    record: T
    changed: bool = False
    before: object = None
    after: object = None
    status_changed: bool = False
    positions: Mapping[TenantId, Seq] = field(default_factory=dict)
    events: Sequence[DomainEvent] = ()
    """What the log tells once it is committed."""


Body = Callable[[SystemTransaction], Awaitable[GlobalDraft[T]]]


class GlobalMutations:
    """Runs such mutations: idempotency, order, audit, token."""

    def __init__(self, mutations: Mutations) -> None:
        self._mutations = mutations

    async def run(
        self, caller: Caller, about: str, options: MutationOptions, answer: TypeAdapter[T], body: Body[T]
    ) -> Changed[T]:
        """Carry out `body` in one transaction.

        `about` names what it is about, `user:alice`; `answer` turns the record into JSON and back, for a replay.
        A body that raises ConcurrentUpdate (CONCURRENT_UPDATE) has found that it must lock more: it starts over.
        """
        try:
            return await self._run_until_locked(caller, about, options, answer, body)
        except (Forbidden, PreconditionFailed) as refusal:
            if not options.validate_only:
                named = (about, *options.about)
                await self._mutations.refusals.record(caller, GLOBAL_STREAM, options.method, refusal, named)
            raise

    async def _run_until_locked(
        self, caller: Caller, about: str, options: MutationOptions, answer: TypeAdapter[T], body: Body[T]
    ) -> Changed[T]:
        for _ in range(TRIES - 1):
            try:
                return await self._run(caller, about, options, answer, body)
            except ConcurrentUpdate as error:
                if error.reason is not Reason.CONCURRENT_UPDATE:
                    raise
        return await self._run(caller, about, options, answer, body)

    async def _run(
        self, caller: Caller, about: str, options: MutationOptions, answer: TypeAdapter[T], body: Body[T]
    ) -> Changed[T]:
        key = idempotency_key(caller, GLOBAL_STREAM, options)
        async with self._mutations.database.begin(SystemScope(options.method)) as tx:
            if options.request_id and not await journal.claim(tx, key, options.body_digest):
                earlier = await journal.recall(tx, key)
                if earlier is None:  # forgotten in between: as old as that
                    raise Unavailable(Reason.OVERLOADED, "the same request_id was being carried out; try again")
                return replay(earlier, options, answer)
            draft = await body(tx)
            token = await self._announce(
                tx, AuditEntry(caller, options.method, about, draft.before, draft.after), draft
            )
            if options.request_id:
                await journal.complete(tx, key, answer.dump_python(draft.record, mode="json"), token)
            if options.validate_only:
                options.preview.note(PreviewedRecord(about, draft.before, draft.after))
                tx.discard()
                return Changed(draft.record, "")
        for tenant_id in draft.positions:
            self._mutations.wakeup.notify(tenant_id)
        tell(draft.events, options.method, about)
        if draft.changed:
            await self._mutations.status_changed()
        return Changed(draft.record, token)

    async def _announce(self, tx: SystemTransaction, entry: AuditEntry, draft: GlobalDraft[T]) -> str:
        """The row of `~` and its audit row, where a user's record changed; the token of all that a check can see."""
        positions = dict(draft.positions)
        if draft.changed:
            seq = await journal.append_global(tx, entry)
            if draft.status_changed:
                positions[GLOBAL_STREAM] = seq
        return self._mutations.signer.token(positions) if positions else ""
