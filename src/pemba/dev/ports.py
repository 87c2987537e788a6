"""Ports to listen on, on the loopback interface alone."""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping
from contextlib import ExitStack

from pemba.dev.process import StartError

HOST = "127.0.0.1"


def choose_ports(wanted: Mapping[str, int]) -> dict[str, str]:
    """An address (host:port) for each name; where a port is 0, any that is free.  All are different.

    Raises StartError where a port is taken; names are the flags that set them.
    """
    with ExitStack() as held:
        return {name: _address(held.enter_context(socket.socket()), name, port) for name, port in wanted.items()}


def _address(probe: socket.socket, name: str, port: int) -> str:
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else a closed connection counts for a minute
    try:
        probe.bind((HOST, port))
        probe.listen()  # two that are only bound may share a port
    except (OSError, OverflowError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        why = "another process listens there" if taken else str(error)
        raise StartError(f"{name} {port}: {why}; give another port, or 0 for a free one") from None
    return f"{HOST}:{probe.getsockname()[1]}"
