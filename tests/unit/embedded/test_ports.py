from __future__ import annotations

import socket

import pytest

from headrace.embedded.errors import EmbeddedError, PortInUse
from headrace.embedded.ports import Ports
from headrace.embedded.processes import free_port, require_free_port


def test_ports_are_counted_from_the_base() -> None:
    ports = Ports(8080)
    assert (ports.ingest_http, ports.console_http, ports.mongo, ports.redis) == (8080, 8081, 8111, 8112)
    assert ports.grpc == {"ingest": 8091, "identity": 8092, "audience": 8093, "sync": 8094, "console": 8095}
    assert ports.metrics == {"ingest": 8101, "identity": 8102, "audience": 8103, "sync": 8104, "console": 8105}


@pytest.mark.parametrize("base", [-1, 0, 65_504, 80_800])
def test_a_base_out_of_range_is_refused(base: int) -> None:
    with pytest.raises(EmbeddedError, match=f"--port-base {base} is out of range: choose 1 to 65503"):
        Ports(base)


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_port_in_use_is_named(address: str) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # as gRPC servers do
        taken.bind((address, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=rf"^port {port} \(gRPC of sync\) cannot be used .*in use\): go away"):
            require_free_port(port, "gRPC of sync", advice="go away")
        with pytest.raises(PortInUse, match=rf"^port {port} \(HTTP of ingest\) .* --port-base$"):
            Ports(port).require_free()


def test_a_port_whose_connections_have_just_ended_is_free() -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as all servers do
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = server.accept()
            accepted.close()  # this side closes first, and keeps the port in TIME_WAIT
    require_free_port(port, "a test", advice="")
    require_free_port(free_port(), "a test", advice="")
