"""Typed settings: the only reader of the environment.

Every setting is `PEMBA_` and its name here in capitals; one that is a secret can also come from a file, named by
`..._FILE`.  PEMBA_SETTINGS_FILE names a file with settings, a `PEMBA_NAME=value` a line; the environment wins over it.
Wrong settings raise `ConfigError`, which names the variable and what it takes.

docs/settings.md is generated from here (`make docs`): a class is a section, headed by its docstring's first line; a
field's description is the text, and where the default is worked out, `shown` says what the table shows for it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from pemba.errors import ConfigError
from pemba.model import MAX_NAME_CHARACTERS, RESERVED_SLUGS, SLUG_RULE, is_slug, is_user_id

MIN_KEY_BYTES = 32
DEFAULT_GRPC_PORT = 50551
DEFAULT_HTTP_PORT = 50552

SETTINGS_FILE = "PEMBA_SETTINGS_FILE"
_SECRET_FIELDS = ("system_keys", "root_secrets", "spicedb_key", "key")
_SECRET_FILES = {f"{name}_file" for name in _SECRET_FIELDS}


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


def _shown(default: str) -> dict[str, Any]:
    return {"shown": default}


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="PEMBA_", env_ignore_empty=True, frozen=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _secrets_from_files(cls, values: dict[str, Any]) -> dict[str, Any]:
        return _read_secret_files(values)


class DatabaseSettings(Settings):
    """PostgreSQL: `serve`, `relay`, `db`, `schema`, `outbox`, `doctor`"""

    database_url: str = Field(description="`postgresql://user:password@host:port/name`; the user owns the tables")
    database_pool_size: int = Field(10, ge=1, le=200, description="connections of each pool, 1 to 200")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="debug, info, warning or error")
    log_format: Literal["json", "console"] = Field("json", description="json, or console for people")

    @field_validator("database_url")
    @classmethod
    def _is_postgresql(cls, value: str) -> str:
        if urlsplit(value).scheme not in ("postgresql", "postgres"):
            raise ValueError("takes a URL such as postgresql://user:password@host:5432/pemba")
        return value


class SpiceDBSettings(Settings):
    """SpiceDB: `serve`, `relay`, `schema`, `doctor`"""

    spicedb_endpoint: str = Field(description="its gRPC address, host:port")
    spicedb_key: str = Field(description="its preshared key")
    spicedb_key_file: Path | None = None
    spicedb_tls: bool = Field(False, description="whether it is reached by TLS")

    @field_validator("spicedb_endpoint")
    @classmethod
    def _is_address(cls, value: str) -> str:
        return _address(value)


class ServeSettings(DatabaseSettings, SpiceDBSettings):
    """`pemba serve`"""

    grpc_listen: str = Field(
        f"127.0.0.1:{DEFAULT_GRPC_PORT}", description="host:port of the API; port 0 takes a free one"
    )
    http_listen: str = Field(
        f"127.0.0.1:{DEFAULT_HTTP_PORT}", description="host:port of `/livez`, `/readyz` and `/metrics`"
    )
    system_keys: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="keys with every scope, one a line (or separated by commas), 32 bytes at least; several are valid"
        " at once",
    )
    system_keys_file: Path | None = None
    root_secrets: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="secrets that sign tokens and encrypt secret settings, one a line, 32 bytes at least: the first"
        " signs and encrypts, all verify and decrypt",
    )
    root_secrets_file: Path | None = None
    jwt_issuers_file: Path | None = Field(
        None,
        description="JSON file with the issuers whose JWTs let users in (docs/operating.md)",
        json_schema_extra=_shown("none"),
    )
    reflection: bool = Field(False, description="whether gRPC reflection is on")
    max_message_bytes: int = Field(
        4 * 1024 * 1024,
        ge=64 * 1024,
        le=64 * 1024 * 1024,
        description="largest request and response, 64 KiB to 64 MiB",
    )
    max_concurrent_rpcs: int = Field(1000, ge=1, description="beyond it calls get RESOURCE_EXHAUSTED at once")
    caller_calls_per_second: float = Field(
        0,
        ge=0,
        description="of one key, a batch counting as what it holds, with two seconds' worth at once; 0: no limit",
    )
    tenant_calls_per_second: float = Field(0, ge=0, description="of one tenant, in the same way; 0: no limit")
    peer_strangers_per_second: float = Field(
        10, ge=0, description="unknown keys from one address, beyond which no other is looked up for it; 0: no limit"
    )
    grpc_tls_cert_file: Path | None = Field(
        None,
        description="PEM file with the certificates of the API, read again when it changes",
        json_schema_extra=_shown("plaintext"),
    )
    grpc_tls_key_file: Path | None = Field(
        None, description="PEM file with their key", json_schema_extra=_shown("none")
    )
    grpc_tls_client_ca_file: Path | None = Field(
        None,
        description="PEM file with who signs callers' certificates; callers then have to show one",
        json_schema_extra=_shown("none"),
    )
    database_read_url: str = Field(
        "",
        description="where records are read for answers, a hot standby for instance: see docs/operating.md",
        json_schema_extra=_shown("`PEMBA_DATABASE_URL`, by connections of their own"),
    )
    max_token_waiters: int = Field(1000, ge=1, description="checks that may wait for a token at one time")
    max_cached_decisions: int = Field(
        200_000, ge=0, le=100_000_000, description="decisions kept, about 250 bytes each; 0 keeps none"
    )
    decision_max_age_seconds: float = Field(
        300.0,
        ge=0,
        le=86400,
        description="the longest that a decision is kept; it goes sooner where its tenant changes",
    )
    outage_seconds: float = Field(
        60.0,
        ge=0,
        le=86400,
        description="how long checks go on from what is known while PostgreSQL is away (1 at least)",
    )
    invitation_base_url: str = Field(
        "",
        description="where an application takes invitations: a URL, to which their secret is added as `token`",
        json_schema_extra=_shown("none"),
    )
    invitation_days: float = Field(7.0, gt=0, le=30, description="how long invitations are good, 30 at most")
    max_users_per_tenant: int = Field(
        0, ge=0, description="users who may have roles in one tenant, suspended ones included; 0: no limit"
    )
    bootstrap_tenant: str = Field(
        "", description="the slug of a tenant that `serve` makes before it is ready, where there is none such"
    )
    bootstrap_tenant_name: str = Field("", description="its name", json_schema_extra=_shown("its slug"))
    bootstrap_admin: str = Field("", description="the user id of its first admin, which `PEMBA_BOOTSTRAP_TENANT` takes")
    max_watches: int = Field(
        500, ge=1, description="watches at one time, each a call of `max_concurrent_rpcs`; one caller takes a fifth"
    )
    drain_seconds: float = Field(10.0, ge=0, le=600, description="how long a stop waits for calls under way")

    @field_validator("database_read_url")
    @classmethod
    def _is_postgresql_as_well(cls, value: str) -> str:
        return cls._is_postgresql(value) if value else value

    @field_validator("grpc_listen", "http_listen")
    @classmethod
    def _is_address_to_bind(cls, value: str) -> str:
        return _address(value)

    @field_validator("invitation_base_url")
    @classmethod
    def _is_base_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme not in ("https", "http") or not parts.hostname or parts.fragment):
            raise ValueError("takes a URL such as https://app.example.test/invitations")
        return value

    @field_validator("bootstrap_tenant")
    @classmethod
    def _is_new_slug(cls, value: str) -> str:
        if value in RESERVED_SLUGS:
            raise ValueError(f"{value} is a reserved word")
        if value and not is_slug(value):
            raise ValueError(SLUG_RULE)
        return value

    @field_validator("bootstrap_tenant_name")
    @classmethod
    def _is_name(cls, value: str) -> str:
        if len(value) > MAX_NAME_CHARACTERS or not value.isprintable() or value != value.strip():
            raise ValueError(f"takes 1 to {MAX_NAME_CHARACTERS} printable characters, no blank at either end")
        return value

    @model_validator(mode="after")
    def _has_admin(self) -> Self:
        if self.bootstrap_tenant and not is_user_id(self.bootstrap_admin):
            raise ConfigError("PEMBA_BOOTSTRAP_ADMIN: PEMBA_BOOTSTRAP_TENANT takes a user id here, its first admin's")
        return self

    @field_validator("system_keys", "root_secrets", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return _lines(value)

    @model_validator(mode="after")
    def _has_whole_tls(self) -> Self:
        if (self.grpc_tls_cert_file is None) != (self.grpc_tls_key_file is None):
            raise ConfigError("PEMBA_GRPC_TLS_CERT_FILE and PEMBA_GRPC_TLS_KEY_FILE: take both or neither")
        if self.grpc_tls_client_ca_file is not None and self.grpc_tls_cert_file is None:
            raise ConfigError("PEMBA_GRPC_TLS_CLIENT_CA_FILE: takes PEMBA_GRPC_TLS_CERT_FILE as well")
        return self

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
    """`pemba relay`"""

    relay_http_listen: str = Field(
        "", description="host:port of `/livez`, `/readyz` and `/metrics`", json_schema_extra=_shown("none")
    )
    relay_poll_min_seconds: float = Field(
        0.05, gt=0, le=10, description="how often it looks for changes while there are some"
    )
    relay_poll_max_seconds: float = Field(
        1.0,
        gt=0,
        le=60,
        description="how often it looks while there are none (a notification wakes it sooner)",
    )
    relay_retention_days: float = Field(7.0, gt=0, description="how long delivered changes stay in the outbox")
    relay_audit_days: float = Field(
        400.0,
        ge=0,
        le=36500,
        description="how long the audit is kept, from which watches go on too; 0: for ever",
    )
    relay_reconcile_hours: float = Field(
        24.0, ge=0, le=8760, description="how often all of SpiceDB is compared with the records; 0: never"
    )
    relay_reconcile_apply: bool = Field(
        False, description="whether what that finds is repaired as well (by `pemba reconcile --apply`'s default budget)"
    )
    relay_rpc_seconds: float = Field(10.0, gt=0, le=120, description="deadline of one write to SpiceDB")
    relay_one_write_at_a_time: bool = Field(
        False,
        description="for SpiceDB's memory datastore, which up to 1.56 can lose one of two writes that it acknowledges; "
        "with a single relay",
    )
    relay_lease_seconds: float = Field(
        15.0, ge=2, le=300, description="how long others wait before they take over from a relay that fell silent"
    )


class SchemaSettings(DatabaseSettings, SpiceDBSettings):
    """`pemba schema`"""


class ClientSettings(Settings):
    """Commands that call a running Pemba"""

    endpoint: str = Field(
        "",
        description="the API, host:port; `--endpoint` wins",
        json_schema_extra=_shown("that of the `pemba dev` that runs here"),
    )
    key: str = Field(
        "",
        description="an API key",
        json_schema_extra=_shown("that of the `pemba dev` that runs here, for that one alone"),
    )
    key_file: Path | None = None
    tls: bool = Field(False, description="whether the API is reached by TLS")
    tls_ca_file: Path | None = Field(
        None, description="PEM file with who signs its certificate", json_schema_extra=_shown("the usual ones")
    )
    tls_cert_file: Path | None = Field(
        None, description="PEM file with a certificate to show it, for mTLS", json_schema_extra=_shown("none")
    )
    tls_key_file: Path | None = Field(None, description="PEM file with its key", json_schema_extra=_shown("none"))
    tenant: str = Field("", description="the tenant, by slug or id, of commands that are given no `--tenant`")


class DevSettings(Settings):
    """`pemba dev` and the tests

    A server that is named here is used instead of an embedded one: `PEMBA_DATABASE_URL`, `PEMBA_SPICEDB_ENDPOINT` with
    its key, as above. `serve` and `relay` get the rest from `pemba dev` itself.
    """

    database_url: str = ""
    spicedb_endpoint: str = ""
    spicedb_key: str = ""
    spicedb_key_file: Path | None = None
    spicedb_tls: bool = False
    data_dir: Path | None = Field(
        None,
        description="data and secrets; `--data-dir` wins",
        json_schema_extra=_shown("`pemba/dev` in `XDG_DATA_HOME`, or in `~/.local/share`"),
    )
    cache_dir: Path | None = Field(
        None,
        description="programs that were built (SpiceDB, ghz, grpcurl)",
        json_schema_extra=_shown("`pemba` in `XDG_CACHE_HOME`, or in `~/.cache`"),
    )
    test_stack: Literal["embedded", "docker"] = Field(
        "embedded", description="`docker` runs the tests' servers in containers"
    )
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


SECTIONS: tuple[type[Settings], ...] = (
    ClientSettings,
    DatabaseSettings,
    SpiceDBSettings,
    ServeSettings,
    RelaySettings,
    DevSettings,
)
"""Every setting is a field of one of these; a field that comes again is told where it came first."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, as docs and `pemba doctor` tell of it; `default` is what people are shown, empty for none."""

    name: str
    default: str
    description: str
    is_secret: bool
    """It can come from a file as well, and its value is never shown."""

    @property
    def variable(self) -> str:
        return _variable(self.name)

    @property
    def file_variable(self) -> str:
        return f"{self.variable}_FILE"

    @property
    def variables(self) -> tuple[str, ...]:
        """Those that can set it."""
        return (self.variable, self.file_variable) if self.is_secret else (self.variable,)


def settings_of(section: type[Settings]) -> list[Setting]:
    """The settings that this section of SECTIONS tells of."""
    earlier = {name for other in SECTIONS[: SECTIONS.index(section)] for name in other.model_fields}
    fields = {name: field for name, field in section.model_fields.items() if field.validation_alias is None}
    return [
        Setting(name, _default(field), field.description or "", is_secret=f"{name}_file" in fields)
        for name, field in fields.items()
        if name not in earlier and name not in _SECRET_FILES
    ]


def _default(field: FieldInfo) -> str:
    if isinstance(field.json_schema_extra, dict):
        return str(field.json_schema_extra["shown"])
    value = field.get_default()
    if field.is_required() or value in ("", ()):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value).lower()


def set_by(setting: Setting) -> tuple[str, str] | None:
    """What sets it, a variable here or in the settings file, and the text; None where nothing does.

    Raises ConfigError where the settings file cannot be read.
    """
    file, environment = read_settings_file(), _environment()
    for variable in setting.variables:
        if environment.get(variable):
            return variable, environment[variable]
        if variable in file:
            return f"{variable} in {environment[SETTINGS_FILE]}", file[variable]
    return None


def read_settings_file() -> dict[str, str]:
    """What the file that PEMBA_SETTINGS_FILE names sets, by variable, where the environment says nothing of that.

    A variable of the environment hides the file's also where it is empty, and a secret's hides that of its twin.
    Raises ConfigError.
    """
    environment = _environment()
    path = environment.get(SETTINGS_FILE)
    if not path:
        return {}
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"{SETTINGS_FILE}: cannot read {path}: {reason}") from error
    told = dict(_setting(f"{path}:{number}", line) for number, line in enumerate(lines, 1) if _says_something(line))
    return {name: text for name, text in told.items() if not {name, _twin(name)} & environment.keys()}


def _setting(where: str, line: str) -> tuple[str, str]:
    name, _, value = (part.strip() for part in line.partition("="))
    every = (setting for section in SECTIONS for setting in settings_of(section))
    if name not in {variable for setting in every for variable in setting.variables}:
        known = "a line takes PEMBA_NAME=value, with a name of docs/settings.md"
        raise ConfigError(f"{SETTINGS_FILE}: {where} sets no setting: {known}")
    return name, value


def _says_something(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _twin(variable: str) -> str:
    return variable.removesuffix("_FILE") if variable.endswith("_FILE") else f"{variable}_FILE"


def _environment() -> dict[str, str]:
    return {name.upper(): value for name, value in os.environ.items()}


S = TypeVar("S", bound=Settings)


def load(kind: type[S], overrides: Mapping[str, object] | None = None) -> S:
    """Settings from the environment, else the settings file; `overrides` (flags) win.  Raises ConfigError."""
    fields = {_variable(name): name for name in kind.model_fields}
    from_file = {
        fields[variable]: text for variable, text in read_settings_file().items() if text and variable in fields
    }
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    try:
        return kind(**{**from_file, **given})
    except ValidationError as error:
        raise ConfigError("\n".join(_complaint(kind, dict(item)) for item in error.errors())) from error


def _complaint(kind: type[Settings], item: dict[str, Any]) -> str:
    name = "_".join(str(part) for part in item["loc"])
    variable = _variable(name)
    if item["type"] == "missing":
        return f"{variable} is not set: {(kind.model_fields[name].description or '').replace('`', '')}"
    return f"{variable}: {item['msg'].removeprefix('Value error, ')}"


def _address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ValueError("takes host:port")
    return value


def _variable(name: str) -> str:
    return f"PEMBA_{name.upper()}"
