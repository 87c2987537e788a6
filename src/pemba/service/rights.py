"""Who may do what: the one table of the rights of users, and the one function that applies it.

A system key in its own name may do everything within its scopes.  Whoever acts as a user is bound by that user's
own roles, decided from PostgreSQL inside the transaction.  What the caller may not see is NOT_FOUND.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum

from pemba.errors import Forbidden, NotFound, PreconditionFailed, Reason
from pemba.model import Caller, Group, GroupId, Permission, UserId, Workspace, WorkspaceId, WorkspaceKind
from pemba.storage import authority, groups, workspaces
from pemba.storage.database import TenantTransaction


class Action(Enum):
    """On a workspace: the permission that it takes."""

    SEE = Permission.VIEW, "see it"
    ASK_ABOUT_OTHERS = Permission.ADMINISTER, "ask about others"
    CREATE_CHILD = Permission.ADMINISTER, "create a workspace below it"
    UPDATE = Permission.ADMINISTER, "update it"
    SET_ROLES = Permission.ADMINISTER, "change its members"
    RECEIVE = Permission.ADMINISTER, "move a workspace below it"
    MAKE_OWNERS = Permission.OWN, "make or unmake owners"
    ARCHIVE = Permission.OWN, "archive or unarchive it"
    DELETE = Permission.OWN, "delete it"
    MOVE = Permission.OWN, "move it"
    SHARE = Permission.OWN, "share it"

    @property
    def permission(self) -> Permission:
        return self.value[0]

    @property
    def words(self) -> str:
        return self.value[1]


async def require_on_workspace(
    tx: TenantTransaction, caller: Caller, workspace: Workspace, action: Action, named: str = ""
) -> None:
    """Raises NotFound where the caller may not see the workspace, Forbidden where it may not do this to it.

    `named` is how the caller named it: an answer must not tell more than it would of what is not there.
    """
    if caller.acting_user is None:
        return
    held = await authority.on_workspace(tx, caller.acting_user, workspace.id)
    if held is None:
        raise NotFound(named or f"workspace {workspace.id}")
    needed = action.permission
    # What changes the root itself changes the tenant: its owners are the tenant's admins.
    if workspace.kind is WorkspaceKind.ROOT and action in (
        Action.UPDATE,
        Action.SET_ROLES,
        Action.MAKE_OWNERS,
        Action.SHARE,
    ):
        await _require_tenant_admin(tx, caller.acting_user, f"the root workspace: to {action.words}")
        return
    if held.rank < needed.rank:
        reason = Reason.ONLY_OWNER_MAKES_OWNERS if action is Action.MAKE_OWNERS else Reason.ROLE_MISSING
        raise Forbidden(
            reason,
            f"it takes {needed} on the workspace to {action.words}",
            {"permission": needed, "held": held},
        )


async def sees(tx: TenantTransaction, caller: Caller, workspace_id: WorkspaceId) -> bool:
    """Whether the caller may see the workspace, archived or not, where there is one."""
    return caller.acting_user is None or await authority.on_workspace(tx, caller.acting_user, workspace_id) is not None


async def visible(
    tx: TenantTransaction, caller: Caller, workspace_id: WorkspaceId, action: Action, what: str = "workspace"
) -> Workspace:
    """The workspace, archived or not, where the caller may do this to it.  Raises NotFound, Forbidden."""
    workspace = await workspaces.get(tx, workspace_id)
    named = f"{what} {workspace_id}"
    if workspace is None:
        raise NotFound(named)
    await require_on_workspace(tx, caller, workspace, action, named)
    return workspace


async def usable(
    tx: TenantTransaction, caller: Caller, workspace_id: WorkspaceId, action: Action, what: str = "workspace"
) -> Workspace:
    """As `visible`, and PreconditionFailed (WORKSPACE_ARCHIVED) for an archived one."""
    workspace = await visible(tx, caller, workspace_id, action, what)
    if workspace.archive_time is not None:
        raise PreconditionFailed(Reason.WORKSPACE_ARCHIVED, f"the {what} is archived; unarchive it first")
    return workspace


async def require_belongs(tx: TenantTransaction, caller: Caller) -> None:
    """Raises NotFound where the acting user has neither role nor group in the tenant, as if there were none such."""
    if caller.acting_user is not None and not await authority.belongs(tx, caller.acting_user):
        raise NotFound(f"tenant {tx.tenant_id}")


async def sees_tenant(tx: TenantTransaction, caller: Caller) -> bool:
    """Whether the caller acts for nobody, or for a member or an admin of the tenant."""
    return caller.acting_user is None or await authority.on_tenant(tx, caller.acting_user) is not None


async def require_tenant_view(tx: TenantTransaction, caller: Caller) -> None:
    """Raises NotFound where the caller may not see the tenant."""
    if not await sees_tenant(tx, caller):
        raise NotFound(f"tenant {tx.tenant_id}")


async def require_tenant_admin(tx: TenantTransaction, caller: Caller, to: str) -> None:
    """Raises NotFound where the acting user may not see the tenant, Forbidden where they are no admin of it."""
    if caller.acting_user is None:
        return
    await require_tenant_view(tx, caller)
    await _require_tenant_admin(tx, caller.acting_user, to)


async def visible_groups(tx: TenantTransaction, caller: Caller, ids: Collection[GroupId]) -> dict[GroupId, Group]:
    """These groups, which the caller is in, or a tenant admin.  Raises NotFound for the first that it may not see."""
    found = await groups.get_many(tx, ids)
    seen_by = await group_viewer(tx, caller)
    if seen_by is not None:
        seen = await authority.groups_of(tx, seen_by)
        found = {id_: group for id_, group in found.items() if id_ in seen}
    missing = next((id_ for id_ in ids if id_ not in found), None)
    if missing is not None:
        raise NotFound(f"group {missing}")
    return found


async def sees_group(tx: TenantTransaction, caller: Caller, group_id: GroupId) -> bool:
    """Whether the caller is in the group, a tenant admin, or acts for nobody."""
    viewer = await group_viewer(tx, caller)
    return viewer is None or group_id in await authority.groups_of(tx, viewer)


async def group_viewer(tx: TenantTransaction, caller: Caller) -> UserId | None:
    """Who sees only the groups that they are in; None: the caller sees every group."""
    user = caller.acting_user
    return None if user is None or await authority.on_tenant(tx, user) is Permission.ADMINISTER else user


async def managed_group(tx: TenantTransaction, caller: Caller, group_id: GroupId, to: str) -> Group:
    """The group, of which the caller is a manager, or a tenant admin.  Raises NotFound, Forbidden."""
    group = (await visible_groups(tx, caller, [group_id]))[group_id]
    viewer = await group_viewer(tx, caller)
    if viewer is not None and not await authority.manages(tx, viewer, group_id):
        raise Forbidden(Reason.ROLE_MISSING, f"it takes a manager of the group, or a tenant admin, to {to}")
    return group


def require_system(caller: Caller, to: str) -> None:
    """Raises Forbidden unless this is a system key in its own name."""
    if not caller.is_system:
        raise Forbidden(Reason.ROLE_MISSING, f"it takes a system key, not acting for a user, to {to}")


async def _require_tenant_admin(tx: TenantTransaction, user_id: UserId, to: str) -> None:
    if await authority.on_tenant(tx, user_id) is not Permission.ADMINISTER:
        raise Forbidden(Reason.ROLE_MISSING, f"it takes a tenant admin to {to}", {"permission": "administer"})
