"""SpiceDB as a child process, on a database of an embedded PostgreSQL."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from pemba.dev.health import is_serving
from pemba.dev.ports import choose_ports
from pemba.dev.postgres import Postgres
from pemba.dev.process import Server, run

_QUIET = ("--skip-release-check=true", "--log-format=json")


class SpiceDB(Server):
    """A server at `endpoint` (127.0.0.1:port) with preshared key `key`; a start migrates its database first.

    `postgres` has to run whenever this one is started, and is the caller's to start and stop.
    """

    def __init__(
        self, program: Path, postgres: Postgres, key: str, *, log: Path, endpoint: str = "", database: str = "spicedb"
    ) -> None:
        super().__init__("spicedb", log)
        self.program = program
        self.postgres = postgres
        self.key = key
        self.database = database
        self.endpoint = endpoint or choose_ports({"spicedb": 0})["spicedb"]

    def environment(self) -> dict[str, str]:
        """With what must not stand on the command line, which every user of the machine can read."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SPICEDB_")}
        folder = quote(str(self.postgres.socket_folder))
        return {
            **inherited,
            "SPICEDB_GRPC_PRESHARED_KEY": self.key,
            "SPICEDB_DATASTORE_CONN_URI": f"postgres://postgres@/{self.database}?host={folder}&sslmode=disable",
        }

    def command(self) -> list[str]:
        return [
            str(self.program), "serve", *_QUIET, "--telemetry-endpoint=",
            f"--grpc-addr={self.endpoint}", "--http-enabled=false", "--metrics-enabled=false",
            "--dispatch-cluster-enabled=false", "--grpc-shutdown-grace-period=2s",
            "--datastore-engine=postgres",
            "--datastore-conn-pool-read-max-open=20", "--datastore-conn-pool-read-min-open=2",
            "--datastore-conn-pool-write-max-open=20", "--datastore-conn-pool-write-min-open=2",
        ]  # fmt: skip

    def prepare(self) -> None:
        self.postgres.ensure_database(self.database)
        command = [str(self.program), "datastore", "migrate", "head", *_QUIET, "--datastore-engine=postgres"]
        run("spicedb datastore migrate", command, log=self.log, environment=self.environment())

    def is_ready(self) -> bool:
        return is_serving(self.endpoint)
