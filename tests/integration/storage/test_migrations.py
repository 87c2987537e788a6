"""Migrations go up, down and up again, and make exactly the tables that the code knows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory
from asyncpg import Record
from sqlalchemy.ext.asyncio import create_async_engine

from pemba.dev.backends import PostgresAccess
from pemba.storage import migrate
from pemba.storage.tables import metadata

CATALOG = """
    SELECT 'column' AS kind, table_name || '.' || column_name AS name,
        concat_ws(' ', data_type, is_nullable, column_default, generation_expression, identity_generation) AS definition
    FROM information_schema.columns WHERE table_schema = 'public'
    UNION ALL
    SELECT 'constraint', conname, conrelid::regclass || ' ' || pg_get_constraintdef(oid)
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL
    SELECT 'trigger', tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL
    SELECT 'function', proname, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'options', relname, array_to_string(ARRAY(SELECT unnest(reloptions) ORDER BY 1), ',')
    FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
    ORDER BY 1, 2
"""


@pytest.fixture
def empty_database_url(postgres: PostgresAccess) -> Iterator[str]:
    name = postgres.create_database()
    yield postgres.url(name)
    postgres.drop_database(name)


async def catalog(url: str) -> list[Record]:
    connection = await asyncpg.connect(url)
    try:
        found = await connection.fetch(CATALOG)
    finally:
        await connection.close()
    return [tuple(r) for r in found if "alembic_version" not in f"{r['name']} {r['definition']}"]


async def create_from_definitions(url: str) -> None:
    engine = create_async_engine(sa.make_url(url).set(drivername="postgresql+asyncpg"))
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    await engine.dispose()


async def test_migrations_go_up_and_down_and_up_and_leave_nothing_behind(empty_database_url: str) -> None:
    url = empty_database_url
    assert await asyncio.to_thread(migrate.current, url) is None
    await asyncio.to_thread(migrate.upgrade, url)
    assert await asyncio.to_thread(migrate.current, url) == migrate.head()
    first = await catalog(url)
    await asyncio.to_thread(migrate.downgrade, url, "base")
    assert await asyncio.to_thread(migrate.current, url) is None
    assert await catalog(url) == []
    await asyncio.to_thread(migrate.upgrade, url)
    assert await catalog(url) == first


async def test_a_migrated_database_is_what_the_table_definitions_say(
    empty_database_url: str, database_url: str
) -> None:
    await create_from_definitions(empty_database_url)
    assert await catalog(database_url) == await catalog(empty_database_url)


async def test_two_migrations_at_the_same_moment_run_one_after_the_other(empty_database_url: str) -> None:
    url = empty_database_url
    await asyncio.gather(*(asyncio.to_thread(migrate.upgrade, url) for _ in range(3)))
    assert await asyncio.to_thread(migrate.current, url) == migrate.head()


def test_a_revision_is_behind_where_this_build_knows_a_later_one() -> None:
    """Whatever their numbers: what it does not know at all is a newer build's, beside which it may run."""
    found = ScriptDirectory(str(Path(migrate.__file__).parent / "migrations")).walk_revisions()
    known = [script.revision for script in found]
    assert known[0] == migrate.head()
    assert [migrate.is_behind(revision) for revision in known] == [False, *[True] * (len(known) - 1)]
    assert migrate.is_behind(None)
    assert not migrate.is_behind("9999")
