"""The archive: a subtree out of the graph, and back into it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from pydantic import TypeAdapter

from pemba import projection
from pemba.errors import PreconditionFailed, Reason
from pemba.model import Seq, Tuple, Workspace, WorkspaceId
from pemba.service.mutation import Draft, cascade
from pemba.storage import memberships, shares, workspaces
from pemba.storage.database import TenantTransaction
from pemba.storage.outbox import MAX_CHANGE_OPERATIONS

WORKSPACE = TypeAdapter(Workspace)


async def put_away(tx: TenantTransaction, workspace: Workspace, seq: Seq) -> Draft[Workspace]:
    """Archive the workspace with all below it that is not archived yet; one that is stays as it is."""
    if workspace.archive_time is not None:
        return workspace_draft(workspace, workspace, (), ())
    taken = [w for w in await _bounded_subtree(tx, workspace.id) if w.archive_time is None]
    old = await tuples_of(tx, taken, whatever_the_users=True)
    archived = await workspaces.archive(tx, [w.id for w in taken], workspace.id, seq)
    draft = workspace_draft(workspace, _named(archived, workspace.id), old, ())
    return replace(draft, events=cascade(workspaces=len(taken), tuples=len(old)))


async def restore(tx: TenantTransaction, workspace: Workspace, seq: Seq) -> Draft[Workspace]:
    """Bring back what went into the archive with the workspace.

    Raises PreconditionFailed (WORKSPACE_ARCHIVED) while its parent is archived.
    """
    if workspace.archive_time is None:
        return workspace_draft(workspace, workspace, (), ())
    await _require_parent_in_use(tx, workspace)
    # One that went with an ancestor and is named itself now takes along what went with it, below it.
    below = {w.id for w in await _bounded_subtree(tx, workspace.id)}
    with_it = await workspaces.archived_with(tx, workspace.archived_with or workspace.id)
    restored = await workspaces.unarchive(tx, [w.id for w in with_it if w.id in below], seq)
    new = await tuples_of(tx, restored, whatever_the_users=False)
    draft = workspace_draft(workspace, _named(restored, workspace.id), (), new)
    return replace(draft, events=cascade(workspaces=len(restored), tuples=len(new)))


async def tuples_of(tx: TenantTransaction, of: Sequence[Workspace], *, whatever_the_users: bool) -> set[Tuple]:
    """Every tuple of these workspaces, of the roles on them, and of the shares that name them on either side.

    `whatever_the_users`: also of users who are not active.  What is taken out must be all that may be in: the tuples
    of a user who was suspended a moment ago may still stand, and nobody would look for them once the records are gone.
    """
    tuples = {t for workspace in of for t in projection.workspace_tuples(workspace)}
    ids = [w.id for w in of]
    held = await memberships.of_workspaces(tx, ids, MAX_CHANGE_OPERATIONS + 1)
    shared = await shares.of_workspaces(tx, ids, MAX_CHANGE_OPERATIONS + 1)
    if len(held) + len(shared) > MAX_CHANGE_OPERATIONS:
        raise _too_large()
    for share, either_is_archived in shared:
        tuples |= projection.share_tuples(share, either_is_archived=either_is_archived)
    archived = {w.id for w in of if w.archive_time is not None}
    for membership, projects in held:
        tuples |= projection.membership_tuples(
            membership,
            subject_is_active=projects or whatever_the_users,
            object_is_archived=membership.workspace_id in archived,
        )
    return tuples


def workspace_draft(
    before: Workspace | None, after: Workspace, old: Iterable[Tuple], new: Iterable[Tuple]
) -> Draft[Workspace]:
    """What one change of a workspace comes to: the difference of the tuples before and after."""
    return Draft(
        after,
        projection.difference(old, new),
        f"workspace:{after.id}",
        None if before is None else WORKSPACE.dump_python(before, mode="json"),
        WORKSPACE.dump_python(after, mode="json"),
    )


async def _require_parent_in_use(tx: TenantTransaction, workspace: Workspace) -> None:
    if workspace.parent_id is None:
        return
    parent = await workspaces.get(tx, workspace.parent_id)
    if parent is not None and parent.archive_time is not None:
        raise PreconditionFailed(Reason.WORKSPACE_ARCHIVED, f"its parent {parent.id} is archived; unarchive that first")


async def _bounded_subtree(tx: TenantTransaction, workspace_id: WorkspaceId) -> list[Workspace]:
    found = await workspaces.subtree(tx, workspace_id, MAX_CHANGE_OPERATIONS + 1)
    if len(found) > MAX_CHANGE_OPERATIONS:
        raise _too_large()
    return found


def _too_large() -> PreconditionFailed:
    return PreconditionFailed(
        Reason.CHANGE_TOO_LARGE,
        f"the subtree takes more than {MAX_CHANGE_OPERATIONS} tuple operations; do the workspaces below it first",
    )


def _named(found: Sequence[Workspace], workspace_id: WorkspaceId) -> Workspace:
    return next(workspace for workspace in found if workspace.id == workspace_id)
