"""Connections to PostgreSQL, and transactions that cannot be begun without a scope.

Three pools, one for each database role.  The API's role sees only the tenant that its transaction names
(row-level security); system scope and the relay use roles of their own.  The login of the URL must own or be a
member of these roles: each pool takes its role on by the start-up parameter `role`.

What only reads records, for an answer and not for a decision about a change, has pools of its own where `read_url` is
given, so that lists do not hold up changes.  It may be another server's, a hot standby: then what is read is as old as
that one is behind, unless the first commits with `synchronous_commit = remote_apply`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, TypeVar, overload

import asyncpg
import structlog
from asyncpg.pool import PoolConnectionProxy

from pemba.errors import Reason, Unavailable
from pemba.model import GLOBAL_STREAM, SystemScope, TenantId, TenantScope, is_typeid
from pemba.storage.errors import CONNECTION_FAILURES, translated

API_ROLE = "pemba_api"
SYSTEM_ROLE = "pemba_system"
RELAY_ROLE = "pemba_relay"
_READS = " reading"

CONNECT_SECONDS = 5.0
ACQUIRE_SECONDS = 5.0
ROLL_BACK_SECONDS = 1.0
CLOSE_SECONDS = 1.0
COMMAND_SECONDS = 35.0
"""Longer than PostgreSQL's own limit of a statement, which says more: this one is for a server that says nothing."""
RELAY_COMMAND_SECONDS = 5.0
"""The relay's statements are short; its lanes must not hang on a connection that fell silent."""

_SETTINGS = {
    "lock_timeout": "5000",
    "idle_in_transaction_session_timeout": "5000",
    "statement_timeout": "30000",
    "application_name": "pemba",
}
# A plan is kept until statistics change: what was planned while the outbox was small must not read all of it later.
_RELAY_SETTINGS = {"enable_seqscan": "off"}

log = structlog.get_logger()


class Transaction:
    """An open transaction; repositories take one and never commit it."""

    def __init__(self, connection: PoolConnectionProxy[Any]) -> None:
        self.connection = connection
        self._discard = False

    def discard(self) -> None:
        """Roll back at the end although nothing failed: what `validate_only` and replays want."""
        self._discard = True

    @property
    def discarded(self) -> bool:
        return self._discard


class TenantTransaction(Transaction):
    """Sees the rows of one tenant."""

    def __init__(self, connection: PoolConnectionProxy[Any], tenant_id: TenantId) -> None:
        super().__init__(connection)
        self.tenant_id = tenant_id


class SystemTransaction(Transaction):
    """Sees every tenant's rows."""

    def of(self, tenant_id: TenantId) -> TenantTransaction:
        """This transaction, for statements that name one tenant; what they do not name, no wall keeps from them."""
        return TenantTransaction(self.connection, tenant_id)


class RelayTransaction(Transaction):
    """The relay's: reads outbox and heads, writes deliveries."""


T = TypeVar("T", bound=Transaction)


class Database:
    """Pools of connections; `open` it, then `begin` transactions by scope."""

    def __init__(
        self,
        url: str,
        pool_size: int,
        roles: Sequence[str] = (API_ROLE, SYSTEM_ROLE),
        command_seconds: float = COMMAND_SECONDS,
        read_url: str = "",
    ) -> None:
        self._url = url
        self._read_url = read_url
        self._command_seconds = command_seconds
        self._pool_size = pool_size
        self._roles = tuple(roles)
        self._pools: dict[str, asyncpg.Pool[Any]] = {}

    async def open(self) -> None:
        """Create the pools.  They connect on first use: a PostgreSQL that is away fails calls, not the start."""
        with translated():
            for role in self._roles:
                self._pools[role] = await self._pool(self._url, role)
                if self._read_url:
                    self._pools[role + _READS] = await self._pool(self._read_url, role)

    async def _pool(self, url: str, role: str) -> asyncpg.Pool[Any]:
        return await asyncpg.create_pool(
            url,
            min_size=0,
            max_size=self._pool_size,
            timeout=CONNECT_SECONDS,
            command_timeout=self._command_seconds,
            init=_prepare_connection,
            reset=_reset_nothing,
            server_settings={**_SETTINGS, **(_RELAY_SETTINGS if role == RELAY_ROLE else {}), "role": role},
        )

    async def close(self) -> None:
        """Close every connection; where PostgreSQL is silent, after a second without its consent."""
        await asyncio.gather(*(_close(pool) for pool in self._pools.values()))
        self._pools.clear()

    @overload
    def begin(self, scope: TenantScope) -> AbstractAsyncContextManager[TenantTransaction]: ...
    @overload
    def begin(self, scope: SystemScope) -> AbstractAsyncContextManager[SystemTransaction]: ...
    def begin(
        self, scope: TenantScope | SystemScope
    ) -> AbstractAsyncContextManager[TenantTransaction] | AbstractAsyncContextManager[SystemTransaction]:
        """A transaction of that scope: commits at the end, rolls back on any exception or after `discard()`."""
        if isinstance(scope, TenantScope):
            return self._begin_tenant(scope.tenant_id)
        return self._transaction(SYSTEM_ROLE, "BEGIN", SystemTransaction)

    @overload
    def read(self, scope: TenantScope) -> AbstractAsyncContextManager[TenantTransaction]: ...
    @overload
    def read(self, scope: SystemScope) -> AbstractAsyncContextManager[SystemTransaction]: ...
    def read(
        self, scope: TenantScope | SystemScope
    ) -> AbstractAsyncContextManager[TenantTransaction] | AbstractAsyncContextManager[SystemTransaction]:
        """As `begin`, for what writes nothing and locks nothing, on the connections for reading."""
        reads = _READS if self._read_url else ""
        if isinstance(scope, TenantScope):
            return self._begin_tenant(scope.tenant_id, reads, "BEGIN READ ONLY")
        return self._transaction(SYSTEM_ROLE + reads, "BEGIN READ ONLY", SystemTransaction)

    @asynccontextmanager
    async def single(self, _: SystemScope) -> AsyncIterator[SystemTransaction]:
        """For one statement that reads: PostgreSQL's own transaction around it is enough, and a third of the trips."""
        with translated():
            async with self.connection(SYSTEM_ROLE) as connection:
                yield SystemTransaction(connection)

    def begin_relay(self) -> AbstractAsyncContextManager[RelayTransaction]:
        """A transaction of the relay's own role."""
        return self._transaction(RELAY_ROLE, "BEGIN", RelayTransaction)

    def _begin_tenant(
        self, tenant_id: TenantId, reads: str = "", begin: str = "BEGIN"
    ) -> AbstractAsyncContextManager[TenantTransaction]:
        # It goes into the statement as text so that BEGIN and SET LOCAL are one round trip.
        if not is_typeid("ten", tenant_id) and tenant_id != GLOBAL_STREAM:
            raise ValueError(f"not a tenant id: {tenant_id!r}")
        begin = f"{begin}; SET LOCAL pemba.tenant_id = '{tenant_id}'"
        return self._transaction(API_ROLE + reads, begin, lambda c: TenantTransaction(c, tenant_id))

    @asynccontextmanager
    async def _transaction(
        self, role: str, begin: str, make: Callable[[PoolConnectionProxy[Any]], T]
    ) -> AsyncIterator[T]:
        with translated():
            async with self.connection(role) as connection:
                await connection.execute(begin)
                transaction = make(connection)
                yield transaction
                await connection.execute("ROLLBACK" if transaction.discarded else "COMMIT")

    @asynccontextmanager
    async def connection(self, role: str) -> AsyncIterator[PoolConnectionProxy[Any]]:
        """A bare connection of that role; what fails or is cancelled in it is rolled back.

        Raises Unavailable when none is free in time.
        """
        pool = self._pools[role]
        try:
            connection = await pool.acquire(timeout=ACQUIRE_SECONDS)
        except TimeoutError as error:
            raise Unavailable(Reason.OVERLOADED, "no connection to PostgreSQL was free in time") from error
        failed = True
        try:
            yield connection
            failed = False
        finally:
            await asyncio.shield(_give_back(pool, connection, failed))


async def _close(pool: asyncpg.Pool[Any]) -> None:
    try:
        await asyncio.wait_for(pool.close(), CLOSE_SECONDS)
    except CONNECTION_FAILURES:
        pool.terminate()


async def _prepare_connection(connection: asyncpg.Connection[Any]) -> None:
    await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")


async def _reset_nothing(_: object) -> None:
    """Every setting that Pemba changes ends with its transaction: the driver's reset would only cost a round trip."""


async def _give_back(pool: asyncpg.Pool[Any], connection: PoolConnectionProxy[Any], failed: bool) -> None:
    """To the pool, without a transaction; a connection that does not come to rest in time is dropped.

    After a failure also where the driver knows of no transaction: a BEGIN that was cancelled may have begun one.
    (The pool itself would roll back as well, but reports that as a defect of ours.)
    """
    with suppress(*CONNECTION_FAILURES):
        if failed and not connection.is_closed():
            await _roll_back(connection)
        await pool.release(connection)


async def _roll_back(connection: PoolConnectionProxy[Any]) -> None:
    try:
        await connection.execute("ROLLBACK", timeout=ROLL_BACK_SECONDS)
    except CONNECTION_FAILURES:
        connection.terminate()
