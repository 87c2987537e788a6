"""The project's own checks notice what they are there for."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONTRACTS = PYPROJECT["tool"]["importlinter"]["contracts"]

FORBIDDEN = [
    ("model.py", "import structlog"),
    ("telemetry.py", "import pemba.model"),
    ("service/novel.py", "import pemba.config"),
    ("service/novel.py", "import pemba.rpc"),
    ("storage/novel.py", "import pemba.service"),
    ("relay/novel.py", "import pemba.authorizer"),
    ("rpc/novel.py", "import pemba.projection"),
    ("rpc/novel.py", "import pemba.storage"),
    ("rpc/novel.py", "import pemba.spicedb"),
    ("service/novel.py", "import pemba.v1"),
    ("relay/novel.py", "import authzed"),
    ("service/novel.py", "import sqlalchemy"),
    ("authorizer/novel.py", "import asyncpg"),
    ("service/novel.py", "import grpc"),
    ("rpc/novel.py", "import rich"),
    ("cli/novel.py", "import pydantic_settings"),
    ("newcomer/__init__.py", "import pemba.storage"),
]


def test_every_contract_of_the_import_table_breaks_when_it_should(tmp_path):
    package = tmp_path / "src/pemba"
    shutil.copytree(ROOT / "src/pemba", package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for file, line in FORBIDDEN:
        (package / file).parent.mkdir(exist_ok=True)
        with (package / file).open("a") as source:
            source.write(f"\n{line}\n")
    done = _lint_imports(tmp_path)
    assert done.returncode == 1
    assert f"{len(CONTRACTS)} broken" in done.stdout
    for file, line in FORBIDDEN:
        importer = "pemba." + file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        assert f"{importer} -> {line.removeprefix('import ')}" in " ".join(done.stdout.split())


def _lint_imports(folder):
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "src")},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_contracts_know_every_module_and_every_library():
    graph = grimp.build_graph("pemba", include_external_packages=True, cache_dir=None)
    protected = {module for contract in CONTRACTS for module in contract.get("protected_modules", [])}
    free = {f"pemba.{name}" for name in ("model", "errors", "tokens", "telemetry", "__main__")}
    assert graph.find_children("pemba") <= protected | free
    [pure] = [contract for contract in CONTRACTS if "pemba.tokens" in contract.get("source_modules", [])]
    libraries = {m for m in graph.modules if "." not in m} - set(sys.stdlib_module_names) - {"pemba"}
    assert libraries <= set(pure["forbidden_modules"])


def test_every_library_is_pinned():
    project = PYPROJECT["project"]
    wanted = [
        *project["dependencies"],
        *(line for lines in project["optional-dependencies"].values() for line in lines),
    ]
    names = {_plain(line) for line in wanted}
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines())
    assert names <= {_plain(name) for name in pins}


def _plain(requirement: str) -> str:
    name = requirement
    for separator in "[<>=!~; ":
        name = name.partition(separator)[0]
    return name.lower().replace("_", "-").replace(".", "-")


@pytest.fixture
def bare_machine(tmp_path):
    """A folder for PATH with the tools that make needs, and none of Python."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("make", "sh", "bash", "sed", "touch", "tee", "mktemp", "rm", "dirname", "grep", "tail", "echo"):
        if found := shutil.which(name):
            (tools / name).symlink_to(found)
    return tools


def _script(file: Path, text: str) -> None:
    file.unlink(missing_ok=True)
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)


def _run(command, folder, path):
    return subprocess.run(
        command,
        cwd=folder,
        env={"PATH": str(path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("target", ["setup", "run", "test"])
def test_without_a_python_that_is_new_enough_make_says_what_it_takes(tmp_path, bare_machine, target):
    shutil.copy(ROOT / "Makefile", tmp_path)
    for file in ("pyproject.toml", "constraints.txt"):
        (tmp_path / file).touch()
    _script(bare_machine / "python3", "exit 1")
    done = _run(["make", target], tmp_path, bare_machine)
    assert done.returncode == 2
    assert "no Python of 3.11 or newer" in done.stderr
    assert "make setup PYTHON=" in done.stderr


def test_make_alone_lists_the_targets(tmp_path, bare_machine):
    (bare_machine / "expand").symlink_to(shutil.which("expand"))
    done = _run(["make", "--file", str(ROOT / "Makefile")], tmp_path, bare_machine)
    for target in ("setup", "run", "test", "test-long", "lint", "proto"):
        assert f"make {target} " in done.stdout


@pytest.mark.parametrize("code", [0, 2])
def test_ci_ends_with_pytests_closing_line_and_makes_exit_code(tmp_path, bare_machine, code):
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/run", tmp_path / ".ci/run")
    closing = "=== 1 failed, 12 passed in 3.21s ==="
    _script(
        bare_machine / "make",
        f'[ "$*" = test ] || exit 9; echo "{closing}"; echo "make: *** [test] Error" >&2; exit {code}',
    )
    done = _run(["bash", ".ci/run"], tmp_path, bare_machine)
    assert done.returncode == code
    assert done.stdout.splitlines()[-1] == closing
