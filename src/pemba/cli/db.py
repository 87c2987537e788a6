"""`pemba db`: migrations of the PostgreSQL database that PEMBA_DATABASE_URL names."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from pemba.cli.failure import CallFailed, ExitCode, Problem, reporting

if TYPE_CHECKING:
    from pemba.config import SchemaSettings

_READ_SECONDS = 10.0

app = typer.Typer(name="db", help="Migrate the PostgreSQL database, up and down.", no_args_is_help=True)


@app.command("upgrade")
def upgrade(revision: Annotated[str, typer.Argument(help="Migrate up to it; head is the newest.")] = "head") -> None:
    """Migrate up; doing so again changes nothing."""
    with _migrating() as url:
        from pemba.storage import migrate

        migrate.upgrade(url, revision)
        _print_current(url)


@app.command("downgrade")
def downgrade(
    revision: Annotated[str, typer.Argument(help="Migrate down to it; base empties the database.")],
) -> None:
    """Migrate down, which deletes what the later revisions hold."""
    with _migrating() as url:
        from pemba.storage import migrate

        migrate.downgrade(url, revision)
        _print_current(url)


@app.command("current")
def current() -> None:
    """Say which revision the database is at; exit code 1 where that is not the newest."""
    with _migrating() as url:
        from pemba.storage import migrate

        if _print_current(url) != migrate.head():
            raise typer.Exit(ExitCode.NO)


@app.command("forget-store")
def forget_store(
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this it only says whether it could.")] = False,
) -> None:
    """Begin anew with a SpiceDB that was emptied or replaced: forget what PostgreSQL remembers of the last one.

    For when the relay says store_lost or database_lost and what SpiceDB held is not coming back.  In order: empty
    SpiceDB, or name another one; `pemba schema apply`; this; `pemba reconcile --apply`, which fills it.  Checks are
    DENIED until that is done; nobody is allowed more than the records say at any time.
    """
    with reporting():
        from pemba.config import SchemaSettings, load

        settings = load(SchemaSettings)
        asyncio.run(_require_empty(settings))
        if not yes:
            print("SpiceDB has the schema and holds nothing: pemba db forget-store --yes begins anew with it")
            return
        from pemba.storage import lost_store

        asyncio.run(lost_store.forget(settings.database_url))
        print("forgotten; now fill it: pemba reconcile --apply")


async def _require_empty(settings: SchemaSettings) -> None:
    """Raises CallFailed where the store holds anything of Pemba's own types, Unavailable where it lacks the schema."""
    from pemba.projection import TYPES
    from pemba.spicedb.client import FullyConsistent, SpiceDB

    store = SpiceDB.connect(settings.spicedb_endpoint, settings.spicedb_key, tls=settings.spicedb_tls)
    try:
        for type_ in (*TYPES, "fence"):
            async for held in store.read_tuples(type_, FullyConsistent(), _READ_SECONDS):
                message = f"SpiceDB is not empty: it holds {held}; empty it, or name another one, and try again"
                raise CallFailed(Problem("FAILED_PRECONDITION", message))
    finally:
        await store.close()


def _print_current(url: str) -> str | None:
    from pemba.storage import migrate

    revision, head = migrate.current(url), migrate.head()
    newest = "the newest" if revision == head else f"the newest is {head}"
    print(f"{revision or 'nothing migrated yet'} ({newest})")
    return revision


@contextmanager
def _migrating() -> Generator[str]:
    with reporting():
        from alembic.util import CommandError

        from pemba.config import DatabaseSettings, load

        try:
            yield load(DatabaseSettings).database_url
        except CommandError as error:  # a revision that there is not
            raise CallFailed(Problem("INVALID_ARGUMENT", str(error))) from error
