"""Guards: what no right overrides.  Those on memberships count active users only."""

from __future__ import annotations

from collections.abc import Sequence

from pemba.errors import Forbidden, PreconditionFailed, Reason, invalid_field
from pemba.model import Caller, Membership, Role, SubjectRef, User, UserId, UserStatus, Workspace, WorkspaceKind
from pemba.storage import memberships, users
from pemba.storage.database import TenantTransaction


def require_not_own_role(caller: Caller, subject: SubjectRef) -> None:
    """Raises Forbidden (OWN_ROLE) where the acting user would change their own role."""
    if caller.acting_user is not None and subject == SubjectRef("user", caller.acting_user):
        raise Forbidden(Reason.OWN_ROLE, "nobody changes their own role; TransferOwnership is how an owner steps back")


def require_creator_stays(caller: Caller, workspace: Workspace | None, membership: Membership) -> None:
    """Raises Forbidden (CREATOR_STAYS): a creator's ownership ends by the creator or by a system key."""
    if workspace is None or membership.role is not Role.OWNER or caller.is_system:
        return
    creator = workspace.creator_id
    if membership.subject == SubjectRef("user", creator or "") and caller.acting_user != creator:
        raise Forbidden(Reason.CREATOR_STAYS, "the creator's ownership ends only by the creator or a system key")


def is_guarded(membership: Membership) -> bool:
    """Whether it is a user's role as an owner, or as a tenant's admin.

    Who is an admin through a group does not count: a group may be emptied by people whom no guard watches, an identity
    provider's among them, so a tenant keeps an active admin who is one by themselves.
    """
    return membership.subject.type == "user" and membership.role is (
        Role.ADMIN if membership.workspace_id is None else Role.OWNER
    )


async def has_another_holder(tx: TenantTransaction, membership: Membership) -> bool:
    """Whether the role may go: it is not guarded, or another active user holds it too, by themselves.

    Where the subject is not active themselves, their going takes no active holder away.
    """
    if not is_guarded(membership):
        return True
    user_id = UserId(membership.subject.id)
    if await memberships.has_other_active_holder(tx, membership.workspace_id, membership.role, [user_id]):
        return True
    return not await users.is_active(tx, user_id)


async def require_another_holder(tx: TenantTransaction, membership: Membership) -> None:
    """Raises PreconditionFailed (LAST_OWNER, LAST_ADMIN)."""
    if not await has_another_holder(tx, membership):
        raise last_holder(membership)


def last_holder(membership: Membership) -> PreconditionFailed:
    if membership.workspace_id is None:
        return PreconditionFailed(
            Reason.LAST_ADMIN,
            "the tenant's last active admin stays; make another one first",
            {"tenant": membership.tenant_id},
        )
    return PreconditionFailed(
        Reason.LAST_OWNER,
        "the workspace's last active owner stays; make another one first, or name one in transfer_to",
        {"tenant": membership.tenant_id, "workspace": membership.workspace_id},
    )


def require_may_hold(user: User) -> None:
    """Raises PreconditionFailed (USER_DEACTIVATED): who was deactivated gets no role any more."""
    if user.status is UserStatus.DEACTIVATED:
        raise PreconditionFailed(Reason.USER_DEACTIVATED, f"user:{user.id} is deactivated, for good")


async def require_room(tx: TenantTransaction, added: Sequence[UserId], limit: int) -> None:
    """Raises PreconditionFailed (TOO_MANY_USERS) where this transaction made one of `added` a user too many.

    Roles for who has one already are no matter of room, not even where a limit was lowered since.  0 is no limit.
    """
    if limit and added and await memberships.count_users_if_new(tx, added) > limit:
        raise PreconditionFailed(
            Reason.TOO_MANY_USERS,
            f"the tenant may have {limit} users (PEMBA_MAX_USERS_PER_TENANT); remove one first",
            {"limit": str(limit)},
        )


def require_members_change(workspace: Workspace) -> None:
    """Raises PreconditionFailed (PERSONAL_MEMBERSHIP_FIXED), whatever other guard there is."""
    if workspace.kind is WorkspaceKind.PERSONAL:
        raise PreconditionFailed(
            Reason.PERSONAL_MEMBERSHIP_FIXED,
            "the only member of a personal workspace is its user, as owner, and it is not shared",
            {"tenant": workspace.tenant_id, "workspace": workspace.id},
        )


def require_in_tree(workspace: Workspace, verb: str) -> None:
    """Raises PreconditionFailed (PERSONAL_KIND_FROZEN): a personal workspace stands beside the tree."""
    if workspace.kind is WorkspaceKind.PERSONAL:
        raise PreconditionFailed(Reason.PERSONAL_KIND_FROZEN, f"a personal workspace cannot be {verb}")


def require_frozen(workspace: Workspace, kind: WorkspaceKind | None, personal_user_id: str | None) -> None:
    """Raises where a change names another kind or user than the workspace has; None names none.

    PreconditionFailed (PERSONAL_KIND_FROZEN, PERSONAL_OWNER_FROZEN), InvalidRequest (OWNER_ONLY_ON_PERSONAL).
    """
    if kind not in (None, workspace.kind):
        if WorkspaceKind.PERSONAL not in (kind, workspace.kind):
            raise invalid_field("kind", f"is {workspace.kind} and stays so")
        raise PreconditionFailed(
            Reason.PERSONAL_KIND_FROZEN, "kind: a workspace neither becomes nor stops being personal"
        )
    if personal_user_id in (None, workspace.personal_user_id or ""):
        return
    if workspace.kind is not WorkspaceKind.PERSONAL:
        raise invalid_field(
            "personal_user_id", "is for personal workspaces alone: leave it empty", Reason.OWNER_ONLY_ON_PERSONAL
        )
    raise PreconditionFailed(Reason.PERSONAL_OWNER_FROZEN, "personal_user_id: a personal workspace stays with its user")


def require_not_root(workspace: Workspace, verb: str) -> None:
    """Raises PreconditionFailed (ROOT_WORKSPACE)."""
    if workspace.kind is WorkspaceKind.ROOT:
        raise PreconditionFailed(Reason.ROOT_WORKSPACE, f"the root workspace cannot be {verb}")
