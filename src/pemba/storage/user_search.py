"""Users, searched, sorted and paged; each order and each kind of match has its index."""

from __future__ import annotations

from collections.abc import Sequence

from pemba.model import User, UserStatus
from pemba.storage.database import SystemTransaction
from pemba.storage.statement import Statement
from pemba.storage.users import COLUMNS, from_record

# The expression to sort by, the type it has, and its text in a page's position.
_EMAIL = """coalesce(lower(email), '') COLLATE "C" """
_DISPLAY_NAME = 'lower(display_name) COLLATE "C"'
_KEYS = {
    "id": ("id", "text", "id"),
    "email": (_EMAIL, "text", _EMAIL),
    "create_time": ("create_time", "timestamptz", "CAST(create_time AS text)"),
}


def _statement(key: str, *, descending: bool) -> Statement:
    expression, type_, text = _KEYS[key]
    direction, beyond = ("DESC", "<") if descending else ("ASC", ">")
    return Statement(
        f"""
        SELECT {COLUMNS}, {text} AS key FROM users
        WHERE (CAST(:after_key AS text) IS NULL
                OR ({expression}, id) {beyond} (CAST(CAST(:after_key AS text) AS {type_}), CAST(:after_id AS text)))
            AND (CAST(:status AS text) IS NULL OR status = :status)
            AND (CAST(:email AS text) IS NULL OR {_EMAIL} = lower(:email))
            AND (CAST(:email_begins AS text) IS NULL OR starts_with({_EMAIL}, lower(:email_begins)))
            AND (CAST(:name AS text) IS NULL OR display_name = :name)
            AND (CAST(:name_begins AS text) IS NULL OR starts_with({_DISPLAY_NAME}, lower(:name_begins)))
        ORDER BY {expression} {direction}, id {direction} LIMIT :limit
        """
    )


_SEARCH = {
    (name, descending): _statement(name, descending=descending) for name in _KEYS for descending in (False, True)
}


async def search(
    tx: SystemTransaction,
    *,
    status: UserStatus | None,
    email: str | None,
    email_begins: str | None,
    name: str | None,
    name_begins: str | None,
    order: tuple[str, bool],
    after: Sequence[str] | None,
    limit: int,
) -> list[tuple[tuple[str, str], User]]:
    """(position, user), at most `limit`; the position is what `after` takes.

    Emails are compared without regard to case, and so are beginnings of names; None asks for nothing.  `order` is
    (id, email or create_time; descending).
    """
    records = await _SEARCH[order].rows(
        tx,
        status=status,
        email=email,
        email_begins=email_begins,
        name=name,
        name_begins=name_begins,
        after_key=None if after is None else after[0],
        after_id=None if after is None else after[1],
        limit=limit,
    )
    return [((r["key"], r["id"]), from_record(r)) for r in records]
