"""Who may do what: the one table of the rights of users, and the one function that applies it.

A system key in its own name may do everything within its scopes, a tenant's key what a tenant admin may, a key of a
workspace what an admin of that workspace may.  Whoever acts as a user is bound by that user's own roles, decided from
PostgreSQL inside the transaction, and by what the key is confined to.  What the caller may not see is NOT_FOUND.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum

from pemba.errors import Forbidden, NotFound, PreconditionFailed, Reason
from pemba.model import Caller, Group, GroupId, Permission, UserId, Workspace, WorkspaceId, WorkspaceKind
from pemba.storage import authority, groups, tenants, workspaces
from pemba.storage.database import TenantTransaction


class Action(Enum):
    """On a workspace: the permission that it takes."""

    SEE = Permission.VIEW, "see it"
    ASK_ABOUT_OTHERS = Permission.ADMINISTER, "ask about others"
    CREATE_CHILD = Permission.ADMINISTER, "create a workspace below it"
    UPDATE = Permission.ADMINISTER, "update it"
    SET_ROLES = Permission.ADMINISTER, "change its members"
    INVITE = Permission.ADMINISTER, "invite to it"
    SETTINGS = Permission.ADMINISTER, "read or change its settings"
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
    if caller.is_system:
        return
    held = await _held(tx, caller, workspace)
    if held is None:
        raise NotFound(named or f"workspace {workspace.id}")
    needed = action.permission
    # What changes the root itself changes the tenant: its owners are the tenant's admins.
    if workspace.kind is WorkspaceKind.ROOT and action in (
        Action.UPDATE,
        Action.SET_ROLES,
        Action.INVITE,
        Action.SETTINGS,
        Action.MAKE_OWNERS,
        Action.SHARE,
    ):
        await _require_tenant_admin(tx, caller, f"the root workspace: to {action.words}")
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
    if caller.is_system:
        return True
    workspace = await workspaces.get(tx, workspace_id)
    return workspace is not None and await _held(tx, caller, workspace) is not None


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
    """Raises NotFound where the acting user has neither role nor group in the tenant, as if there were none such.

    So it does where the credential is confined to another tenant.
    """
    user = caller.acting_user
    if not _is_within(tx, caller) or (user is not None and not await authority.belongs(tx, user)):
        raise NotFound(f"tenant {tx.tenant_id}")


async def sees_tenant(tx: TenantTransaction, caller: Caller) -> bool:
    """Whether the caller is, or acts for, a member or an admin of the tenant; a system key is."""
    return await on_tenant(tx, caller) is not None


async def require_tenant_view(tx: TenantTransaction, caller: Caller) -> None:
    """Raises NotFound where the caller may not see the tenant."""
    if not await sees_tenant(tx, caller):
        raise NotFound(f"tenant {tx.tenant_id}")


async def require_tenant_admin(tx: TenantTransaction, caller: Caller, to: str) -> None:
    """Raises NotFound where the caller may not see the tenant, Forbidden where it is no admin of it."""
    if caller.is_system:
        return
    await require_tenant_view(tx, caller)
    await _require_tenant_admin(tx, caller, to)


async def on_tenant(tx: TenantTransaction, caller: Caller) -> Permission | None:
    """`administer` for who is an admin of the tenant, `view` for a member, None for anybody else."""
    if not _is_within(tx, caller) or caller.workspace_id is not None:
        return None
    if caller.acting_user is not None:
        return await authority.on_tenant(tx, caller.acting_user)
    # A key may be better known than that its tenant is gone.
    return Permission.ADMINISTER if caller.is_system or await tenants.get(tx) is not None else None


async def visible_groups(tx: TenantTransaction, caller: Caller, ids: Collection[GroupId]) -> dict[GroupId, Group]:
    """These groups, which the caller is in, or a tenant admin.  Raises NotFound for the first that it may not see."""
    found = await groups.get_many(tx, ids)
    if caller.workspace_id is not None:
        found = {}  # groups are the whole tenant's
    elif (seen_by := await group_viewer(tx, caller)) is not None:
        seen = await authority.groups_of(tx, seen_by)
        found = {id_: group for id_, group in found.items() if id_ in seen}
    missing = next((id_ for id_ in ids if id_ not in found), None)
    if missing is not None:
        raise NotFound(f"group {missing}")
    return found


async def sees_group(tx: TenantTransaction, caller: Caller, group_id: GroupId) -> bool:
    """Whether the caller is in the group, a tenant admin, or acts for nobody."""
    if caller.workspace_id is not None:
        return False
    viewer = await group_viewer(tx, caller)
    return viewer is None or group_id in await authority.groups_of(tx, viewer)


async def group_viewer(tx: TenantTransaction, caller: Caller) -> UserId | None:
    """Who sees only the groups that they are in; None: the caller sees every group.

    Raises NotFound for who sees none: a credential that is confined to another tenant, or to a workspace.
    """
    if not _is_within(tx, caller) or caller.workspace_id is not None or await tenants.get(tx) is None:
        raise NotFound(f"tenant {tx.tenant_id}")
    return None if await on_tenant(tx, caller) is Permission.ADMINISTER else caller.acting_user


async def managed_group(tx: TenantTransaction, caller: Caller, group_id: GroupId, to: str) -> Group:
    """The group, of which the caller is a manager, or a tenant admin.  Raises NotFound, Forbidden."""
    group = (await visible_groups(tx, caller, [group_id]))[group_id]
    viewer = await group_viewer(tx, caller)
    if viewer is not None and not await authority.manages(tx, viewer, group_id):
        raise Forbidden(Reason.ROLE_MISSING, f"it takes a manager of the group, or a tenant admin, to {to}")
    return group


async def key_viewer(tx: TenantTransaction, caller: Caller) -> UserId | None:
    """Who sees only the API keys of the tenant that authenticate as them; None: the caller sees all of them.

    Raises NotFound for who sees none: a credential that is confined to another tenant, or to a workspace.
    """
    return await group_viewer(tx, caller)


def require_system(caller: Caller, to: str) -> None:
    """Raises Forbidden unless this is a system key in its own name."""
    if not caller.is_system:
        raise Forbidden(Reason.ROLE_MISSING, f"it takes a system key, not acting for a user, to {to}")


async def _require_tenant_admin(tx: TenantTransaction, caller: Caller, to: str) -> None:
    if await on_tenant(tx, caller) is not Permission.ADMINISTER:
        raise Forbidden(Reason.ROLE_MISSING, f"it takes a tenant admin to {to}", {"permission": "administer"})


async def _held(tx: TenantTransaction, caller: Caller, workspace: Workspace) -> Permission | None:
    """The highest permission of a caller that is no system key in its own name; None where it may not even see it."""
    if not _is_within(tx, caller):
        return None
    confined = caller.workspace_id
    if confined is not None and confined not in {above.id for above in await workspaces.line(tx, workspace.id)}:
        return None
    if caller.acting_user is not None:
        return await authority.on_workspace(tx, caller.acting_user, workspace.id)
    if workspace.kind is WorkspaceKind.PERSONAL:
        return None
    return Permission.OWN if confined is None else Permission.ADMINISTER


def _is_within(tx: TenantTransaction, caller: Caller) -> bool:
    return caller.tenant_id in (None, tx.tenant_id)
