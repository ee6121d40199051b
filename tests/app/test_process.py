"""A process that serves clients, and how it stops."""

# mypy: allow-untyped-calls

from __future__ import annotations

import errno
import os
import sys
from io import StringIO
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.testing import StringTransport

from dockmirror.app.process import DrainConnections, ServingProcess
from dockmirror.config.load import load
from dockmirror.web.shared_tables import SharedTables
from tests.fake_registry import digest
from tests.fakes import Reply
from tests.house import House
from tests.internet import LAYER, Internet
from tests.stacks import logged


class FullFile(StringIO):
    """A file on a full disk."""

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_requests_are_served_while_standard_output_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    process = ServingProcess(load({}, {}), {}, reactor, SharedTables.create())
    transport = StringTransport()
    line: Any = process.site.buildProtocol(None)
    line.makeConnection(transport)
    with monkeypatch.context() as full, logged() as texts:
        full.setattr(sys, "__stdout__", FullFile())
        for _ in range(2):
            line.dataReceived(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
    assert transport.value().count(b"HTTP/1.1 200 OK") == 2
    (text,) = texts
    assert "cannot write to standard output: No space left on device" in text


class TestDrainConnections:
    PATH = f"/v2/a/blobs/{digest(LAYER)}"

    def stop_during_transfer(self) -> tuple[House, Any, list[int]]:
        """Stop a mirror while it sends a layer."""
        internet = Internet()
        internet.reply("registry.k8s.io", self.PATH, Reply(200, LAYER).cut(100_000, end="stalled"))
        house = House(internet)
        client = house.connect().ask("GET", "k8s.mirror.example", self.PATH)
        draining = DrainConnections(house.site, 300)
        draining.startService()
        stopped: list[int] = []
        draining.stopService().addCallback(stopped.append)
        return house, client, stopped

    def test_a_running_transfer_finishes(self) -> None:
        """The service has stopped when the client closes the connection."""
        house, client, stopped = self.stop_during_transfer()
        assert stopped == []
        house.world.go_on(LAYER[100_000:])
        assert client.answer.body == LAYER
        client.leave()
        assert stopped == [0]

    def test_a_transfer_is_aborted_after_the_grace_period(self) -> None:
        house, client, stopped = self.stop_during_transfer()
        house.pass_time(50, 249)
        assert not client.aborted
        house.pass_time(1)
        client.leave()
        assert client.aborted
        assert stopped == [1]
