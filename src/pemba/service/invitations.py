"""Invitations: a role for whoever shows that an email address is theirs.

Making, revoking and reading them takes what giving the role takes.  Accepting takes the secret and the address, and no
right: the role is given by the inviter, who must still be one who may give it.  So nobody keeps, by an invitation sent
in time, what was taken from them.  What a key invited to in its own name stands.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from pydantic import TypeAdapter

from pemba.errors import AlreadyExists, NotFound, PreconditionFailed, Reason
from pemba.model import (
    Caller,
    Invitation,
    InvitationId,
    InvitationStatus,
    Role,
    Seq,
    TenantId,
    TenantScope,
    WorkspaceId,
)
from pemba.service import guards, rights
from pemba.service.ids import new_invitation_id
from pemba.service.invitation_answers import Accepted, Answer, InvitationAnswers
from pemba.service.invitation_secrets import InvitationSecrets
from pemba.service.mutation import Draft, MutationOptions, Mutations, require_etag
from pemba.service.results import Changed, Found, Page
from pemba.service.rights import Action, usable, visible
from pemba.storage import invitations, outbox
from pemba.storage.database import TenantTransaction

INVITATION = TypeAdapter(Invitation)


@dataclass(frozen=True, slots=True)
class Invited:
    """An invitation with its secret and where to take it: both empty in replays and dry runs."""

    changed: Changed[Invitation]
    secret: str = field(repr=False)
    url: str = field(repr=False)


class InvitationService:
    """The rules of invitations."""

    def __init__(self, mutations: Mutations, secrets: InvitationSecrets, good_for: timedelta) -> None:
        self._mutations = mutations
        self._secrets = secrets
        self._good_for = good_for
        self._answers = InvitationAnswers(mutations)
        self._database = mutations.database
        self._signer = mutations.signer

    async def create_invitation(
        self,
        caller: Caller,
        tenant_id: TenantId,
        *,
        workspace_id: WorkspaceId | None,
        email: str,
        role: Role,
        options: MutationOptions,
    ) -> Invited:
        """To the workspace, or (None) to the tenant itself.

        Raises NotFound, Forbidden, AlreadyExists (ALREADY_MEMBER: a user with that email has a role there),
        PreconditionFailed (WORKSPACE_ARCHIVED, PERSONAL_MEMBERSHIP_FIXED).
        """
        id_ = new_invitation_id()

        async def body(tx: TenantTransaction, seq: Seq) -> Draft[Invitation]:
            await _require_may_invite(tx, caller, workspace_id, role)
            if await invitations.has_role(tx, workspace_id, email):
                raise AlreadyExists(
                    Reason.ALREADY_MEMBER, "email: a user who has it has a role there; SetRole changes it"
                )
            made = await invitations.insert(tx, id_, workspace_id, email, role, caller.acting_user, self._good_for, seq)
            return _draft(None, made)

        changed = await self._mutations.run(caller, tenant_id, options, INVITATION, body)
        secret = "" if changed.replayed or options.validate_only else self._secrets.secret(changed.record)
        return Invited(changed, secret, self._secrets.url(secret))

    async def accept_invitation(
        self, caller: Caller, secret: str, answer: Answer, *, options: MutationOptions
    ) -> Accepted:
        """The role, and the record and the first key of the user where they are to be made.

        Raises InvalidRequest (TOKEN_INVALID), NotFound, Forbidden, AlreadyExists (ALREADY_MEMBER, EMAIL_TAKEN),
        PreconditionFailed (INVITATION_EXPIRED, INVITATION_USED, INVITATION_EMAIL_MISMATCH, INVITER_ROLE_MISSING,
        WORKSPACE_ARCHIVED, TENANT_SUSPENDED, USER_SUSPENDED, USER_DEACTIVATED, TOO_MANY_USERS).
        """
        return await self._answers.accept(caller, *self._secrets.read(secret), answer, options=options)

    async def decline_invitation(
        self, caller: Caller, secret: str, *, email: str, options: MutationOptions
    ) -> Changed[Invitation]:
        """Nobody can accept it any more.  Raises as `accept_invitation` does for whom it is not for."""
        return await self._answers.decline(caller, *self._secrets.read(secret), email, options=options)

    async def revoke_invitation(
        self, caller: Caller, tenant_id: TenantId, id_: InvitationId, *, options: MutationOptions
    ) -> Changed[Invitation]:
        """Take it back.  Raises NotFound, Forbidden, ConcurrentUpdate, PreconditionFailed (INVITATION_USED)."""

        async def body(tx: TenantTransaction, seq: Seq) -> Draft[Invitation]:
            before = await _seen(tx, caller, id_)
            await _require_may_invite(tx, caller, before.workspace_id, before.role, even_archived=True)
            require_etag(before.etag, options)
            if before.status is InvitationStatus.REVOKED:
                return _draft(before, before)
            after = await invitations.end_if_open(tx, id_, InvitationStatus.REVOKED, seq)
            if after is None:
                raise PreconditionFailed(Reason.INVITATION_USED, f"the invitation was {before.status} before")
            return _draft(before, after)

        return await self._mutations.run(caller, tenant_id, options, INVITATION, body)

    async def get_invitation(self, caller: Caller, tenant_id: TenantId, id_: InvitationId) -> Found[Invitation]:
        """Raises NotFound, Forbidden."""
        async with self._database.read(TenantScope(tenant_id)) as tx:
            head = await outbox.head(tx, tenant_id)
            await rights.require_belongs(tx, caller)
            invitation = await _seen(tx, caller, id_)
        return Found(invitation, self._signer.token({tenant_id: head}))

    async def list_invitations(
        self,
        caller: Caller,
        tenant_id: TenantId,
        *,
        workspace_id: WorkspaceId | None,
        include_ended: bool,
        page_size: int,
        page_token: str,
    ) -> Page[Invitation]:
        """Those to the workspace, or (None) to the tenant itself, the oldest first.  Raises NotFound, Forbidden."""
        arguments = ["ListInvitations", tenant_id, workspace_id, include_ended, caller.acting_user]
        [after] = self._signer.page_position(arguments, page_token) or [""]
        async with self._database.read(TenantScope(tenant_id)) as tx:
            head = await outbox.head(tx, tenant_id)
            await rights.require_belongs(tx, caller)
            await _require_may_see(tx, caller, workspace_id)
            found = await invitations.list_after(tx, workspace_id, after, page_size + 1, with_ended=include_ended)
        shown = tuple(found[:page_size])
        more = self._signer.page_token(arguments, [shown[-1].id]) if len(found) > page_size else ""
        return Page(shown, more, self._signer.token({tenant_id: head}))


async def _require_may_invite(
    tx: TenantTransaction,
    caller: Caller,
    workspace_id: WorkspaceId | None,
    role: Role,
    *,
    even_archived: bool = False,
) -> None:
    """It takes what giving the role takes."""
    if workspace_id is None:
        await rights.require_tenant_admin(tx, caller, "invite to the tenant")
        return
    workspace = await (visible if even_archived else usable)(tx, caller, workspace_id, Action.INVITE)
    guards.require_members_change(workspace)
    if role is Role.OWNER:
        await rights.require_on_workspace(tx, caller, workspace, Action.MAKE_OWNERS)


async def _require_may_see(tx: TenantTransaction, caller: Caller, workspace_id: WorkspaceId | None) -> None:
    if workspace_id is None:
        await rights.require_tenant_admin(tx, caller, "see who is invited to the tenant")
    else:
        await visible(tx, caller, workspace_id, Action.INVITE)


async def _seen(tx: TenantTransaction, caller: Caller, id_: InvitationId) -> Invitation:
    """Raises NotFound, in the same words where there is none and where the caller does not see what it is to."""
    invitation = await invitations.get(tx, id_)
    if invitation is None:
        raise NotFound(f"invitation {id_}")
    place = invitation.workspace_id
    if caller.is_system:
        return invitation
    if not (await rights.sees(tx, caller, place) if place else await rights.sees_tenant(tx, caller)):
        raise NotFound(f"invitation {id_}")
    await _require_may_see(tx, caller, place)
    return invitation


def _draft(before: Invitation | None, after: Invitation) -> Draft[Invitation]:
    old = None if before is None else INVITATION.dump_python(before, mode="json")
    return Draft(after, (), f"invitation:{after.id}", old, INVITATION.dump_python(after, mode="json"))
