"""Workers that are forks of the process that starts them, and the sockets that they accept from."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred  # type: ignore[import-untyped, unused-ignore]
from twisted.internet import reactor as twisted_reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread

from dockmirror.workers.worker_program import (
    BindOnlyReactor,
    InheritedSocketsReactor,
    ListeningSocket,
    ReclaimingReactor,
    inherited_endpoint,
)

reactor: Any = twisted_reactor
STARTER = """
import json, logging, os, signal, sys, threading
from pathlib import Path
from twisted.internet import selectreactor
selectreactor.install()
from twisted.internet import reactor
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger, globalLogBeginner, globalLogPublisher
from dockmirror.workers.worker_program import WORKER_SIGNALS, ForkedWorkers, SpawnedWorkers

kind, status = sys.argv[1], int(sys.argv[2])
print("printed once")
logging.basicConfig()
globalLogBeginner.beginLoggingTo([lambda event: print("of the starter")], redirectStandardIO=True)
starter, ours = os.getpid(), reactor
sys.path.insert(0, "")

def is_of_pipe(descriptor):
    return descriptor.exists() and descriptor.samefile("/proc/self/fd/11")

def serve(arguments):
    from twisted.internet import reactor
    Logger().error("for nobody")
    handled = [number for number in signal.valid_signals() if callable(signal.getsignal(number))]
    ignored = [number for number in signal.valid_signals() if signal.getsignal(number) == signal.SIG_IGN]
    facts = {
        "ignored": ignored,
        "parent": os.getppid(), "arguments": arguments, "path": sys.path, "handled": handled,
        "is_new": reactor is not ours, "type": type(reactor).__name__, "environ": dict(os.environ),
        "wakeup": signal.set_wakeup_fd(-1), "observers": len(globalLogPublisher._observers),
        "handlers": len(logging.getLogger().handlers),
        "ends": [int(each.name) for each in Path("/proc/self/fd").iterdir() if is_of_pipe(each)],
    }
    reactor.callLater(0, lambda: os.write(11, json.dumps(facts).encode()))
    reactor.callLater(0, reactor.stop)
    reactor.run()
    if kind == "unheard":
        sys.stdout = sys.__stdout__ = open(os.open("/dev/full", os.O_WRONLY), "w")
        print("to nobody")
    if status:
        raise RuntimeError("the worker fails")
    threading.Thread(target=lambda: os.write(11, b"\\n")).start()

class Ended(ProcessProtocol):
    def processEnded(self, reason):
        reading, _ = pipe
        os.close(pipe[1])
        with os.fdopen(reading) as lines:
            facts = lines.readline()
        sys.__stdout__.write(json.dumps([starter, reason.value.exitCode, facts]))
        reactor.stop()

def start():
    if kind == "threads":
        threading.Thread(target=released.wait).start()
    workers.start(Ended(), ["one", "two"], {11: pipe[1]})
    released.set()

pipe, released = os.pipe(), threading.Event()
spawned = SpawnedWorkers("tests.workers.printing", {"KEPT": "1"}, reactor)
workers = ForkedWorkers(serve, spawned)
reactor.callWhenRunning(start)
reactor.run()
"""


class Hello(Protocol):
    """Greets each client, and closes the connection."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"hello")
        self.transport.loseConnection()


@pytest.fixture
def inherited() -> Iterator[socket.socket]:
    """A socket that listens already, as systemd passes one."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening


def read_greeting(family: int, address: Any) -> bytes:
    """Connect, and return what the server sends; blocks."""
    with socket.socket(family) as client:
        client.settimeout(10)
        client.connect(address)
        return client.recv(100)


@ensureDeferred  # type: ignore[untyped-decorator, unused-ignore]
@pytest.mark.parametrize(
    "endpoint", ["tcp:0:interface=127.0.0.1", "tcp:0:interface=\\:\\:1", "unix:s:mode=660"]
)
async def test_one_process_binds_and_another_accepts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    """The binding process accepts no client, also not one that connected early; it may stop first."""
    monkeypatch.chdir(tmp_path)  # the whole path may be too long for a socket
    binding = BindOnlyReactor(reactor)
    bound: Any = await serverFromString(binding, endpoint).listen(Factory.forProtocol(Protocol))
    (listening,) = binding.sockets
    family, address = bound.socket.family, bound.socket.getsockname()
    early = deferToThread(read_greeting, family, address)
    copy = ListeningSocket(os.dup(listening.descriptor), listening.family)
    inheriting = InheritedSocketsReactor(reactor, [copy])
    accepting: Any = await serverFromString(inheriting, endpoint).listen(Factory.forProtocol(Hello))
    assert await early == b"hello"
    assert await deferToThread(read_greeting, family, address) == b"hello"
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(copy.descriptor)
    if family == socket.AF_UNIX:
        await accepting.stopListening()
        assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o660
        await bound.stopListening()
        assert not (tmp_path / "s").exists()
    else:
        await bound.stopListening()
        assert await deferToThread(read_greeting, family, address) == b"hello"
        await accepting.stopListening()


@ensureDeferred  # type: ignore[untyped-decorator, unused-ignore]
async def test_a_socket_from_systemd_is_passed_on_like_others(inherited: socket.socket) -> None:
    """Sockets are in the order in which they were opened."""
    binding = BindOnlyReactor(reactor)
    passed: Any = binding.adoptStreamPort(inherited.fileno(), socket.AF_INET, Factory.forProtocol(Protocol))
    opened: Any = await serverFromString(binding, "tcp:0:interface=\\:\\:1").listen(
        Factory.forProtocol(Protocol)
    )
    assert [each.family for each in binding.sockets] == [socket.AF_INET, socket.AF_INET6]
    assert binding.sockets[0].descriptor not in (inherited.fileno(), binding.sockets[1].descriptor)
    await passed.stopListening()
    await opened.stopListening()


def test_other_methods_are_those_of_the_reactor() -> None:
    assert BindOnlyReactor(reactor).callLater == reactor.callLater
    assert InheritedSocketsReactor(reactor, []).seconds == reactor.seconds


@pytest.mark.parametrize(
    ("endpoint", "accepting"),
    [
        ("tcp:8080", "tcp:8080"),
        ("unix:/run/a", "unix:/run/a"),
        ("systemd:domain=INET6:index=0", "tcp:0"),
        ("https:systemd:domain=INET:name=web", "https:tcp:0"),
        ("https:443", "https:443"),
        ("unix:/run/systemd\\:x", "unix:/run/systemd\\:x"),
    ],
)
def test_a_worker_opens_no_socket_of_systemd(endpoint: str, accepting: str) -> None:
    """Systemd passes its sockets to the binding process only."""
    assert inherited_endpoint(endpoint) == accepting


@ensureDeferred  # type: ignore[untyped-decorator, unused-ignore]
@pytest.mark.parametrize("kind", [ReclaimingReactor, BindOnlyReactor])
async def test_a_socket_that_a_killed_process_has_left_behind_is_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[ReclaimingReactor]
) -> None:
    """Even if another process has its number by now, as in a container, where each is the first one."""
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind("s")
    (tmp_path / "s.lock").symlink_to(str(os.getpid()))
    listening: Any = await serverFromString(kind(reactor), "unix:s").listen(Factory.forProtocol(Protocol))
    await listening.stopListening()
    assert os.listdir(tmp_path) == []


def run(kind: str, status: int = 0) -> tuple[int, int, Any, str]:
    """Return the starter's number, the worker's status and facts, and what came on standard error."""
    ended = subprocess.run(  # noqa: S603
        [sys.executable, "-c", STARTER, kind, str(status)],
        env={
            **{name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
            "LOST": "1",
        },
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
    )
    printed, facts_of_starter = ended.stdout.splitlines()
    assert printed == "printed once"
    starter, code, facts = json.loads(facts_of_starter)
    return starter, code, json.loads(facts), ended.stderr


@pytest.fixture(scope="module")
def forked() -> tuple[int, int, Mapping[str, Any], str]:
    return run("alone")


def test_a_fork_goes_on_with_what_is_imported(forked: tuple[int, int, Mapping[str, Any], str]) -> None:
    """It has its arguments, environment and descriptors, and exits when its threads have ended."""
    starter, code, facts, printed = forked
    assert (facts["parent"], code, printed) == (starter, 0, "")
    assert facts["arguments"] == ["one", "two"]
    assert facts["environ"] == {"KEPT": "1"}
    assert facts["ends"] == [11]
    assert signal.SIGPIPE in facts["ignored"]


def test_a_fork_keeps_nothing_that_is_the_starters_own(
    forked: tuple[int, int, Mapping[str, Any], str],
) -> None:
    """No reactor, handlers of signals or of the log, and no import from the current directory.

    Nor does it print again what the starter had not yet written.
    """
    _, __, facts, ___ = forked
    assert (facts["is_new"], facts["type"]) == (True, "EPollReactor")
    assert (facts["handled"], facts["wakeup"], facts["observers"], facts["handlers"]) == ([], -1, 0, 0)
    assert "" not in facts["path"]


def test_a_fork_that_fails_says_why() -> None:
    _, code, __, printed = run("alone", 1)
    assert code == 1
    assert "RuntimeError: the worker fails" in printed


def test_a_fork_whose_output_nobody_takes_ends_well() -> None:
    _, code, __, printed = run("unheard")
    assert (code, printed) == (0, "")


def test_a_process_with_threads_does_not_fork() -> None:
    """A lock that one of them holds would stay locked."""
    starter, code, facts, printed = run("threads")
    assert (code, printed) == (0, "")
    assert facts == {"parent": starter, "arguments": ["one", "two"], "kept": "1"}


@pytest.mark.parametrize(("replacement", "piped"), [("sys.stdout", "[5]\n"), ("sys.stderr", "[1, 2, 5]\n")])
def test_output_of_workers_is_read_only_where_it_goes_on(replacement: str, piped: str) -> None:
    """If standard output is discarded without twistd's replacement, standard error may still be read."""
    code = (
        "import sys; from dockmirror.workers.worker_program import pass_on_output;"
        f" sys.stdout = {replacement};"
        " start = pass_on_output(lambda _, __, descriptors: print(sorted(descriptors), file=sys.stderr));"
        " start(None, [], {5: 5})"
    )
    ended = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True
    )
    assert ended.stderr == piped
