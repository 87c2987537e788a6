"""Carries out what a change of a user's status leaves to do: a tenant's share, of at most 500 tuples, at a time.

Each step is one transaction, an ordinary row of the tenant's stream, and moves the job on in it: whatever kills it, the
next one goes on from there.  Everything is read again once the tenant's head and the user are locked, in the order in
which mutations lock them, and a step that somebody else took, or a job that was asked anew, is left alone.  So any
number of relays may run this.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import structlog

from pemba import projection
from pemba.model import GLOBAL_STREAM, SystemScope, TenantId, Tuple, UserStatus
from pemba.service.mutation import Wakeup
from pemba.service.principal import as_maintenance
from pemba.service.role_change import HELD
from pemba.service.user_status import USER, tuples_of
from pemba.storage import journal, outbox, user_holdings, user_jobs, users, workspaces
from pemba.storage.database import Database, SystemTransaction
from pemba.storage.journal import AuditEntry
from pemba.storage.outbox import MAX_ROW_OPERATIONS
from pemba.storage.user_holdings import Holding
from pemba.storage.user_jobs import Goal, UserJob
from pemba.telemetry import Event

_METHODS = {Goal.WITHDRAW: "SuspendUser", Goal.RESTORE: "ActivateUser", Goal.REMOVE: "DeactivateUser"}


log = structlog.get_logger()


class UserJobs:
    """Takes steps of the jobs that there are, in turn."""

    def __init__(self, database: Database, wakeup: Wakeup) -> None:
        self._database = database
        self._wakeup = wakeup

    async def run_once(self) -> bool:
        """Take one step; False where there is nothing to do, or somebody else is doing it."""
        async with self._database.begin(SystemScope("carry out a change of a user's status")) as tx:
            job = await user_jobs.next_of_turn(tx)
            if job is None:
                return False
            ahead = await user_holdings.after(tx, job.user_id, job.after, 1)
            tenant_id = ahead[0].tenant_id if ahead else GLOBAL_STREAM
            await (_step(tx, job, tenant_id) if ahead else _finish(tx, job))
            finished = not ahead and not tx.discarded
        self._wakeup.notify(tenant_id)
        if finished:
            log.info(Event.CASCADE_FINISHED, method=_METHODS[job.goal], about=f"user:{job.user_id}")
        return True


async def _step(tx: SystemTransaction, job: UserJob, tenant_id: TenantId) -> None:
    """What the user holds next in one tenant."""
    seq = await outbox.advance(tx.of(tenant_id))
    await users.ensure_locked(tx, [job.user_id])
    held = _of_a_row(await user_holdings.after(tx, job.user_id, job.after, MAX_ROW_OPERATIONS, tenant_id))
    if seq is None or not held or not await user_jobs.is_still(tx, job):
        tx.discard()  # the number too
        return
    if job.goal is Goal.RESTORE:
        operations = projection.difference((), _tuples(held))
    else:
        # All that may be there, whatever was archived since.
        operations = projection.difference(_tuples(held, whatever_is_archived=True), ())
    before = None
    if job.goal is Goal.REMOVE:
        await user_holdings.delete(tx, job.user_id, held, seq)
        personal = await workspaces.delete_left_by(tx.of(tenant_id), job.user_id)
        gone = (*(each.record for each in held), *([personal] if personal else []))
        before = HELD.dump_python(gone, mode="json")
    await journal.append(tx, tenant_id, seq, [operations], _entry(job, before))
    await user_jobs.advance(tx, job.user_id, held[-1].place)


async def _finish(tx: SystemTransaction, job: UserJob) -> None:
    """Nothing is left to do: the status of one who is being activated changes last."""
    before = await users.lock(tx, job.user_id)
    if before is None or not await user_jobs.is_still(tx, job):
        tx.discard()
        return
    if job.goal is Goal.RESTORE:
        after = await users.set_status(tx, job.user_id, UserStatus.ACTIVE)
        entry = _entry(job, USER.dump_python(before, mode="json"), USER.dump_python(after, mode="json"))
        await user_jobs.drop(tx, job.user_id)
        await journal.append_global(tx, entry)
    else:
        await user_jobs.drop(tx, job.user_id)


def _of_a_row(held: Iterable[Holding]) -> list[Holding]:
    """As many of them, from the first on, as one row takes: who manages a group has two tuples there."""
    taken: list[Holding] = []
    size = 0
    for each in held:
        size += len(tuples_of(each, whatever_is_archived=True))
        if size > MAX_ROW_OPERATIONS:
            break
        taken.append(each)
    return taken


def _tuples(held: Sequence[Holding], *, whatever_is_archived: bool = False) -> set[Tuple]:
    return {t for each in held for t in tuples_of(each, whatever_is_archived=whatever_is_archived)}


def _entry(job: UserJob, before: object = None, after: object = None) -> AuditEntry:
    caller = as_maintenance(job.request_id)
    return AuditEntry(caller, _METHODS[job.goal], f"user:{job.user_id}", before, after)
