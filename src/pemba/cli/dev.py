"""`pemba dev`: everything on this machine, until Ctrl-C."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from pemba.cli.failure import ExitCode
from pemba.config import DEFAULT_GRPC_PORT, DEFAULT_HTTP_PORT, DevSettings, load
from pemba.dev.ready import Ready
from pemba.errors import ConfigError

_SECONDS_BETWEEN_LINES = 10.0


def dev(
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Data and secrets, kept from one run to the next [default: ~/.local/share/pemba/dev]."),
    ] = None,
    grpc_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the API; 0 picks a free one.")
    ] = DEFAULT_GRPC_PORT,
    http_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of health and metrics; 0 picks a free one.")
    ] = DEFAULT_HTTP_PORT,
    ready_file: Annotated[
        Path | None, typer.Option(help="Once ready, write addresses and keys to this file, as JSON.")
    ] = None,
) -> None:
    """Run Pemba on this machine: PostgreSQL, SpiceDB, the API and the relay, until Ctrl-C."""
    try:  # the servers' packages are an extra of their own: other commands go without
        from pemba.dev.parts import Options
        from pemba.dev.process import StartError
        from pemba.dev.stack import run
    except ModuleNotFoundError as missing:
        print(f"pemba dev: {missing}; it needs more packages: pip install 'pemba[dev-stack]'", file=sys.stderr)
        raise typer.Exit(ExitCode.FAILED) from None
    progress = _Progress()
    try:
        options = Options(
            settings=load(DevSettings, {"data_dir": data_dir}),
            grpc_port=grpc_port,
            http_port=http_port,
            ready_file=ready_file,
        )
        code = run(options, progress)
    except (ConfigError, StartError) as error:
        progress.problem(str(error))
        raise typer.Exit(ExitCode.USAGE if isinstance(error, ConfigError) else ExitCode.FAILED) from None
    finally:
        progress.end()
    raise typer.Exit(code)


class _Progress:
    """A Reporter on stderr: a spinner on a terminal, lines elsewhere."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        self._status: Any = None
        self._last_line = 0.0

    def step(self, text: str) -> None:
        if self._console.is_terminal:
            self._spin(text)
        else:
            self._console.print(text)

    def progress(self, text: str) -> None:
        if self._console.is_terminal:
            self._spin(text)
        elif time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self._console.print(text)

    def problem(self, text: str) -> None:
        self._console.print(f"pemba dev: {text}")

    def ready(self, ready: Ready) -> None:
        self.end()
        print(ready.line, flush=True)
        if self._console.is_terminal:
            self._console.print("Ctrl-C stops everything.")

    def end(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _spin(self, text: str) -> None:
        if self._status is None:
            self._status = self._console.status(text)
            self._status.start()
        self._status.update(text)
