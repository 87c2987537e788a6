"""Who is in groups: users, other groups and API keys, as records; what follows from it is in `authority`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from asyncpg import Record

from pemba.model import MAX_GROUP_DEPTH, ApiKeyId, GroupId, GroupMember, SubjectRef, UserId
from pemba.storage.database import TenantTransaction
from pemba.storage.memberships import subject_of
from pemba.storage.statement import Statement

_COLUMNS = "tenant_id, group_id, subject_type, subject_id, manager, join_time, added_by"
COLUMNS_OF_G = ", ".join(f"g.{column.strip()}" for column in _COLUMNS.split(","))

# One who stays keeps the time of joining, and who added them.
_PUT = Statement(
    f"""
    INSERT INTO group_members (tenant_id, group_id, subject_type, subject_id, manager, added_by)
    SELECT :tenant_id, :group_id, subject_type, subject_id, manager, CAST(:added_by AS text)
    FROM unnest(CAST(:types AS text[]), CAST(:ids AS text[]), CAST(:managers AS bool[]))
        AS given (subject_type, subject_id, manager)
    ON CONFLICT ON CONSTRAINT group_members_pkey DO UPDATE SET manager = excluded.manager
    RETURNING {_COLUMNS}
    """
)
_GET = Statement(
    f"SELECT {_COLUMNS} FROM group_members WHERE tenant_id = :tenant_id AND group_id = :group_id"
    " AND subject_type = :subject_type AND subject_id = :subject_id"
)
_LIST = Statement(
    f"SELECT {_COLUMNS} FROM group_members WHERE tenant_id = :tenant_id AND group_id = :group_id"
    " AND (subject_type, subject_id) > (:after_type, :after_id)"
    " ORDER BY subject_type, subject_id LIMIT :limit"
)
_OF_SUBJECT = {
    type_: Statement(
        f"SELECT {_COLUMNS} FROM group_members WHERE tenant_id = :tenant_id AND {column} = :id"
        " ORDER BY group_id LIMIT :limit"
    )
    for type_, column in (("user", "user_id"), ("group", "member_group_id"), ("api_key", "api_key_id"))
}
_DELETE = Statement(
    """
    DELETE FROM group_members g USING unnest(CAST(:types AS text[]), CAST(:ids AS text[])) AS given (type, id)
    WHERE g.tenant_id = :tenant_id AND g.group_id = :group_id AND g.subject_type = given.type
        AND g.subject_id = given.id
    """
)
_DELETE_OF_USER = Statement("DELETE FROM group_members WHERE tenant_id = :tenant_id AND user_id = :user_id")
_DELETE_OF_KEY = Statement("DELETE FROM group_members WHERE tenant_id = :tenant_id AND api_key_id = :id")
_DELETE_OF_GROUP = Statement(
    "DELETE FROM group_members WHERE tenant_id = :tenant_id AND (group_id = :group_id OR member_group_id = :group_id)"
)
# Levels are counted along every way, so a group comes once for each; no way is longer than the bound, plus the one step
# that is asked about.
_HEIGHT = Statement(
    f"""
    WITH RECURSIVE below (id, level) AS (
        SELECT id, 1 FROM unnest(CAST(:ids AS text[])) AS given (id)
        UNION
        SELECT g.member_group_id, below.level + 1 FROM below JOIN group_members g
            ON g.tenant_id = :tenant_id AND g.group_id = below.id AND g.member_group_id IS NOT NULL
        WHERE below.level <= {MAX_GROUP_DEPTH}
    )
    SELECT coalesce(max(level), 0) AS height, coalesce(bool_or(id = :group_id), false) AS comes_back FROM below
    """
)
_DEPTH = Statement(
    f"""
    WITH RECURSIVE above (id, level) AS (
        SELECT CAST(:group_id AS text), 1
        UNION
        SELECT g.group_id, above.level + 1 FROM above JOIN group_members g
            ON g.tenant_id = :tenant_id AND g.member_group_id = above.id
        WHERE above.level <= {MAX_GROUP_DEPTH}
    )
    SELECT max(level) AS depth FROM above
    """
)


async def put(
    tx: TenantTransaction, group_id: GroupId, members: Mapping[SubjectRef, bool], added_by: UserId | None
) -> list[GroupMember]:
    """Add these, each a manager or not, or change whether they are; in no order."""
    records = await _PUT.rows(
        tx,
        tenant_id=tx.tenant_id,
        group_id=group_id,
        types=[subject.type for subject in members],
        ids=[subject.id for subject in members],
        managers=list(members.values()),
        added_by=added_by,
    )
    return [from_record(record) for record in records]


async def get(tx: TenantTransaction, group_id: GroupId, subject: SubjectRef) -> GroupMember | None:
    record = await _GET.row(
        tx, tenant_id=tx.tenant_id, group_id=group_id, subject_type=subject.type, subject_id=subject.id
    )
    return None if record is None else from_record(record)


async def list_after(tx: TenantTransaction, group_id: GroupId, after: tuple[str, str], limit: int) -> list[GroupMember]:
    """At most `limit` direct members whose (subject type, subject id) follow `after`, in that order."""
    records = await _LIST.rows(
        tx, tenant_id=tx.tenant_id, group_id=group_id, after_type=after[0], after_id=after[1], limit=limit
    )
    return [from_record(record) for record in records]


async def of_subject(tx: TenantTransaction, subject: SubjectRef, limit: int) -> list[GroupMember]:
    """Every group of the tenant that the subject is a direct member of, at most `limit`."""
    records = await _OF_SUBJECT[subject.type].rows(tx, tenant_id=tx.tenant_id, id=subject.id, limit=limit)
    return [from_record(record) for record in records]


async def delete(tx: TenantTransaction, group_id: GroupId, subjects: Collection[SubjectRef]) -> None:
    await _DELETE.run(
        tx,
        tenant_id=tx.tenant_id,
        group_id=group_id,
        types=[subject.type for subject in subjects],
        ids=[subject.id for subject in subjects],
    )


async def delete_of_user(tx: TenantTransaction, user_id: UserId) -> None:
    """Out of every group of the tenant."""
    await _DELETE_OF_USER.run(tx, tenant_id=tx.tenant_id, user_id=user_id)


async def delete_of_key(tx: TenantTransaction, id_: ApiKeyId) -> None:
    """Out of every group."""
    await _DELETE_OF_KEY.run(tx, tenant_id=tx.tenant_id, id=id_)


async def delete_of_group(tx: TenantTransaction, group_id: GroupId) -> None:
    """All its members, and the group out of every other."""
    await _DELETE_OF_GROUP.run(tx, tenant_id=tx.tenant_id, group_id=group_id)


async def height(tx: TenantTransaction, ids: Sequence[GroupId], group_id: GroupId) -> tuple[int, bool]:
    """(levels of the tallest of these groups, 1 without groups in it; whether `group_id` is one of them or in one)."""
    record = await _HEIGHT.one(tx, tenant_id=tx.tenant_id, ids=list(ids), group_id=group_id)
    return int(record["height"]), bool(record["comes_back"])


async def depth(tx: TenantTransaction, group_id: GroupId) -> int:
    """The level of the group: 1 where it is in no other, else one more than that of the deepest that it is in."""
    record = await _DEPTH.one(tx, tenant_id=tx.tenant_id, group_id=group_id)
    return int(record["depth"])


def from_record(record: Record) -> GroupMember:
    """A member of its columns."""
    return GroupMember(
        tenant_id=record["tenant_id"],
        group_id=GroupId(record["group_id"]),
        subject=subject_of(record["subject_type"], record["subject_id"]),
        manager=record["manager"],
        join_time=record["join_time"],
        added_by=None if record["added_by"] is None else UserId(record["added_by"]),
    )
