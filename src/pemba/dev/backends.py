"""PostgreSQL and SpiceDB as tests reach them, whoever runs them."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pemba.dev.postgres import psql


@dataclass(frozen=True, slots=True)
class PostgresAccess:
    """A server on which `admin_url` can create databases, and `login_url` names the role that is to own them."""

    admin_url: str
    login_url: str
    log: Path
    """Where psql leaves its output."""

    def url(self, database: str) -> str:
        return urlsplit(self.login_url)._replace(path=f"/{database}").geturl()

    def create_database(self, template: str = "template1") -> str:
        """A new database's name; a copy of `template`, to which nobody may be connected."""
        name = f"pemba_test_{secrets.token_hex(6)}"
        owner = urlsplit(self.login_url).username or "postgres"
        script = 'CREATE DATABASE :"name" TEMPLATE :"template" OWNER :"owner";'
        self._sql(script, {"name": name, "template": template, "owner": owner})
        return name

    def drop_database(self, name: str) -> None:
        """Drop it, whoever is connected."""
        self._sql('DROP DATABASE IF EXISTS :"name" WITH (FORCE);', {"name": name})

    def _sql(self, script: str, variables: dict[str, str]) -> None:
        psql(self.admin_url, script, log=self.log, variables=variables)


@dataclass(frozen=True, slots=True)
class SpiceDBAccess:
    """A SpiceDB that somebody else runs."""

    endpoint: str
    key: str
