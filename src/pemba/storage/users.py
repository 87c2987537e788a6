"""Users: global records, named by the identity provider's id."""

from __future__ import annotations

from collections.abc import Sequence

from asyncpg import Record

from pemba.model import User, UserId, UserStatus
from pemba.storage.database import SystemTransaction, Transaction
from pemba.storage.statement import Statement

COLUMNS = "id, email, display_name, status, activating, last_login_time, create_time, update_time, version"

_INSERT_MISSING = Statement("INSERT INTO users (id) SELECT unnest(CAST(:ids AS text[])) ON CONFLICT (id) DO NOTHING")
# In the order of their ids, so that two mutations cannot wait for each other.
_LOCK_SHARED = Statement(f"SELECT {COLUMNS} FROM users WHERE id = ANY (CAST(:ids AS text[])) ORDER BY id FOR SHARE")
_LOCK = Statement(f"SELECT {COLUMNS} FROM users WHERE id = :id FOR NO KEY UPDATE")
_GET = Statement(f"SELECT {COLUMNS} FROM users WHERE id = :id")
_STATUS = Statement("SELECT status FROM users WHERE id = :id")
# A record that a role made is nobody's yet: its user is created by taking it over.
_CREATE = Statement(
    "INSERT INTO users (id, email, display_name, version) VALUES (:id, :email, :display_name, 1)"
    " ON CONFLICT (id) DO UPDATE SET email = excluded.email, display_name = excluded.display_name, version = 1,"
    " update_time = now() WHERE users.version = 0"
    f" RETURNING {COLUMNS}"
)
_UPDATE = Statement(
    "UPDATE users SET email = :email, display_name = :display_name, version = version + 1, update_time = now()"
    f" WHERE id = :id RETURNING {COLUMNS}"
)
_SET_STATUS = Statement(
    "UPDATE users SET status = :status, activating = :activating, version = version + 1, update_time = now(),"
    " suspend_time = CASE WHEN :status = 'suspended' THEN coalesce(suspend_time, now()) END,"
    " deactivate_time = CASE WHEN :status = 'deactivated' THEN now() END"
    f" WHERE id = :id RETURNING {COLUMNS}"
)
# At most once a minute, and a moment that comes late never sets an earlier one.
_RECORD_LOGIN = Statement(
    "UPDATE users SET last_login_time = now()"
    " WHERE id = :id AND (last_login_time IS NULL OR last_login_time < now() - interval '1 minute')"
)


async def ensure_locked(tx: Transaction, ids: Sequence[UserId]) -> dict[UserId, User]:
    """The records of these users, made where there was none, locked FOR SHARE to the end of the transaction.

    The lock keeps a suspension from passing between this reading and the tuples that are computed from it.
    """
    wanted = sorted(set(ids))
    records = await _LOCK_SHARED.rows(tx, ids=wanted)
    if len(records) < len(wanted):
        await _INSERT_MISSING.run(tx, ids=wanted)
        records = await _LOCK_SHARED.rows(tx, ids=wanted)
    return {UserId(r["id"]): from_record(r) for r in records}


async def lock_shared(tx: Transaction, user_id: UserId) -> User | None:
    """The record, locked against changes of its status to the end of the transaction."""
    records = await _LOCK_SHARED.rows(tx, ids=[user_id])
    return from_record(records[0]) if records else None


async def lock(tx: SystemTransaction, user_id: UserId) -> User | None:
    """The record, locked against changes and against new roles to the end of the transaction."""
    record = await _LOCK.row(tx, id=user_id)
    return None if record is None else from_record(record)


async def get(tx: Transaction, user_id: UserId) -> User | None:
    record = await _GET.row(tx, id=user_id)
    return None if record is None else from_record(record)


async def is_active(tx: Transaction, user_id: UserId) -> bool:
    """Whether there is such a user, neither suspended nor deactivated."""
    record = await _STATUS.row(tx, id=user_id)
    return record is not None and record["status"] == UserStatus.ACTIVE


async def is_inactive(tx: Transaction, user_id: UserId) -> bool:
    """Whether there is such a user, suspended or deactivated."""
    record = await _STATUS.row(tx, id=user_id)
    return record is not None and record["status"] != UserStatus.ACTIVE


async def create(tx: SystemTransaction, user_id: UserId, email: str, display_name: str) -> User | None:
    """A new user, or the record that a role made, taken over; None where the user was created before.

    Raises AlreadyExists (EMAIL_TAKEN).
    """
    record = await _CREATE.row(tx, id=user_id, email=email or None, display_name=display_name)
    return None if record is None else from_record(record)


async def update(tx: SystemTransaction, user_id: UserId, email: str, display_name: str) -> User:
    """Raises AlreadyExists (EMAIL_TAKEN)."""
    return from_record(await _UPDATE.one(tx, id=user_id, email=email or None, display_name=display_name))


async def set_status(tx: SystemTransaction, user_id: UserId, status: UserStatus, *, activating: bool = False) -> User:
    return from_record(await _SET_STATUS.one(tx, id=user_id, status=status, activating=activating))


async def record_login(tx: Transaction, user_id: UserId) -> None:
    """Now; a login within a minute of the one recorded is the same."""
    await _RECORD_LOGIN.run(tx, id=user_id)


def from_record(record: Record) -> User:
    """A user of its columns."""
    return User(
        id=UserId(record["id"]),
        email=record["email"] or "",
        display_name=record["display_name"],
        status=UserStatus(record["status"]),
        activating=record["activating"],
        last_login_time=record["last_login_time"],
        create_time=record["create_time"],
        update_time=record["update_time"],
        etag=str(record["version"]),
    )
