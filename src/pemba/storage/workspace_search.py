"""Workspaces below one, searched, sorted, and for a permission-aware list only those on which a user has one."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from pemba.model import UserId, Workspace, WorkspaceId
from pemba.storage.authority import REACHED
from pemba.storage.database import TenantTransaction
from pemba.storage.statement import Statement
from pemba.storage.workspaces import COLUMNS_OF_W, from_record

_KEYS = {
    "path": "places.path",
    "slug": "w.slug",
    "name": "w.name",
    "create_time": "to_char(w.create_time AT TIME ZONE 'UTC', 'YYYYMMDDHH24MISSUS')",
}

# Every text of an array has to be in the value, or to be it: an empty array asks for nothing.
_HAS = "NOT EXISTS (SELECT FROM unnest(CAST(:{0}_has AS text[])) t WHERE position(lower(t) IN lower(w.{0})) = 0)"
_IS = "NOT EXISTS (SELECT FROM unnest(CAST(:{0}_is AS text[])) t WHERE t <> w.{0})"


def _statement(key: str, *, descending: bool) -> Statement:
    direction, beyond = ("DESC", "<") if descending else ("ASC", ">")
    return Statement(
        f"""
        WITH RECURSIVE {REACHED},
        below AS (
            SELECT id, '' AS path FROM workspaces WHERE tenant_id = :tenant_id AND id = :parent_id
            UNION ALL
            SELECT w.id, below.path || w.slug || '/' FROM below JOIN workspaces w
                ON w.tenant_id = :tenant_id AND w.parent_id = below.id
                AND (CAST(:include_archived AS bool) OR w.archive_time IS NULL)
                AND (CAST(:recursive AS bool) OR below.id = :parent_id)
        ),
        places AS (
            SELECT id, path FROM below WHERE id <> :parent_id
            UNION ALL
            SELECT id, '' FROM workspaces
            WHERE CAST(:with_personal AS bool) AND tenant_id = :tenant_id AND personal_user_id = :user_id
        ),
        found AS (
            SELECT {COLUMNS_OF_W}, ({key}) COLLATE "C" AS key
            FROM places JOIN workspaces w ON w.tenant_id = :tenant_id AND w.id = places.id
            WHERE (CAST(:user_id AS text) IS NULL OR w.id IN (SELECT id FROM reached))
                AND {_HAS.format("name")} AND {_IS.format("name")} AND {_HAS.format("slug")} AND {_IS.format("slug")}
        )
        SELECT * FROM found
        WHERE CAST(:after_key AS text) IS NULL OR (key, id) {beyond} (:after_key, CAST(:after_id AS text))
        ORDER BY key {direction}, id {direction} LIMIT :limit
        """
    )


_SEARCH = {
    (name, descending): _statement(key, descending=descending)
    for name, key in _KEYS.items()
    for descending in (False, True)
}


async def search(
    tx: TenantTransaction,
    parent_id: WorkspaceId,
    *,
    recursive: bool,
    include_archived: bool,
    user_id: UserId | None,
    roles: Collection[str],
    has: dict[str, Sequence[str]],
    equal: dict[str, Sequence[str]],
    order: tuple[str, bool],
    after: Sequence[str] | None,
    limit: int,
    with_personal: bool = False,
) -> list[tuple[tuple[str, str], Workspace]]:
    """(position, workspace), at most `limit`; the position is what `after` takes.

    With a user: only those on which one of `roles` holds, by the user's own, inherited, or as an admin of the tenant.
    `with_personal`: the user's personal workspace too, which is not below anything; by path it comes first.
    `has` and `equal` are texts by `name` and `slug`; `order` is (path, slug, name or create_time; descending).
    """
    records = await _SEARCH[order].rows(
        tx,
        tenant_id=tx.tenant_id,
        parent_id=parent_id,
        recursive=recursive,
        include_archived=include_archived,
        user_id=user_id,
        roles=list(roles),
        name_has=list(has.get("name", ())),
        slug_has=list(has.get("slug", ())),
        name_is=list(equal.get("name", ())),
        slug_is=list(equal.get("slug", ())),
        after_key=None if after is None else after[0],
        after_id=None if after is None else after[1],
        limit=limit,
        with_personal=with_personal,
    )
    return [((r["key"], r["id"]), from_record(r)) for r in records]
