"""What the definitions of tables share: their metadata, and columns that several have."""

from __future__ import annotations

import sqlalchemy as sa

from pemba.model import MAX_NAME_CHARACTERS

metadata = sa.MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    }
)


def time_column(name: str, *, nullable: bool = False) -> sa.Column[object]:
    """Now by default, but where it may be NULL."""
    default = None if nullable else sa.text("now()")
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, server_default=default)


def one_of(name: str, column: str, *values: str) -> sa.CheckConstraint:
    """`column` has one of these values."""
    quoted = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{column} IN ({quoted})", name=name)


def name_column() -> sa.Column[str]:
    """`name`, of 1 to 200 characters."""
    bounds = sa.CheckConstraint(f"char_length(name) BETWEEN 1 AND {MAX_NAME_CHARACTERS}", name="name")
    return sa.Column("name", sa.Text, bounds, nullable=False)
