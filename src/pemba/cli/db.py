"""`pemba db`: migrations of the PostgreSQL database that PEMBA_DATABASE_URL names."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated

import typer

from pemba.cli.failure import CallFailed, ExitCode, Problem, reporting

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
