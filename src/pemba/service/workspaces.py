"""Workspaces: one tree a tenant, its moves, and its archive."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import TypeAdapter

from pemba import projection
from pemba.errors import NotFound, PreconditionFailed, Reason
from pemba.model import (
    MAX_WORKSPACE_DEPTH,
    Caller,
    Role,
    Seq,
    SubjectRef,
    TenantId,
    TenantScope,
    Tuple,
    UserId,
    UserStatus,
    Workspace,
    WorkspaceId,
    WorkspaceKind,
)
from pemba.service.ids import new_workspace_id
from pemba.service.mutation import Draft, MutationOptions, Mutations, require_etag
from pemba.service.results import Changed, Found, Page
from pemba.service.rights import Action, require_on_workspace
from pemba.storage import memberships, outbox, users, workspaces
from pemba.storage.database import TenantTransaction
from pemba.storage.outbox import MAX_CHANGE_OPERATIONS

_WORKSPACE = TypeAdapter(Workspace)


class WorkspaceService:
    """The rules of workspaces."""

    def __init__(self, mutations: Mutations) -> None:
        self._mutations = mutations
        self._database = mutations.database
        self._signer = mutations.signer

    async def create_workspace(
        self,
        caller: Caller,
        tenant_id: TenantId,
        *,
        parent_id: WorkspaceId,
        slug: str,
        name: str,
        owner: UserId | None,
        options: MutationOptions,
    ) -> Changed[Workspace]:
        """A workspace below `parent_id`.  Made for an acting user it has that user as owner, else `owner`, else none.

        Raises NotFound (parent), AlreadyExists (SLUG_TAKEN), PreconditionFailed (TOO_DEEP, WORKSPACE_ARCHIVED).
        """

        async def body(tx: TenantTransaction, seq: Seq) -> Draft[Workspace]:
            parent = await usable(tx, caller, parent_id, Action.CREATE_CHILD, what="parent workspace")
            _require_depth(len(await workspaces.line(tx, parent.id)) + 1)
            first_owner = caller.acting_user or owner
            active = await _lock_user(tx, first_owner)
            new = _new(parent, slug, name, caller.acting_user)
            workspace = await workspaces.insert(tx, new, seq)
            after = set(projection.workspace_tuples(workspace))
            if first_owner is not None:
                after |= await _make_owner(tx, caller, workspace, first_owner, active, seq)
            return _draft(None, workspace, (), after)

        return await self._mutations.run(caller, tenant_id, options, _WORKSPACE, body)

    async def get_workspace(
        self, caller: Caller, tenant_id: TenantId, *, workspace_id: WorkspaceId | None, path: str | None
    ) -> Found[Workspace]:
        """By id, or by its path of slugs below the root (`eng/backend`; empty: the root).  Raises NotFound."""
        async with self._database.begin(TenantScope(tenant_id)) as tx:
            head = await outbox.head(tx, tenant_id)
            if workspace_id is not None:
                workspace = await workspaces.get(tx, workspace_id)
            else:
                workspace = await workspaces.get_by_path(tx, [slug for slug in (path or "").split("/") if slug])
            named = f"workspace {workspace_id or path or 'root'}"
            if workspace is None:
                raise NotFound(named)
            await require_on_workspace(tx, caller, workspace, Action.SEE, named)
        return Found(workspace, self._signer.token({tenant_id: head}))

    async def list_workspaces(
        self,
        caller: Caller,
        tenant_id: TenantId,
        *,
        parent_id: WorkspaceId | None,
        recursive: bool,
        include_archived: bool,
        page_size: int,
        page_token: str,
    ) -> Page[Workspace]:
        """Those below `parent_id` (None: the root): its children by slug, or `recursive` all, parents first."""
        arguments = ["ListWorkspaces", tenant_id, parent_id, recursive, include_archived, caller.acting_user]
        position = self._signer.page_position(arguments, page_token) or [""]
        read = workspaces.descendants if recursive else workspaces.children
        async with self._database.begin(TenantScope(tenant_id)) as tx:
            head = await outbox.head(tx, tenant_id)
            parent = await (workspaces.root(tx) if parent_id is None else workspaces.get(tx, parent_id))
            if parent is None:
                raise NotFound(f"workspace {parent_id}" if parent_id else f"tenant {tenant_id}")
            await require_on_workspace(tx, caller, parent, Action.SEE)
            found = await read(tx, parent.id, include_archived=include_archived, after=position[0], limit=page_size + 1)
        shown = found[:page_size]
        more = self._signer.page_token(arguments, [shown[-1][0]]) if len(found) > page_size else ""
        return Page(tuple(w for _, w in shown), more, self._signer.token({tenant_id: head}))

    async def update_workspace(
        self,
        caller: Caller,
        tenant_id: TenantId,
        workspace_id: WorkspaceId,
        *,
        name: str | None,
        options: MutationOptions,
    ) -> Changed[Workspace]:
        """Change the name; None leaves it."""

        async def body(tx: TenantTransaction, seq: Seq) -> Draft[Workspace]:
            before = await usable(tx, caller, workspace_id, Action.UPDATE)
            require_etag(before.etag, options)
            unchanged = name is None or name == before.name
            after = before if unchanged else await workspaces.rename(tx, workspace_id, name or "", seq)
            return _draft(before, after, (), ())

        return await self._mutations.run(caller, tenant_id, options, _WORKSPACE, body)

    async def move_workspace(
        self,
        caller: Caller,
        tenant_id: TenantId,
        workspace_id: WorkspaceId,
        *,
        new_parent_id: WorkspaceId,
        options: MutationOptions,
    ) -> Changed[Workspace]:
        """Hang the subtree below another parent; what is inherited goes with the new place.

        Raises PreconditionFailed (ROOT_WORKSPACE, CYCLE, TOO_DEEP, WORKSPACE_ARCHIVED), AlreadyExists (SLUG_TAKEN).
        """

        async def body(tx: TenantTransaction, seq: Seq) -> Draft[Workspace]:
            before = await usable(tx, caller, workspace_id, Action.MOVE)
            _require_not_root(before, "moved")
            require_etag(before.etag, options)
            parent = await usable(tx, caller, new_parent_id, Action.RECEIVE, what="new parent workspace")
            await _require_place(tx, before, parent)
            unchanged = parent.id == before.parent_id
            after = before if unchanged else await workspaces.move(tx, workspace_id, parent.id, seq)
            return _draft(before, after, projection.workspace_tuples(before), projection.workspace_tuples(after))

        return await self._mutations.run(caller, tenant_id, options, _WORKSPACE, body)

    async def archive_workspace(
        self, caller: Caller, tenant_id: TenantId, workspace_id: WorkspaceId, *, options: MutationOptions
    ) -> Changed[Workspace]:
        """Take the subtree out of the graph; archived ones in it stay as they are.  A second time changes nothing."""

        async def body(tx: TenantTransaction, seq: Seq) -> Draft[Workspace]:
            before = await visible(tx, caller, workspace_id, Action.ARCHIVE)
            _require_not_root(before, "archived")
            require_etag(before.etag, options)
            if before.archive_time is not None:
                return _draft(before, before, (), ())
            taken = [w for w in await _bounded_subtree(tx, workspace_id) if w.archive_time is None]
            old = await _tuples_of(tx, taken)
            archived = await workspaces.archive(tx, [w.id for w in taken], workspace_id, seq)
            return _draft(before, _named(archived, workspace_id), old, ())

        return await self._mutations.run(caller, tenant_id, options, _WORKSPACE, body)

    async def unarchive_workspace(
        self, caller: Caller, tenant_id: TenantId, workspace_id: WorkspaceId, *, options: MutationOptions
    ) -> Changed[Workspace]:
        """Restore what went into the archive with this workspace.

        Raises PreconditionFailed (WORKSPACE_ARCHIVED) while its parent is archived.
        """

        async def body(tx: TenantTransaction, seq: Seq) -> Draft[Workspace]:
            before = await visible(tx, caller, workspace_id, Action.ARCHIVE)
            require_etag(before.etag, options)
            if before.archive_time is None:
                return _draft(before, before, (), ())
            await _require_parent_in_use(tx, before)
            # One that went with an ancestor and is named itself now takes along what went with it, below it.
            below = {w.id for w in await _bounded_subtree(tx, workspace_id)}
            with_it = await workspaces.archived_with(tx, before.archived_with or workspace_id)
            restored = await workspaces.unarchive(tx, [w.id for w in with_it if w.id in below], seq)
            return _draft(before, _named(restored, workspace_id), (), await _tuples_of(tx, restored))

        return await self._mutations.run(caller, tenant_id, options, _WORKSPACE, body)

    async def delete_workspace(
        self, caller: Caller, tenant_id: TenantId, workspace_id: WorkspaceId, *, options: MutationOptions
    ) -> Changed[Workspace]:
        """Delete a workspace without children, and every role on it.  The record as it was.

        Raises PreconditionFailed (ROOT_WORKSPACE, HAS_CHILDREN).
        """

        async def body(tx: TenantTransaction, seq: Seq) -> Draft[Workspace]:
            before = await visible(tx, caller, workspace_id, Action.DELETE)
            _require_not_root(before, "deleted")
            require_etag(before.etag, options)
            if await workspaces.has_children(tx, workspace_id):
                raise PreconditionFailed(Reason.HAS_CHILDREN, "the workspace has children; move or delete them first")
            old = await _tuples_of(tx, [before])
            await memberships.delete_of_workspace(tx, workspace_id)
            await workspaces.delete(tx, workspace_id)
            return _draft(before, before, old, ())

        return await self._mutations.run(caller, tenant_id, options, _WORKSPACE, body)


async def visible(
    tx: TenantTransaction, caller: Caller, workspace_id: WorkspaceId, action: Action, what: str = "workspace"
) -> Workspace:
    """The workspace, archived or not, where the caller may do this to it.  Raises NotFound, Forbidden."""
    workspace = await workspaces.get(tx, workspace_id)
    if workspace is None:
        raise NotFound(f"{what} {workspace_id}")
    await require_on_workspace(tx, caller, workspace, action)
    return workspace


async def usable(
    tx: TenantTransaction, caller: Caller, workspace_id: WorkspaceId, action: Action, what: str = "workspace"
) -> Workspace:
    """As `visible`, and PreconditionFailed (WORKSPACE_ARCHIVED) for an archived one."""
    workspace = await visible(tx, caller, workspace_id, action, what)
    if workspace.archive_time is not None:
        raise PreconditionFailed(Reason.WORKSPACE_ARCHIVED, f"the {what} is archived; unarchive it first")
    return workspace


def _require_not_root(workspace: Workspace, verb: str) -> None:
    if workspace.kind is WorkspaceKind.ROOT:
        raise PreconditionFailed(Reason.ROOT_WORKSPACE, f"the root workspace cannot be {verb}")


def _require_depth(depth: int) -> None:
    if depth > MAX_WORKSPACE_DEPTH:
        raise PreconditionFailed(
            Reason.TOO_DEEP,
            f"the tree would be {depth} levels deep; it takes {MAX_WORKSPACE_DEPTH}",
            {"max_depth": str(MAX_WORKSPACE_DEPTH)},
        )


async def _require_place(tx: TenantTransaction, workspace: Workspace, parent: Workspace) -> None:
    line = await workspaces.line(tx, parent.id)
    if any(ancestor.id == workspace.id for ancestor in line):
        raise PreconditionFailed(Reason.CYCLE, "the new parent is the workspace itself or stands below it")
    _require_depth(len(line) + await workspaces.height(tx, workspace.id))


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


async def _tuples_of(tx: TenantTransaction, of: Sequence[Workspace]) -> set[Tuple]:
    """Every tuple of these workspaces and of the roles on them."""
    tuples = {t for workspace in of for t in projection.workspace_tuples(workspace)}
    held = await memberships.of_workspaces(tx, [w.id for w in of], MAX_CHANGE_OPERATIONS + 1)
    if len(held) > MAX_CHANGE_OPERATIONS:
        raise _too_large()
    archived = {w.id for w in of if w.archive_time is not None}
    for membership, active in held:
        tuples |= projection.membership_tuples(
            membership, subject_is_active=active, object_is_archived=membership.workspace_id in archived
        )
    return tuples


def _too_large() -> PreconditionFailed:
    return PreconditionFailed(
        Reason.CHANGE_TOO_LARGE,
        f"the subtree takes more than {MAX_CHANGE_OPERATIONS} tuple operations; do the workspaces below it first",
    )


async def _lock_user(tx: TenantTransaction, user_id: UserId | None) -> bool:
    if user_id is None:
        return False
    return (await users.ensure_locked(tx, [user_id]))[user_id].status is UserStatus.ACTIVE


async def _make_owner(
    tx: TenantTransaction, caller: Caller, workspace: Workspace, owner: UserId, active: bool, seq: Seq
) -> frozenset[Tuple]:
    membership = await memberships.put(
        tx, tx.tenant_id, workspace.id, SubjectRef("user", owner), Role.OWNER, caller.acting_user, seq
    )
    return projection.membership_tuples(membership, subject_is_active=active, object_is_archived=False)


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


def _named(found: Sequence[Workspace], workspace_id: WorkspaceId) -> Workspace:
    return next(workspace for workspace in found if workspace.id == workspace_id)


def _draft(before: Workspace | None, after: Workspace, old: Iterable[Tuple], new: Iterable[Tuple]) -> Draft[Workspace]:
    return Draft(
        after,
        projection.difference(old, new),
        f"workspace:{after.id}",
        None if before is None else _WORKSPACE.dump_python(before, mode="json"),
        _WORKSPACE.dump_python(after, mode="json"),
    )
