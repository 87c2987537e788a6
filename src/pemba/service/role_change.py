"""What one mutation does to memberships: rights and guards, records, and the tuples before and after."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import TypeAdapter

from pemba import projection
from pemba.errors import NotFound, PreconditionFailed, Reason, invalid_field
from pemba.model import (
    ApiKeyId,
    Caller,
    GroupId,
    GroupMember,
    Membership,
    ObjectRef,
    Role,
    Seq,
    SubjectRef,
    Tuple,
    User,
    UserId,
    UserStatus,
    Workspace,
    WorkspaceId,
    WorkspaceKind,
)
from pemba.service import guards, key_roles, rights
from pemba.service.mutation import Draft, MutationOptions, require_etag
from pemba.service.rights import Action, usable
from pemba.storage import group_members, groups, memberships, users, workspaces
from pemba.storage.database import TenantTransaction
from pemba.storage.outbox import MAX_CHANGE_OPERATIONS

T = TypeVar("T")

MEMBERSHIPS = TypeAdapter(tuple[Membership, ...])
HELD: TypeAdapter[tuple[Membership | GroupMember | Workspace, ...]] = TypeAdapter(
    tuple[Membership | GroupMember | Workspace, ...]
)
"""Roles, places in groups, and the personal workspace that goes with them, for audit."""


@dataclass(frozen=True, slots=True)
class RoleAssignment:
    """One role to give: `object` is the tenant or a workspace of it, `subject` a user, a group or an API key."""

    object: ObjectRef
    subject: SubjectRef
    role: Role


class RoleChange:
    """Gathers the changes of one mutation; `draft` is what they come to."""

    def __init__(self, tx: TenantTransaction, caller: Caller, seq: Seq) -> None:
        self._tx = tx
        self._caller = caller
        self._seq = seq
        self._users: dict[UserId, User] = {}
        self._added: list[UserId] = []
        self._workspaces: dict[WorkspaceId, Workspace] = {}
        self._before: dict[tuple[ObjectRef, SubjectRef], frozenset[Tuple]] = {}
        self._after: dict[tuple[ObjectRef, SubjectRef], frozenset[Tuple]] = {}

    async def lock_users(self, assignments: Iterable[RoleAssignment]) -> None:
        """Before the first insert, and all at once in the order of their ids."""
        named = [UserId(a.subject.id) for a in assignments if a.subject.type == "user"]
        if named:
            self._users |= await users.ensure_locked(self._tx, named)

    async def workspace_of(self, ref: ObjectRef, action: Action) -> Workspace | None:
        """The workspace that `ref` names, None for the tenant, where the caller may do this to its roles."""
        if ref.type == "tenant":
            await require_own_tenant(self._tx, ref)
            await rights.require_tenant_admin(self._tx, self._caller, "change roles on the tenant")
            return None
        return await self._with_members_that_change(ref, action)

    async def workspace_for_removal(self, ref: ObjectRef, subject: SubjectRef) -> Workspace | None:
        """As `workspace_of`; leaving takes no right but to see what one leaves."""
        if subject != SubjectRef("user", self._caller.acting_user or ""):
            return await self.workspace_of(ref, Action.SET_ROLES)
        if ref.type == "tenant":
            await require_own_tenant(self._tx, ref)
            return None
        return await self._with_members_that_change(ref, Action.SEE)

    async def _with_members_that_change(self, ref: ObjectRef, action: Action) -> Workspace:
        workspace = await usable(self._tx, self._caller, WorkspaceId(ref.id), action)
        guards.require_members_change(workspace)
        self._workspaces[workspace.id] = workspace
        return workspace

    async def assign(
        self,
        assignment: RoleAssignment,
        *,
        etag_options: MutationOptions | None = None,
        stepping_back: UserId | None = None,
    ) -> tuple[Membership | None, Membership]:
        """Carry out one assignment: (the membership before, after).  `stepping_back` may change their own role."""
        subject, role = assignment.subject, assignment.role
        workspace = await self.workspace_of(assignment.object, Action.SET_ROLES)
        workspace_id = None if workspace is None else workspace.id
        before = await memberships.get(self._tx, workspace_id, subject)
        if etag_options is not None and etag_options.etag:
            require_etag(before.etag if before else "", etag_options)
        if subject.id != stepping_back:
            guards.require_not_own_role(self._caller, subject)
        if workspace is not None and Role.OWNER in (role, before.role if before else None):
            await rights.require_on_workspace(self._tx, self._caller, workspace, Action.MAKE_OWNERS)
        if before is not None and before.role is role:
            return before, before
        if subject.type == "user":
            guards.require_may_hold(self._users[UserId(subject.id)])
        elif subject.type == "api_key":
            await key_roles.require_may_hold(self._tx, self._caller, ApiKeyId(subject.id))
        elif before is None:
            await rights.visible_groups(self._tx, self._caller, [GroupId(subject.id)])
        if before is not None:
            guards.require_creator_stays(self._caller, workspace, before)
            await guards.require_another_holder(self._tx, before)
        after = await memberships.put(
            self._tx, self._tx.tenant_id, workspace_id, subject, role, self._caller.acting_user, self._seq
        )
        self._note(before, after)
        return before, after

    async def remove_all(self, going: Sequence[Membership], transfer_to: UserId | None) -> None:
        """Remove these memberships of one user, or one of a group or a key, with the guards of each."""
        if transfer_to is not None and any(m.subject == SubjectRef("user", transfer_to) for m in going):
            raise invalid_field("transfer_to", "takes another user than the one who is removed")
        # A few statements, however many the roles: they are made under the tenant's head.
        named = [m.workspace_id for m in going if m.workspace_id and m.workspace_id not in self._workspaces]
        self._workspaces |= {found.id: found for found in await workspaces.get_many(self._tx, named)}
        for membership in going:
            if guards.is_guarded(membership) and not self._is_personal(membership):
                await self._let_go(membership, transfer_to)
            self._note(membership, None)
        if len(going) == 1:
            await memberships.delete(self._tx, going[0].workspace_id, going[0].subject)
        elif going:
            await memberships.delete_of_user(self._tx, UserId(going[0].subject.id))

    def _is_personal(self, membership: Membership) -> bool:
        """On their personal workspace, which goes as well: nobody is missed there."""
        workspace = self._workspaces.get(membership.workspace_id) if membership.workspace_id else None
        return workspace is not None and workspace.kind is WorkspaceKind.PERSONAL

    async def leave_groups(self, user_id: UserId) -> list[GroupMember]:
        """Take the user out of every group of the tenant: the places that they had."""
        seats = await group_members.of_subject(self._tx, SubjectRef("user", user_id), MAX_CHANGE_OPERATIONS + 1)
        await group_members.delete_of_user(self._tx, user_id)
        await groups.touch(self._tx, [seat.group_id for seat in seats], self._seq)
        for seat in seats:
            key = (ObjectRef("group", seat.group_id), seat.subject)
            self._before[key] = projection.group_tuples(seat, subject_is_active=True)
        return seats

    async def _let_go(self, membership: Membership, transfer_to: UserId | None) -> None:
        """The guards of one owner's or tenant admin's role, before it goes."""
        workspace = self._workspaces.get(membership.workspace_id) if membership.workspace_id else None
        leaving = membership.subject == SubjectRef("user", self._caller.acting_user or "")
        if workspace is not None and membership.role is Role.OWNER and not leaving:
            await rights.require_on_workspace(self._tx, self._caller, workspace, Action.MAKE_OWNERS)
        guards.require_creator_stays(self._caller, workspace, membership)
        if not await guards.has_another_holder(self._tx, membership):
            await self._transfer(membership, transfer_to)

    async def _transfer(self, membership: Membership, transfer_to: UserId | None) -> None:
        """Give the role of a last holder to `transfer_to`, who must be active; without one it stays."""
        if transfer_to is None:
            raise guards.last_holder(membership)
        heir = RoleAssignment(membership.object, SubjectRef("user", transfer_to), membership.role)
        # To leave takes no right, to make somebody else an owner or an admin does.
        guards.require_not_own_role(self._caller, heir.subject)
        await self._require_may_transfer(membership)
        await self.lock_users([heir])
        guards.require_may_hold(self._users[transfer_to])
        if self._users[transfer_to].status is not UserStatus.ACTIVE:
            raise PreconditionFailed(Reason.USER_SUSPENDED, f"transfer_to: user:{transfer_to} is not active")
        before = await memberships.get(self._tx, membership.workspace_id, heir.subject)
        after = await memberships.put(
            self._tx,
            self._tx.tenant_id,
            membership.workspace_id,
            heir.subject,
            heir.role,
            self._caller.acting_user,
            self._seq,
        )
        self._note(before, after)

    async def _require_may_transfer(self, membership: Membership) -> None:
        """Also on what is archived: to leave the tenant takes every role of the user along."""
        if membership.workspace_id is None:
            await rights.require_tenant_admin(self._tx, self._caller, "pass on a role on the tenant")
        else:
            workspace = self._workspaces[membership.workspace_id]
            await rights.require_on_workspace(self._tx, self._caller, workspace, Action.MAKE_OWNERS)

    def _note(self, before: Membership | None, after: Membership | None) -> None:
        """Remember the tuples of one membership: those before the first change of it, those after the last."""
        membership = after or before
        assert membership is not None
        key = (membership.object, membership.subject)
        # Of a user whose tuples are withdrawn a DELETE of what is not there does no harm.
        old = frozenset() if before is None else self._project(before, active=True)
        self._before.setdefault(key, old)
        user = self._users[UserId(after.subject.id)] if after and after.subject.type == "user" else None
        if user is not None and before is None:
            self._added.append(user.id)
        projects = user is None or user.has_tuples
        self._after[key] = self._project(after, active=projects) if after else frozenset()

    def _project(self, membership: Membership, *, active: bool) -> frozenset[Tuple]:
        workspace = self._workspaces.get(membership.workspace_id) if membership.workspace_id else None
        archived = workspace is not None and workspace.archive_time is not None
        return projection.membership_tuples(membership, subject_is_active=active, object_is_archived=archived)

    def draft(
        self, record: T, before: Iterable[Membership | GroupMember | Workspace], after: Iterable[Membership], name: str
    ) -> Draft[T]:
        """What the mutation comes to: the difference of every tuple that it touched."""
        old = (t for tuples in self._before.values() for t in tuples)
        new = (t for tuples in self._after.values() for t in tuples)
        operations = projection.difference(old, new)
        return Draft(record, operations, name, _json(before), _json(after), added=self._added)


def _json(records: Iterable[Membership | GroupMember | Workspace]) -> object:
    return HELD.dump_python(tuple(records), mode="json")


async def require_own_tenant(tx: TenantTransaction, ref: ObjectRef) -> None:
    """Raises NotFound where `ref` is another tenant than the transaction's."""
    if ref.id != tx.tenant_id:
        raise NotFound(f"tenant {ref.id}")
