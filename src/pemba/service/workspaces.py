"""Workspaces: one tree a tenant, its moves, and its archive."""

from __future__ import annotations

from dataclasses import astuple, replace

from pemba import projection
from pemba.errors import NotFound, PreconditionFailed, Reason, invalid_field
from pemba.model import (
    Caller,
    ObjectRef,
    Seq,
    TenantId,
    TenantScope,
    UserId,
    Workspace,
    WorkspaceId,
    WorkspaceKind,
)
from pemba.service import archive, key_roles
from pemba.service.archive import WORKSPACE, workspace_draft
from pemba.service.guards import require_frozen, require_in_tree, require_not_root
from pemba.service.mutation import Draft, MutationOptions, Mutations, cascade, require_etag
from pemba.service.personal_workspaces import PersonalWorkspaces
from pemba.service.results import Changed, Found, Page
from pemba.service.rights import Action, require_on_workspace, usable, visible
from pemba.service.workspace_creation import create_below, require_depth
from pemba.service.workspace_search import (
    EVERYTHING,
    Search,
    denied_at_once,
    find,
    may_see_personal,
    require_may_list,
)
from pemba.storage import memberships, outbox, shares, workspaces
from pemba.storage.database import TenantTransaction


class WorkspaceService:
    """The rules of workspaces."""

    def __init__(self, mutations: Mutations) -> None:
        self._mutations = mutations
        self._personal = PersonalWorkspaces(mutations)
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

        if caller.acting_user is not None and owner not in (None, caller.acting_user):
            raise invalid_field(
                "owner", "is the acting user of a workspace that is made on behalf of one; leave it empty"
            )

        async def body(tx: TenantTransaction, seq: Seq) -> Draft[Workspace]:
            parent = await usable(tx, caller, parent_id, Action.CREATE_CHILD, what="parent workspace")
            if owner is not None and caller.acting_user is None:
                await require_on_workspace(tx, caller, parent, Action.MAKE_OWNERS)
            require_in_tree(parent, "a parent")
            return await create_below(
                tx, caller, seq, parent, slug, name, creator=caller.acting_user, owner=caller.acting_user or owner
            )

        return await self._mutations.run(caller, tenant_id, options, WORKSPACE, body)

    async def create_personal_workspace(
        self, caller: Caller, tenant_id: TenantId, *, user_id: UserId, name: str, options: MutationOptions
    ) -> Changed[Workspace]:
        """A user's own, beside the tree; without a name it has theirs.

        Raises AlreadyExists (PERSONAL_EXISTS), Forbidden (for another user), PreconditionFailed (USER_DEACTIVATED).
        """
        return await self._personal.create(caller, tenant_id, user_id, name=name, options=options)

    async def ensure_personal_workspace(
        self, caller: Caller, tenant_id: TenantId, *, user_id: UserId, options: MutationOptions
    ) -> tuple[Changed[Workspace], bool]:
        """A user's own, and whether this made it; archived, where its user archived it.

        As `create_personal_workspace`, and ConcurrentUpdate after three attempts that others came between.
        """
        return await self._personal.ensure(caller, tenant_id, user_id, options)

    async def get_workspace(
        self, caller: Caller, tenant_id: TenantId, *, workspace_id: WorkspaceId | None, path: str | None
    ) -> Found[Workspace]:
        """By id, or by its path of slugs below the root (`eng/backend`; empty: the root).  Raises NotFound."""
        async with self._database.read(TenantScope(tenant_id)) as tx:
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
        search: Search = EVERYTHING,
    ) -> Page[Workspace]:
        """Those below `parent_id` (None: the root): its children by slug, or `recursive` all, parents first.

        A search selects among them, and may order them otherwise; all on which a user has a permission have their
        personal one among them, for that user and for system keys.  Raises NotFound, Forbidden.
        """
        arguments: list[object] = [
            "ListWorkspaces",
            tenant_id,
            parent_id,
            recursive,
            include_archived,
            caller.acting_user,
        ]
        if search != EVERYTHING:
            arguments.append(astuple(search))
        position = self._signer.page_position(arguments, page_token)
        async with self._database.read(TenantScope(tenant_id)) as tx:
            head = await outbox.head(tx, tenant_id)
            parent = await (workspaces.root(tx) if parent_id is None else workspaces.get(tx, parent_id))
            named = f"workspace {parent_id}" if parent_id else f"tenant {tenant_id}"
            if parent is None:
                raise NotFound(named)
            await require_may_list(tx, caller, parent, search, named, anywhere=parent_id is None)
            reason = await denied_at_once(tx, search.user) if search.user else None
            found = (
                []
                if reason
                else await find(
                    tx,
                    parent,
                    search,
                    recursive=recursive,
                    include_archived=include_archived,
                    after=position,
                    limit=page_size + 1,
                    with_personal=recursive and parent_id is None and may_see_personal(caller, search),
                )
            )
        shown = found[:page_size]
        more = self._signer.page_token(arguments, shown[-1][0]) if len(found) > page_size else ""
        return Page(tuple(w for _, w in shown), more, self._signer.token({tenant_id: head}), reason)

    async def update_workspace(
        self,
        caller: Caller,
        tenant_id: TenantId,
        workspace_id: WorkspaceId,
        *,
        name: str | None,
        kind: WorkspaceKind | None = None,
        personal_user_id: str | None = None,
        options: MutationOptions,
    ) -> Changed[Workspace]:
        """Change the name; None leaves it.  Kind and user take what they are.

        Raises PreconditionFailed (PERSONAL_KIND_FROZEN, PERSONAL_OWNER_FROZEN), InvalidRequest
        (OWNER_ONLY_ON_PERSONAL).
        """

        async def body(tx: TenantTransaction, seq: Seq) -> Draft[Workspace]:
            before = await usable(tx, caller, workspace_id, Action.UPDATE)
            require_frozen(before, kind, personal_user_id)
            require_etag(before.etag, options)
            unchanged = name is None or name == before.name
            after = before if unchanged else await workspaces.rename(tx, workspace_id, name or "", seq)
            return workspace_draft(before, after, (), ())

        return await self._mutations.run(caller, tenant_id, options, WORKSPACE, body)

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

        Raises PreconditionFailed (ROOTWORKSPACE, CYCLE, TOO_DEEP, WORKSPACE_ARCHIVED), AlreadyExists (SLUG_TAKEN).
        """

        async def body(tx: TenantTransaction, seq: Seq) -> Draft[Workspace]:
            before = await usable(tx, caller, workspace_id, Action.MOVE)
            require_not_root(before, "moved")
            require_in_tree(before, "moved")
            require_etag(before.etag, options)
            parent = await usable(tx, caller, new_parent_id, Action.RECEIVE, what="new parent workspace")
            require_in_tree(parent, "a parent")
            await _require_place(tx, before, parent)
            unchanged = parent.id == before.parent_id
            after = before if unchanged else await workspaces.move(tx, workspace_id, parent.id, seq)
            return workspace_draft(
                before, after, projection.workspace_tuples(before), projection.workspace_tuples(after)
            )

        return await self._mutations.run(caller, tenant_id, options, WORKSPACE, body)

    async def archive_workspace(
        self, caller: Caller, tenant_id: TenantId, workspace_id: WorkspaceId, *, options: MutationOptions
    ) -> Changed[Workspace]:
        """Take the subtree out of the graph; archived ones in it stay as they are.  A second time changes nothing."""

        async def body(tx: TenantTransaction, seq: Seq) -> Draft[Workspace]:
            before = await visible(tx, caller, workspace_id, Action.ARCHIVE)
            require_not_root(before, "archived")
            require_etag(before.etag, options)
            return await archive.put_away(tx, before, seq)

        return await self._mutations.run(caller, tenant_id, options, WORKSPACE, body)

    async def unarchive_workspace(
        self, caller: Caller, tenant_id: TenantId, workspace_id: WorkspaceId, *, options: MutationOptions
    ) -> Changed[Workspace]:
        """Restore what went into the archive with this workspace.

        Raises PreconditionFailed (WORKSPACE_ARCHIVED) while its parent is archived.
        """

        async def body(tx: TenantTransaction, seq: Seq) -> Draft[Workspace]:
            before = await visible(tx, caller, workspace_id, Action.ARCHIVE)
            require_etag(before.etag, options)
            return await archive.restore(tx, before, seq)

        return await self._mutations.run(caller, tenant_id, options, WORKSPACE, body)

    async def delete_workspace(
        self, caller: Caller, tenant_id: TenantId, workspace_id: WorkspaceId, *, options: MutationOptions
    ) -> Changed[Workspace]:
        """Delete a workspace without children, every role on it, share of it or with it, and its keys.  As it was.

        Raises PreconditionFailed (ROOTWORKSPACE, HAS_CHILDREN).
        """

        async def body(tx: TenantTransaction, seq: Seq) -> Draft[Workspace]:
            before = await visible(tx, caller, workspace_id, Action.DELETE)
            require_not_root(before, "deleted")
            require_etag(before.etag, options)
            if await workspaces.has_children(tx, workspace_id):
                raise PreconditionFailed(Reason.HAS_CHILDREN, "the workspace has children; move or delete them first")
            old = await archive.tuples_of(tx, [before], whatever_the_users=True)
            await memberships.delete_of_workspace(tx, workspace_id)
            await shares.delete_of_workspace(tx, workspace_id)
            withdrawn, keys = await key_roles.delete_of_workspace(tx, workspace_id, seq)
            await workspaces.delete(tx, workspace_id)
            gone = {*old, *withdrawn}
            return replace(
                workspace_draft(before, before, gone, ()),
                after=None,
                announced=[ObjectRef("api_key", key) for key in keys],
                events=cascade(tuples=len(gone)),
            )

        return await self._mutations.run(caller, tenant_id, options, WORKSPACE, body)


async def _require_place(tx: TenantTransaction, workspace: Workspace, parent: Workspace) -> None:
    line = await workspaces.line(tx, parent.id)
    if any(ancestor.id == workspace.id for ancestor in line):
        raise PreconditionFailed(Reason.CYCLE, "the new parent is the workspace itself or stands below it")
    require_depth(len(line) + await workspaces.height(tx, workspace.id))
