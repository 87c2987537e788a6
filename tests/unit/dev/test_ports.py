"""Ports that are free."""

from __future__ import annotations

import socket

import pytest

from pemba.dev.ports import choose_ports
from pemba.dev.process import StartError


def test_zero_picks_different_free_ports_on_the_loopback_interface() -> None:
    chosen = choose_ports({"--grpc-port": 0, "--http-port": 0, "relay": 0})

    assert len(set(chosen.values())) == 3
    assert all(address.startswith("127.0.0.1:") and not address.endswith(":0") for address in chosen.values())


def test_a_taken_port_is_refused_by_the_name_of_its_flag() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(StartError, match=f"--grpc-port {port}: another process listens there; give another"):
            choose_ports({"--grpc-port": port})


def test_one_port_for_two_flags_is_refused() -> None:
    port = int(choose_ports({"--grpc-port": 0})["--grpc-port"].rpartition(":")[2])

    with pytest.raises(StartError, match="--http-port"):
        choose_ports({"--grpc-port": port, "--http-port": port})
