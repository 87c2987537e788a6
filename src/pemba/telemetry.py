"""Logs and metrics: how they are set up, and the names that operators build on.

Logs go to stderr, one line an event, with ISO timestamps in UTC.  What is bound to structlog's context
variables (request id, method, tenant) is in every line of that call; libraries' logs have the same form.
Metrics are in prometheus_client's default registry, so that `pemba.http` serves them with the process's own.
"""

from __future__ import annotations

import logging
import sys
from enum import StrEnum
from typing import TextIO

import structlog
from prometheus_client import Counter, Gauge, Histogram
from structlog.typing import Processor


class Event(StrEnum):
    """The names of all events, for alerts and searches; everything else in a line are its fields.

    Those of the domain come after the commit of what they tell: who did it says the audit, under the request's id.
    """

    TENANT_CREATED = "tenant_created"
    """With its id, slug and root workspace: it is complete."""
    TENANT_STATUS_CHANGED = "tenant_status_changed"
    USER_STATUS_CHANGED = "user_status_changed"
    CASCADE_COMMITTED = "cascade_committed"
    """One change that took others along, all in its transaction: `method`, `about`, and counts of what it took."""
    CASCADE_STARTED = "cascade_started"
    """One whose rest is a job: a user is denied already, what they hold in so many tenants follows."""
    CASCADE_FINISHED = "cascade_finished"

    STARTED = "started"
    STOPPED = "stopped"
    TASK_DIED = "task_died"
    RPC_FAILED = "rpc_failed"
    DELIVERY_FAILED = "delivery_failed"
    DELIVERY_PARKED = "delivery_parked"
    SHARD_PAUSED = "shard_paused"
    SCHEMA_APPLIED = "schema_applied"
    SHARDS_TAKEN = "shards_taken"
    SHARDS_RELEASED = "shards_released"
    LEASE_LOST = "lease_lost"
    STORE_LOST = "store_lost"
    DATABASE_LOST = "database_lost"
    SHARD_WELL_AGAIN = "shard_well_again"
    DRIFT_FOUND = "drift_found"
    SCHEMA_RESTORED = "schema_restored"
    STORE_IS_ANOTHERS = "store_is_anothers"
    STORE_FILLING = "store_filling"
    STORE_FILLED = "store_filled"
    TLS_RENEWED = "tls_renewed"
    TLS_NOT_RENEWED = "tls_not_renewed"
    JWKS_NOT_RENEWED = "jwks_not_renewed"
    JWT_REFUSED = "jwt_refused"
    TENANT_BOOTSTRAPPED = "tenant_bootstrapped"
    KEY_USES_NOT_WRITTEN = "key_uses_not_written"
    TENANT_DELETION_STARTED = "tenant_deletion_started"
    TENANT_DELETION_FINISHED = "tenant_deletion_finished"
    SECRET_UNREADABLE = "secret_unreadable"  # noqa: S105 - an event, not a secret
    AUDIT_DROPPED = "audit_dropped"
    AUDIT_NOT_WRITTEN = "audit_not_written"
    POSITIONS_OUTAGE = "positions_outage"
    SPICEDB_REFUSED = "spicedb_refused"
    SCHEMA_READY = "schema_ready"
    SCHEMA_NOT_READY = "schema_not_ready"
    MAINTENANCE_FAILED = "maintenance_failed"
    FENCE_LOOK_FAILED = "fence_look_failed"
    CLAIM_FAILED = "claim_failed"
    LEASES_FAILED = "leases_failed"
    SESSION_FAILED = "session_failed"
    RELAY_STANDS_BACK = "relay_stands_back"
    RELAY_TAKES_PART_AGAIN = "relay_takes_part_again"
    POLL_FAILED = "poll_failed"
    PARKED_RETRY_FAILED = "parked_retry_failed"
    EXPIRY_FAILED = "expiry_failed"
    RECONCILE_FAILED = "reconcile_failed"
    RETENTION_FAILED = "retention_failed"
    HEALING_FAILED = "healing_failed"
    POSTGRES_CONNECTION_BROKEN = "postgres_connection_broken"
    POSTGRES_REFUSED = "postgres_refused"
    POSTGRES_MISUSED = "postgres_misused"
    POSTGRES_CONSTRAINT_VIOLATED = "postgres_constraint_violated"
    NOTIFY_LOST = "notify_lost"
    STORE_FILLING_FAILED = "store_filling_failed"
    SCHEMA_NOT_RESTORED = "schema_not_restored"
    WAITING = "waiting"
    RPC = "rpc"


RPC_SECONDS = Histogram(
    "pemba_rpc_seconds",
    "Time from a call's arrival to its answer, by method and gRPC status code",
    ["method", "code"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
OUTBOX_ROWS_DELIVERED = Counter(
    "pemba_outbox_rows_delivered", "Outbox rows recorded as delivered to SpiceDB", ["shard"]
)
DELIVERY_LAG_SECONDS = Histogram(
    "pemba_delivery_lag_seconds",
    "Time from an outbox row's creation to the record of its delivery",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 3600),
)
OUTBOX_UNDELIVERED_ROWS = Gauge(
    "pemba_outbox_undelivered_rows", "Outbox rows that are committed and not yet delivered", ["shard"]
)
RELAY_WRITE_FAILURES = Counter(
    "pemba_relay_write_failures",
    "Writes to SpiceDB that failed, by what the relay made of it",
    ["kind"],
)
OPERATIONS_PARKED = Counter(
    "pemba_parkings",
    "Operations that SpiceDB refused and this relay left out, by SpiceDB's reason and by what it comes to: none (there"
    " was nothing to delete), grants_less, withdrawn, restricts (closes the tenant's checks)",
    ["reason", "effect"],
)
PARKED_OPERATIONS = Gauge(
    "pemba_parked_operations", "Operations that are parked, in the whole installation, as this relay counted last"
)
TENANTS_CLOSED = Gauge(
    "pemba_tenants_closed",
    "Tenants whose checks are closed for the sake of parked operations, in the whole installation, as this relay"
    " counted last",
)
DRIFT_TUPLES = Gauge(
    "pemba_drift_tuples",
    "Tuples in which SpiceDB differed from the records when this process last compared all of them: missing,"
    " too_much, foreign",
    ["kind"],
)
RECONCILE_TIME = Gauge(
    "pemba_reconcile_timestamp_seconds", "When this process last compared all of SpiceDB with the records (Unix time)"
)
POSITIONS_AGE_SECONDS = Gauge(
    "pemba_positions_age_seconds", "Since when, by PostgreSQL's last answer, this server knows positions and statuses"
)
DECISIONS_KNOWN = Counter("pemba_decisions_known", "Questions answered from what was answered before")
DECISIONS_UNKNOWN = Counter("pemba_decisions_unknown", "Questions to which no kept answer was there")
DECISIONS_CACHED = Gauge("pemba_decisions_cached", "Decisions that are kept")
LOSSES_DECLARED = Counter(
    "pemba_losses_declared", "Losses of data that this relay declared: store_lost, database_lost", ["what"]
)
TENANTS_MISSING_IN_STORE = Gauge(
    "pemba_tenants_missing_in_store",
    "Tenants that nothing can be asked about until SpiceDB, which lost its data, holds theirs again; as the relay that"
    " fills it sees it",
)
RELAY_SHARDS_HELD = Gauge("pemba_relay_shards_held", "Shards that this relay holds the lease of, 0 to 16")
RELAY_SHARDS_STOPPED = Counter(
    "pemba_relay_shards_stopped",
    "Times that this relay stopped delivering a shard: zombie (another relay has it), store_lost, database_lost",
    ["why"],
)
FENCE_ROTATIONS = Counter("pemba_relay_fence_rotations", "Fences of shards that were rotated in SpiceDB")

_QUIET_BELOW_WARNING = ("uvicorn", "asyncio", "alembic")


def set_up_logging(level: str, log_format: str, stream: TextIO | None = None) -> None:
    """Log from `level` (debug, info, warning, error) up, as `log_format` (json, console).

    To stderr, unless `stream` is given.  May be called again; the last call counts.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    before = _processors_before_rendering()
    structlog.configure(
        processors=[*before, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=before, processors=_rendering(log_format))
    )
    handler.addFilter(_says_more_than_that_a_client_has_gone)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(threshold)
    for name in _QUIET_BELOW_WARNING:
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))


def _says_more_than_that_a_client_has_gone(record: logging.LogRecord) -> bool:
    """gRPC's core reports, as an error with a traceback, every answer whose caller's deadline has passed."""
    return not record.getMessage().startswith("ExecuteBatchError raised in core")


def _processors_before_rendering() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]


def _rendering(log_format: str) -> list[Processor]:
    # Tracebacks are plain text: the richer forms of structlog print local variables, which may be secrets.
    without_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    if log_format == "console":
        plain = structlog.dev.plain_traceback
        return [
            without_meta,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain),
        ]
    return [without_meta, structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
