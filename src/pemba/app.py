"""Composition: builds the processes from their parts, and takes them down in reverse order.

`serve` listens for HTTP first, so that /readyz can say what it waits for; then it waits for PostgreSQL, for its
migrations and for SpiceDB's schema.  gRPC listens as soon as PostgreSQL has been reached once, and answers
UNAVAILABLE with the reason until all is there.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import structlog
import uvloop

from pemba.authorizer import Authorizer
from pemba.authorizer.decisions import Decisions
from pemba.authorizer.feed import MAX_LOADS, Feed
from pemba.config import DatabaseSettings, RelaySettings, ServeSettings, SpiceDBSettings
from pemba.errors import ConfigError, PembaError
from pemba.http.app import build_http
from pemba.http.server import RunningHttp, run_http
from pemba.model import SystemScope, UserId
from pemba.relay.expiry import Expiry
from pemba.relay.healing import Healing
from pemba.relay.maintenance import Maintenance
from pemba.relay.parked_retries import ParkedRetries
from pemba.relay.reconcile_schedule import ReconcileSchedule
from pemba.relay.relay import Relay, RelayOptions
from pemba.rpc.authentication import Authentication, SystemKeys
from pemba.rpc.issuers import read_issuers
from pemba.rpc.jwks import require_readable
from pemba.rpc.jwt_callers import JwtCallers
from pemba.rpc.limits import Admission
from pemba.rpc.server import Limits, RpcServer, Services, build_server
from pemba.rpc.tls import TlsFiles
from pemba.service import bootstrap
from pemba.service.api_keys import ApiKeyService
from pemba.service.audit import AuditService
from pemba.service.bootstrap import FirstTenant
from pemba.service.claimed_places import ClaimedPlaces
from pemba.service.filling import StoreFilling
from pemba.service.groups import GroupService
from pemba.service.invitation_secrets import InvitationSecrets
from pemba.service.invitations import InvitationService
from pemba.service.key_expiry import KeyExpiry
from pemba.service.known_keys import KnownKeys
from pemba.service.memberships import MembershipService
from pemba.service.mutation import Mutations
from pemba.service.operations import OperationsService
from pemba.service.parked import Retries
from pemba.service.reconciliation import Reconciler
from pemba.service.refusals import Refusals
from pemba.service.resealing import Resealing
from pemba.service.roster_reads import RosterReads
from pemba.service.sealing import Sealer
from pemba.service.settings import SettingsService
from pemba.service.share_expiry import ShareExpiry
from pemba.service.shares import ShareService
from pemba.service.tenant_deletion import TenantDeletions
from pemba.service.tenants import TenantService
from pemba.service.user_jobs import UserJobs
from pemba.service.users import UserService
from pemba.service.watch import WatchService
from pemba.service.workspaces import WorkspaceService
from pemba.spicedb.client import SpiceDB
from pemba.spicedb.schema_gate import SchemaGate
from pemba.spicedb.stored import StoredTuples
from pemba.storage import installation, migrate
from pemba.storage.database import (
    API_ROLE,
    COMMAND_SECONDS,
    CONNECT_SECONDS,
    RELAY_COMMAND_SECONDS,
    RELAY_ROLE,
    SYSTEM_ROLE,
    Database,
)
from pemba.storage.installation import Installation
from pemba.storage.wakeup import Notifier
from pemba.telemetry import Event, set_up_logging
from pemba.tokens import Signer

RETRY_SECONDS = 0.5
FOLLOWING_CONNECTIONS = MAX_LOADS + 2
"""A look and loads of the feed, and one statement that looks API keys up."""
_SHORT_SECONDS = 0.05

T = TypeVar("T")

log = structlog.get_logger()


def run_serve(settings: ServeSettings) -> None:
    """`pemba serve`, until SIGTERM or SIGINT.  Raises ConfigError where an address cannot be bound."""
    set_up_logging(settings.log_level, settings.log_format)
    uvloop.run(_until_signalled(lambda stopping: serve(settings, stopping)))


def run_relay(settings: RelaySettings) -> None:
    """`pemba relay`, until SIGTERM or SIGINT."""
    set_up_logging(settings.log_level, settings.log_format)
    uvloop.run(_until_signalled(lambda stopping: relay(settings, stopping)))


async def serve(settings: ServeSettings, stopping: asyncio.Event) -> None:
    """Serve until `stopping` is set, then give calls under way `drain_seconds`."""
    async with serving(settings, stopping) as running:
        if running is not None:
            log.info(Event.STARTED, process="serve", grpc_port=running.grpc_port, http_port=running.http_port)
            await stopping.wait()
            running.watch.stop()
            await running.rpc.stop(settings.drain_seconds)
    log.info(Event.STOPPED, process="serve")


async def relay(settings: RelaySettings, stopping: asyncio.Event) -> None:
    """Deliver until `stopping` is set; requests under way are finished and recorded."""
    async with AsyncExitStack() as parts:
        status = _Status()
        if settings.relay_http_listen:
            await _http(parts, settings.relay_http_listen, status)
        database = await _database(parts, settings, (RELAY_ROLE,))
        spicedb = _spicedb(parts, settings, one_write_at_a_time=settings.relay_one_write_at_a_time)
        gate = status.gate = SchemaGate(spicedb)
        await _when_reached(lambda: _migrated(settings.database_url), status, stopping)
        services = await _database(parts, settings, (API_ROLE, SYSTEM_ROLE))
        notifier = Notifier(services)
        parts.push_async_callback(notifier.close)
        healing = _healing(settings, database, services, spicedb, notifier)
        watching = _background(parts, gate.run(), stopping)
        _background(parts, _restore_schema(healing, gate), stopping)
        while not gate.is_open and not stopping.is_set():
            await _pause(stopping, _SHORT_SECONDS)
        if not stopping.is_set():
            log.info(Event.STARTED, process="relay")
            await _maintenance(parts, settings, services, spicedb, notifier, stopping)
            daemon = Relay(settings.database_url, database, spicedb, _relay_options(settings), healing)
            delivering = asyncio.create_task(daemon.run(), name="relay")
            await _first(stopping, delivering, watching)
            daemon.stop()
            await delivering
    log.info(Event.STOPPED, process="relay")


@dataclass(frozen=True, slots=True)
class Serving:
    """A server that accepts calls, and where."""

    rpc: RpcServer
    watch: WatchService
    grpc_port: int
    http_port: int


@asynccontextmanager
async def serving(settings: ServeSettings, stopping: asyncio.Event) -> AsyncIterator[Serving | None]:
    """The parts of `pemba serve`, running; None where `stopping` came before PostgreSQL was reached."""
    issuers = read_issuers(settings.jwt_issuers_file)
    require_readable(issuers)
    async with AsyncExitStack() as parts:
        status = _Status()
        http = await _http(parts, settings.http_listen, status)
        database = await _database(parts, settings, (API_ROLE, SYSTEM_ROLE))
        spicedb = _spicedb(parts, settings)
        gate = SchemaGate(spicedb)
        await _when_reached(lambda: _migrated(settings.database_url), status, stopping)
        installed = await _when_reached(lambda: _installation(database), status, stopping)
        if installed is None:
            yield None
            return
        status.gate = gate
        signer = Signer(settings.root_secrets, installed.database_epoch)
        following = await _following(parts, settings)
        feed = Feed(following, settings.outage_seconds, begin_life=signer.begin_life)
        keys = KnownKeys(following, feed)
        feed.tell(keys.tell)
        await _when_reached(feed.poll, status, stopping)
        _background(parts, feed.run(), stopping)
        services = _services(parts, settings, database, spicedb, feed, signer)
        parts.push_async_callback(keys.write_uses)
        _background(parts, keys.run(), stopping)
        _background(parts, services.roster_reads.run(), stopping)
        _background(parts, services.watch.run(), stopping)
        await _when_reached(lambda: _bootstrap(settings, services), status, stopping)
        tokens = JwtCallers(issuers, ClaimedPlaces(database, settings.outage_seconds))
        _background(parts, tokens.run(), stopping)
        rpc = await _grpc(parts, settings, services, gate, keys, tokens)
        _background(parts, gate.run(rpc.set_serving), stopping)
        yield Serving(rpc, services.watch, rpc.port, http.port)


class _Status:
    """What this process still waits for."""

    def __init__(self) -> None:
        self.waiting_for = "PostgreSQL"
        self.gate: SchemaGate | None = None

    def reasons(self) -> list[str]:
        if self.waiting_for:
            return [self.waiting_for]
        try:
            if self.gate is not None:
                self.gate.raise_if_not_ready()
        except PembaError as error:
            return [error.message]
        return []


async def _http(parts: AsyncExitStack, listen: str, status: _Status) -> RunningHttp:
    http = await run_http(build_http(status.reasons), listen)
    parts.push_async_callback(http.stop)
    return http


async def _database(parts: AsyncExitStack, settings: DatabaseSettings, roles: tuple[str, ...]) -> Database:
    seconds = RELAY_COMMAND_SECONDS if roles == (RELAY_ROLE,) else COMMAND_SECONDS
    read_url = settings.database_read_url or settings.database_url if isinstance(settings, ServeSettings) else ""
    database = Database(settings.database_url, settings.database_pool_size, roles, seconds, read_url)
    await database.open()
    parts.push_async_callback(database.close)
    return database


def _spicedb(parts: AsyncExitStack, settings: SpiceDBSettings, *, one_write_at_a_time: bool = False) -> SpiceDB:
    spicedb = SpiceDB.connect(
        settings.spicedb_endpoint,
        settings.spicedb_key,
        tls=settings.spicedb_tls,
        one_write_at_a_time=one_write_at_a_time,
    )
    parts.push_async_callback(spicedb.close)
    return spicedb


async def _following(parts: AsyncExitStack, settings: ServeSettings) -> Database:
    """Connections of their own for what every call needs: what holds up all others must not make the server blind."""
    database = Database(settings.database_url, FOLLOWING_CONNECTIONS, (SYSTEM_ROLE,))
    await database.open()
    parts.push_async_callback(database.close)
    return database


def _services(
    parts: AsyncExitStack,
    settings: ServeSettings,
    database: Database,
    spicedb: SpiceDB,
    feed: Feed,
    signer: Signer,
) -> Services:
    notifier = Notifier(database)
    parts.push_async_callback(notifier.close)
    refusals = Refusals(database)
    sealer = Sealer(settings.root_secrets)
    mutations = Mutations(database, signer, notifier, refusals, feed.look_again, settings.max_users_per_tenant)
    reconciler = Reconciler(database, settings.database_url, StoredTuples(spicedb), notifier)
    return Services(
        authorizer=Authorizer(
            database,
            spicedb,
            signer,
            feed,
            Decisions(settings.max_cached_decisions, settings.decision_max_age_seconds),
            settings.max_token_waiters,
        ),
        tenants=TenantService(mutations),
        workspaces=WorkspaceService(mutations),
        memberships=MembershipService(mutations),
        groups=GroupService(mutations),
        shares=ShareService(mutations),
        users=UserService(mutations),
        api_keys=ApiKeyService(mutations),
        operations=OperationsService(
            database,
            signer,
            reconciler,
            Retries(database, notifier),
            refusals,
            Resealing(database, notifier, sealer),
        ),
        settings=SettingsService(mutations, sealer),
        audit=AuditService(database, signer),
        watch=WatchService(database, signer, feed, settings.max_watches),
        refusals=refusals,
        roster_reads=RosterReads(database),
        invitations=InvitationService(
            mutations,
            InvitationSecrets(settings.root_secrets, settings.invitation_base_url),
            timedelta(days=settings.invitation_days),
        ),
    )


async def _grpc(
    parts: AsyncExitStack,
    settings: ServeSettings,
    services: Services,
    gate: SchemaGate,
    keys: KnownKeys,
    tokens: JwtCallers,
) -> RpcServer:
    admission = Admission(
        max_calls_of_a_caller=max(settings.max_concurrent_rpcs // 2, 1),
        caller_calls_per_second=settings.caller_calls_per_second,
        tenant_calls_per_second=settings.tenant_calls_per_second,
        peer_strangers_per_second=settings.peer_strangers_per_second,
    )
    rpc = build_server(
        settings.grpc_listen,
        services,
        Authentication(SystemKeys(settings.system_keys), keys, admission, tokens),
        admission,
        gate.raise_if_not_ready,
        Limits(max_message_bytes=settings.max_message_bytes, max_concurrent_rpcs=settings.max_concurrent_rpcs),
        tls=_tls(settings),
        with_reflection=settings.reflection,
    )
    await rpc.start()
    parts.push_async_callback(rpc.stop, 0)
    return rpc


def _tls(settings: ServeSettings) -> TlsFiles | None:
    if settings.grpc_tls_cert_file is None or settings.grpc_tls_key_file is None:
        return None
    return TlsFiles(settings.grpc_tls_cert_file, settings.grpc_tls_key_file, settings.grpc_tls_client_ca_file)


async def _bootstrap(settings: ServeSettings, services: Services) -> None:
    if settings.bootstrap_tenant:
        name = settings.bootstrap_tenant_name or settings.bootstrap_tenant
        wanted = FirstTenant(settings.bootstrap_tenant, name, UserId(settings.bootstrap_admin))
        await bootstrap.ensure(services.tenants, wanted)


def _healing(
    settings: RelaySettings, database: Database, services: Database, spicedb: SpiceDB, notifier: Notifier
) -> Healing:
    filling = StoreFilling(services, settings.database_url, StoredTuples(spicedb), notifier)
    return Healing(settings.database_url, database, spicedb, filling, settings.relay_rpc_seconds)


async def _restore_schema(healing: Healing, gate: SchemaGate) -> None:
    """A store that lost the schema that was applied would else keep the gate closed for ever."""
    while not gate.is_open:
        await asyncio.sleep(RETRY_SECONDS)
        try:
            await healing.restore_schema()
        except PembaError as error:
            log.debug(Event.SCHEMA_NOT_RESTORED, why=error.message)


async def _maintenance(
    parts: AsyncExitStack,
    settings: RelaySettings,
    database: Database,
    spicedb: SpiceDB,
    notifier: Notifier,
    stopping: asyncio.Event,
) -> None:
    """The relay's mutations, with the rights of `serve`: its own role reads no records."""
    _background(parts, Maintenance(UserJobs(database, notifier)).run(), stopping)
    _background(parts, Maintenance(TenantDeletions(database, notifier)).run(), stopping)
    _background(parts, ParkedRetries(database, Retries(database, notifier)).run(), stopping)
    _background(parts, Expiry(ShareExpiry(database, notifier)).run(), stopping)
    _background(parts, Expiry(KeyExpiry(database, notifier)).run(), stopping)
    if settings.relay_reconcile_hours:
        reconciler = Reconciler(database, settings.database_url, StoredTuples(spicedb), notifier)
        seconds, apply = settings.relay_reconcile_hours * 3600, settings.relay_reconcile_apply
        _background(parts, ReconcileSchedule(database, reconciler, seconds, apply=apply).run(), stopping)


def _relay_options(settings: RelaySettings) -> RelayOptions:
    return RelayOptions(
        poll_min_seconds=settings.relay_poll_min_seconds,
        poll_max_seconds=settings.relay_poll_max_seconds,
        rpc_seconds=settings.relay_rpc_seconds,
        keep_seconds=settings.relay_retention_days * 24 * 3600,
        audit_seconds=settings.relay_audit_days * 24 * 3600,
        lease_seconds=settings.relay_lease_seconds,
    )


async def _installation(database: Database) -> Installation:
    async with database.begin(SystemScope("read the installation at start-up")) as tx:
        return await installation.read(tx)


async def _migrated(url: str) -> bool:
    """Raises ConfigError while the database is older than this build; a newer one is fine (a rolling upgrade)."""
    current = await asyncio.to_thread(migrate.current, url, CONNECT_SECONDS)  # nothing can cut a thread short
    if migrate.is_behind(current):
        raise ConfigError(
            f"the database is at revision {current or 'none'} and this build needs {migrate.head()}: "
            "run `pemba db upgrade`"
        )
    return True


async def _when_reached(
    ask: Callable[[], Coroutine[Any, Any, T]], status: _Status, stopping: asyncio.Event
) -> T | None:
    """What `ask` gives once it does not fail any more; None where `stopping` comes first."""
    said = ""
    while not stopping.is_set():
        try:
            found = await ask()
        except (PembaError, ConfigError) as error:
            status.waiting_for = str(error)
            if said != status.waiting_for:
                log.warning(Event.WAITING, why=status.waiting_for)
            said = status.waiting_for
        else:
            status.waiting_for = ""
            return found
        await _pause(stopping, RETRY_SECONDS)
    return None


def _background(parts: AsyncExitStack, work: Coroutine[Any, Any, None], stopping: asyncio.Event) -> asyncio.Task[None]:
    """A side task for the life of the process: one that dies is named in the log and stops it."""
    task = asyncio.create_task(work)

    def died(done: asyncio.Task[None]) -> None:
        if not done.cancelled() and done.exception() is not None:
            log.error(Event.TASK_DIED, task=repr(done.get_coro()), exc_info=done.exception())
            stopping.set()

    async def end() -> None:
        task.cancel()
        await asyncio.wait({task})

    task.add_done_callback(died)
    parts.push_async_callback(end)
    return task


async def _first(stopping: asyncio.Event, *tasks: asyncio.Task[None]) -> None:
    stop = asyncio.create_task(stopping.wait())
    await asyncio.wait({stop, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()


async def _pause(stopping: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stopping.wait(), seconds)
    except TimeoutError:
        return


async def _until_signalled(run: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await run(stopping)
