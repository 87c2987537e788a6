"""The table of API keys."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA

from pemba.storage.columns import metadata, name_column, time_column

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    # NULL: confined to none.  Such keys are beyond what the API's role sees.
    sa.Column("tenant_id", sa.Text),
    sa.Column("user_id", sa.Text),
    sa.Column("workspace_id", sa.Text),
    name_column(),
    sa.Column("prefix", sa.Text, nullable=False),
    sa.Column("scopes", ARRAY(sa.Text), nullable=False),
    # SHA-256 of the whole secret, as callers send it.
    sa.Column("secret_hash", BYTEA, nullable=False),
    # That of the secret before the last rotation, and until when it was, or is, good.
    sa.Column("previous_hash", BYTEA),
    time_column("previous_expire_time", nullable=True),
    time_column("expire_time", nullable=True),
    time_column("revoke_time", nullable=True),
    time_column("last_used_time", nullable=True),
    sa.Column("created_by", sa.Text),
    # Expired, and without roles since: nobody needs to look for any.
    sa.Column("swept", sa.Boolean, nullable=False, server_default=sa.text("false")),
    # Changes of the record, the etag.
    sa.Column("version", sa.BigInteger, nullable=False, server_default=sa.text("1")),
    time_column("create_time"),
    time_column("update_time"),
    sa.UniqueConstraint("tenant_id", "id"),
    sa.UniqueConstraint("secret_hash"),
    sa.UniqueConstraint("previous_hash"),
    sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], ondelete="RESTRICT"),
    sa.ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="RESTRICT"),
    sa.ForeignKeyConstraint(["created_by"], ["users.id"], ondelete="RESTRICT"),
    sa.ForeignKeyConstraint(
        ["tenant_id", "workspace_id"], ["workspaces.tenant_id", "workspaces.id"], ondelete="RESTRICT"
    ),
    sa.CheckConstraint("octet_length(secret_hash) = 32 AND octet_length(previous_hash) = 32", name="hashes"),
    sa.CheckConstraint("(previous_hash IS NULL) = (previous_expire_time IS NULL)", name="previous"),
    sa.CheckConstraint(
        "cardinality(scopes) > 0 AND scopes <@ ARRAY['check', 'read', 'write', 'admin', 'act_as']", name="scopes"
    ),
    # Who is a user is nobody else.
    sa.CheckConstraint("user_id IS NULL OR 'act_as' <> ALL (scopes)", name="act_as"),
    sa.CheckConstraint("workspace_id IS NULL OR tenant_id IS NOT NULL", name="workspace"),
)
sa.Index("api_keys_user_id_idx", api_keys.c.user_id, postgresql_where=sa.text("user_id IS NOT NULL"))
sa.Index(
    "api_keys_workspace_idx",
    api_keys.c.tenant_id,
    api_keys.c.workspace_id,
    postgresql_where=sa.text("workspace_id IS NOT NULL"),
)
sa.Index(
    "api_keys_expire_time_idx",
    api_keys.c.expire_time,
    postgresql_where=sa.text("NOT swept AND tenant_id IS NOT NULL AND expire_time IS NOT NULL"),
)
