"""Groups."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from asyncpg import Record

from pemba.model import Group, GroupId, Seq, SubjectRef, UserId
from pemba.storage.authority import GROUPS_OF
from pemba.storage.database import TenantTransaction
from pemba.storage.statement import Statement

_COLUMNS = "tenant_id, id, slug, name, external_id, create_time, update_time, changed_seq"

_INSERT = Statement(
    "INSERT INTO groups (tenant_id, id, slug, name, external_id, changed_seq)"
    f" VALUES (:tenant_id, :id, :slug, :name, :external_id, :seq) RETURNING {_COLUMNS}"
)
_GET_MANY = Statement(f"SELECT {_COLUMNS} FROM groups WHERE tenant_id = :tenant_id AND id = ANY (CAST(:ids AS text[]))")
_GET_BY = {
    column: Statement(f"SELECT {_COLUMNS} FROM groups WHERE tenant_id = :tenant_id AND {column} = :value")
    for column in ("id", "slug", "external_id")
}
# Every text of an array has to be in the value, or to be it: an empty array asks for nothing.
_HAS = "NOT EXISTS (SELECT FROM unnest(CAST(:{0}_has AS text[])) t WHERE position(lower(t) IN lower({1})) = 0)"
_IS = "NOT EXISTS (SELECT FROM unnest(CAST(:{0}_is AS text[])) t WHERE t <> {1})"
FIELDS = {"slug": "g.slug", "name": "g.name", "external_id": "coalesce(g.external_id, '')"}
_MATCHES = " AND ".join(text.format(name, column) for name, column in FIELDS.items() for text in (_HAS, _IS))
_LIST = Statement(
    f"""
    WITH RECURSIVE {GROUPS_OF}
    SELECT {_COLUMNS} FROM groups g
    WHERE g.tenant_id = :tenant_id AND g.slug > :after
        AND (CAST(:user_id AS text) IS NULL OR g.id IN (SELECT id FROM groups_of))
        AND (CAST(:member_type AS text) IS NULL OR EXISTS (
            SELECT FROM group_members m WHERE m.tenant_id = g.tenant_id AND m.group_id = g.id
                AND m.subject_type = :member_type AND m.subject_id = CAST(:member_id AS text)
        ))
        AND {_MATCHES}
    ORDER BY g.slug LIMIT :limit
    """
)
_UPDATE = Statement(
    "UPDATE groups SET name = :name, external_id = :external_id, changed_seq = :seq, update_time = now()"
    f" WHERE tenant_id = :tenant_id AND id = :id RETURNING {_COLUMNS}"
)
_TOUCH = Statement(
    "UPDATE groups SET changed_seq = :seq, update_time = now()"
    " WHERE tenant_id = :tenant_id AND id = ANY (CAST(:ids AS text[]))"
)
_DELETE = Statement("DELETE FROM groups WHERE tenant_id = :tenant_id AND id = :id")


async def insert(tx: TenantTransaction, group_id: GroupId, slug: str, name: str, external_id: str, seq: Seq) -> Group:
    """A new group without members.  Raises AlreadyExists (SLUG_TAKEN, EXTERNAL_ID_TAKEN)."""
    return from_record(
        await _INSERT.one(
            tx,
            tenant_id=tx.tenant_id,
            id=group_id,
            slug=slug,
            name=name,
            external_id=external_id or None,
            seq=seq,
        )
    )


async def get_by(tx: TenantTransaction, column: str, value: str) -> Group | None:
    """By its `id`, `slug` or `external_id`."""
    record = await _GET_BY[column].row(tx, tenant_id=tx.tenant_id, value=value)
    return None if record is None else from_record(record)


async def get_many(tx: TenantTransaction, ids: Collection[GroupId]) -> dict[GroupId, Group]:
    """Those of these ids that there are."""
    records = await _GET_MANY.rows(tx, tenant_id=tx.tenant_id, ids=list(ids))
    return {GroupId(r["id"]): from_record(r) for r in records}


async def list_after(
    tx: TenantTransaction,
    *,
    seen_by: UserId | None,
    member: SubjectRef | None,
    has: Mapping[str, Sequence[str]],
    equal: Mapping[str, Sequence[str]],
    after: str,
    limit: int,
) -> list[Group]:
    """At most `limit` groups whose slugs follow `after`, by slug.

    `seen_by`: only those that this user is in, through others too; `member`: only those with this direct member.
    `has` and `equal` are texts by the names of FIELDS.
    """
    texts = {f"{name}_has": list(has.get(name, ())) for name in FIELDS}
    texts |= {f"{name}_is": list(equal.get(name, ())) for name in FIELDS}
    records = await _LIST.rows(
        tx,
        tenant_id=tx.tenant_id,
        user_id=seen_by,
        member_type=None if member is None else member.type,
        member_id=None if member is None else member.id,
        after=after,
        limit=limit,
        **texts,
    )
    return [from_record(record) for record in records]


async def update(tx: TenantTransaction, group_id: GroupId, name: str, external_id: str, seq: Seq) -> Group:
    """Raises AlreadyExists (EXTERNAL_ID_TAKEN)."""
    given = {"name": name, "external_id": external_id or None, "seq": seq}
    return from_record(await _UPDATE.one(tx, tenant_id=tx.tenant_id, id=group_id, **given))


async def touch(tx: TenantTransaction, ids: Collection[GroupId], seq: Seq) -> None:
    """Give these groups another etag: their members changed."""
    if ids:
        await _TOUCH.run(tx, tenant_id=tx.tenant_id, ids=list(ids), seq=seq)


async def delete(tx: TenantTransaction, group_id: GroupId) -> None:
    """A group that has no members, roles and places in other groups any more."""
    await _DELETE.run(tx, tenant_id=tx.tenant_id, id=group_id)


def from_record(record: Record) -> Group:
    """A group of its columns."""
    return Group(
        tenant_id=record["tenant_id"],
        id=GroupId(record["id"]),
        slug=record["slug"],
        name=record["name"],
        external_id=record["external_id"] or "",
        create_time=record["create_time"],
        update_time=record["update_time"],
        etag=str(record["changed_seq"]),
    )
