"""What is left to do after a change of a user's status: one row a user, and how far it is done."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from asyncpg import Record

from pemba.model import UserId
from pemba.storage.database import SystemTransaction
from pemba.storage.statement import Statement
from pemba.storage.user_roles import Place

_LOCK_KEY = 0x75736572_6A6F6273  # "userjobs"

_COLUMNS = "user_id, goal, user_version, after_tenant, after_workspace, request_id"
_PUT = Statement(
    "INSERT INTO user_job (user_id, goal, user_version, request_id)"
    " SELECT id, :goal, version, :request_id FROM users WHERE id = :user_id"
    " ON CONFLICT (user_id) DO UPDATE SET goal = excluded.goal, user_version = excluded.user_version,"
    " after_tenant = '', after_workspace = '', request_id = excluded.request_id, create_time = now(),"
    " update_time = now()"
)
_DROP = Statement("DELETE FROM user_job WHERE user_id = :user_id")
# The one that was longest without a step: a large one holds up no other.
_NEXT = Statement(f"SELECT {_COLUMNS} FROM user_job ORDER BY update_time, user_id LIMIT 1")
_OF = Statement(f"SELECT {_COLUMNS} FROM user_job WHERE user_id = :user_id FOR UPDATE")
_ADVANCE = Statement(
    "UPDATE user_job SET after_tenant = :tenant_id, after_workspace = :workspace_id, update_time = clock_timestamp()"
    " WHERE user_id = :user_id"
)
_TRY_TURN = Statement(f"SELECT pg_try_advisory_xact_lock({_LOCK_KEY}) AS taken")


class Goal(StrEnum):
    WITHDRAW = "withdraw"
    """The tuples of one who is suspended go."""
    RESTORE = "restore"
    """The tuples of one who is being activated come back; then the status changes."""
    REMOVE = "remove"
    """The roles of one who is deactivated go, with their tuples."""


@dataclass(frozen=True, slots=True)
class UserJob:
    """`after` is the role up to which it is done; `request_id` names the call that asked for it."""

    user_id: UserId
    goal: Goal
    user_version: int
    after: Place
    request_id: str


async def put(tx: SystemTransaction, user_id: UserId, goal: Goal, request_id: str) -> None:
    """In the place of what there was for this user, from the start.  The user's row is locked."""
    await _PUT.run(tx, user_id=user_id, goal=goal, request_id=request_id)


async def drop(tx: SystemTransaction, user_id: UserId) -> None:
    await _DROP.run(tx, user_id=user_id)


async def next_of_turn(tx: SystemTransaction) -> UserJob | None:
    """The job whose turn it is, not locked; None where there is none, or another relay is at it to this moment."""
    record = await _NEXT.row(tx)
    if record is None or not (await _TRY_TURN.one(tx))["taken"]:
        return None
    return _job(record)


async def is_still(tx: SystemTransaction, job: UserJob) -> bool:
    """Lock the row: whether nobody took the job further or asked for another since it was read."""
    record = await _OF.row(tx, user_id=job.user_id)
    return record is not None and _job(record) == job


async def advance(tx: SystemTransaction, user_id: UserId, place: Place) -> None:
    await _ADVANCE.run(tx, user_id=user_id, tenant_id=place[0], workspace_id=place[1])


def _job(record: Record) -> UserJob:
    return UserJob(
        UserId(record["user_id"]),
        Goal(record["goal"]),
        record["user_version"],
        (record["after_tenant"], record["after_workspace"]),
        record["request_id"],
    )
