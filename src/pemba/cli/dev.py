"""`pemba dev`: everything on this machine, until Ctrl-C."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pemba.cli.failure import ExitCode
from pemba.cli.progress import Progress
from pemba.config import DEFAULT_GRPC_PORT, DEFAULT_HTTP_PORT, DevSettings, load
from pemba.dev.ready import Ready
from pemba.errors import ConfigError


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
    demo: Annotated[bool, typer.Option("--demo", help="Load the companies of `pemba demo` as well.")] = False,
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
            before_ready=(lambda ready: _load_demo(ready, progress)) if demo else None,
        )
        code = run(options, progress)
    except (ConfigError, StartError) as error:
        progress.problem(str(error))
        raise typer.Exit(ExitCode.USAGE if isinstance(error, ConfigError) else ExitCode.FAILED) from None
    finally:
        progress.end()
    raise typer.Exit(code)


class _Progress(Progress):
    """A Reporter."""

    def __init__(self) -> None:
        super().__init__("pemba dev")

    def ready(self, ready: Ready) -> None:
        self.end()
        print(ready.line, flush=True)
        if self.console.is_terminal:
            self.console.print("Ctrl-C stops everything.")


def _load_demo(ready: Ready, progress: Progress) -> None:
    """Load the demo, and show its checks on stderr: the ready line is what stdout is for.  Raises StartError."""
    import grpc

    from pemba.cli import demo
    from pemba.cli.call_options import CallOptions
    from pemba.cli.connection import Connection, Target
    from pemba.cli.failure import CallFailed
    from pemba.dev.process import StartError

    try:
        with grpc.insecure_channel(ready.grpc) as channel:
            pemba = Connection(channel, Target(ready.grpc, ready.key), CallOptions(), tenant="")
            loaded, asked = demo.load_and_ask(pemba, progress)
    except CallFailed as error:
        raise StartError(f"--demo: {error}") from error
    progress.end()
    for line in [*demo.summary(loaded), *demo.to_try(asked), ""]:
        progress.console.print(line)
