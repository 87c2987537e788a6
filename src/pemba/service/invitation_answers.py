"""What whom an invitation is for makes of it: accept or decline.

They may have no role in the tenant, and no record, so this is a mutation of no tenant.  It holds the tenant's head
before all else: of two who accept at once, one finds the invitation used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pydantic import TypeAdapter

from pemba.errors import AlreadyExists, ConcurrentUpdate, Forbidden, NotFound, PreconditionFailed, Reason, invalid_field
from pemba.model import (
    ApiKey,
    Caller,
    Invitation,
    InvitationId,
    InvitationStatus,
    Membership,
    Scope,
    Seq,
    SubjectRef,
    TenantId,
    TupleOperation,
    User,
    UserId,
    UserStatus,
)
from pemba.service import guards
from pemba.service.api_keys import Wanted, issue
from pemba.service.global_mutation import GlobalDraft, GlobalMutations
from pemba.service.ids import new_api_key_id
from pemba.service.key_secrets import Secret, new_secret
from pemba.service.mutation import MutationOptions, Mutations, require_usable
from pemba.service.results import Changed
from pemba.service.role_change import RoleAssignment, RoleChange
from pemba.storage import invitations, journal, memberships, outbox, tenants, users
from pemba.storage.database import SystemTransaction, TenantTransaction
from pemba.storage.journal import AuditEntry

INVITATION = TypeAdapter(Invitation)


@dataclass(frozen=True, slots=True)
class Answer:
    """Who accepts: `user_id` None is the user who calls; `email` is believed of a system key alone."""

    user_id: UserId | None
    email: str
    display_name: str
    first_key: Wanted | None = None
    """It becomes the user's, of the invitation's tenant."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What accepting makes."""

    invitation: Invitation
    membership: Membership
    user: User
    api_key: ApiKey | None


@dataclass(frozen=True, slots=True)
class _Given:
    membership: Membership
    operations: Sequence[TupleOperation]


@dataclass(frozen=True, slots=True)
class Accepted:
    """With the secret of the first key, which is empty without one, in replays and in dry runs."""

    changed: Changed[Taken]
    secret: str = field(repr=False)


TAKEN = TypeAdapter(Taken)


class InvitationAnswers:
    """Carries them out."""

    def __init__(self, mutations: Mutations) -> None:
        self._mutations = mutations
        self._global = GlobalMutations(mutations)

    async def accept(
        self, caller: Caller, tenant_id: TenantId, id_: InvitationId, answer: Answer, *, options: MutationOptions
    ) -> Accepted:
        """As InvitationService.accept_invitation."""
        _require_within(caller, tenant_id, id_)
        user_id = _who(caller, answer.user_id)
        secret = new_secret() if answer.first_key else None

        async def body(tx: SystemTransaction) -> GlobalDraft[Taken]:
            tenant_tx, seq, before = await _open(tx, caller, tenant_id, id_, answer.email)
            user, is_new = await _user(tx, user_id, _shown_email(caller, answer.email), answer.display_name)
            given = await self._give_role(tenant_tx, caller, seq, before, user)
            key = await _first_key(tenant_tx, caller, user.id, answer.first_key, secret)
            after = await invitations.end_if_open(tenant_tx, id_, InvitationStatus.ACCEPTED, seq, user.id)
            assert after is not None  # the tenant's head is held
            taken = Taken(after, given.membership, user, key)
            await _append(tx, caller, options, seq, given, before, taken)
            made = TAKEN.dump_python(taken, mode="json")["user"] if is_new else None
            return GlobalDraft(taken, changed=is_new, after=made, positions={tenant_id: seq})

        changed = await self._global.run(caller, f"user:{user_id}", options, TAKEN, body)
        hidden = secret is None or changed.replayed or options.validate_only
        return Accepted(changed, "" if hidden or secret is None else secret.text)

    async def decline(
        self, caller: Caller, tenant_id: TenantId, id_: InvitationId, email: str, *, options: MutationOptions
    ) -> Changed[Invitation]:
        """As InvitationService.decline_invitation."""
        _require_within(caller, tenant_id, id_)

        async def body(tx: SystemTransaction) -> GlobalDraft[Invitation]:
            tenant_tx, seq, before = await _open(tx, caller, tenant_id, id_, email)
            after = await invitations.end_if_open(tenant_tx, id_, InvitationStatus.DECLINED, seq)
            assert after is not None
            old, new = (INVITATION.dump_python(each, mode="json") for each in (before, after))
            await journal.append(
                tx, tenant_id, seq, [()], AuditEntry(caller, options.method, f"invitation:{id_}", old, new)
            )
            return GlobalDraft(after, positions={tenant_id: seq})

        changed = await self._global.run(caller, f"invitation:{id_}", options, INVITATION, body)
        return Changed(changed.record, "", changed.replayed)

    async def _give_role(
        self, tx: TenantTransaction, caller: Caller, seq: Seq, invitation: Invitation, user: User
    ) -> _Given:
        """In the inviter's name, by the rights that they have now."""
        subject = SubjectRef("user", user.id)
        if await memberships.get(tx, invitation.workspace_id, subject) is not None:
            raise AlreadyExists(Reason.ALREADY_MEMBER, "the user has a role there already; SetRole changes it")
        inviter = Caller(
            f"invitation:{invitation.id}", frozenset(), invitation.invited_by, None, caller.request_id, caller.peer
        )
        change = RoleChange(tx, inviter, seq)
        assignment = RoleAssignment(invitation.object, subject, invitation.role)
        await change.lock_users([assignment])
        try:
            _, after = await change.assign(assignment)
        except (NotFound, Forbidden) as error:
            raise PreconditionFailed(
                Reason.INVITER_ROLE_MISSING, "whoever made the invitation may not give that role any more"
            ) from error
        draft = change.draft(after, (), [after], str(invitation.object))
        await guards.require_room(tx, draft.added, self._mutations.max_users_per_tenant)
        return _Given(after, draft.operations)


async def _append(
    tx: SystemTransaction,
    caller: Caller,
    options: MutationOptions,
    seq: Seq,
    given: _Given,
    before: Invitation,
    taken: Taken,
) -> None:
    made = TAKEN.dump_python(taken, mode="json")
    old = [INVITATION.dump_python(before, mode="json")]
    new = [record for name in ("invitation", "membership", "api_key") if (record := made[name]) is not None]
    entry = AuditEntry(caller, options.method, f"invitation:{before.id}", old, new)
    await journal.append(tx, before.tenant_id, seq, [given.operations], entry)


def _require_within(caller: Caller, tenant_id: TenantId, id_: InvitationId) -> None:
    """Raises NotFound for a credential that is confined to another tenant, or to a workspace."""
    if caller.tenant_id not in (None, tenant_id) or caller.workspace_id is not None:
        raise NotFound(f"invitation {id_}")


def _who(caller: Caller, named: UserId | None) -> UserId:
    """Who accepts.  Raises Forbidden (ROLE_MISSING) for who is neither that user nor a system key."""
    if caller.acting_user is not None and named in (None, caller.acting_user):
        return caller.acting_user
    if not caller.is_system:
        raise Forbidden(Reason.ROLE_MISSING, "it takes the user themselves, or a system key, to accept an invitation")
    if named is None:
        raise invalid_field("user_id", "is required of a system key: who accepts")
    return named


def _shown_email(caller: Caller, said: str) -> str:
    """What a system key says of the user, else what their own credential shows; empty for none."""
    return said if caller.vouches and said else caller.verified_email


async def _open(
    tx: SystemTransaction, caller: Caller, tenant_id: TenantId, id_: InvitationId, said: str
) -> tuple[TenantTransaction, Seq, Invitation]:
    """The invitation, which is for the caller and open, with the tenant's head held and its next number taken."""
    tenant_tx = tx.of(tenant_id)
    seq = await outbox.advance(tenant_tx)
    invitation = await invitations.get(tenant_tx, id_)
    if seq is None or invitation is None:
        raise NotFound(f"invitation {id_}")
    if _shown_email(caller, said).casefold() != invitation.email.casefold():
        raise PreconditionFailed(
            Reason.INVITATION_EMAIL_MISMATCH,
            "the invitation is for another email than the one that was shown",
        )
    require_usable(await tenants.get(tenant_tx), tenant_id, while_suspended=False)
    if invitation.status is InvitationStatus.EXPIRED:
        raise PreconditionFailed(Reason.INVITATION_EXPIRED, "the invitation's time is over; ask for another one")
    if invitation.status is not InvitationStatus.PENDING:
        raise PreconditionFailed(Reason.INVITATION_USED, f"the invitation was {invitation.status} before")
    return tenant_tx, seq, invitation


async def _user(tx: SystemTransaction, user_id: UserId, email: str, display_name: str) -> tuple[User, bool]:
    """The user, and whether their record is made now; one that a role made is taken over."""
    user = await users.lock_shared(tx, user_id)
    is_new = user is None or user.etag == "0"
    if is_new:
        user = await users.create(tx, user_id, email, display_name)
    if user is None:
        raise ConcurrentUpdate(Reason.CONCURRENT_UPDATE, "the user was created meanwhile; try again")
    guards.require_may_hold(user)
    if user.status is UserStatus.SUSPENDED:
        raise PreconditionFailed(Reason.USER_SUSPENDED, f"user:{user_id} is suspended")
    return user, is_new


async def _first_key(
    tx: TenantTransaction, caller: Caller, user_id: UserId, wanted: Wanted | None, secret: Secret | None
) -> ApiKey | None:
    if wanted is None or secret is None:
        return None
    if Scope.ADMIN not in caller.scopes:
        raise Forbidden(Reason.SCOPE_MISSING, "first_key: the key lacks the scope `admin`", {"scope": Scope.ADMIN})
    return await issue(tx, caller, replace(wanted, tenant_id=tx.tenant_id, user_id=user_id), new_api_key_id(), secret)
