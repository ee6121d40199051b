"""Processes that serve as one, over a reactor that starts none."""

# mypy: allow-untyped-calls

from __future__ import annotations

import errno
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from dockmirror.workers.rpc_channel import RpcError
from dockmirror.workers.worker_pool import WorkerPool
from tests.stacks import Outcome, logged


class Started:
    """A process, as the one that started it sees it."""

    def __init__(self, protocol: Any, arguments: list[str], environ: dict[str, str]) -> None:
        self.protocol = protocol
        self.arguments = arguments
        self.environ = environ
        self.signals: list[str] = []
        self.line: Any = None
        protocol.transport = self

    def signalProcess(self, name: str) -> None:
        """See ``IProcessTransport``."""
        self.signals.append(name)

    def ends(self, code: int = 1) -> None:
        """It is gone."""
        self.protocol.processEnded(Failure(ProcessTerminated(code) if code else ProcessDone(0)))

    def says(self, **answer: Any) -> None:
        """Answers the newest question."""
        number = self.asked[-1]["number"]
        self.line.dataReceived(json.dumps({"number": number, **answer}).encode() + b"\n")

    @property
    def asked(self) -> list[dict[str, Any]]:
        """All questions so far."""
        return [json.loads(line) for line in self.line.transport.value().splitlines()]


class Reactor(Clock):
    """Keeps what it would start."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[Started] = []
        self.failing: OSError | None = None
        self.line: Any = None

    def callWhenRunning(self, call: Any) -> None:
        """It runs."""
        call()

    def spawnProcess(self, protocol: Any, _: str, arguments: list[str], env: Any, childFDs: Any) -> None:
        """See ``IReactorProcess``."""
        if self.failing is not None:
            raise self.failing
        self.started.append(Started(protocol, arguments, env))
        self.started[-1].line = self.line

    def adoptStreamConnection(self, _: int, __: Any, factory: Any) -> None:
        """The line to the next one."""
        self.line = factory.buildProtocol(None)
        self.line.makeConnection(StringTransport())


@pytest.fixture
def reactor() -> Reactor:
    """Has started nothing."""
    return Reactor()


@pytest.fixture
def group(reactor: Reactor) -> WorkerPool:
    """Of two, which were started."""
    group = WorkerPool(2, "a.module", 0, list, lambda: ("begin", "so"), 30, {"A": "b"}, reactor)
    group.startService()
    return group


def test_they_begin(group: WorkerPool, reactor: Reactor) -> None:
    """With what they are told over the line; nothing of it stands in the arguments."""
    assert [each.arguments[1:4] for each in reactor.started] == [["-P", "-m", "a.module"]] * 2
    assert [(q["ask"], q["value"]) for each in reactor.started for q in each.asked] == [("begin", "so")] * 2
    assert all(each.environ["A"] == "b" and "so" not in str(each.arguments) for each in reactor.started)


def test_the_current_directory(reactor: Reactor, tmp_path: Path) -> None:
    """Is not on the import path of a worker: a module there does not run in place of an installed one."""
    (tmp_path / "bcrypt.py").write_text("open('has_run', 'w').close()")
    environ = dict(os.environ)
    WorkerPool(
        1, "dockmirror.app.worker", 0, list, lambda: ("begin", ""), 30, environ, reactor
    ).startService()
    (worker,) = reactor.started
    ended = subprocess.run(  # noqa: S603
        worker.arguments, env=worker.environ, cwd=tmp_path, capture_output=True, text=True
    )
    assert "Bad file descriptor" in ended.stderr  # all is imported by then
    assert not (tmp_path / "has_run").exists()


def test_one_that_could_not_begin(group: WorkerPool, reactor: Reactor) -> None:
    """Is ended, and another one takes its place."""
    first, second = reactor.started
    second.says(answer=None)
    with logged() as texts:
        first.says(error="no certificate")
    assert "a worker could not begin: no certificate" in texts[0]
    assert (first.signals, second.signals) == (["TERM"], [])
    first.ends()
    reactor.advance(1)
    assert len(reactor.started) == 3


def test_pauses_grow(group: WorkerPool, reactor: Reactor) -> None:
    """While they do not live for long; one that has lived is replaced at once."""
    for pause in (1, 5, 15, 30, 30):
        count = len(reactor.started)
        reactor.started[-1].ends()
        reactor.advance(pause - 0.5)
        assert len(reactor.started) == count
        reactor.advance(0.5)
        assert len(reactor.started) == count + 1
    reactor.advance(11)
    count = len(reactor.started)
    reactor.started[-1].ends()
    reactor.advance(0)
    assert len(reactor.started) == count + 1


def test_one_that_cannot_be_started(group: WorkerPool, reactor: Reactor) -> None:
    """For want of memory or of descriptors, which there may be in a while: it is tried again."""
    reactor.failing = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    reactor.started[0].ends()
    with logged() as texts:
        reactor.advance(1)
    assert "a worker ended, before it began: Resource temporarily unavailable: another one in 5 s" in texts[0]
    assert len(group.workers) == 1
    reactor.failing = None
    reactor.advance(5)
    assert len(reactor.started) == len(group.workers) + 1 == 3


def test_none_can_be_started(reactor: Reactor) -> None:
    """All are tried again, and the end waits for none of them."""
    reactor.failing = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    group = WorkerPool(2, "a.module", 0, list, lambda: ("begin", "so"), 30, {}, reactor)
    group.startService()
    assert Outcome(group.stopService())
    reactor.failing = None
    reactor.advance(100)
    assert reactor.started == []


def test_the_end(group: WorkerPool, reactor: Reactor) -> None:
    """Waits for all; who stays longer than the grace is killed, and none is replaced."""
    ending = Outcome(group.stopService())
    assert group.ending
    assert [each.signals for each in reactor.started] == [["TERM"]] * 2
    reactor.started[0].ends(0)
    assert not ending
    reactor.advance(30)
    assert reactor.started[1].signals == ["TERM", "KILL"]
    reactor.started[1].ends()
    assert ending
    reactor.advance(100)
    assert len(reactor.started) == 2


def test_what_they_answer(group: WorkerPool, reactor: Reactor) -> None:
    """Is told by their numbers; who is late is left out, and a refusal is one of all."""
    for each in reactor.started:
        each.says(answer=None)
    asked = Outcome(group.ask("state"))
    reactor.started[0].says(answer=7)
    reactor.advance(5)
    assert asked.get() == {1: 7}
    patient = Outcome(group.ask("serve", patience=60))
    reactor.started[0].says(answer=7)
    reactor.advance(59)
    assert not patient
    reactor.started[1].says(answer=8)
    assert patient.get() == {1: 7, 2: 8}
    refused = Outcome(group.ask("serve"))
    reactor.started[0].says(answer=None)
    reactor.started[1].says(error="wrong")
    assert isinstance(refused.error, RpcError)
