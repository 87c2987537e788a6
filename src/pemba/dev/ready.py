"""The file by which a running `pemba dev` is found: where it listens, its keys and its processes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

FILE_NAME = "ready.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What `pemba dev` tells: addresses as host:port, `key` a system key with every scope, `pid` by process name."""

    grpc: str
    http: str
    key: str
    database_url: str
    spicedb_endpoint: str
    spicedb_key: str
    pid: Mapping[str, int]

    @property
    def line(self) -> str:
        """The line that ends a start."""
        return f"pemba ready grpc={self.grpc} http={self.http} key={self.key}"

    def write(self, file: Path) -> None:
        write_private(file, json.dumps(asdict(self), indent=2) + "\n")


def read_ready(data_folder: Path) -> Ready | None:
    """What the `pemba dev` that runs on `data_folder` tells; None where none runs (or its file is not to be read)."""
    try:
        return Ready(**json.loads((data_folder / FILE_NAME).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def write_private(file: Path, text: str) -> None:
    """Write `file` with mode 0600, by rename: a reader sees the old or the new text, whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as output:
        output.write(text)
    fresh.replace(file)
