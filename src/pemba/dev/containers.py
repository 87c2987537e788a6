"""PostgreSQL and SpiceDB in containers, for tests where there is a container engine (PEMBA_TEST_STACK=docker)."""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

from pemba.dev.backends import PostgresAccess, SpiceDBAccess
from pemba.dev.health import is_serving
from pemba.dev.ports import HOST, choose_ports
from pemba.dev.postgres import psql
from pemba.dev.process import StartError
from pemba.dev.programs import SPICEDB

_POSTGRES_IMAGE = "postgres:18"
_SPICEDB_IMAGE = f"authzed/spicedb:v{SPICEDB.version}"
_START_SECONDS = 120.0
_POLL_SECONDS = 0.1
_OWNER = "CREATE ROLE pemba LOGIN NOSUPERUSER NOBYPASSRLS CREATEROLE PASSWORD :'password';"


_ASK_ENGINE = "from testcontainers.core.docker_client import DockerClient; DockerClient(timeout=5).client.ping()"


def why_no_engine() -> str | None:
    """Why containers cannot be run; None where they can.

    Asked by a process of its own: a client that finds no engine leaves its socket open.
    """
    asked = subprocess.run([sys.executable, "-c", _ASK_ENGINE], capture_output=True, check=False, text=True, timeout=60)
    if asked.returncode == 0:
        return None
    said = asked.stderr.strip().splitlines() or ["no reason given"]
    return f"PEMBA_TEST_STACK=docker, and no container engine answers: {said[-1]}"


@contextmanager
def postgres(log: Path) -> Iterator[PostgresAccess]:
    """A PostgreSQL, not synced to disk, and on it the role that owns Pemba's databases."""
    password = secrets.token_urlsafe(24)
    address = choose_ports({"postgres": 0})["postgres"]
    container = _postgres_container(password)
    _publish(container, 5432, address)
    with container:
        admin = f"postgresql://postgres:{password}@{address}/postgres"
        _wait_for("postgres", lambda: _answers(admin, log))
        psql(admin, _OWNER, log=log, variables={"password": password})
        yield PostgresAccess(admin, f"postgresql://pemba:{password}@{address}/postgres", log)


@contextmanager
def spicedb() -> Iterator[SpiceDBAccess]:
    """A SpiceDB on a PostgreSQL of its own."""
    password, key = secrets.token_urlsafe(24), secrets.token_urlsafe(32)
    environment = {
        "SPICEDB_GRPC_PRESHARED_KEY": key,
        "SPICEDB_DATASTORE_ENGINE": "postgres",
        "SPICEDB_DATASTORE_CONN_URI": f"postgres://postgres:{password}@datastore/postgres?sslmode=disable",
        "SPICEDB_SKIP_RELEASE_CHECK": "true",
        "SPICEDB_TELEMETRY_ENDPOINT": "",
    }
    endpoint = choose_ports({"spicedb": 0})["spicedb"]
    with Network() as network, _postgres_container(password).with_network(network).with_network_aliases("datastore"):
        _wait_for("spicedb datastore migrate", lambda: _migrate(network, environment))
        container = _spicedb_container("serve", network, environment)
        _publish(container, 50051, endpoint)
        with container:
            _wait_for("spicedb", lambda: is_serving(endpoint))
            yield SpiceDBAccess(endpoint, key)


def _postgres_container(password: str) -> DockerContainer:
    settings = ("track_commit_timestamp=on", "fsync=off", "max_connections=200")
    command = ["postgres", *(part for setting in settings for part in ("-c", setting))]
    return DockerContainer(_POSTGRES_IMAGE).with_env("POSTGRES_PASSWORD", password).with_command(command)


def _spicedb_container(command: str, network: Network, environment: Mapping[str, str]) -> DockerContainer:
    container = DockerContainer(_SPICEDB_IMAGE).with_network(network).with_command(command)
    return container.with_envs(**environment)


def _migrate(network: Network, environment: Mapping[str, str]) -> bool:
    with _spicedb_container("datastore migrate head", network, environment) as container:
        return bool(container.get_wrapped_container().wait(timeout=60)["StatusCode"] == 0)


def _publish(container: DockerContainer, port: int, address: str) -> None:
    """On the loopback interface alone, which `with_bind_ports` cannot say."""
    ports: dict[str, object] = {f"{port}/tcp": (HOST, int(address.rpartition(":")[2]))}
    container.ports.update(ports)  # type: ignore[arg-type]  # the engine's client takes a pair


def _answers(url: str, log: Path) -> bool:
    try:
        psql(url, "SELECT;", log=log)
    except StartError:
        return False
    return True


def _wait_for(name: str, done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not done():
        if time.monotonic() > deadline:
            raise StartError(f"the container of {name} was not ready after {_START_SECONDS:.0f} s")
        time.sleep(_POLL_SECONDS)
