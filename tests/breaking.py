"""Records as no build of Pemba writes them: rows are written past the triggers that would refuse them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

TABLES = ("memberships", "workspaces", "shares")


@asynccontextmanager
async def breaking(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection with the system's role; triggers are off until the end of the block."""
    connection = await asyncpg.connect(database_url)
    try:
        await _triggers(connection, "DISABLE")
        await connection.execute("SET ROLE pemba_system")
        yield connection
        await connection.execute("RESET ROLE")
        await _triggers(connection, "ENABLE")
    finally:
        await connection.close()


async def _triggers(connection: asyncpg.Connection, verb: str) -> None:
    for table in TABLES:
        await connection.execute(f"ALTER TABLE {table} {verb} TRIGGER USER")


async def personal_workspace(
    connection: asyncpg.Connection, tenant_id: str, id_: str, user: str, *members: tuple[str, str]
) -> None:
    """A personal workspace of a user, with these (user, role) on it."""
    await connection.execute(
        "INSERT INTO workspaces (tenant_id, id, slug, name, kind, personal_user_id, changed_seq)"
        " VALUES ($1, $2, 'personal-' || right($2, 4), 'Personal', 'personal', $3, 1)",
        *(tenant_id, id_, user),
    )
    for member, role in members:
        await connection.execute(
            "INSERT INTO memberships (tenant_id, workspace_id, subject_type, subject_id, role, changed_seq)"
            " VALUES ($1, $2, 'user', $3, $4, 1)",
            *(tenant_id, id_, member, role),
        )
