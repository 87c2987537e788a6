"""A new workspace below another, with its first owner, or a user's personal one."""

from __future__ import annotations

from dataclasses import replace

from pydantic import TypeAdapter

from pemba import projection
from pemba.errors import PreconditionFailed, Reason
from pemba.model import (
    MAX_NAME_CHARACTERS,
    MAX_WORKSPACE_DEPTH,
    Caller,
    Membership,
    Role,
    Seq,
    SubjectRef,
    TenantId,
    User,
    UserId,
    Workspace,
    WorkspaceKind,
)
from pemba.service.archive import workspace_draft
from pemba.service.guards import require_may_hold
from pemba.service.ids import new_workspace_id
from pemba.service.mutation import Draft
from pemba.storage import memberships, users, workspaces
from pemba.storage.database import TenantTransaction

_MEMBERSHIP = TypeAdapter(Membership)

PERSONAL_SLUG = "personal"
"""Of every personal workspace: it has no siblings, and no path leads to it."""


async def create_below(
    tx: TenantTransaction,
    caller: Caller,
    seq: Seq,
    parent: Workspace,
    slug: str,
    name: str,
    *,
    creator: UserId | None,
    owner: UserId | None,
) -> Draft[Workspace]:
    """Raises AlreadyExists (SLUG_TAKEN), PreconditionFailed (TOO_DEEP, USER_DEACTIVATED)."""
    require_depth(len(await workspaces.line(tx, parent.id)) + 1)
    projects = await _lock_user(tx, owner)
    workspace = await workspaces.insert(tx, _new(parent, slug, name, creator), seq)
    if owner is None:
        return workspace_draft(None, workspace, (), projection.workspace_tuples(workspace))
    return await _owned(tx, caller, workspace, owner, projects, seq)


async def create_personal(
    tx: TenantTransaction, caller: Caller, seq: Seq, user_id: UserId, name: str = ""
) -> Draft[Workspace]:
    """Without a name it has the user's.  Raises AlreadyExists (PERSONAL_EXISTS), PreconditionFailed (USER_DEACTIVATED).

    The user is creator and owner, and neither parent nor anything else says so besides.
    """
    user = (await users.ensure_locked(tx, [user_id]))[user_id]
    require_may_hold(user)
    workspace = await workspaces.insert(tx, _personal(tx.tenant_id, user, name or name_of(user)), seq)
    return await _owned(tx, caller, workspace, user_id, user.has_tuples, seq)


def name_of(user: User) -> str:
    """What a workspace of theirs is called for want of another name."""
    return user.display_name or user.id[:MAX_NAME_CHARACTERS]


def require_depth(depth: int) -> None:
    """Raises PreconditionFailed (TOO_DEEP) beyond 20 levels, the root being the first."""
    if depth > MAX_WORKSPACE_DEPTH:
        raise PreconditionFailed(
            Reason.TOO_DEEP,
            f"the tree would be {depth} levels deep; it takes {MAX_WORKSPACE_DEPTH}",
            {"max_depth": str(MAX_WORKSPACE_DEPTH)},
        )


async def _lock_user(tx: TenantTransaction, user_id: UserId | None) -> bool:
    """Whether the roles of this user, who may have some, project.  Raises PreconditionFailed (USER_DEACTIVATED)."""
    if user_id is None:
        return False
    user = (await users.ensure_locked(tx, [user_id]))[user_id]
    require_may_hold(user)
    return user.has_tuples


async def _owned(
    tx: TenantTransaction, caller: Caller, workspace: Workspace, owner: UserId, projects: bool, seq: Seq
) -> Draft[Workspace]:
    """The creation of the workspace with this owner: both records are its audit's."""
    membership = await memberships.put(
        tx, tx.tenant_id, workspace.id, SubjectRef("user", owner), Role.OWNER, caller.acting_user, seq
    )
    after = {
        *projection.workspace_tuples(workspace),
        *projection.membership_tuples(membership, subject_is_active=projects, object_is_archived=False),
    }
    draft = workspace_draft(None, workspace, (), after)
    return replace(draft, after=[draft.after, _MEMBERSHIP.dump_python(membership, mode="json")], added=[owner])


def _personal(tenant_id: TenantId, user: User, name: str) -> Workspace:
    return Workspace(
        tenant_id=tenant_id,
        id=new_workspace_id(),
        parent_id=None,
        slug=PERSONAL_SLUG,
        name=name,
        kind=WorkspaceKind.PERSONAL,
        archive_time=None,
        archived_with=None,
        creator_id=user.id,
        create_time=user.create_time,
        update_time=user.update_time,
        etag="",
        personal_user_id=user.id,
    )


def _new(parent: Workspace, slug: str, name: str, creator: UserId | None) -> Workspace:
    return Workspace(
        tenant_id=parent.tenant_id,
        id=new_workspace_id(),
        parent_id=parent.id,
        slug=slug,
        name=name,
        kind=WorkspaceKind.SHARED,
        archive_time=None,
        archived_with=None,
        creator_id=creator,
        create_time=parent.create_time,
        update_time=parent.update_time,
        etag="",
    )
