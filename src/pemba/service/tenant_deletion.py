"""Deleting a tenant: one change with which it is gone for callers, and then the removal, some of it at a time.

From the commit of `begin` on row-level security keeps every record of the tenant from the API's role, and no server
answers a check of it any more; so nobody can add to it.  What is left is removed children first: each step is one
transaction, an ordinary row of the tenant's stream with its audit row, which deletes up to 500 records and every tuple
that they may stand for, whatever was archived or suspended.  Whatever kills a step, the next one goes on with what is
there.  The tenant's head, which every step takes first, keeps any number of relays in order, and users' jobs too.

What remains is the tenant's stream, who did what, and the deletion itself.  Users are nobody's: they stay.
"""

from __future__ import annotations

from dataclasses import replace

import structlog
from pydantic import TypeAdapter

from pemba import projection
from pemba.errors import NotFound, PembaError, invalid_field
from pemba.model import (
    ApiKey,
    Caller,
    GroupMember,
    Membership,
    ObjectRef,
    Share,
    SystemScope,
    Tenant,
    TenantDeletion,
    TenantId,
    Tuple,
    Workspace,
)
from pemba.service.global_mutation import GlobalDraft
from pemba.service.mutation import MutationOptions, Wakeup, require_etag
from pemba.service.principal import as_maintenance
from pemba.storage import journal, outbox, statuses, tenant_deletions, tenants
from pemba.storage.database import Database, SystemTransaction
from pemba.storage.journal import AuditEntry
from pemba.telemetry import Event

METHOD = "DeleteTenant"
DELETION = TypeAdapter(TenantDeletion)
_TENANT = TypeAdapter(Tenant)
_ANY = TypeAdapter(object)
_WHY = SystemScope("delete a tenant")

log = structlog.get_logger()


async def begin(
    tx: SystemTransaction, caller: Caller, tenant_id: TenantId, confirm_slug: str, options: MutationOptions
) -> GlobalDraft[TenantDeletion]:
    """Raises NotFound, ConcurrentUpdate (ETAG_MISMATCH), InvalidRequest where `confirm_slug` is not the slug."""
    seq = await outbox.advance(tx.of(tenant_id))
    tenant = await tenants.get(tx.of(tenant_id))
    if seq is None or tenant is None:
        raise NotFound(f"tenant {tenant_id}")
    require_etag(tenant.etag, options)
    if confirm_slug != tenant.slug:
        raise invalid_field("confirm_slug", "is not the slug of the tenant that is to be deleted")
    deletion = await tenant_deletions.begin(tx, tenant_id, tenant.slug, tenant.name, caller.request_id)
    before = _TENANT.dump_python(tenant, mode="json")
    await journal.append(tx, tenant_id, seq, [[]], AuditEntry(caller, METHOD, f"tenant:{tenant_id}", before))
    return GlobalDraft(deletion, changed=True, before=before, status_changed=True)


def log_start(deletion: TenantDeletion) -> None:
    counts = {each.records: each.total for each in deletion.counts}
    log.info(Event.TENANT_DELETION_STARTED, tenant_id=deletion.tenant_id, slug=deletion.slug, **counts)


class TenantDeletions:
    """Takes steps of the deletions that there are, in turn."""

    def __init__(self, database: Database, wakeup: Wakeup) -> None:
        self._database = database
        self._wakeup = wakeup

    async def run_once(self) -> bool:
        """Take one step; False where there is nothing to do, or somebody else is doing it.

        A tenant whose step fails comes after the others the next time.
        """
        async with self._database.begin(_WHY) as tx:
            tenant_id = await tenant_deletions.next_of_turn(tx)
        if tenant_id is None:
            return False
        try:
            taken = await self._step(tenant_id)
        except PembaError:
            async with self._database.begin(_WHY) as tx:
                await tenant_deletions.note_step(tx, tenant_id)
            raise
        if taken:
            self._wakeup.notify(tenant_id)
        return taken

    async def _step(self, tenant_id: TenantId) -> bool:
        finished: TenantDeletion | None = None
        async with self._database.begin(_WHY) as tx:
            if not await tenant_deletions.take_turn(tx):
                return False
            seq = await outbox.advance(tx.of(tenant_id))
            request_id = await tenant_deletions.lock_open(tx, tenant_id)
            if seq is None or request_id is None:
                tx.discard()  # the number too
                return True
            table, gone = await tenant_deletions.remove_some(tx, tenant_id)
            operations = projection.difference({each for record in gone for each in _tuples_of(record)}, ())
            caller = as_maintenance(request_id)
            before = {table: _ANY.dump_python(gone, mode="json")} if gone else None
            entry = AuditEntry(caller, METHOD, f"tenant:{tenant_id}", before)
            await journal.append(tx, tenant_id, seq, [operations], entry)
            if gone:
                await tenant_deletions.note_step(tx, tenant_id)
            else:
                finished = await tenant_deletions.finish(tx, tenant_id)
            if about := [ObjectRef("api_key", record.id) for record in gone if isinstance(record, ApiKey)]:
                await statuses.announce_all(tx, about, {"request_id": request_id})
        if finished is not None:
            seconds = ((finished.finish_time or finished.create_time) - finished.create_time).total_seconds()
            log.info(Event.TENANT_DELETION_FINISHED, tenant_id=tenant_id, slug=finished.slug, seconds=round(seconds, 3))
        return True


def _tuples_of(record: object) -> frozenset[Tuple]:
    """All that it may stand for, whatever is archived and whoever is suspended."""
    if isinstance(record, Share):
        return projection.share_tuples(record, either_is_archived=False)
    if isinstance(record, Membership):
        return projection.membership_tuples(record, subject_is_active=True, object_is_archived=False)
    if isinstance(record, GroupMember):
        return projection.group_tuples(record, subject_is_active=True)
    if isinstance(record, Workspace):
        return projection.workspace_tuples(replace(record, archive_time=None))
    return frozenset()
