"""What a stack is made of: the servers, and the settings by which Pemba's own processes find them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pemba.config import DevSettings
from pemba.dev.data_folder import DataFolder
from pemba.dev.pemba_process import Relay, Serve
from pemba.dev.ports import choose_ports
from pemba.dev.postgres import Postgres
from pemba.dev.process import Server
from pemba.dev.programs import SPICEDB, find_program
from pemba.dev.ready import Ready
from pemba.dev.spicedb import SpiceDB
from pemba.errors import ConfigError

DATABASE = "pemba"
OWNER = "pemba"
_GRPC, _HTTP = "--grpc-port", "--http-port"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Port 0 picks a free one; `ready_file` is written besides the one in the data folder.

    `before_ready` is called once the API answers, before the start ends; it may raise StartError.
    """

    settings: DevSettings
    grpc_port: int
    http_port: int
    ready_file: Path | None = None
    before_ready: Callable[[Ready], None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Nothing of it runs yet.  `postgres` or `spicedb` is None where the settings name one that runs already."""

    postgres: Postgres | None
    spicedb_postgres: Postgres | None
    spicedb: SpiceDB | None
    serve: Serve
    relay: Relay
    ready: Ready
    """All but the processes."""
    pemba: dict[str, str]
    """Settings (PEMBA_... to value) of every command of Pemba."""

    @property
    def servers(self) -> list[Server]:
        """In the order of their start."""
        every = (self.postgres, self.spicedb_postgres, self.spicedb, self.serve, self.relay)
        return [server for server in every if server is not None]


def compose(folder: DataFolder, options: Options, progress: Callable[[str], None]) -> Parts:
    """Put the parts together; builds SpiceDB where there is none.  Raises StartError, ConfigError."""
    settings = options.settings
    address = choose_ports({_GRPC: options.grpc_port, _HTTP: options.http_port, "relay": 0, "spicedb": 0})
    postgres = None if settings.database_url else _postgres(folder, "postgres")
    spicedb = None if settings.spicedb_endpoint else _spicedb(folder, settings, address["spicedb"], progress)
    ready = Ready(
        grpc=address[_GRPC],
        http=address[_HTTP],
        key=folder.secret("system_keys").read_text(),
        database_url=postgres.url(DATABASE, OWNER) if postgres else settings.database_url,
        spicedb_endpoint=spicedb.endpoint if spicedb else settings.spicedb_endpoint,
        spicedb_key=spicedb.key if spicedb else _key_of_running_spicedb(settings),
        pid={},
    )
    pemba = _settings(ready, spicedb_tls=settings.spicedb_tls and spicedb is None)
    serve = pemba | _serve_settings(folder, ready)
    relay = pemba | {"PEMBA_RELAY_HTTP_LISTEN": address["relay"]}
    return Parts(
        postgres=postgres,
        spicedb_postgres=spicedb.postgres if spicedb else None,
        spicedb=spicedb,
        serve=Serve("serve", serve, folder.log("serve")),
        relay=Relay("relay", relay, folder.log("relay")),
        ready=ready,
        pemba=pemba,
    )


def _postgres(folder: DataFolder, name: str) -> Postgres:
    return Postgres(folder.path / name, name=name, log=folder.log(name))


def _spicedb(folder: DataFolder, settings: DevSettings, endpoint: str, progress: Callable[[str], None]) -> SpiceDB:
    program = find_program(SPICEDB, settings.cache_folder, progress)
    key = folder.secret("spicedb_key").read_text()
    postgres = _postgres(folder, "spicedb_postgres")
    return SpiceDB(program, postgres, key, log=folder.log("spicedb"), endpoint=endpoint)


def _key_of_running_spicedb(settings: DevSettings) -> str:
    if not settings.spicedb_key:
        raise ConfigError("PEMBA_SPICEDB_ENDPOINT is set: PEMBA_SPICEDB_KEY (or PEMBA_SPICEDB_KEY_FILE) takes its key")
    return settings.spicedb_key


def _settings(ready: Ready, *, spicedb_tls: bool) -> dict[str, str]:
    """Secrets go by file or environment, never on a command line."""
    return {
        "PEMBA_DATABASE_URL": ready.database_url,
        "PEMBA_SPICEDB_ENDPOINT": ready.spicedb_endpoint,
        "PEMBA_SPICEDB_KEY": ready.spicedb_key,
        "PEMBA_SPICEDB_TLS": str(spicedb_tls).lower(),
    }


def _serve_settings(folder: DataFolder, ready: Ready) -> dict[str, str]:
    """An empty value counts as not set: ours hold, not those that happen to be in the environment."""
    return {
        "PEMBA_GRPC_LISTEN": ready.grpc,
        "PEMBA_HTTP_LISTEN": ready.http,
        "PEMBA_SYSTEM_KEYS": "",
        "PEMBA_SYSTEM_KEYS_FILE": str(folder.secret("system_keys")),
        "PEMBA_ROOT_SECRETS": "",
        "PEMBA_ROOT_SECRETS_FILE": str(folder.secret("root_secrets")),
        "PEMBA_REFLECTION": "true",
    }
