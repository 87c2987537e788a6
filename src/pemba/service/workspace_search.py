"""What a list of workspaces can be asked for besides a place in the tree.

A permission is decided from the records, by the SQL that also decides the rights of users: it is exact at the list's
own token without waiting for delivery, and sorts and pages in one statement.  Tests hold it against checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pemba.errors import NotFound, Reason
from pemba.model import ROLE_PERMISSION, Caller, Permission, Role, TenantStatus, UserId, Workspace
from pemba.service.rights import Action, require_belongs, require_on_workspace
from pemba.storage import tenants, users, workspace_search
from pemba.storage.database import TenantTransaction

ORDERS = ("slug", "name", "create_time")


@dataclass(frozen=True, slots=True)
class TextMatch:
    """`field` (name or slug) is the text, where `whole`, or else has it somewhere, whatever its case."""

    field: str
    text: str
    whole: bool


@dataclass(frozen=True, slots=True)
class Search:
    """`order` empty: children by slug, a subtree with parents first; `user` and `permission` go together."""

    user: UserId | None = None
    permission: Permission | None = None
    order: str = ""
    descending: bool = False
    matches: tuple[TextMatch, ...] = ()


EVERYTHING = Search()


async def require_may_list(
    tx: TenantTransaction, caller: Caller, parent: Workspace, search: Search, named: str, *, anywhere: bool
) -> None:
    """Who asks `anywhere` in the tenant about themselves needs a role somewhere in it; about others, `administer`.

    Raises NotFound, which says `named`, and Forbidden.
    """
    if search.user not in (None, caller.acting_user):
        await require_on_workspace(tx, caller, parent, Action.ASK_ABOUT_OTHERS, named)
    elif search.user is not None and anywhere and caller.workspace_id is None:
        await require_belongs(tx, caller)
    else:
        await require_on_workspace(tx, caller, parent, Action.SEE, named)


def may_see_personal(caller: Caller, search: Search) -> bool:
    """Whether the search finds the user's personal workspace too: for themselves and for system keys."""
    return search.user is not None and (caller.is_system or caller.acting_user == search.user)


async def denied_at_once(tx: TenantTransaction, user: UserId | None) -> Reason | None:
    """Why a check of this user would be DENIED without being asked."""
    tenant = await tenants.get(tx)
    if tenant is None:
        raise NotFound(f"tenant {tx.tenant_id}")
    if tenant.status is TenantStatus.SUSPENDED:
        return Reason.TENANT_SUSPENDED
    return Reason.USER_SUSPENDED if user is not None and await users.is_inactive(tx, user) else None


async def find(
    tx: TenantTransaction,
    parent: Workspace,
    search: Search,
    *,
    recursive: bool,
    include_archived: bool,
    after: Sequence[str] | None,
    limit: int,
    with_personal: bool = False,
) -> list[tuple[tuple[str, str], Workspace]]:
    """(position, workspace) of those below `parent` that the search is about, in its order.

    `with_personal`: and the personal workspace of the search's user.
    """
    return await workspace_search.search(
        tx,
        parent.id,
        recursive=recursive,
        include_archived=include_archived,
        user_id=search.user,
        roles=roles_that_give(search.permission) if search.permission else (),
        has={field: [m.text for m in search.matches if m.field == field and not m.whole] for field in ("name", "slug")},
        equal={field: [m.text for m in search.matches if m.field == field and m.whole] for field in ("name", "slug")},
        order=(search.order or ("path" if recursive else "slug"), search.descending),
        after=after,
        limit=limit,
        with_personal=with_personal,
    )


def roles_that_give(permission: Permission) -> tuple[Role, ...]:
    """The roles on a workspace that give the permission there and below."""
    return tuple(role for role, given in ROLE_PERMISSION.items() if given.rank >= permission.rank)
