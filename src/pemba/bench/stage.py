"""The stage: a whole Pemba in a temporary folder, loaded, and ghz.  All of it is gone at the end."""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from pemba.bench.dataset import DataSet, make
from pemba.bench.ghz import Ghz
from pemba.bench.loading import MARKER, Loaded, Loader, delivered
from pemba.bench.mutations import Mutations, many_tenants, one_tenant
from pemba.bench.questions import Questions
from pemba.bench.sides import Asked, Sides
from pemba.config import DevSettings
from pemba.dev.data_folder import DataFolder
from pemba.dev.parts import Options, Parts, compose
from pemba.dev.pemba_process import Relay
from pemba.dev.process import StartError
from pemba.dev.programs import GHZ, find_program
from pemba.dev.ready import Ready
from pemba.dev.stack import Reporter, Stack
from pemba.model import ObjectRef, SubjectRef
from pemba.projection import object_in_spicedb
from pemba.spicedb.client import CheckQuestion, Decision, FullyConsistent, MinimizeLatency, SpiceDB
from pemba.storage.database import API_ROLE, SYSTEM_ROLE, Database

SEED = 20
_CALL_SECONDS = 20.0
_SETTLE_SECONDS = 30.0
_STEADY_SECONDS = 1.0
"""Of the revisions that are good enough SpiceDB takes any: an older one may come up again for half a second."""
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is loaded and how long each load takes: `seconds` a turn, `rounds` turns a side."""

    tenants: int
    workspaces: int
    users: int
    seconds: float
    rounds: int
    drain_tuples: int


@dataclass(frozen=True, slots=True)
class Stage:
    """What runs: nothing is loaded yet."""

    parts: Parts
    ghz: Path
    folder: Path
    start_seconds: float


class Bench:
    """What a work needs."""

    def __init__(self, stage: Stage, size: Size, loaded: Loaded, database: Database, token: str) -> None:
        self.ready: Ready = stage.parts.ready
        self.parts = stage.parts
        self.relay: Relay = stage.parts.relay
        self.folder = stage.folder
        self.ghz = Ghz(stage.ghz, stage.folder)
        self.seconds, self.rounds, self.drain_tuples = size.seconds, size.rounds, size.drain_tuples
        self.loaded = loaded
        self.database = database
        self.questions = Questions(loaded.dataset, SEED)
        self.zipf: dict[str, list[Asked]] = {}
        """What is asked by Zipf's law, by side: each has questions of its own, so that none warms the other's."""
        self.sides = Sides(loaded, self.ready, token)
        self.many = Mutations(loaded, self.ready, self.ghz, many_tenants(loaded))
        self.one = Mutations(loaded, self.ready, self.ghz, one_tenant(loaded))

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"


@contextmanager
def running(settings: DevSettings, reporter: Reporter) -> Iterator[Stage]:
    """Start everything on empty data; stop it and remove the data at the end, also where a signal asks for that.

    Raises StartError.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    if settings.database_url or settings.spicedb_endpoint:
        raise StartError("bench fills what it runs on, and starts its own: unset PEMBA_DATABASE_URL and the others")
    ghz = find_program(GHZ, settings.cache_folder, reporter.progress)
    path = Path(tempfile.mkdtemp(prefix="pemba-bench-"))
    try:
        folder = DataFolder(path / "data")
        with folder.locked():
            options = Options(settings=settings, grpc_port=0, http_port=0)
            parts = compose(folder, options, reporter.progress)
            stack = Stack(folder, parts, options, reporter)
            try:
                start = time.monotonic()
                stack.start()
                yield Stage(parts, ghz, path, time.monotonic() - start)
            finally:
                stack.stop()
    finally:
        shutil.rmtree(path, ignore_errors=True)


@asynccontextmanager
async def loaded(stage: Stage, size: Size, reporter: Reporter) -> AsyncIterator[Bench]:
    """Load the data set and wait until it is delivered."""
    reporter.step("loading")
    dataset = make(tenants=size.tenants, workspaces=size.workspaces, users=size.users, seed=SEED)
    database = Database(stage.parts.ready.database_url, 4, (API_ROLE, SYSTEM_ROLE))
    await database.open()
    try:
        there, marked = await _load(stage.parts.ready, dataset, database, reporter)
        yield Bench(stage, size, there, database, await _token(stage.parts.ready, marked))
    finally:
        await database.close()


async def _load(ready: Ready, dataset: DataSet, database: Database, reporter: Reporter) -> tuple[Loaded, CheckQuestion]:
    """What was loaded, and a question that is allowed once all of it can be seen."""
    async with grpc.aio.insecure_channel(ready.grpc) as channel:
        loader = Loader(ready, channel)
        there = await loader.load(dataset, reporter.progress)
        await delivered(database)
        tenant, workspace = await loader.mark(there)
        await delivered(database)
    place = object_in_spicedb(tenant, ObjectRef("workspace", workspace))
    return there, CheckQuestion(place, "view", SubjectRef("user", MARKER))


async def _token(ready: Ready, marked: CheckQuestion) -> str:
    """SpiceDB's own, of everything that it holds; returns once it shows that without being told to, too."""
    spicedb = SpiceDB.connect(ready.spicedb_endpoint, ready.spicedb_key)
    try:
        async with asyncio.timeout(_SETTLE_SECONDS):
            hidden_at = time.monotonic()
            while time.monotonic() - hidden_at < _STEADY_SECONDS:
                if await _newest_is_hidden(spicedb, marked):
                    hidden_at = time.monotonic()
                await asyncio.sleep(_POLL_SECONDS)
        return (await spicedb.check(marked, FullyConsistent(), _CALL_SECONDS)).checked_at
    finally:
        await spicedb.close()


async def _newest_is_hidden(spicedb: SpiceDB, marked: CheckQuestion) -> bool:
    return (await spicedb.check(marked, MinimizeLatency(), _CALL_SECONDS)).decision is not Decision.ALLOWED
