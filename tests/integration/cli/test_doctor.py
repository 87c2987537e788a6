"""`pemba doctor` on real servers, well and not."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest

from pemba.cli.failure import ExitCode
from pemba.dev.backends import PostgresAccess

Findings = dict[str, dict[str, str]]


@pytest.fixture
def examine(tmp_path) -> Callable[..., Any]:
    """Run `pemba doctor` with these settings and no others; (its exit code, findings by subject)."""

    async def run(**settings: str) -> tuple[int, Findings]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PEMBA_", "XDG_"))}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pemba", "doctor", "--output", "json"),
            env={**inherited, "HOME": str(tmp_path), **settings},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
        assert err == b""
        return process.returncode or 0, {each["subject"]: each for each in json.loads(out)["findings"]}

    return run


async def test_a_migrated_database_and_a_store_with_the_schema_are_well(examine, database_url, spicedb):
    code, findings = await examine(
        PEMBA_DATABASE_URL=database_url, PEMBA_SPICEDB_ENDPOINT=spicedb.endpoint, PEMBA_SPICEDB_KEY=spicedb.key
    )
    assert {subject: finding["level"] for subject, finding in findings.items()} == {
        "settings": "ok",
        "API": "failure",  # none is named
        "PostgreSQL": "ok",
        "relay": "ok",
        "SpiceDB": "ok",
    }
    assert code == ExitCode.NO


async def test_changes_that_no_relay_delivers_are_counted(examine, parts, database_url):
    await parts.tenant()
    _, findings = await examine(PEMBA_DATABASE_URL=database_url)
    assert findings["relay"]["message"].startswith("not delivered yet: 1 (tenants: 1)")


async def test_a_database_that_is_not_migrated_is_told_what_to_run(examine, postgres: PostgresAccess):
    name = await asyncio.to_thread(postgres.create_database)
    try:
        _, findings = await examine(PEMBA_DATABASE_URL=postgres.url(name))
    finally:
        await asyncio.to_thread(postgres.drop_database, name)
    assert findings["PostgreSQL"]["level"] == "failure"
    assert "pemba db upgrade" in findings["PostgreSQL"]["to_do"]
    assert "relay" not in findings


async def test_a_database_that_there_is_not_is_named(examine, postgres: PostgresAccess):
    _, findings = await examine(PEMBA_DATABASE_URL=postgres.url("nowhere"))
    assert findings["PostgreSQL"]["level"] == "failure"
    assert '"nowhere" does not exist' in findings["PostgreSQL"]["message"]


async def test_servers_that_are_away_are_failures(examine):
    _, findings = await examine(
        PEMBA_DATABASE_URL="postgresql://pemba@127.0.0.1:1/pemba",
        PEMBA_SPICEDB_ENDPOINT="127.0.0.1:1",
        PEMBA_SPICEDB_KEY="k" * 32,
    )
    assert findings["PostgreSQL"]["message"] == "PostgreSQL cannot be reached"
    assert findings["SpiceDB"]["message"] == "SpiceDB cannot be reached"


async def test_a_key_that_spicedb_refuses_is_a_failure_and_not_shown(examine, spicedb):
    _, findings = await examine(PEMBA_SPICEDB_ENDPOINT=spicedb.endpoint, PEMBA_SPICEDB_KEY="w" * 32)
    assert findings["SpiceDB"]["level"] == "failure"
    assert "PEMBA_SPICEDB_KEY" in findings["SpiceDB"]["to_do"]
    assert "w" * 32 not in str(findings)


async def test_a_store_without_the_schema_is_told_what_to_run(examine, bare_spicedb):
    _, findings = await examine(PEMBA_SPICEDB_ENDPOINT=bare_spicedb.endpoint, PEMBA_SPICEDB_KEY=bare_spicedb.key)
    assert findings["SpiceDB"]["level"] == "failure"
    assert "pemba schema apply" in findings["SpiceDB"]["to_do"]
