"""Workspaces: a tenant's tree."""

from __future__ import annotations

from collections.abc import Sequence

from asyncpg import Record

from pemba.model import Seq, UserId, Workspace, WorkspaceId, WorkspaceKind
from pemba.storage.database import SystemTransaction, TenantTransaction
from pemba.storage.statement import Statement

_COLUMNS = (
    "tenant_id, id, parent_id, slug, name, kind, archive_time, archived_with, creator_id,"
    " create_time, update_time, changed_seq, personal_user_id"
)
COLUMNS_OF_W = ", ".join(f"w.{column.strip()}" for column in _COLUMNS.split(","))
# A step up from `line` and a step down from `below`, each a look into an index.  PostgreSQL cannot know how short a way
# is, and would for a plain join read all workspaces of a tenant that has many; OFFSET 0 keeps it from making it one.
PARENT_OF_LINE = (
    "CROSS JOIN LATERAL (SELECT * FROM workspaces WHERE tenant_id = :tenant_id AND id = line.parent_id OFFSET 0) w"
)
_CHILDREN_OF_BELOW = (
    "CROSS JOIN LATERAL (SELECT * FROM workspaces WHERE tenant_id = :tenant_id AND parent_id = below.id OFFSET 0) w"
)

_INSERT = Statement(
    "INSERT INTO workspaces (tenant_id, id, parent_id, slug, name, kind, creator_id, changed_seq, personal_user_id)"
    " VALUES (:tenant_id, :id, :parent_id, :slug, :name, :kind, :creator_id, :seq, :personal_user_id)"
    f" RETURNING {_COLUMNS}"
)
_GET = Statement(f"SELECT {_COLUMNS} FROM workspaces WHERE tenant_id = :tenant_id AND id = :id")
_GET_MANY = Statement(
    f"SELECT {_COLUMNS} FROM workspaces WHERE tenant_id = :tenant_id AND id = ANY (CAST(:ids AS text[]))"
)
_ROOT = Statement(f"SELECT {_COLUMNS} FROM workspaces WHERE tenant_id = :tenant_id AND kind = 'root'")
_PERSONAL = Statement(f"SELECT {_COLUMNS} FROM workspaces WHERE tenant_id = :tenant_id AND personal_user_id = :user_id")
_GET_BY_PATH = Statement(
    f"""
    WITH RECURSIVE path AS (
        SELECT id, 0 AS level FROM workspaces WHERE tenant_id = :tenant_id AND kind = 'root'
        UNION ALL
        SELECT w.id, path.level + 1 FROM path CROSS JOIN LATERAL (
            SELECT id FROM workspaces WHERE tenant_id = :tenant_id AND parent_id = path.id
                AND slug = (CAST(:slugs AS text[]))[path.level + 1] OFFSET 0
        ) w
    )
    SELECT {COLUMNS_OF_W} FROM path JOIN workspaces w ON w.tenant_id = :tenant_id AND w.id = path.id
    WHERE path.level = CAST(:levels AS int)
    """
)
# Ancestors from the workspace itself (level 1) up to the root.
_LINE = Statement(
    f"""
    WITH RECURSIVE line AS (
        SELECT {_COLUMNS}, 1 AS level FROM workspaces WHERE tenant_id = :tenant_id AND id = :id
        UNION ALL
        SELECT {COLUMNS_OF_W}, line.level + 1 FROM line {PARENT_OF_LINE}
    )
    SELECT {_COLUMNS} FROM line ORDER BY level
    """
)
_HEIGHT = Statement(
    f"""
    WITH RECURSIVE below AS (
        SELECT id, 1 AS level FROM workspaces WHERE tenant_id = :tenant_id AND id = :id
        UNION ALL
        SELECT w.id, below.level + 1 FROM below {_CHILDREN_OF_BELOW}
    )
    SELECT max(level) AS height FROM below
    """
)
_SUBTREE = Statement(
    f"""
    WITH RECURSIVE below AS (
        SELECT {_COLUMNS} FROM workspaces WHERE tenant_id = :tenant_id AND id = :id
        UNION ALL
        SELECT {COLUMNS_OF_W} FROM below {_CHILDREN_OF_BELOW}
    )
    SELECT {_COLUMNS} FROM below ORDER BY id LIMIT :limit
    """
)
_ARCHIVED_WITH = Statement(
    f"SELECT {_COLUMNS} FROM workspaces WHERE tenant_id = :tenant_id AND archived_with = :id ORDER BY id"
)
_HAS_CHILDREN = Statement(
    "SELECT EXISTS (SELECT FROM workspaces WHERE tenant_id = :tenant_id AND parent_id = :id) AS found"
)
_RENAME = Statement(
    "UPDATE workspaces SET name = :name, changed_seq = :seq, update_time = now()"
    f" WHERE tenant_id = :tenant_id AND id = :id RETURNING {_COLUMNS}"
)
_MOVE = Statement(
    "UPDATE workspaces SET parent_id = :parent_id, changed_seq = :seq, update_time = now()"
    f" WHERE tenant_id = :tenant_id AND id = :id RETURNING {_COLUMNS}"
)
_ARCHIVE = Statement(
    "UPDATE workspaces SET archive_time = now(), archived_with = :named, changed_seq = :seq, update_time = now()"
    f" WHERE tenant_id = :tenant_id AND id = ANY (CAST(:ids AS text[])) RETURNING {_COLUMNS}"
)
_UNARCHIVE = Statement(
    "UPDATE workspaces SET archive_time = NULL, archived_with = NULL, changed_seq = :seq, update_time = now()"
    f" WHERE tenant_id = :tenant_id AND id = ANY (CAST(:ids AS text[])) RETURNING {_COLUMNS}"
)
_DELETE = Statement("DELETE FROM workspaces WHERE tenant_id = :tenant_id AND id = :id")
_DELETE_LEFT = Statement(
    f"""
    DELETE FROM workspaces w WHERE w.tenant_id = :tenant_id AND w.personal_user_id = :user_id
        AND NOT EXISTS (SELECT FROM memberships m WHERE m.tenant_id = w.tenant_id AND m.workspace_id = w.id)
    RETURNING {COLUMNS_OF_W}
    """
)


async def insert(tx: TenantTransaction | SystemTransaction, workspace: Workspace, seq: Seq) -> Workspace:
    """Store a new workspace; its times and etag come from the database.

    Raises AlreadyExists (SLUG_TAKEN, PERSONAL_EXISTS).
    """
    return from_record(
        await _INSERT.one(
            tx,
            tenant_id=workspace.tenant_id,
            id=workspace.id,
            parent_id=workspace.parent_id,
            slug=workspace.slug,
            name=workspace.name,
            kind=workspace.kind,
            creator_id=workspace.creator_id,
            seq=seq,
            personal_user_id=workspace.personal_user_id,
        )
    )


async def get(tx: TenantTransaction, workspace_id: WorkspaceId) -> Workspace | None:
    record = await _GET.row(tx, tenant_id=tx.tenant_id, id=workspace_id)
    return None if record is None else from_record(record)


async def get_many(tx: TenantTransaction, ids: Sequence[WorkspaceId]) -> list[Workspace]:
    """Those of these ids that there are, in no order."""
    return [from_record(r) for r in await _GET_MANY.rows(tx, tenant_id=tx.tenant_id, ids=list(ids))]


async def root(tx: TenantTransaction) -> Workspace | None:
    record = await _ROOT.row(tx, tenant_id=tx.tenant_id)
    return None if record is None else from_record(record)


async def personal(tx: TenantTransaction, user_id: UserId) -> Workspace | None:
    """The personal workspace of the user, archived or not."""
    record = await _PERSONAL.row(tx, tenant_id=tx.tenant_id, user_id=user_id)
    return None if record is None else from_record(record)


async def get_by_path(tx: TenantTransaction, slugs: Sequence[str]) -> Workspace | None:
    """The workspace at these slugs below the root; no slugs: the root."""
    record = await _GET_BY_PATH.row(tx, tenant_id=tx.tenant_id, slugs=list(slugs), levels=len(slugs))
    return None if record is None else from_record(record)


async def line(tx: TenantTransaction, workspace_id: WorkspaceId) -> list[Workspace]:
    """The workspace and its ancestors, the root last; empty where there is no such workspace."""
    return [from_record(r) for r in await _LINE.rows(tx, tenant_id=tx.tenant_id, id=workspace_id)]


async def height(tx: TenantTransaction, workspace_id: WorkspaceId) -> int:
    """Levels of the subtree, 1 for a leaf."""
    record = await _HEIGHT.one(tx, tenant_id=tx.tenant_id, id=workspace_id)
    return int(record["height"])


async def subtree(tx: TenantTransaction, workspace_id: WorkspaceId, limit: int) -> list[Workspace]:
    """The workspace and all below it, archived ones too, at most `limit`."""
    records = await _SUBTREE.rows(tx, tenant_id=tx.tenant_id, id=workspace_id, limit=limit)
    return [from_record(r) for r in records]


async def archived_with(tx: TenantTransaction, workspace_id: WorkspaceId) -> list[Workspace]:
    """Those that went into the archive when this one was archived, itself among them."""
    return [from_record(r) for r in await _ARCHIVED_WITH.rows(tx, tenant_id=tx.tenant_id, id=workspace_id)]


async def has_children(tx: TenantTransaction, workspace_id: WorkspaceId) -> bool:
    record = await _HAS_CHILDREN.one(tx, tenant_id=tx.tenant_id, id=workspace_id)
    return bool(record["found"])


async def rename(tx: TenantTransaction, workspace_id: WorkspaceId, name: str, seq: Seq) -> Workspace:
    return from_record(await _RENAME.one(tx, tenant_id=tx.tenant_id, id=workspace_id, name=name, seq=seq))


async def move(tx: TenantTransaction, workspace_id: WorkspaceId, parent_id: WorkspaceId, seq: Seq) -> Workspace:
    """Raises AlreadyExists (SLUG_TAKEN).  Cycles and depth are the caller's to check, under the tenant's head."""
    return from_record(await _MOVE.one(tx, tenant_id=tx.tenant_id, id=workspace_id, parent_id=parent_id, seq=seq))


async def archive(tx: TenantTransaction, ids: Sequence[WorkspaceId], named: WorkspaceId, seq: Seq) -> list[Workspace]:
    records = await _ARCHIVE.rows(tx, tenant_id=tx.tenant_id, ids=list(ids), named=named, seq=seq)
    return [from_record(r) for r in records]


async def unarchive(tx: TenantTransaction, ids: Sequence[WorkspaceId], seq: Seq) -> list[Workspace]:
    records = await _UNARCHIVE.rows(tx, tenant_id=tx.tenant_id, ids=list(ids), seq=seq)
    return [from_record(r) for r in records]


async def delete(tx: TenantTransaction, workspace_id: WorkspaceId) -> None:
    """Raises PreconditionFailed (HAS_CHILDREN): the foreign key restricts."""
    await _DELETE.run(tx, tenant_id=tx.tenant_id, id=workspace_id)


async def delete_left_by(tx: TenantTransaction, user_id: UserId) -> Workspace | None:
    """Delete the personal workspace of a user whose roles are gone: as it was, None where there is none to delete."""
    record = await _DELETE_LEFT.row(tx, tenant_id=tx.tenant_id, user_id=user_id)
    return None if record is None else from_record(record)


def from_record(record: Record) -> Workspace:
    """A workspace of its columns."""
    return Workspace(
        tenant_id=record["tenant_id"],
        id=WorkspaceId(record["id"]),
        parent_id=record["parent_id"],
        slug=record["slug"],
        name=record["name"],
        kind=WorkspaceKind(record["kind"]),
        archive_time=record["archive_time"],
        archived_with=record["archived_with"],
        creator_id=None if record["creator_id"] is None else UserId(record["creator_id"]),
        create_time=record["create_time"],
        update_time=record["update_time"],
        etag=str(record["changed_seq"]),
        personal_user_id=None if record["personal_user_id"] is None else UserId(record["personal_user_id"]),
    )
