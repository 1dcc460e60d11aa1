from __future__ import annotations

import dataclasses

import pytest

from pytest_vmsnap.machine import tcp_ports
from pytest_vmsnap.model import Result

TABLES = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1E61 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   2: 0F02000A:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   3: 0100007F:1F90 0100007F:C000 01 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
  sl  local_address                         remote_address                        st
   0: 00000000000000000000000001000000:0277 00000000000000000000000000000000:0000 0A 00000000:00000000
"""
ANSWER = Result(command="c", returncode=0, signal=None, stdout=TABLES.encode(), stderr=b"", duration=0.1)


@pytest.mark.parametrize(
    ("port", "is_open"),
    [(7777, True), (22, True), (631, True), (80, False), (8080, False), (23, False)],
    ids=["loopback", "any", "IPv6 loopback", "another address", "connected, not listening", "nobody"],
)
def test_a_port_of_the_guest_is_open_where_somebody_listens_for_it(port: int, is_open: bool) -> None:
    assert tcp_ports.is_open(ANSWER, port, "localhost") == is_open


def test_an_error_names_the_guests_ports_only_where_it_was_asked_for_them() -> None:
    said = tcp_ports.describe(ANSWER, "localhost")
    assert said == "the guest's listening ports: 22, 80 (not on localhost), 631, 7777\n"
    refused = dataclasses.replace(ANSWER, returncode=1, stdout=b"", stderr=b"nc: connection refused\n")
    said = tcp_ports.describe(refused, "server")
    assert said == "the last connection to server from the guest: status 1, nc: connection refused\n"
    assert "no message" in tcp_ports.describe(dataclasses.replace(refused, stderr=b""), "server")
