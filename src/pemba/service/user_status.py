"""Suspending, activating and deactivating a user, whose roles and groups may be in any number of tenants.

What takes access away commits the status alone: that denies at once, and a job takes the tuples after it
(service/user_jobs.py).  What gives it back goes the other way round: the tuples first, the status last.
Heads come before the user, so what is read of them is read again once the user is locked; if there is more than was
locked, it starts over.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from pydantic import TypeAdapter

from pemba import projection
from pemba.errors import ConcurrentUpdate, NotFound, PreconditionFailed, Reason
from pemba.model import Caller, GroupMember, Seq, TenantId, Tuple, User, UserId, UserStatus
from pemba.service import guards
from pemba.service.global_mutation import GlobalDraft
from pemba.service.mutation import DomainEvent, MutationOptions, require_etag
from pemba.storage import api_keys, journal, outbox, user_holdings, user_jobs, user_roles, users
from pemba.storage.database import SystemTransaction
from pemba.storage.journal import AuditEntry
from pemba.storage.user_holdings import Holding
from pemba.storage.user_jobs import Goal
from pemba.telemetry import Event

USER = TypeAdapter(User)

MAX_HEADS = 16
"""Tenants that one change locks."""
MAX_TENANTS_AT_ONCE = 15
"""Tenants in which an activation restores tuples itself: with `~` a token names 16 streams."""
MAX_HOLDINGS_AT_ONCE = 5_000
"""Roles and places in groups."""
MAX_COUNTED = 1000
"""Tenants, for the log."""


async def suspend(
    tx: SystemTransaction, caller: Caller, user_id: UserId, options: MutationOptions, *, force: bool
) -> GlobalDraft[User]:
    """Raises PreconditionFailed: LAST_ADMIN unless `force`, USER_DEACTIVATED, CHANGE_TOO_LARGE."""
    before = await _locked_with_guarded(tx, user_id, options, with_owned=False, force=force)
    guards.require_may_hold(before)
    if before.status is UserStatus.SUSPENDED and not before.activating:
        return _unchanged(before)
    if not force:
        await _require_not_held_alone(tx, user_id, with_owned=False)
    return await _take_away(tx, caller, before, UserStatus.SUSPENDED, Goal.WITHDRAW)


async def deactivate(
    tx: SystemTransaction, caller: Caller, user_id: UserId, options: MutationOptions
) -> GlobalDraft[User]:
    """Raises PreconditionFailed: LAST_ADMIN, LAST_OWNER, CHANGE_TOO_LARGE."""
    before = await _locked_with_guarded(tx, user_id, options, with_owned=True, force=False)
    if before.status is UserStatus.DEACTIVATED:
        return _unchanged(before)
    await _require_not_held_alone(tx, user_id, with_owned=True)
    await api_keys.revoke_of_user(tx, user_id)  # the row of `~` about the user tells servers of it
    return await _take_away(tx, caller, before, UserStatus.DEACTIVATED, Goal.REMOVE)


async def activate(
    tx: SystemTransaction, caller: Caller, user_id: UserId, options: MutationOptions
) -> GlobalDraft[User]:
    """At once where the user holds anything in up to 15 tenants, else by the job: then they are `activating` for now.

    Raises PreconditionFailed (USER_DEACTIVATED).
    """

    async def tenants_at_once() -> list[TenantId]:
        counts = await user_holdings.counts(tx, user_id, MAX_TENANTS_AT_ONCE + 1)
        at_once = len(counts) <= MAX_TENANTS_AT_ONCE and sum(counts.values()) <= MAX_HOLDINGS_AT_ONCE
        return list(counts) if at_once else []

    before = await _locked(tx, user_id, options, tenants_at_once)
    guards.require_may_hold(before)
    if before.status is UserStatus.ACTIVE or before.activating:
        return _unchanged(before)
    tenants = await tenants_at_once()
    if not tenants and await user_holdings.counts(tx, user_id, 1):
        after = await users.set_status(tx, user_id, UserStatus.SUSPENDED, activating=True)
        await user_jobs.put(tx, user_id, Goal.RESTORE, caller.request_id)
        return replace(_draft(before, after, status_changed=False), events=[await _cascade(tx, user_id)])
    positions = await _restore(tx, caller, user_id, options.method)
    after = await users.set_status(tx, user_id, UserStatus.ACTIVE)
    await user_jobs.drop(tx, user_id)
    return _draft(before, after, status_changed=True, positions=positions)


def tuples_of(held: Holding, *, whatever_is_archived: bool = False) -> frozenset[Tuple]:
    """Those of a user who is active: what is to be restored, or `whatever_is_archived` what may be there."""
    if isinstance(held.record, GroupMember):
        return projection.group_tuples(held.record, subject_is_active=True)
    archived = held.archived and not whatever_is_archived
    return projection.membership_tuples(held.record, subject_is_active=True, object_is_archived=archived)


async def _take_away(
    tx: SystemTransaction, caller: Caller, before: User, status: UserStatus, goal: Goal
) -> GlobalDraft[User]:
    after = await users.set_status(tx, before.id, status)
    await user_jobs.put(tx, before.id, goal, caller.request_id)
    draft = _draft(before, after, status_changed=True)
    return replace(draft, events=[*draft.events, await _cascade(tx, before.id)])


async def _cascade(tx: SystemTransaction, user_id: UserId) -> DomainEvent:
    """How much is left to the job: roles and places in groups, in so many tenants (at most MAX_COUNTED are counted)."""
    held = await user_holdings.counts(tx, user_id, MAX_COUNTED)
    return Event.CASCADE_STARTED, {"tenants": len(held), "holdings": sum(held.values())}


async def _restore(tx: SystemTransaction, caller: Caller, user_id: UserId, method: str) -> dict[TenantId, Seq]:
    """The tuples of all they hold, in the streams of their tenants, whose heads are held; the last number of each."""
    by_tenant: dict[TenantId, set[Tuple]] = {}
    for held in await user_holdings.after(tx, user_id, user_roles.START, MAX_HOLDINGS_AT_ONCE):
        if restored := tuples_of(held):
            by_tenant.setdefault(held.tenant_id, set()).update(restored)
    positions: dict[TenantId, Seq] = {}
    for tenant_id, tuples in by_tenant.items():
        rows = outbox.split(projection.difference((), tuples))
        last = await outbox.advance(tx.of(tenant_id), len(rows))
        assert last is not None  # whoever holds something in it has locked its head
        entry = AuditEntry(caller, method, f"user:{user_id}")
        await journal.append(tx, tenant_id, Seq(last - len(rows) + 1), rows, entry)
        positions[tenant_id] = last
    return positions


async def _locked_with_guarded(
    tx: SystemTransaction, user_id: UserId, options: MutationOptions, *, with_owned: bool, force: bool
) -> User:
    """The user, locked with the tenants whose guards are asked, so that nobody else takes their last holder."""

    async def tenants() -> list[TenantId]:
        found = await user_roles.guarded_tenants(tx, user_id, MAX_HEADS + 1, with_owned=with_owned)
        if len(found) > MAX_HEADS:
            raise _too_many_tenants()
        return found

    return await _locked(tx, user_id, options, _nowhere if force else tenants)


async def _locked(
    tx: SystemTransaction, user_id: UserId, options: MutationOptions, read: Callable[[], Awaitable[list[TenantId]]]
) -> User:
    """The user, locked after the heads of these tenants.  Raises NotFound, ConcurrentUpdate."""
    heads = await read()
    await outbox.lock_heads(tx, heads)
    user = await users.lock(tx, user_id)
    if user is None:
        raise NotFound(f"user {user_id}")
    if not set(await read()) <= set(heads):
        raise ConcurrentUpdate(Reason.CONCURRENT_UPDATE, "roles of the user are being changed; try again")
    require_etag(user.etag, options)
    return user


async def _nowhere() -> list[TenantId]:
    return []


async def _require_not_held_alone(tx: SystemTransaction, user_id: UserId, *, with_owned: bool) -> None:
    alone = await user_roles.held_alone(tx, user_id, with_owned=with_owned)
    if alone is not None:
        raise guards.last_holder(alone)


def _too_many_tenants() -> PreconditionFailed:
    return PreconditionFailed(
        Reason.CHANGE_TOO_LARGE,
        f"the user is an admin or owner in more than {MAX_HEADS} tenants; suspend them with `force`, which asks for no"
        " other admins (a suspended user can be deactivated)",
    )


def _unchanged(user: User) -> GlobalDraft[User]:
    return GlobalDraft(user)


def _draft(
    before: User, after: User, *, status_changed: bool, positions: Mapping[TenantId, Seq] | None = None
) -> GlobalDraft[User]:
    return GlobalDraft(
        after,
        changed=True,
        before=USER.dump_python(before, mode="json"),
        after=USER.dump_python(after, mode="json"),
        status_changed=status_changed,
        positions=positions or {},
        events=[(Event.USER_STATUS_CHANGED, {"status": after.status})] if status_changed else [],
    )
