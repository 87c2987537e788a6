"""Users: global records, named by the identity provider's id."""

from __future__ import annotations

from collections.abc import Sequence

from pemba.model import User, UserId, UserStatus
from pemba.storage.database import Transaction
from pemba.storage.statement import Statement

_INSERT_MISSING = Statement("INSERT INTO users (id) SELECT unnest(CAST(:ids AS text[])) ON CONFLICT (id) DO NOTHING")
# In the order of their ids, so that two mutations cannot wait for each other.
_LOCK = Statement("SELECT id, status FROM users WHERE id = ANY (CAST(:ids AS text[])) ORDER BY id FOR SHARE")
_STATUS = Statement("SELECT status FROM users WHERE id = :id")


async def ensure_locked(tx: Transaction, ids: Sequence[UserId]) -> dict[UserId, User]:
    """The records of these users, made where there was none, locked FOR SHARE to the end of the transaction.

    The lock keeps a suspension from passing between this reading and the tuples that are computed from it.
    """
    wanted = sorted(set(ids))
    records = await _LOCK.rows(tx, ids=wanted)
    if len(records) < len(wanted):
        await _INSERT_MISSING.run(tx, ids=wanted)
        records = await _LOCK.rows(tx, ids=wanted)
    return {UserId(r["id"]): User(UserId(r["id"]), UserStatus(r["status"])) for r in records}


async def is_active(tx: Transaction, user_id: UserId) -> bool:
    """Whether there is such a user, neither suspended nor deactivated."""
    record = await _STATUS.row(tx, id=user_id)
    return record is not None and record["status"] == UserStatus.ACTIVE


async def is_inactive(tx: Transaction, user_id: UserId) -> bool:
    """Whether there is such a user, suspended or deactivated."""
    record = await _STATUS.row(tx, id=user_id)
    return record is not None and record["status"] != UserStatus.ACTIVE
