"""The table of workspaces' settings."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from pemba.storage.columns import metadata, time_column

# One row a setting: a value that anybody reads who reads the settings, or a secret, sealed.
workspace_settings = sa.Table(
    "workspace_settings",
    metadata,
    sa.Column("tenant_id", sa.Text, nullable=False),
    sa.Column("workspace_id", sa.Text, nullable=False),
    sa.Column("namespace", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("value", JSONB),
    # Encrypted for this row alone, and the id of the key: another one than the first is to be encrypted anew.
    sa.Column("sealed", sa.Text),
    sa.Column("sealed_under", sa.Text),
    sa.Column("changed_seq", sa.BigInteger, nullable=False),
    time_column("update_time"),
    sa.PrimaryKeyConstraint("tenant_id", "workspace_id", "namespace", "name"),
    # With the workspace go its settings: no tuple tells of them.
    sa.ForeignKeyConstraint(
        ["tenant_id", "workspace_id"], ["workspaces.tenant_id", "workspaces.id"], ondelete="CASCADE"
    ),
    sa.CheckConstraint("(value IS NULL) = (sealed IS NOT NULL)", name="value"),
    sa.CheckConstraint("(sealed IS NULL) = (sealed_under IS NULL)", name="sealed"),
    sa.CheckConstraint("char_length(namespace) BETWEEN 1 AND 64 AND char_length(name) BETWEEN 1 AND 128", name="names"),
    sa.CheckConstraint("octet_length(sealed) <= 16384", name="sealed_size"),
)
