"""Copies of a PostgreSQL, of Pemba's or of SpiceDB's, to restore: what a backup of the files brings back.

The transaction numbers come back as well, which a dump would not do: so a SpiceDB that is restored hands out revisions
anew that it has handed out before.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from pemba.dev.postgres import Postgres


class Copy:
    """Of the data folder, made while the server stands still; whoever is connected notices only a restart."""

    def __init__(self, postgres: Postgres, folder: Path) -> None:
        self.postgres = postgres
        self._folder = folder

    @classmethod
    def of(cls, postgres: Postgres) -> Copy:
        """Stop the server, copy, start it."""
        copy = cls(postgres, postgres.root / "copy")
        shutil.rmtree(copy._folder, ignore_errors=True)
        postgres.stop()
        _copy(postgres.data, copy._folder)
        postgres.start()
        return copy

    def restore(self) -> None:
        """The server is killed, and starts with what it held then; the copy stays."""
        self.postgres.kill()
        shutil.rmtree(self.postgres.data)
        _copy(self._folder, self.postgres.data)
        self.postgres.start()


def _copy(source: Path, target: Path) -> None:
    """With owners and modes: PostgreSQL refuses a folder that is another's."""
    subprocess.run(["cp", "-a", str(source), str(target)], check=True, timeout=60)
