"""A wall clock that is an hour off changes nothing in a relay: no part of it reads one."""

import ast
import importlib
import inspect
import pkgutil

import pytest

import pemba.relay
from pemba.storage import delivery, leases, wakeup

MODULES = [
    *(importlib.import_module(found.name) for found in pkgutil.iter_modules(pemba.relay.__path__, "pemba.relay.")),
    delivery,
    leases,
    wakeup,
]
WALL_CLOCKS = {"time.time", "time.time_ns", "time.localtime", "time.gmtime", "time.strftime", "time.CLOCK_REALTIME"}


def clocks_in(source: str) -> set[str]:
    """What a module reads of wall clocks, however it imports them."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(value=ast.Name(id=module), attr=name):
                found.add(f"{module}.{name}")
            case ast.Import(names=names):
                found |= {name.name for name in names if name.name == "datetime"}
            case ast.ImportFrom(module=module, names=names):
                found |= {f"{module}.{name.name}" for name in names}
    return {name for name in found if name in WALL_CLOCKS or name.startswith("datetime")}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_no_part_of_the_relay_reads_a_wall_clock(module) -> None:
    assert clocks_in(inspect.getsource(module)) == set()


@pytest.mark.parametrize(
    "source",
    ["import time\ntime.time()", "from time import time", "import datetime", "from datetime import datetime"],
)
def test_one_that_did_would_be_found(source: str) -> None:
    assert clocks_in(source)
