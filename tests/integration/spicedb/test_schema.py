"""The life of the schema: compare, apply, the start-up check; with the versions kept in PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from pemba.errors import PreconditionFailed, Reason, Unavailable
from pemba.spicedb import schema, schema_apply
from pemba.spicedb.client import SpiceDB
from pemba.spicedb.schema_gate import SchemaGate
from pemba.storage.schema_versions import SchemaVersions

TEXT = schema.schema_text()
ROSTERS = "workspace#roster | workspace#roster with expiration"


@pytest.fixture
async def ledger(database_url: str) -> AsyncIterator[SchemaVersions]:
    async with SchemaVersions.connect(database_url) as ledger:
        yield ledger


async def number(database_url: str) -> int:
    connection = await asyncpg.connect(database_url)
    try:
        return await connection.fetchval("SELECT schema_number FROM installation")
    finally:
        await connection.close()


async def test_an_empty_spicedb_lacks_everything_and_gets_it_and_a_second_apply_changes_nothing(
    bare_client: SpiceDB, ledger: SchemaVersions, database_url: str
) -> None:
    assert "workspace" in {change.name for change in await schema.missing(bare_client)}
    first = await schema_apply.apply(bare_client, ledger, TEXT)
    assert first.written
    assert await schema.missing(bare_client) == []
    assert await schema.changes(bare_client, TEXT) == []
    remembered = await ledger.applied()
    assert remembered is not None
    assert (remembered.digest, remembered.text) == (schema.digest(TEXT), TEXT)
    assert await number(database_url) == 2
    assert not (await schema_apply.apply(bare_client, ledger, TEXT)).written
    assert await number(database_url) == 2


async def test_another_apply_at_the_same_moment_is_refused(
    bare_client: SpiceDB, ledger: SchemaVersions, database_url: str
) -> None:
    async with SchemaVersions.connect(database_url) as other, other.locked():
        with pytest.raises(PreconditionFailed, match="under way"):
            await schema_apply.apply(bare_client, ledger, TEXT)
    await schema_apply.apply(bare_client, ledger, TEXT)


async def test_an_apply_that_died_between_its_steps_is_healed_by_the_next(
    bare_client: SpiceDB, ledger: SchemaVersions, database_url: str
) -> None:
    async with SchemaVersions.connect(database_url) as dying:
        await dying.begin("digest", TEXT)
    assert await number(database_url) == 1  # odd: an apply is under way
    await schema.write(bare_client, TEXT)
    assert (await schema_apply.apply(bare_client, ledger, TEXT)).written
    assert await number(database_url) == 4
    assert not (await schema_apply.apply(bare_client, ledger, TEXT)).written


async def test_a_definition_that_this_build_does_not_know_is_not_dropped(
    bare_client: SpiceDB, ledger: SchemaVersions, database_url: str
) -> None:
    newer = TEXT + "\ndefinition document {}\n"
    await schema.write(bare_client, newer)
    with pytest.raises(PreconditionFailed, match="document"):
        await schema_apply.apply(bare_client, ledger, TEXT)
    assert await schema.missing(bare_client) == []  # an older build runs on beside a newer one
    assert await number(database_url) == 0


async def test_an_apply_whose_outcome_nobody_knows_is_settled_by_the_next_of_the_text_in_force(
    bare_client: SpiceDB, ledger: SchemaVersions, database_url: str
) -> None:
    await schema_apply.apply(bare_client, ledger, TEXT)
    await ledger.begin("another digest", TEXT + "\ndefinition document {}\n")  # and its write never landed
    assert await number(database_url) == 3
    assert (await schema_apply.apply(bare_client, ledger, TEXT)).written
    assert await number(database_url) == 6


async def test_what_an_older_build_does_not_know_it_does_not_remove(
    bare_client: SpiceDB, ledger: SchemaVersions, database_url: str
) -> None:
    """Rows that are not delivered yet may name it."""
    await schema_apply.apply(bare_client, ledger, TEXT)
    older = {
        "workspace#viewer: user": TEXT.replace("relation viewer: user |", "relation viewer:"),
        "workspace#shared_viewer": TEXT.replace(f"relation shared_viewer: {ROSTERS}", "").replace(
            "viewer + shared_viewer + parent", "viewer + parent"
        ),
    }
    for lost, text in older.items():
        assert text != TEXT
        with pytest.raises(PreconditionFailed, match=lost) as refused:
            await schema_apply.apply(bare_client, ledger, text)
        assert refused.value.reason is Reason.SCHEMA_MISMATCH
    assert await number(database_url) == 2


async def test_the_gate_is_closed_until_the_schema_is_there_and_an_outage_does_not_close_it(
    bare_client: SpiceDB, bare_spicedb, ledger: SchemaVersions
) -> None:
    gate = SchemaGate(bare_client)
    with pytest.raises(Unavailable):
        gate.raise_if_not_ready()
    assert not await gate.check_once()
    with pytest.raises(Unavailable, match="pemba schema apply") as closed:
        gate.raise_if_not_ready()
    assert closed.value.reason is Reason.SCHEMA_MISMATCH
    assert "workspace" in closed.value.message
    await schema_apply.apply(bare_client, ledger, TEXT)
    assert await gate.check_once()
    gate.raise_if_not_ready()
    await asyncio.to_thread(bare_spicedb.stop)
    assert await gate.check_once()
    gate.raise_if_not_ready()
    late = SchemaGate(bare_client)
    assert not await late.check_once()
    with pytest.raises(Unavailable, match="waiting for SpiceDB") as waiting:
        late.raise_if_not_ready()
    assert waiting.value.reason is Reason.SPICEDB_UNAVAILABLE
