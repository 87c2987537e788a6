"""What PostgreSQL says, in Pemba's errors: the one place that reads the driver's exceptions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import asyncpg
import sqlalchemy.exc
import structlog

from pemba.errors import (
    AlreadyExists,
    ConcurrentUpdate,
    PembaError,
    PreconditionFailed,
    Reason,
    Rejected,
    Unavailable,
)
from pemba.storage import personal_rules, tables
from pemba.telemetry import Event

log = structlog.get_logger()

# Exactly these violations are domain errors; every other one is a defect and stays one.
_VIOLATIONS: dict[str, Callable[[], PembaError]] = {
    tables.TENANT_SLUG: lambda: AlreadyExists(Reason.SLUG_TAKEN, "slug: another tenant has it"),
    tables.SIBLING_SLUG: lambda: AlreadyExists(Reason.SLUG_TAKEN, "slug: a workspace beside it has it"),
    tables.ONE_ROOT: lambda: AlreadyExists(Reason.ROOT_WORKSPACE, "the tenant has a root workspace already"),
    tables.ONE_PERSONAL: lambda: AlreadyExists(
        Reason.PERSONAL_EXISTS, "the user has a personal workspace in the tenant; EnsurePersonalWorkspace gives it"
    ),
    personal_rules.MEMBERSHIP: lambda: PreconditionFailed(
        Reason.PERSONAL_MEMBERSHIP_FIXED, "the only member of a personal workspace is its user, as owner"
    ),
    personal_rules.SHARED: lambda: PreconditionFailed(
        Reason.PERSONAL_MEMBERSHIP_FIXED, "a personal workspace is not shared, and nothing is shared with it"
    ),
    personal_rules.TREE: lambda: PreconditionFailed(
        Reason.PERSONAL_KIND_FROZEN, "a personal workspace has no workspaces below it"
    ),
    tables.PARENT: lambda: PreconditionFailed(
        Reason.HAS_CHILDREN, "the workspace has children; move or delete them first"
    ),
    tables.GROUP_SLUG: lambda: AlreadyExists(Reason.SLUG_TAKEN, "slug: another group of the tenant has it"),
    tables.EXTERNAL_ID: lambda: AlreadyExists(
        Reason.EXTERNAL_ID_TAKEN, "external_id: another group of the tenant has it"
    ),
    tables.EMAIL: lambda: AlreadyExists(Reason.EMAIL_TAKEN, "email: another user has it"),
    tables.IDEMPOTENCY: lambda: ConcurrentUpdate(
        Reason.CONCURRENT_UPDATE, "the same request_id is being carried out; try again"
    ),
}

# Most specific first.  08: connection; 57P: shutdown and crash; 53: out of connections, memory, disk; 25006 and
# 25P03: a standby after a failover, a session that was idle in its transaction for too long.
_AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    OSError,
)
# The driver's own errors: of a connection or a pool that is gone these, of a call that is wrong any other.
_GONE = ("closed", "closing", "released", "terminated")
CONNECTION_FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""All that a connection can raise, whatever was asked: for those who only want to be rid of it."""

_CONFLICT = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)


@contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's exceptions into Pemba's, chained; Pemba's own and cancellation pass as they are."""
    try:
        yield
    except PembaError:
        raise
    except asyncpg.IntegrityConstraintViolationError as error:
        raise _violation(error) from error
    except _CONFLICT as error:
        raise ConcurrentUpdate(Reason.CONCURRENT_UPDATE, "another change came between; try again") from error
    except (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError) as error:
        raise Unavailable(Reason.OVERLOADED, "PostgreSQL is too busy with this; try again") from error
    except _AWAY as error:
        raise unavailable() from error
    except asyncpg.InterfaceError as error:
        raise _drivers_own(error) from error
    except asyncpg.InternalClientError as error:
        # Also what the driver says to a statement between the server's last words and the end of the connection.
        log.warning(Event.POSTGRES_CONNECTION_BROKEN, error=repr(error))
        raise unavailable() from error
    except sqlalchemy.exc.DBAPIError as error:
        with translated():  # what the driver said, which SQLAlchemy wraps twice
            raise (error.orig and error.orig.__cause__) or Rejected() from None
    except (asyncpg.PostgresError, sqlalchemy.exc.SQLAlchemyError) as error:
        log.error(Event.POSTGRES_REFUSED, error=repr(error), exc_info=True)
        raise Rejected from error


def unavailable() -> Unavailable:
    """PostgreSQL cannot be reached.  A mutation under way may have committed: its request_id tells."""
    return Unavailable(
        Reason.POSTGRES_UNAVAILABLE,
        "PostgreSQL cannot be reached; try again, a mutation with the same request_id",
    )


def _drivers_own(error: asyncpg.InterfaceError) -> PembaError:
    """A connection that is gone is an outage, a value or a call that is wrong a defect of ours."""
    if not isinstance(error, asyncpg.DataError) and any(word in str(error) for word in _GONE):
        return unavailable()
    log.error(Event.POSTGRES_MISUSED, error=repr(error), exc_info=True)
    return Rejected()


def _violation(error: asyncpg.IntegrityConstraintViolationError) -> PembaError:
    known = _VIOLATIONS.get(str(error.constraint_name or ""))
    if known is not None:
        return known()
    log.error(Event.POSTGRES_CONSTRAINT_VIOLATED, constraint=error.constraint_name, error=repr(error), exc_info=True)
    return Rejected()
