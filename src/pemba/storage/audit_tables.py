"""The tables of the audit."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from pemba.storage.columns import metadata, one_of, time_column

audit = sa.Table(
    "audit",
    metadata,
    # Taken while the tenant's head is held: within a tenant in the order of the commits.
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("tenant_id", sa.Text, nullable=False),
    sa.Column("seq", sa.BigInteger),  # NULL for what changed nothing
    time_column("create_time"),
    sa.Column("principal", sa.Text, nullable=False),
    sa.Column("acting_user", sa.Text),
    sa.Column("peer", sa.Text, nullable=False),
    sa.Column("request_id", sa.Text, nullable=False),
    sa.Column("method", sa.Text, nullable=False),
    sa.Column("object", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),  # why it was refused
    sa.Column("before", JSONB),
    sa.Column("after", JSONB),
    sa.Column("ops", JSONB, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False, server_default=sa.text("'changed'")),
    # Of a change of several rows: which of them this is, from 0 on, and how many they are.
    sa.Column("part", sa.SmallInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("parts", sa.SmallInteger, nullable=False, server_default=sa.text("1")),
    # What it is about besides `object`; each is a row of audit_mention.
    sa.Column("about", ARRAY(sa.Text), nullable=False, server_default=sa.text("'{}'")),
    one_of("outcome", "outcome", "changed", "refused", "read"),
    sa.CheckConstraint("outcome = 'changed' OR seq IS NULL", name="seq"),
    sa.CheckConstraint("outcome <> 'refused' OR reason IS NOT NULL", name="refused"),
    sa.CheckConstraint("part BETWEEN 0 AND parts - 1", name="part"),
)
# One for each way to look for events, each in the order of the events.
sa.Index("audit_tenant_id_create_time_idx", audit.c.tenant_id, audit.c.create_time)
sa.Index("audit_tenant_idx", audit.c.tenant_id, audit.c.id)
sa.Index("audit_seq_key", audit.c.tenant_id, audit.c.seq, unique=True, postgresql_where=audit.c.seq.is_not(None))
sa.Index("audit_object_idx", audit.c.tenant_id, audit.c.object, audit.c.id)
sa.Index("audit_method_idx", audit.c.tenant_id, audit.c.method, audit.c.id)
sa.Index("audit_request_idx", audit.c.tenant_id, audit.c.request_id, audit.c.id)
sa.Index("audit_principal_idx", audit.c.tenant_id, audit.c.principal, audit.c.id)
sa.Index(
    "audit_acting_user_idx",
    audit.c.tenant_id,
    audit.c.acting_user,
    audit.c.id,
    postgresql_where=audit.c.acting_user.is_not(None),
)
sa.Index(
    "audit_outcome_idx",
    audit.c.tenant_id,
    audit.c.outcome,
    audit.c.id,
    postgresql_where=sa.text("outcome <> 'changed'"),
)

# What events are about besides their object: a text array has no index that gives them in order.
audit_mention = sa.Table(
    "audit_mention",
    metadata,
    sa.Column("tenant_id", sa.Text, nullable=False),
    sa.Column("object", sa.Text, nullable=False),
    sa.Column("audit_id", sa.BigInteger, nullable=False),
    sa.PrimaryKeyConstraint("tenant_id", "object", "audit_id"),
)
