"""Memberships: roles on the tenant and on workspaces, and the guards that keep them administered.

All of it is decided under the tenant's head, so of two changes that would each take the last owner one is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pydantic import TypeAdapter

from pemba.errors import NotFound, invalid_field
from pemba.model import (
    Caller,
    Membership,
    ObjectRef,
    Permission,
    Role,
    Seq,
    SubjectRef,
    TenantId,
    TenantScope,
    UserId,
    WorkspaceId,
)
from pemba.service import rights
from pemba.service.effective_members import EffectiveMember, find
from pemba.service.mutation import Draft, MutationOptions, Mutations, cascade, require_etag
from pemba.service.results import Changed, Found, Page
from pemba.service.rights import Action, visible
from pemba.service.role_change import MEMBERSHIPS, RoleAssignment, RoleChange, require_own_tenant
from pemba.service.workspace_search import denied_at_once
from pemba.storage import memberships, outbox, workspaces
from pemba.storage.database import TenantTransaction
from pemba.storage.outbox import MAX_CHANGE_OPERATIONS

_MEMBERSHIP = TypeAdapter(Membership)
_REMOVED: TypeAdapter[Membership | None] = TypeAdapter(Membership | None)

MAX_ASSIGNMENTS = 1000


class MembershipService:
    """The rules of memberships."""

    def __init__(self, mutations: Mutations) -> None:
        self._mutations = mutations
        self._database = mutations.database
        self._signer = mutations.signer

    async def set_role(
        self,
        caller: Caller,
        tenant_id: TenantId,
        *,
        object: ObjectRef,  # noqa: A002 - the API's own name for it
        subject: SubjectRef,
        role: Role,
        options: MutationOptions,
    ) -> Changed[Membership]:
        """Add or change a role; a changed one keeps its join time and who invited."""
        assignment = RoleAssignment(object, subject, role)

        async def body(tx: TenantTransaction, seq: Seq) -> Draft[Membership]:
            change = RoleChange(tx, caller, seq)
            await change.lock_users([assignment])
            before, after = await change.assign(assignment, etag_options=options)
            return change.draft(after, [before] if before else [], [after], str(object))

        return await self._mutations.run(caller, tenant_id, options, _MEMBERSHIP, body)

    async def set_roles(
        self,
        caller: Caller,
        tenant_id: TenantId,
        *,
        assignments: Sequence[RoleAssignment],
        options: MutationOptions,
    ) -> Changed[tuple[Membership, ...]]:
        """Up to 1,000 roles, all or none, in the order given; one token."""
        if not 0 < len(assignments) <= MAX_ASSIGNMENTS:
            raise invalid_field("assignments", f"takes 1 to {MAX_ASSIGNMENTS}")

        async def body(tx: TenantTransaction, seq: Seq) -> Draft[tuple[Membership, ...]]:
            change = RoleChange(tx, caller, seq)
            await change.lock_users(assignments)
            pairs = [await change.assign(assignment) for assignment in assignments]
            after = tuple(new for _, new in pairs)
            return change.draft(after, [old for old, _ in pairs if old], after, f"tenant:{tenant_id}")

        return await self._mutations.run(caller, tenant_id, options, MEMBERSHIPS, body)

    async def transfer_ownership(
        self,
        caller: Caller,
        tenant_id: TenantId,
        *,
        object: ObjectRef,  # noqa: A002 - the API's own name for it
        from_user: UserId,
        to_user: UserId,
        options: MutationOptions,
    ) -> Changed[tuple[Membership, ...]]:
        """Make `to_user` an owner and `from_user`, who was one, an admin: (new owner, old owner)."""
        if from_user == to_user:
            raise invalid_field("to_user", "takes another user than from_user")

        async def body(tx: TenantTransaction, seq: Seq) -> Draft[tuple[Membership, ...]]:
            change = RoleChange(tx, caller, seq)
            workspace = await change.workspace_of(object, Action.MAKE_OWNERS)
            if workspace is None:
                raise invalid_field("object", "takes a workspace; a tenant has admins and no owner")
            held = await memberships.get(tx, workspace.id, SubjectRef("user", from_user))
            if held is None or held.role is not Role.OWNER:
                raise NotFound(f"ownership of {object} by user:{from_user}")
            give = RoleAssignment(object, SubjectRef("user", to_user), Role.OWNER)
            keep = RoleAssignment(object, SubjectRef("user", from_user), Role.ADMIN)
            await change.lock_users([give, keep])
            pairs = [await change.assign(a, stepping_back=from_user) for a in (give, keep)]
            after = tuple(new for _, new in pairs)
            return change.draft(after, [old for old, _ in pairs if old], after, str(object))

        return await self._mutations.run(caller, tenant_id, options, MEMBERSHIPS, body)

    async def remove_member(
        self,
        caller: Caller,
        tenant_id: TenantId,
        *,
        object: ObjectRef,  # noqa: A002 - the API's own name for it
        subject: SubjectRef,
        allow_missing: bool,
        transfer_to: UserId | None,
        options: MutationOptions,
    ) -> Changed[Membership | None]:
        """Take a role away; from the tenant a user's every role in it, their place in its groups, and their personal
        workspace with all it has.

        A group only loses the role that is named.  Gives the record as it was.

        `transfer_to` becomes owner where the user was the last one.  Raises NotFound unless `allow_missing`.
        """

        async def body(tx: TenantTransaction, seq: Seq) -> Draft[Membership | None]:
            change = RoleChange(tx, caller, seq)
            workspace = await change.workspace_for_removal(object, subject)
            workspace_id = None if workspace is None else workspace.id
            named = await memberships.get(tx, workspace_id, subject)
            if named is None and not allow_missing:
                raise NotFound(f"membership of {subject} on {object}")
            if named is not None:
                require_etag(named.etag, options)
            if workspace_id is not None or subject.type != "user":
                going = [named] if named else []
                await change.remove_all(going, transfer_to)
                return change.draft(named, going, [], str(object))
            user_id = UserId(subject.id)
            going = await memberships.of_user(tx, user_id, MAX_CHANGE_OPERATIONS + 1)
            await change.remove_all(going, transfer_to)
            left = await change.leave_groups(user_id)
            # Whoever is no member of the tenant any more has no workspace in it.
            personal = await workspaces.delete_left_by(tx, user_id)
            draft = change.draft(named, [*going, *left, *([personal] if personal else [])], [], str(object))
            return replace(draft, events=cascade(roles=len(going), groups=len(left)))

        return await self._mutations.run(caller, tenant_id, options, _REMOVED, body)

    async def get_membership(
        self,
        caller: Caller,
        tenant_id: TenantId,
        *,
        object: ObjectRef,  # noqa: A002 - the API's own name for it
        subject: SubjectRef,
    ) -> Found[Membership]:
        """The direct role of a subject.  Raises NotFound."""
        async with self._database.read(TenantScope(tenant_id)) as tx:
            head = await outbox.head(tx, tenant_id)
            workspace_id = await _readable(tx, caller, object)
            membership = await memberships.get(tx, workspace_id, subject)
            if membership is None:
                raise NotFound(f"membership of {subject} on {object}")
        return Found(membership, self._signer.token({tenant_id: head}))

    async def list_members(
        self,
        caller: Caller,
        tenant_id: TenantId,
        *,
        object: ObjectRef,  # noqa: A002 - the API's own name for it
        page_size: int,
        page_token: str,
    ) -> Page[Membership]:
        """The direct members, by subject."""
        arguments = ["ListMembers", tenant_id, str(object), caller.acting_user]
        position = self._signer.page_position(arguments, page_token) or ["", ""]
        async with self._database.read(TenantScope(tenant_id)) as tx:
            head = await outbox.head(tx, tenant_id)
            workspace_id = await _readable(tx, caller, object)
            found = await memberships.list_after(tx, workspace_id, (position[0], position[1]), page_size + 1)
        shown = tuple(found[:page_size])
        more = ""
        if len(found) > page_size:
            more = self._signer.page_token(arguments, [shown[-1].subject.type, shown[-1].subject.id])
        return Page(shown, more, self._signer.token({tenant_id: head}))

    async def list_effective_members(
        self,
        caller: Caller,
        tenant_id: TenantId,
        *,
        object: ObjectRef,  # noqa: A002 - the API's own name for it
        permission: Permission,
        page_size: int,
        page_token: str,
    ) -> Page[EffectiveMember]:
        """Who has the permission there, and through which roles, by subject; nobody while the tenant is suspended."""
        arguments = ["ListEffectiveMembers", tenant_id, str(object), permission, caller.acting_user]
        position = self._signer.page_position(arguments, page_token) or ["", ""]
        async with self._database.read(TenantScope(tenant_id)) as tx:
            head = await outbox.head(tx, tenant_id)
            workspace_id = await _readable(tx, caller, object)
            reason = await denied_at_once(tx, None)
            found = [] if reason else await find(tx, workspace_id, permission, position, page_size + 1)
        shown = tuple(found[:page_size])
        more = ""
        if len(found) > page_size:
            more = self._signer.page_token(arguments, [shown[-1].subject.type, shown[-1].subject.id])
        return Page(shown, more, self._signer.token({tenant_id: head}), reason)


async def _readable(tx: TenantTransaction, caller: Caller, ref: ObjectRef) -> WorkspaceId | None:
    """The workspace whose members the caller may see, None for the tenant's.  Raises NotFound."""
    if ref.type == "tenant":
        await require_own_tenant(tx, ref)
        await rights.require_tenant_view(tx, caller)
        return None
    return (await visible(tx, caller, WorkspaceId(ref.id), Action.SEE)).id
