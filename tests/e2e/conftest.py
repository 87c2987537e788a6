"""One `pemba dev`, as a person would start it, for the tests that only talk to it."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import pytest

from pemba.config import DevSettings, load
from tests.e2e.calls import Caller

STOP_SECONDS = 60


@pytest.fixture(scope="session")
def running_dev() -> Iterator[Mapping[str, str]]:
    """The environment of a second terminal: a home in which a `pemba dev` runs, and nothing else that is Pemba's."""
    with TemporaryDirectory(prefix="pemba-e2e-") as home:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PEMBA_", "XDG_"))}
        environment = {**inherited, "HOME": home}
        with (Path(home) / "stderr").open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "pemba", "dev", "--grpc-port", "0", "--http-port", "0"],
                # a spicedb that was built for somebody else's tests is as good
                env={**environment, "PEMBA_CACHE_DIR": str(load(DevSettings).cache_folder)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("pemba ready "), Path(errors.name).read_text()
            _wait_for(Path(home) / ".local/share/pemba/dev/ready.json")  # it comes right after the line
            yield environment
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=STOP_SECONDS)


def _wait_for(file: Path) -> None:
    deadline = time.monotonic() + 10
    while not file.exists():
        assert time.monotonic() < deadline, f"{file} did not come"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def ready(running_dev: Mapping[str, str]) -> dict[str, Any]:
    """What `pemba dev` says of itself in its ready file."""
    text = (Path(running_dev["HOME"]) / ".local/share/pemba/dev/ready.json").read_text()
    said: dict[str, Any] = json.loads(text)
    return said


@pytest.fixture
async def system(ready: dict[str, Any]) -> AsyncIterator[Caller]:
    """A service with a system key."""
    async with grpc.aio.insecure_channel(ready["grpc"]) as channel:
        yield Caller(channel, ready["key"])


@pytest.fixture
async def acme(system: Caller) -> dict[str, str]:
    """A tenant of one's own with alice as admin: its id, its root's, and those of `eng` and of `backend` below it."""
    created = await system("CreateTenant", slug=f"acme-{secrets.token_hex(4)}", name="Acme", first_admin="alice")
    tenant, root = created["tenant"]["id"], created["root_workspace"]["id"]
    ids = {"tenant": tenant, "root": root, "slug": created["tenant"]["slug"]}
    for slug, parent in (("eng", "root"), ("backend", "eng")):
        made = await system("CreateWorkspace", tenant_id=tenant, parent_id=ids[parent], slug=slug, name=slug.title())
        ids[slug] = made["workspace"]["id"]
    return ids
