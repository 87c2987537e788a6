"""Repair of records that break what must hold of them: each an ordinary, audited row of its tenant's stream.

Everything is read again under the tenant's head, or the user's lock: any number may repair at once, and a second time
changes nothing.  What a person must decide is left: where children of a personal workspace belong, who is to be admin.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from pemba import projection
from pemba.model import (
    Caller,
    Membership,
    Role,
    Seq,
    Share,
    SubjectRef,
    SystemScope,
    TenantId,
    Tuple,
    User,
    UserId,
    UserStatus,
    WorkspaceId,
)
from pemba.service.role_change import HELD
from pemba.service.shares import SHARES
from pemba.storage import invariants, journal, memberships, outbox, shares, user_jobs, users, workspaces
from pemba.storage.database import Database, SystemTransaction, TenantTransaction
from pemba.storage.invariants import Broken, Finding
from pemba.storage.journal import AuditEntry
from pemba.storage.outbox import MAX_CHANGE_OPERATIONS
from pemba.storage.user_jobs import Goal

PRINCIPAL = "pemba:repair"
"""Who the audit says it was."""

OF_PERSONAL = frozenset({Broken.PERSONAL_STRANGER, Broken.PERSONAL_WITHOUT_OWNER, Broken.PERSONAL_SHARED})
AUTOMATIC = OF_PERSONAL | {Broken.HEAD_MISSING, Broken.JOB_MISSING}
"""What is repaired without a decision of anybody."""


class RecordRepair:
    """Finds what is broken, and repairs what can be."""

    def __init__(self, database: Database) -> None:
        """`database` has the system's role."""
        self._database = database

    async def find(self, tenant_id: TenantId | None = None, limit: int = 1000) -> list[Finding]:
        """At most `limit` of each kind, of one tenant or of all; heads first: nothing is changed without."""
        async with self._database.begin(SystemScope("find records that break what must hold")) as tx:
            found = await invariants.find(tx, tenant_id, limit)
        return sorted(found, key=lambda each: each.broken is not Broken.HEAD_MISSING)

    async def repair(self, finding: Finding) -> bool:
        """Repair one that is in AUTOMATIC; False where nothing is left to repair, or nothing can be."""
        async with self._database.begin(SystemScope(f"repair {finding.broken}")) as tx:
            if finding.broken in OF_PERSONAL:
                repaired = await _personal(tx, finding.tenant_id, WorkspaceId(finding.id))
            elif finding.broken is Broken.HEAD_MISSING:
                repaired = await invariants.make_head(tx, finding.tenant_id)
            else:
                repaired = await _job(tx, UserId(finding.id))
            if not repaired:
                tx.discard()
        return repaired


async def _job(tx: SystemTransaction, user_id: UserId) -> bool:
    """Let a change of a user's status be carried out to its end: the relay does it."""
    user = await users.lock(tx, user_id)
    if user is None or not (user.activating or user.status is UserStatus.DEACTIVATED):
        return False
    goal = Goal.RESTORE if user.activating else Goal.REMOVE
    await user_jobs.put(tx, user_id, goal, _request_id())
    return True


async def _personal(tx: SystemTransaction, tenant_id: TenantId, workspace_id: WorkspaceId) -> bool:
    """Make its user the owner, and take everybody else and every share away."""
    of_tenant = tx.of(tenant_id)
    seq = await outbox.advance(of_tenant)
    user_id = await invariants.personal_user(tx, tenant_id, workspace_id)
    if seq is None or user_id is None:
        return False
    user = (await users.ensure_locked(tx, [user_id]))[user_id]
    held = [m for m, _ in await memberships.of_workspaces(of_tenant, [workspace_id], MAX_CHANGE_OPERATIONS)]
    shared = await shares.of_workspaces(of_tenant, [workspace_id], MAX_CHANGE_OPERATIONS)
    change = _Change(of_tenant, seq, workspace_id, user)
    await change.revoke([share for share, _ in shared])
    if user.status is not UserStatus.DEACTIVATED:  # else there would be no member left, which PostgreSQL refuses
        await change.make_theirs(held)
    return await change.end()


class _Change:
    """What is done to one personal workspace, under its tenant's head."""

    def __init__(self, tx: TenantTransaction, seq: Seq, workspace_id: WorkspaceId, user: User) -> None:
        self._tx = tx
        self._seq = seq
        self._workspace_id = workspace_id
        self._user = user
        self._old: set[Tuple] = set()
        self._new: set[Tuple] = set()
        self._gone: list[Membership] = []
        self._shares: list[Share] = []
        self._made: list[Membership] = []

    async def revoke(self, shared: Sequence[Share]) -> None:
        await shares.delete(self._tx, [share.id for share in shared])
        for share in shared:
            self._old |= projection.share_tuples(share, either_is_archived=False)
        self._shares += shared

    async def make_theirs(self, held: Sequence[Membership]) -> None:
        """Of these who have a role on it only its user stays, as owner."""
        subject = SubjectRef("user", self._user.id)
        own = next((m for m in held if m.subject == subject), None)
        if own is None or own.role is not Role.OWNER:
            await self._make_owner(subject, own)
        for stranger in held:
            if stranger.subject != subject:
                await memberships.delete(self._tx, self._workspace_id, stranger.subject)
                self._old |= _tuples(stranger)
                self._gone.append(stranger)

    async def _make_owner(self, subject: SubjectRef, before: Membership | None) -> None:
        after = await memberships.put(
            self._tx, self._tx.tenant_id, self._workspace_id, subject, Role.OWNER, None, self._seq
        )
        workspace = await workspaces.get(self._tx, self._workspace_id)
        in_use = workspace is not None and workspace.archive_time is None
        self._old |= _tuples(before) if before else frozenset()
        self._new |= _tuples(after) if self._user.has_tuples and in_use else frozenset()
        self._gone += [before] if before else []
        self._made.append(after)

    async def end(self) -> bool:
        """Write the rows of outbox and audit; False where nothing was changed."""
        if not (self._gone or self._shares or self._made):
            return False
        rows = outbox.split(projection.difference(self._old, self._new))
        if len(rows) > 1:
            await outbox.advance(self._tx, len(rows) - 1)
        before = {
            "memberships": HELD.dump_python(tuple(self._gone), mode="json"),
            "shares": SHARES.dump_python(tuple(self._shares), mode="json"),
        }
        after = {"memberships": HELD.dump_python(tuple(self._made), mode="json"), "shares": []}
        caller = Caller(PRINCIPAL, frozenset(), None, None, _request_id(), "repair")
        entry = AuditEntry(caller, "Repair", f"workspace:{self._workspace_id}", before, after)
        await journal.append(self._tx, self._tx.tenant_id, self._seq, rows, entry)
        return True


def _tuples(membership: Membership) -> frozenset[Tuple]:
    return projection.membership_tuples(membership, subject_is_active=True, object_is_archived=False)


def _request_id() -> str:
    return f"repair-{uuid.uuid4()}"
