"""PostgreSQL and SpiceDB for the tests: embedded, or what PEMBA_DATABASE_URL and PEMBA_SPICEDB_ENDPOINT name, or
containers (PEMBA_TEST_STACK=docker).

The servers are shared by the whole session and start only if a test needs them, side by side.  A test gets a database
of its own; in SpiceDB it shares the store, whose ids no two tenants share.  A test that stops a server, or empties
it, takes one of its own (`own_postgres`, `own_spicedb`).
"""

from __future__ import annotations

import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import grpc
import hypothesis
import pytest
import structlog
from authzed.api.v1 import DeleteRelationshipsRequest, RelationshipFilter
from authzed.api.v1.permission_service_pb2_grpc import PermissionsServiceStub

from pemba.config import DevSettings, load
from pemba.dev.backends import PostgresAccess, SpiceDBAccess
from pemba.dev.pemba_process import run_pemba
from pemba.dev.postgres import Postgres
from pemba.dev.process import Server, StartError
from pemba.dev.programs import GHZ, GRPCURL, SPICEDB, Program, find_program
from pemba.dev.spicedb import SpiceDB

# No example is late on a machine that is busy with servers.
hypothesis.settings.register_profile("pemba", deadline=None)
hypothesis.settings.load_profile("pemba")

AnySpiceDB = SpiceDB | SpiceDBAccess
AnyServer = TypeVar("AnyServer", bound=Server)


_SAID = "said"
_NEED_SPICEDB = {"spicedb", "own_spicedb", "spicedb_program", "running_dev"}
_NEED = {"grpcurl_program": GRPCURL, "ghz_program": GHZ}


@pytest.fixture(scope="session", autouse=True)
def loggers_are_not_kept() -> Iterator[None]:
    """One that is kept goes by what was configured at its first use: what it says later no test would capture."""
    configure = structlog.configure
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            structlog, "configure", lambda **given: configure(**{**given, "cache_logger_on_first_use": False})
        )
        yield


@pytest.fixture(autouse=True)
def loggers_as_they_come() -> Iterator[None]:
    """A command that runs in this process sets up the log, and its level would be that of every later test."""
    yield
    structlog.reset_defaults()


RACES = 100


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A race is run once, and a hundred times by `make test-long`."""
    if metafunc.definition.get_closest_marker("race"):
        runs = [pytest.param(n, marks=[pytest.mark.long] if n else []) for n in range(RACES)]
        metafunc.fixturenames.append("run")
        metafunc.parametrize("run", runs)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what programs are still to be built, before any test's clock runs: it takes minutes."""
    if session.config.option.collectonly:
        return
    settings, progress, fixtures = load(DevSettings), _progress(session.config), _fixtures(session)
    if settings.spicedb_endpoint and hasattr(session.config, "workerinput"):
        pytest.exit("tests of several processes would meet in PEMBA_SPICEDB_ENDPOINT's store: WORKERS=0", returncode=1)
    for name in fixtures & set(_NEED):
        with suppress(StartError):  # the fixture's test says why
            find_program(_NEED[name], settings.cache_folder, progress)
    if not fixtures & _NEED_SPICEDB or settings.spicedb_endpoint or settings.test_stack == "docker":
        return
    try:
        find_program(SPICEDB, settings.cache_folder, progress)
    except StartError as error:
        pytest.exit(str(error), returncode=1)


def _fixtures(session: pytest.Session) -> set[str]:
    return {name for item in session.items for name in getattr(item, "fixturenames", ())}


def _progress(config: pytest.Config) -> Callable[[str], None]:
    capture = config.pluginmanager.getplugin("capturemanager")

    def show(text: str) -> None:
        with capture.global_and_fixture_disabled():
            # One of several processes has its stdout for the first of them.
            stream = sys.stderr if hasattr(config, "workerinput") else sys.stdout
            stream.write(f"\r{text:<110}")
            stream.flush()

    return show


@pytest.fixture
def say(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Prints a text at the end of the run, whichever process ran the test."""
    return lambda text: record_property(_SAID, text)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests said."""
    reports = [report for kind in terminalreporter.stats.values() for report in kind]
    said = [
        (report.nodeid, text)
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, text in report.user_properties
        if name == _SAID
    ]
    if said:
        terminalreporter.section("what tests say")
    for test, text in said:
        terminalreporter.write_line(f"{test}\n{text}\n")


class Starting:
    """The servers that the collected tests need, being started side by side."""

    def __init__(self, settings: DevSettings, folder: Path, progress: Callable[[str], None]) -> None:
        self._settings = settings
        self._folder = folder
        self._progress = progress
        self._running = ExitStack()
        self._pool = ThreadPoolExecutor(3)
        self._started: dict[str, Future[Any]] = {}
        self._starting = Lock()  # tests ask, and servers that need others do so in the pool's threads

    def get(self, name: str) -> Any:
        """The server of that name, running; the first call starts it."""
        return self.start(name).result()

    def start(self, name: str) -> Future[Any]:
        with self._starting:
            if name not in self._started:
                begin: Callable[[], Any] = getattr(self, f"_{name}")
                self._started[name] = self._pool.submit(begin)
            return self._started[name]

    def stop(self) -> None:
        self._pool.shutdown()
        self._running.close()

    def _postgres(self) -> PostgresAccess:
        log = self._folder / "psql.log"
        if self._settings.database_url:
            return PostgresAccess(self._settings.database_url, self._settings.database_url, log)
        if self._settings.test_stack == "docker":
            container: PostgresAccess = self._running.enter_context(_containers().postgres(log))
            return container
        server = self.run(Postgres(self._folder / "postgres", durable=False))
        return PostgresAccess(server.url(), server.ensure_database("pemba", "pemba"), log)

    def _spicedb_postgres(self) -> Postgres:
        return self.run(Postgres(self._folder / "spicedb_postgres", durable=False))

    def _spicedb_program(self) -> Path:
        return find_program(SPICEDB, self._settings.cache_folder, self._progress)

    def _spicedb(self) -> AnySpiceDB:
        if self._settings.spicedb_endpoint:
            return SpiceDBAccess(self._settings.spicedb_endpoint, self._settings.spicedb_key)
        if self._settings.test_stack == "docker":
            container: SpiceDBAccess = self._running.enter_context(_containers().spicedb())
            return container
        return self.own_spicedb("spicedb")

    def own_spicedb(self, database: str) -> SpiceDB:
        """A SpiceDB on a database of its own, without a schema."""
        postgres, program = self.get("spicedb_postgres"), self.get("spicedb_program")
        log = self._folder / f"{database}.log"
        return self.run(SpiceDB(program, postgres, secrets.token_urlsafe(32), log=log, database=database))

    def run(self, server: AnyServer) -> AnyServer:
        """Start a server that the end of the session stops."""
        self._running.callback(server.stop)
        server.start()
        return server


def _containers() -> Any:
    from pemba.dev import containers  # needs packages that only tests have

    why_not = containers.why_no_engine()
    if why_not is not None:
        pytest.skip(why_not)
    return containers


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> Iterator[Starting]:
    """Starts at once what the tests of this session name among their fixtures."""
    folder = Path(tempfile.mkdtemp(prefix="pemba-test-"))  # not pytest's: its paths are long, and sockets lie here
    starting = Starting(load(DevSettings), folder, _progress(request.config))
    for name in _fixtures(request.session) & {"postgres", "spicedb"}:
        starting.start(name)
    yield starting
    starting.stop()
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def spicedb_program(servers: Starting) -> Path:
    """The spicedb program: for tests that start `pemba dev` itself."""
    program: Path = servers.get("spicedb_program")
    return program


@pytest.fixture(scope="session")
def grpcurl_program() -> Path:
    """The grpcurl program; a test that takes it is skipped where it is neither there nor can be built."""
    return _found(GRPCURL)


@pytest.fixture(scope="session")
def ghz_program() -> Path:
    """The ghz program, in the same way."""
    return _found(GHZ)


def _found(program: Program) -> Path:
    try:
        return find_program(program, load(DevSettings).cache_folder, lambda _: None)
    except StartError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def postgres(servers: Starting) -> PostgresAccess:
    """The PostgreSQL that the tests share."""
    access: PostgresAccess = servers.get("postgres")
    return access


@pytest.fixture(scope="session")
def shared_spicedb(servers: Starting, apply_schema: Callable[[AnySpiceDB], None]) -> AnySpiceDB:
    access: AnySpiceDB = servers.get("spicedb")
    apply_schema(access)
    return access


@pytest.fixture
def spicedb(shared_spicedb: AnySpiceDB) -> AnySpiceDB:
    """The SpiceDB that the tests share: `endpoint`, `key`, and Pemba's schema in it.

    No fences: to the database of one test those of another's are commits that it lost.
    """
    delete_fences(shared_spicedb)
    return shared_spicedb


@pytest.fixture(scope="session")
def template_database(postgres: PostgresAccess) -> Iterator[str]:
    """A migrated database that nobody is connected to."""
    name = postgres.create_database()
    upgrade(postgres.url(name))
    yield name
    postgres.drop_database(name)


@pytest.fixture
def database_url(postgres: PostgresAccess, template_database: str) -> Iterator[str]:
    """A migrated, empty database for one test."""
    name = postgres.create_database(template_database)
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture
def own_postgres() -> Iterator[Callable[[], Postgres]]:
    """Makes a PostgreSQL for one test to stop, kill and start; `url("pemba", "pemba")` is a migrated database."""
    with ExitStack() as running:

        def make() -> Postgres:
            folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="pemba-test-")))
            server = Postgres(folder / "postgres", durable=False)
            running.callback(server.stop)
            server.start()
            upgrade(server.ensure_database("pemba", "pemba"))
            return server

        yield make


@pytest.fixture
def own_spicedb(servers: Starting, apply_schema: Callable[[AnySpiceDB], None]) -> Iterator[Callable[[], SpiceDB]]:
    """Makes a SpiceDB with a store of its own, and Pemba's schema in it, for one test to stop, kill and empty."""
    with ExitStack() as running:

        def make() -> SpiceDB:
            server = servers.own_spicedb(f"spicedb_{secrets.token_hex(4)}")
            running.callback(server.stop)
            apply_schema(server)
            return server

        yield make


def delete_fences(spicedb: AnySpiceDB) -> None:
    with grpc.insecure_channel(spicedb.endpoint) as channel:
        PermissionsServiceStub(channel).DeleteRelationships(
            DeleteRelationshipsRequest(relationship_filter=RelationshipFilter(resource_type="fence")),
            metadata=(("authorization", f"Bearer {spicedb.key}"),),
            timeout=10,
        )


def upgrade(url: str) -> None:
    """Migrate to the newest revision, in a thread: migrations run an event loop of their own."""
    from pemba.storage import migrate

    with ThreadPoolExecutor(1) as pool:
        pool.submit(migrate.upgrade, url).result()


@pytest.fixture(scope="session")
def apply_schema(postgres: PostgresAccess, template_database: str) -> Callable[[AnySpiceDB], None]:
    """Writes Pemba's permission schema as a deployment does; its records go to a database that is dropped again."""

    def apply(spicedb: AnySpiceDB) -> None:
        name = postgres.create_database(template_database)
        settings = {
            "PEMBA_DATABASE_URL": postgres.url(name),
            "PEMBA_SPICEDB_ENDPOINT": spicedb.endpoint,
            "PEMBA_SPICEDB_KEY": spicedb.key,
        }
        run_pemba("schema", "apply", settings=settings, log=postgres.log.with_name("schema_apply.log"))
        postgres.drop_database(name)

    return apply
