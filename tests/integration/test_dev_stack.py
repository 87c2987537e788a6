"""The embedded servers: started, stopped, killed, started again on the same data."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from pemba.dev.backends import PostgresAccess
from pemba.dev.health import is_serving
from pemba.dev.postgres import Postgres
from pemba.dev.process import StartError
from pemba.dev.spicedb import SpiceDB


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Postgres]:
    server = Postgres(tmp_path / "postgres", durable=False)
    yield server
    server.stop()


async def value(url: str, query: str) -> object:
    connection = await asyncpg.connect(url, timeout=5)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_postgres_listens_on_a_private_socket_alone(server: Postgres) -> None:
    server.start()

    assert await value(server.url(), "SHOW listen_addresses") == ""
    assert await value(server.url(), "SHOW track_commit_timestamp") == "on"
    assert await value(server.url(), "SHOW server_encoding") == "UTF8"
    assert server.socket_folder.stat().st_mode & 0o077 == 0
    assert psutil.Process(server.pid).net_connections("inet") == []


async def test_the_login_owns_its_database_and_can_create_roles_and_is_not_above_row_level_security(
    server: Postgres,
) -> None:
    server.start()
    server.ensure_database("pemba", "pemba")
    url = server.ensure_database("pemba", "pemba")

    attributes = await value(url, "SELECT (rolsuper, rolbypassrls, rolcreaterole) FROM pg_roles WHERE rolname = user")
    assert attributes == (False, False, True)
    assert await value(url, "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'pemba'") == "pemba"


@pytest.mark.parametrize("end", [Postgres.stop, Postgres.kill])
async def test_postgres_keeps_what_was_committed_when_it_ends_and_starts_again(
    server: Postgres, end: Callable[[Postgres], None]
) -> None:
    server.start()
    url = server.ensure_database("pemba", "pemba")
    await value(url, "CREATE TABLE kept AS SELECT 42 AS number")

    end(server)
    assert server.pid is None
    server.start()

    assert await value(url, "SELECT number FROM kept") == 42


async def test_backends_that_outlive_a_killed_postmaster_do_not_stop_the_next_start(server: Postgres) -> None:
    server.start()
    connection = await asyncpg.connect(server.url(), timeout=5)
    busy = asyncio.ensure_future(connection.execute("SELECT pg_sleep(60)"))
    assert server.pid is not None
    postmaster = psutil.Process(server.pid)
    os.kill(await value(server.url(), "SELECT pid FROM pg_stat_activity WHERE query LIKE '%sleep(60)' LIMIT 1"), 19)
    postmaster.kill()
    postmaster.wait(10)

    server.start()

    assert await value(server.url(), "SELECT 1") == 1
    with pytest.raises((asyncpg.PostgresError, OSError)):
        await busy
    connection.terminate()


def test_a_process_file_that_names_a_stranger_does_not_stop_the_start(server: Postgres) -> None:
    server.start()
    server.stop()
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    (server.data / "postmaster.pid").write_text(f"{stranger.pid}\n{server.data}\n")

    server.start()

    assert server.pid is not None
    assert stranger.poll() is None
    stranger.communicate()


def test_an_initdb_that_was_cut_short_is_done_again(server: Postgres) -> None:
    server.data.with_name("data.new").mkdir(parents=True)
    (server.data.with_name("data.new") / "PG_VERSION").write_text("18")

    server.start()

    assert server.pid is not None


def test_a_failed_start_shows_the_end_of_the_log_and_leaves_no_process(server: Postgres) -> None:
    server.start()
    server.stop()
    (server.data / "PG_VERSION").write_text("11\n")

    with pytest.raises(StartError, match="was initialized by PostgreSQL version 11"):
        server.start()
    assert server.pid is None


def test_a_folder_with_a_long_path_gets_its_socket_elsewhere(tmp_path: Path) -> None:
    server = Postgres(tmp_path / ("long" * 20) / "postgres", durable=False)
    server.start()
    try:
        assert not server.socket_folder.is_relative_to(tmp_path)
        assert server.socket_folder.stat().st_mode & 0o077 == 0
    finally:
        server.stop()
    assert not server.socket_folder.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to make way for another user")
def test_under_root_postgres_runs_as_another_user_who_may_pass_through_the_folders_above(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    server = Postgres(home / "postgres", durable=False)
    server.start()
    try:
        assert psutil.Process(server.pid).username() == "embedded_postgres"
        assert home.stat().st_mode & 0o777 == 0o701
        assert server.root.stat().st_mode & 0o777 == 0o700
    finally:
        server.stop()


async def test_databases_of_tests_are_copies_of_a_migrated_template(
    postgres: PostgresAccess, database_url: str
) -> None:
    assert await value(database_url, "SELECT count(*) FROM installation") == 1


def test_spicedb_stops_and_starts_on_the_same_address(own_spicedb: Callable[[], SpiceDB]) -> None:
    server = own_spicedb()
    endpoint = server.endpoint

    for end in (server.stop, server.kill):
        end()
        assert not is_serving(endpoint, seconds=0.1)
        server.start()
        assert server.endpoint == endpoint
        assert is_serving(endpoint)


def test_the_preshared_key_stands_on_no_command_line(own_spicedb: Callable[[], SpiceDB]) -> None:
    server = own_spicedb()

    assert server.key not in " ".join(psutil.Process(server.pid).cmdline())


def test_servers_end_when_the_process_that_started_them_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from pemba.dev.postgres import Postgres;"
        "server = Postgres(Path(sys.argv[1]), durable=False); server.start();"
        "print(server.pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "postgres")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    server = psutil.Process(int(parent.stdout.readline()))

    parent.send_signal(signal.SIGKILL)
    parent.communicate()

    gone, alive = psutil.wait_procs([server], timeout=20)
    assert (gone, alive) == ([server], [])
