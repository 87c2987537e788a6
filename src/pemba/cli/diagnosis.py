"""What `pemba doctor` looks at, part by part: each gives findings, and none stops the others."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pemba.cli import outbox, schema
from pemba.cli.call_options import CallOptions
from pemba.cli.connection import Connection, Target, find_target
from pemba.cli.failure import CallFailed
from pemba.cli.settings_in_force import InForce, in_force
from pemba.config import (
    SECTIONS,
    ClientSettings,
    DevSettings,
    SpiceDBSettings,
    load,
    read_settings_file,
    set_by,
    settings_of,
)
from pemba.dev.ready import Ready, read_ready
from pemba.errors import ConfigError, PembaError, Rejected
from pemba.storage import migrate
from pemba.storage.outbox import StreamStatus
from pemba.telemetry import set_up_logging
from pemba.v1 import tenants_pb2

LAG_WARNING_SECONDS = 10.0
LAG_FAILURE_SECONDS = 60.0
_STREAMS = 1000
_RUN_DEV = "start one with `pemba dev`, or set PEMBA_ENDPOINT and PEMBA_KEY (docs/settings.md)"


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one part, in a line, and what a person can do about it."""

    level: Level
    subject: str
    message: str
    to_do: str = ""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Case:
    """What is examined.  `running` is the `pemba dev` here, where that is the Pemba that commands would call."""

    client: ClientSettings
    dev: DevSettings
    running: Ready | None
    seconds: float

    @property
    def database_url(self) -> str:
        return self.dev.database_url or (self.running.database_url if self.running else "")


def examine(endpoint: str, seconds: float) -> tuple[list[InForce], list[Finding]]:
    """The settings, and the findings of every part; `endpoint` is the flag's, `seconds` what each part may take.

    Raises ConfigError where the settings file is not to be read.
    """
    read_settings_file()  # where it cannot be read nothing is known of any setting
    set_up_logging("error", "console", io.StringIO())  # what goes wrong is a finding
    flags = {"endpoint": endpoint}
    findings = wrong_settings()
    try:
        client, dev = load(ClientSettings, {"endpoint": endpoint or None}), load(DevSettings)
    except ConfigError:  # a finding already; without these nobody knows whom to ask
        return in_force(flags, {}), findings
    ready = read_ready(dev.data_folder)
    running = ready if ready is not None and client.endpoint in ("", ready.grpc) else None
    case = Case(client, dev, running, seconds)
    parts: Sequence[Callable[[Case], Iterator[Finding]]] = (api, postgres, spicedb)
    findings += [finding for part in parts for finding in part(case)]
    return in_force(flags, _told_by(running)), findings


def wrong_settings() -> list[Finding]:
    """One for each setting that is set and wrong; what is not set may not be needed here."""
    is_set = {
        v for section in SECTIONS for s in settings_of(section) if set_by(s) for v in (s.variable, s.file_variable)
    }
    complaints: dict[str, None] = {}
    for section in SECTIONS:
        try:
            load(section)
        except ConfigError as error:
            complaints |= dict.fromkeys(str(error).splitlines())
    wrong = [line for line in complaints if line.split(":")[0].split()[0] in is_set and " is not set" not in line]
    if not wrong:
        return [Finding(Level.OK, "settings", "none that is set is wrong")]
    return [Finding(Level.FAILURE, "settings", line, "docs/settings.md has what each takes") for line in wrong]


def api(case: Case) -> Iterator[Finding]:
    """Whether the API is there, is well, and takes the key."""
    try:
        target = find_target(case.client, case.dev.data_folder)
    except ConfigError as error:
        yield Finding(Level.FAILURE, "API", str(error), _RUN_DEV)
        return
    with grpc.insecure_channel(target.endpoint) as channel:
        health = _health(channel, target, case.seconds)
        yield health
        if health.level is Level.OK:
            yield _key(channel, target, case.seconds)


def _health(channel: grpc.Channel, target: Target, seconds: float) -> Finding:
    check = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined]  # not in the stubs
    try:
        status = check(health_pb2.HealthCheckRequest(), timeout=seconds).status
    except grpc.RpcError as error:
        where = f"; {target.ready_file} names it" if target.ready_file else ""
        to_do = "is `pemba dev` running? start it again" if target.ready_file else "is `pemba serve` running there?"
        return Finding(Level.FAILURE, "API", f"no answer from {target.endpoint} ({error.code().name}){where}", to_do)
    if status != health_pb2.HealthCheckResponse.SERVING:
        to_do = "GET /readyz on its HTTP port says why; so does its log"
        return Finding(Level.FAILURE, "API", f"{target.endpoint} is up, but not ready to serve", to_do)
    return Finding(Level.OK, "API", f"{target.endpoint} serves")


def _key(channel: grpc.Channel, target: Target, seconds: float) -> Finding:
    pemba = Connection(channel, target, CallOptions(timeout=seconds), tenant="")
    try:
        pemba.read(pemba.tenants.ListTenants, tenants_pb2.ListTenantsRequest(page_size=1))
    except CallFailed as error:
        if error.problem.code == "PERMISSION_DENIED":
            return Finding(Level.OK, "key", f"known; {error}")
        to_do = "PEMBA_KEY or PEMBA_KEY_FILE takes a key of this Pemba" if error.problem.reason else ""
        return Finding(Level.FAILURE, "key", str(error), to_do)
    return Finding(Level.OK, "key", "taken")


def postgres(case: Case) -> Iterator[Finding]:
    """Whether PostgreSQL is there and migrated, and how far the relay is."""
    if not case.database_url:
        yield Finding(Level.WARNING, "PostgreSQL", "not examined", "set PEMBA_DATABASE_URL to have it examined")
        return
    try:
        revision, newest = migrate.current(case.database_url, case.seconds), migrate.head()
    except (PembaError, ValueError, TypeError) as error:  # the latter two: what the URL says
        yield Finding(Level.FAILURE, "PostgreSQL", _words(error), "is it running, and is PEMBA_DATABASE_URL right?")
        return
    if revision != newest:
        message = f"migrated to {revision or 'nothing'}; this build's newest is {newest}"
        yield Finding(Level.FAILURE, "PostgreSQL", message, "run `pemba db upgrade`, or the build that migrated it")
        return
    yield Finding(Level.OK, "PostgreSQL", f"migrated to {revision}, the newest")
    yield from _relay(case)


def _relay(case: Case) -> Iterator[Finding]:
    try:
        reading = asyncio.wait_for(outbox.read_streams(case.database_url, False, _STREAMS), case.seconds)
        streams = asyncio.run(reading)
    except (PembaError, TimeoutError) as error:
        to_do = "can PEMBA_DATABASE_URL's user take on Pemba's roles?"
        yield Finding(Level.FAILURE, "relay", _words(error), to_do)
    else:
        yield lag([stream for stream in streams if stream.undelivered])
        yield from parked([stream for stream in streams if stream.parked])


def parked(streams: Sequence[StreamStatus]) -> Iterator[Finding]:
    """What SpiceDB refused, where it refused anything."""
    if streams:
        closed = sum(stream.closed for stream in streams)
        message = f"SpiceDB refused {sum(stream.parked for stream in streams)} (tenants: {len(streams)})"
        message += f"; checks are closed in {closed} of them" if closed else ""
        to_do = "`pemba outbox parked` says what and why; a newer `pemba schema apply`, or `pemba outbox retry`, helps"
        yield Finding(Level.FAILURE if closed else Level.WARNING, "parked operations", message, to_do)


def lag(behind: Sequence[StreamStatus]) -> Finding:
    """What the streams that are behind say of the relay."""
    if not behind:
        return Finding(Level.OK, "relay", "every change is delivered")
    oldest = max(stream.oldest_seconds or 0 for stream in behind)
    changes = sum(stream.undelivered for stream in behind)
    message = f"not delivered yet: {changes} (tenants: {len(behind)}), the oldest {oldest:.1f} s old"
    if oldest < LAG_WARNING_SECONDS:
        return Finding(Level.OK, "relay", message)
    level = Level.WARNING if oldest < LAG_FAILURE_SECONDS else Level.FAILURE
    return Finding(level, "relay", message, "is `pemba relay` running? its log and `pemba outbox status` say more")


def spicedb(case: Case) -> Iterator[Finding]:
    """Whether SpiceDB is there, and has all of this build's schema."""
    ready = case.running if not case.dev.spicedb_endpoint else None
    told = {"spicedb_endpoint": ready.spicedb_endpoint, "spicedb_key": ready.spicedb_key} if ready else {}
    if not told and not case.dev.spicedb_endpoint:
        to_do = "set PEMBA_SPICEDB_ENDPOINT and PEMBA_SPICEDB_KEY to have it examined"
        yield Finding(Level.WARNING, "SpiceDB", "not examined", to_do)
        return
    try:
        settings = load(SpiceDBSettings, told)
        missing = asyncio.run(asyncio.wait_for(schema.missing_in(settings), case.seconds))
    except ConfigError as error:
        yield Finding(Level.FAILURE, "SpiceDB", str(error), "docs/settings.md has what it takes")
    except (PembaError, TimeoutError) as error:
        to_do = "is it running, and are PEMBA_SPICEDB_ENDPOINT and PEMBA_SPICEDB_KEY right?"
        yield Finding(Level.FAILURE, "SpiceDB", _words(error), to_do)
    else:
        if missing:
            message = f"{settings.spicedb_endpoint} lacks {len(missing)} parts of this build's schema"
            yield Finding(Level.FAILURE, "SpiceDB", message, "run `pemba schema apply`")
        else:
            yield Finding(Level.OK, "SpiceDB", f"{settings.spicedb_endpoint} has all of this build's schema")


def _words(error: Exception) -> str:
    """For a person who may see the cause: what a backend refuses is a setting here, and no secret stands in it."""
    if isinstance(error, Rejected) and error.__cause__ is not None:
        cause = error.__cause__
        return str(cause.details() if isinstance(cause, grpc.aio.AioRpcError) else getattr(cause, "orig", cause))
    if isinstance(error, TimeoutError):
        return "no answer in time; --timeout SECONDS gives it longer"
    if isinstance(error, PembaError):
        return error.message.partition("; try again")[0]
    return "PEMBA_DATABASE_URL is not a URL that the driver takes"


def _told_by(running: Ready | None) -> dict[str, str]:
    """What the `pemba dev` that runs here sets for its own processes, or leaves for commands to find."""
    if running is None:
        return {}
    return {
        "endpoint": running.grpc,
        "key": running.key,
        "database_url": running.database_url,
        "spicedb_endpoint": running.spicedb_endpoint,
        "spicedb_key": running.spicedb_key,
        "grpc_listen": running.grpc,
        "http_listen": running.http,
        "system_keys": running.key,
        "root_secrets": "made by it",
        "reflection": "true",
    }
