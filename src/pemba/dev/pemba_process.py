"""Pemba's own commands as child processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from http.client import HTTPConnection
from pathlib import Path

from pemba.dev.health import is_serving
from pemba.dev.process import Server, run


class PembaProcess(Server):
    """`pemba COMMAND`, with `settings` (PEMBA_... to value) over the inherited environment."""

    def __init__(self, name: str, settings: Mapping[str, str], log: Path) -> None:
        super().__init__(name, log)
        self.settings = settings

    def command(self) -> list[str]:
        return _command(self.name)

    def environment(self) -> dict[str, str]:
        return {**os.environ, **self.settings}


class Serve(PembaProcess):
    """`pemba serve`; ready when its gRPC health service says so."""

    def is_ready(self) -> bool:
        return is_serving(self.settings["PEMBA_GRPC_LISTEN"])


class Relay(PembaProcess):
    """`pemba relay`; ready when its HTTP readiness says so."""

    def is_ready(self) -> bool:
        connection = HTTPConnection(self.settings["PEMBA_RELAY_HTTP_LISTEN"], timeout=1)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


def run_pemba(*arguments: str, settings: Mapping[str, str], log: Path) -> None:
    """Run a command of Pemba to its end.  Raises StartError with its last output."""
    run(
        " ".join(("pemba", *arguments)),
        _command(*arguments),
        log=log,
        environment={**os.environ, **settings},
    )


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pemba", *arguments]
