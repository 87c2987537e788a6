"""Typed settings: the only reader of the environment.

Every setting is `PEMBA_` and its name here in capitals; one that is a secret can also come from a file, named by
`..._FILE`.  Wrong settings raise `ConfigError`, which names the variable and what it takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from pemba.errors import ConfigError

MIN_KEY_BYTES = 32
DEFAULT_GRPC_PORT = 50551
DEFAULT_HTTP_PORT = 50552

_SECRET_FIELDS = ("system_keys", "root_secrets", "spicedb_key", "key")


def _read_secret_files(values: dict[str, Any]) -> dict[str, Any]:
    """A secret that is not set comes from the file that its `_file` twin names."""
    for name in _SECRET_FIELDS:
        path = values.get(f"{name}_file")
        if path and not values.get(name):
            try:
                values[name] = Path(str(path)).read_text().strip()
            except OSError as error:
                raise ConfigError(f"PEMBA_{name.upper()}_FILE: cannot read {path}: {error.strerror}") from error
    return values


def _lines(value: object) -> object:
    """Several secrets: one a line, or separated by commas; # starts a comment line."""
    if not isinstance(value, str):
        return value
    parts = [part.strip() for part in value.replace(",", "\n").splitlines()]
    return tuple(part for part in parts if part and not part.startswith("#"))


class _Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="PEMBA_", env_ignore_empty=True, frozen=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _secrets_from_files(cls, values: dict[str, Any]) -> dict[str, Any]:
        return _read_secret_files(values)


class DatabaseSettings(_Settings):
    """What every process needs that reaches PostgreSQL."""

    database_url: str = Field(description="PostgreSQL, as postgresql://user:password@host:port/name")
    database_pool_size: int = Field(10, ge=1, le=200, description="connections of each pool")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"

    @field_validator("database_url")
    @classmethod
    def _is_postgresql(cls, value: str) -> str:
        if urlsplit(value).scheme not in ("postgresql", "postgres"):
            raise ValueError("takes a URL such as postgresql://user:password@host:5432/pemba")
        return value


class SpiceDBSettings(_Settings):
    """What every process needs that reaches SpiceDB."""

    spicedb_endpoint: str = Field(description="SpiceDB's gRPC address, host:port")
    spicedb_key: str = Field(description="SpiceDB's preshared key")
    spicedb_key_file: Path | None = None
    spicedb_tls: bool = Field(False, description="whether SpiceDB is reached by TLS")

    @field_validator("spicedb_endpoint")
    @classmethod
    def _is_address(cls, value: str) -> str:
        return _address(value)


class ServeSettings(DatabaseSettings, SpiceDBSettings):
    """`pemba serve`."""

    grpc_listen: str = Field(f"127.0.0.1:{DEFAULT_GRPC_PORT}", description="host:port of the API")
    http_listen: str = Field(f"127.0.0.1:{DEFAULT_HTTP_PORT}", description="host:port of health and metrics")
    system_keys: Annotated[tuple[str, ...], NoDecode] = Field((), description="system keys, one a line")
    system_keys_file: Path | None = None
    root_secrets: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="secrets that sign tokens, one a line: the first signs, all verify"
    )
    root_secrets_file: Path | None = None
    reflection: bool = Field(False, description="whether gRPC reflection is on")
    max_message_bytes: int = Field(4 * 1024 * 1024, ge=64 * 1024, le=64 * 1024 * 1024)
    max_concurrent_rpcs: int = Field(1000, ge=1, description="beyond it calls get RESOURCE_EXHAUSTED at once")
    max_token_waiters: int = Field(1000, ge=1, description="checks that may wait for a token at one time")
    drain_seconds: float = Field(10.0, ge=0, le=600, description="how long a stop waits for calls under way")

    @field_validator("grpc_listen", "http_listen")
    @classmethod
    def _is_address_to_bind(cls, value: str) -> str:
        return _address(value)

    @field_validator("system_keys", "root_secrets", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return _lines(value)

    @model_validator(mode="after")
    def _has_secrets(self) -> Self:
        for name, secrets in (("system_keys", self.system_keys), ("root_secrets", self.root_secrets)):
            variable = f"PEMBA_{name.upper()}"
            if not secrets:
                raise ConfigError(f"{variable} or {variable}_FILE: takes at least one secret, one a line")
            if any(len(secret.encode()) < MIN_KEY_BYTES for secret in secrets):
                raise ConfigError(f"{variable}: every secret takes at least {MIN_KEY_BYTES} bytes")
        return self


class RelaySettings(DatabaseSettings, SpiceDBSettings):
    """`pemba relay`."""

    relay_http_listen: str = Field("", description="host:port of the relay's health and metrics; empty: none")
    relay_poll_min_seconds: float = Field(0.05, gt=0, le=10, description="poll interval while there is work")
    relay_poll_max_seconds: float = Field(1.0, gt=0, le=60, description="poll interval while there is none")
    relay_retention_days: float = Field(7.0, gt=0, description="how long delivered outbox rows are kept")
    relay_rpc_seconds: float = Field(10.0, gt=0, le=120, description="deadline of one write to SpiceDB")


class SchemaSettings(DatabaseSettings, SpiceDBSettings):
    """`pemba schema`."""


class ClientSettings(_Settings):
    """The commands that call a running Pemba; `pemba dev` leaves both where they are found without being set."""

    endpoint: str = Field("", description="host:port of the API")
    key: str = Field("", description="an API key")
    key_file: Path | None = None
    tenant: str = Field("", description="the tenant, by id or slug, of commands that name none")


class DevSettings(_Settings):
    """`pemba dev` and the test fixtures: each server that is named here is used instead of an embedded one."""

    database_url: str = ""
    spicedb_endpoint: str = ""
    spicedb_key: str = ""
    spicedb_key_file: Path | None = None
    spicedb_tls: bool = False
    data_dir: Path | None = Field(None, description="where the embedded servers keep their data")
    cache_dir: Path | None = Field(None, description="where a built spicedb is kept")
    test_stack: Literal["embedded", "docker"] = "embedded"
    xdg_data_home: Path | None = Field(None, validation_alias="XDG_DATA_HOME")
    xdg_cache_home: Path | None = Field(None, validation_alias="XDG_CACHE_HOME")

    @property
    def data_folder(self) -> Path:
        """`data_dir`, else what the XDG base directory specification says."""
        return self.data_dir or (self.xdg_data_home or Path.home() / ".local" / "share") / "pemba" / "dev"

    @property
    def cache_folder(self) -> Path:
        """`cache_dir`, else what the XDG base directory specification says."""
        return self.cache_dir or (self.xdg_cache_home or Path.home() / ".cache") / "pemba"


S = TypeVar("S", bound=_Settings)


def load(kind: type[S], overrides: Mapping[str, object] | None = None) -> S:
    """Settings from the environment; `overrides` (flags of a command) win.  Raises ConfigError."""
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    try:
        return kind(**given)
    except ValidationError as error:
        raise ConfigError("\n".join(_complaint(dict(item)) for item in error.errors())) from error


def _complaint(item: dict[str, Any]) -> str:
    variable = "PEMBA_" + "_".join(str(part) for part in item["loc"]).upper()
    if item["type"] == "missing":
        return f"{variable} is not set"
    return f"{variable}: {item['msg'].removeprefix('Value error, ')}"


def _address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ValueError("takes host:port")
    return value
