"""What `pemba dev` keeps between runs, and how a running one is found."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pemba.dev.data_folder import DataFolder
from pemba.dev.process import StartError
from pemba.dev.ready import Ready, read_ready

READY = Ready(
    grpc="127.0.0.1:1",
    http="127.0.0.1:2",
    key="k",
    database_url="postgresql://pemba@/pemba",
    spicedb_endpoint="127.0.0.1:3",
    spicedb_key="s",
    pid={"dev": 7},
)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[DataFolder]:
    folder = DataFolder(tmp_path / "data")
    with folder.locked():
        yield folder


@pytest.fixture
def sleeper() -> Iterator[psutil.Popen]:
    process = psutil.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.communicate()


def test_a_second_user_of_the_folder_is_refused_and_told_what_to_do(folder: DataFolder) -> None:
    with pytest.raises(StartError, match=r"already runs .*process \d+.*--data-dir"), DataFolder(folder.path).locked():
        pass


def test_secrets_are_private_random_and_stay(folder: DataFolder) -> None:
    first, other = folder.secret("system_keys"), folder.secret("root_secrets")

    assert first.stat().st_mode & 0o777 == 0o600
    assert len(first.read_text()) >= 43
    assert first.read_text() != other.read_text()
    assert DataFolder(folder.path).secret("system_keys").read_text() == first.read_text()


def test_a_process_of_an_earlier_run_is_ended(folder: DataFolder, sleeper: psutil.Popen) -> None:
    folder.record({"serve": sleeper.pid})

    assert folder.kill_leftovers() == ["serve"]
    assert sleeper.wait(10) == -9


def test_a_stranger_with_a_reused_process_id_is_left_alone(folder: DataFolder, sleeper: psutil.Popen) -> None:
    folder.record({"serve": sleeper.pid})
    file = folder.path / "processes.json"
    file.write_text(json.dumps({"serve": [sleeper.pid, sleeper.create_time() - 60]}))

    assert folder.kill_leftovers() == []
    assert sleeper.poll() is None


def test_the_ready_file_is_private_and_comes_back_as_it_was_written(tmp_path: Path) -> None:
    READY.write(tmp_path / "ready.json")

    assert (tmp_path / "ready.json").stat().st_mode & 0o777 == 0o600
    assert read_ready(tmp_path) == READY
    assert [path.name for path in tmp_path.iterdir()] == ["ready.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"grpc": "127.0.0.1:1"}'])
def test_a_ready_file_that_is_not_one_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "ready.json").write_text(text)

    assert read_ready(tmp_path) is None


def test_where_none_runs_there_is_no_ready_file(tmp_path: Path) -> None:
    assert read_ready(tmp_path) is None
