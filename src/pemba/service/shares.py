"""Shares: a role on a workspace for the roster of another one of the tenant.

The roster are the direct members, whatever their roles there; who has come to see that workspace by a share or from
above is not of it.  So shares do not add up, and two workspaces may share with each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from pydantic import TypeAdapter

from pemba import projection
from pemba.errors import AlreadyExists, NotFound, Reason, invalid_field
from pemba.model import Caller, Role, Seq, Share, ShareId, TenantId, TenantScope, Tuple, WorkspaceId
from pemba.service import guards
from pemba.service.ids import new_share_id
from pemba.service.mutation import Draft, MutationOptions, Mutations, require_etag
from pemba.service.results import Changed, Found, Page
from pemba.service.rights import Action, sees, usable, visible
from pemba.storage import outbox, shares, workspaces
from pemba.storage.database import TenantTransaction

SHARE = TypeAdapter(Share)
SHARES = TypeAdapter(tuple[Share, ...])


class ShareService:
    """The rules of shares."""

    def __init__(self, mutations: Mutations) -> None:
        self._mutations = mutations
        self._database = mutations.database
        self._signer = mutations.signer

    async def create_share(
        self,
        caller: Caller,
        tenant_id: TenantId,
        *,
        workspace_id: WorkspaceId,
        with_workspace_id: WorkspaceId,
        role: Role,
        expire_time: datetime | None,
        options: MutationOptions,
    ) -> Changed[Share]:
        """Give the roster of `with_workspace_id` a role (not owner); fractions of the second are cut off.

        One that has expired makes room.  Raises NotFound, Forbidden, AlreadyExists (SHARE_EXISTS),
        PreconditionFailed (WORKSPACE_ARCHIVED, PERSONAL_MEMBERSHIP_FIXED), InvalidRequest (an expiry that is not in the
        future).
        """
        if workspace_id == with_workspace_id:
            raise invalid_field("with_workspace", "takes another workspace than the one that is shared")
        until = None if expire_time is None else expire_time.replace(microsecond=0)

        async def body(tx: TenantTransaction, seq: Seq) -> Draft[Share]:
            shared = await usable(tx, caller, workspace_id, Action.SHARE)
            other = await usable(tx, caller, with_workspace_id, Action.SEE, what="other workspace")
            guards.require_members_change(shared)
            guards.require_members_change(other)
            if until is not None and not await shares.is_future(tx, until):
                raise invalid_field("expire_time", "takes a time in the future, by the database's clock")
            expired = await _make_room(tx, workspace_id, with_workspace_id)
            after = await shares.insert(
                tx, new_share_id(), workspace_id, with_workspace_id, role, until, caller.acting_user, seq
            )
            old = _tuples(expired) if expired else ()
            return _draft(after, old, _tuples(after), before=expired, after=after)

        return await self._mutations.run(caller, tenant_id, options, SHARE, body)

    async def revoke_share(
        self, caller: Caller, tenant_id: TenantId, share_id: ShareId, *, options: MutationOptions
    ) -> Changed[Share]:
        """Take the role away again.  The record as it was.

        Raises NotFound, Forbidden, PreconditionFailed (WORKSPACE_ARCHIVED).
        """

        async def body(tx: TenantTransaction, seq: Seq) -> Draft[Share]:
            share = await _seen(tx, caller, share_id)
            await usable(tx, caller, share.workspace_id, Action.SHARE)
            require_etag(share.etag, options)
            other = await workspaces.get(tx, share.with_workspace_id)
            either_is_archived = other is None or other.archive_time is not None
            await shares.delete(tx, [share_id])
            return _draft(share, _tuples(share, either_is_archived=either_is_archived), (), before=share, after=None)

        return await self._mutations.run(caller, tenant_id, options, SHARE, body)

    async def get_share(self, caller: Caller, tenant_id: TenantId, share_id: ShareId) -> Found[Share]:
        """For who sees either workspace.  Raises NotFound."""
        async with self._database.read(TenantScope(tenant_id)) as tx:
            head = await outbox.head(tx, tenant_id)
            share = await _seen(tx, caller, share_id)
        return Found(share, self._signer.token({tenant_id: head}))

    async def list_shares(
        self,
        caller: Caller,
        tenant_id: TenantId,
        *,
        workspace_id: WorkspaceId,
        incoming: bool,
        page_size: int,
        page_token: str,
    ) -> Page[Share]:
        """Those of the workspace, or (`incoming`) those with it, the oldest first.  Raises NotFound."""
        arguments = ["ListShares", tenant_id, workspace_id, incoming, caller.acting_user]
        position = self._signer.page_position(arguments, page_token) or [""]
        async with self._database.read(TenantScope(tenant_id)) as tx:
            head = await outbox.head(tx, tenant_id)
            await visible(tx, caller, workspace_id, Action.SEE)
            found = await shares.list_after(tx, workspace_id, position[0], page_size + 1, incoming=incoming)
        shown = tuple(found[:page_size])
        more = self._signer.page_token(arguments, [shown[-1].id]) if len(found) > page_size else ""
        return Page(shown, more, self._signer.token({tenant_id: head}))


async def _make_room(tx: TenantTransaction, workspace_id: WorkspaceId, with_workspace_id: WorkspaceId) -> Share | None:
    """The expired share of the two, deleted.  Raises AlreadyExists (SHARE_EXISTS) for one that is in time."""
    there = await shares.of_pair(tx, workspace_id, with_workspace_id)
    if there is None:
        return None
    if await shares.get(tx, there.id) is not None:
        raise AlreadyExists(
            Reason.SHARE_EXISTS,
            f"{there.id} shares it with that workspace already; revoke that to give another role or expiry",
            {"share": there.id},
        )
    await shares.delete(tx, [there.id])
    return there


async def _seen(tx: TenantTransaction, caller: Caller, share_id: ShareId) -> Share:
    """Raises NotFound where there is none in time, or the caller sees neither workspace."""
    share = await shares.get(tx, share_id)
    if share is not None:
        for workspace_id in (share.workspace_id, share.with_workspace_id):
            if await sees(tx, caller, workspace_id):
                return share
    raise NotFound(f"share {share_id}")


def _tuples(share: Share, *, either_is_archived: bool = False) -> frozenset[Tuple]:
    return projection.share_tuples(share, either_is_archived=either_is_archived)


def _draft(
    record: Share, old: Iterable[Tuple], new: Iterable[Tuple], *, before: Share | None, after: Share | None
) -> Draft[Share]:
    return Draft(
        record,
        projection.difference(old, new),
        f"share:{record.id}",
        None if before is None else SHARE.dump_python(before, mode="json"),
        None if after is None else SHARE.dump_python(after, mode="json"),
    )
