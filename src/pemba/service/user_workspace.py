"""The workspace of a user: the first, made with them, and the current one, which they choose or fall back to."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

from pemba.errors import NotFound, PreconditionFailed, Reason
from pemba.model import (
    RESERVED_SLUGS,
    Caller,
    Seq,
    SystemScope,
    TenantId,
    TenantScope,
    User,
    UserId,
    Workspace,
    WorkspaceId,
    is_slug,
)
from pemba.service import guards
from pemba.service.archive import workspace_draft
from pemba.service.mutation import Draft, Mutations, require_usable
from pemba.service.results import Changed, Found
from pemba.service.workspace_creation import create_below, create_personal, name_of
from pemba.storage import authority, current_workspaces, journal, outbox, tenants, workspaces
from pemba.storage.database import SystemTransaction, TenantTransaction
from pemba.storage.journal import AuditEntry

MAX_STEM_CHARACTERS = 50


@dataclass(frozen=True, slots=True)
class FirstWorkspace:
    """A workspace below the root of a tenant; an empty slug or name is made of the user's name.

    Or the user's `personal` one, without a slug, which may be there already.
    """

    tenant_id: TenantId
    slug: str = ""
    name: str = ""
    personal: bool = False


@dataclass(frozen=True, slots=True)
class CurrentWorkspace:
    """`chosen`: by the user; else it is the default."""

    workspace: Workspace
    chosen: bool


async def take_number(tx: SystemTransaction, first: FirstWorkspace | None) -> Seq:
    """The first lock of a registration: the tenant's head.  Raises NotFound, PreconditionFailed (TENANT_SUSPENDED)."""
    if first is None:
        return Seq(0)
    tenant_tx = tx.of(first.tenant_id)
    seq = await outbox.advance(tenant_tx)
    require_usable(await tenants.get(tenant_tx), first.tenant_id, while_suspended=False)
    assert seq is not None  # every tenant has its head
    return seq


async def create(
    tx: SystemTransaction, caller: Caller, seq: Seq, user: User, first: FirstWorkspace, method: str, max_users: int
) -> Workspace:
    """The workspace under the number that was taken for it: its owner and creator is the user, whose current one it is.

    Raises AlreadyExists (SLUG_TAKEN), PreconditionFailed (TOO_MANY_USERS).
    """
    tenant_tx = tx.of(first.tenant_id)
    draft = await (_personal if first.personal else _below_root)(tenant_tx, caller, seq, user, first)
    await guards.require_room(tenant_tx, draft.added, max_users)
    entry = AuditEntry(caller, method, draft.object_text, draft.before, draft.after)
    await journal.append(tx, first.tenant_id, seq, [draft.operations], entry)
    await current_workspaces.put(tx, user.id, first.tenant_id, draft.record.id)
    return draft.record


async def _below_root(
    tx: TenantTransaction, caller: Caller, seq: Seq, user: User, first: FirstWorkspace
) -> Draft[Workspace]:
    root = await workspaces.root(tx)
    assert root is not None  # every tenant has one
    slug = first.slug or await _free_slug(tx, user)
    return await create_below(tx, caller, seq, root, slug, first.name or name_of(user), creator=user.id, owner=user.id)


async def _personal(
    tx: TenantTransaction, caller: Caller, seq: Seq, user: User, first: FirstWorkspace
) -> Draft[Workspace]:
    there = await workspaces.personal(tx, user.id)
    if there is not None:
        return workspace_draft(there, there, (), ())
    return await create_personal(tx, caller, seq, user.id, first.name)


class CurrentWorkspaces:
    """Which workspace a user works in."""

    def __init__(self, mutations: Mutations) -> None:
        self._database = mutations.database
        self._signer = mutations.signer

    async def set(
        self, user_id: UserId, tenant_id: TenantId, workspace_id: WorkspaceId, *, validate_only: bool
    ) -> Changed[Workspace]:
        """Choose; it holds until another is chosen, or the user may no longer view this one.

        Raises NotFound where they may not, PreconditionFailed (WORKSPACE_ARCHIVED, TENANT_SUSPENDED).
        """
        async with self._database.begin(TenantScope(tenant_id)) as tx:
            require_usable(await tenants.get(tx), tenant_id, while_suspended=False)
            workspace = await workspaces.get(tx, workspace_id)
            if workspace is None or await authority.on_workspace(tx, user_id, workspace_id) is None:
                raise NotFound(f"workspace {workspace_id}")
            if workspace.archive_time is not None:
                raise PreconditionFailed(Reason.WORKSPACE_ARCHIVED, "the workspace is archived; unarchive it first")
            await current_workspaces.put(tx, user_id, tenant_id, workspace_id)
            if validate_only:
                tx.discard()
        return Changed(workspace, "")

    async def get(self, user_id: UserId, tenant_id: TenantId | None) -> Found[CurrentWorkspace]:
        """The latest choice, of one tenant or of all, while the user may view it; else the default.

        That is the workspace on which they have their first role, else the root of the first tenant that they
        administer.  Raises NotFound where there is neither.
        """
        async with self._database.read(SystemScope("find a user's current workspace")) as tx:
            current = await _current(tx, user_id, tenant_id)
            if current is None:
                raise NotFound(f"a workspace that user:{user_id} may view")
            head = await outbox.head(tx, current.workspace.tenant_id)
        return Found(current, self._signer.token({current.workspace.tenant_id: head}))


async def _current(tx: SystemTransaction, user_id: UserId, tenant_id: TenantId | None) -> CurrentWorkspace | None:
    chosen = await current_workspaces.chosen(tx, user_id, tenant_id)
    if chosen is not None and await authority.on_workspace(tx.of(chosen.tenant_id), user_id, chosen.id) is not None:
        return CurrentWorkspace(chosen, chosen=True)
    default = await current_workspaces.default(tx, user_id, tenant_id)
    return None if default is None else CurrentWorkspace(default, chosen=False)


async def _free_slug(tx: TenantTransaction, user: User) -> str:
    """Of the user's name; with a random end where that is no slug, or is taken."""
    text = user.display_name or user.email.partition("@")[0] or user.id
    stem = re.sub(r"[^a-z0-9]+", "-", text.lower())[:MAX_STEM_CHARACTERS].strip("-")
    if is_slug(stem) and stem not in RESERVED_SLUGS and await workspaces.get_by_path(tx, [stem]) is None:
        return stem
    return "-".join(filter(None, (stem, secrets.token_hex(4))))
