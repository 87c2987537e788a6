"""Migrations of the PostgreSQL schema, up and down.

Synchronous on purpose: deploy jobs and commands call it, never a server.  An advisory lock makes migrations that
start at the same moment run one after the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import asyncpg
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from pemba.storage.errors import translated

_LOCK = 0x70656D6261  # "pemba"

T = TypeVar("T")


def upgrade(url: str, revision: str = "head") -> None:
    """Migrate up to `revision`."""
    _run(url, lambda config, _: command.upgrade(config, revision))


def downgrade(url: str, revision: str) -> None:
    """Migrate down to `revision`; `base` empties the database."""
    _run(url, lambda config, _: command.downgrade(config, revision))


def current(url: str, seconds: float | None = None) -> str | None:
    """The revision that the database is at; None before the first.  Raises Unavailable after `seconds`."""
    return _run(url, lambda _, connection: MigrationContext.configure(connection).get_current_revision(), seconds)


def head() -> str:
    """The newest revision that this build knows."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None
    return revision


def is_behind(revision: str | None) -> bool:
    """Whether this build knows a later one, whatever their numbers; one that it does not know is a newer build's."""
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    return revision is None or (revision in known and revision != head())


def _run(url: str, work: Callable[[Config, sa.Connection], T], seconds: float | None = None) -> T:
    return asyncio.run(_run_async(url, work, seconds))


async def _run_async(url: str, work: Callable[[Config, sa.Connection], T], seconds: float | None) -> T:
    # The driver reads the URL itself, as everywhere else: SQLAlchemy's own reading knows no sslmode.
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(url), poolclass=NullPool
    )
    try:
        with translated():
            async with asyncio.timeout(seconds), engine.begin() as connection:
                await connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
                return await connection.run_sync(lambda sync: work(_config(sync), sync))
    finally:
        await engine.dispose()


def _config(connection: sa.Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
