"""The worker pool over a reactor that starts no process, and the calls between processes."""

# mypy: allow-untyped-calls

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ProcessDone, ProcessTerminated
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from dockmirror.web.readiness import STORE_TIMEOUT
from dockmirror.workers.worker_pool import (
    ABORT_GRACE,
    CALL_TIMEOUT,
    CHECK_INTERVAL,
    WorkerPool,
    is_hung,
)
from dockmirror.workers.worker_program import (
    WORKER_SIGNALS,
    PeerLost,
    RpcChannel,
    RpcError,
    SpawnedWorkers,
    WorkerProgram,
)
from tests.stacks import Outcome, logged


class StartedProcess:
    """A worker process as the pool sees it."""

    def __init__(self, protocol: Any, arguments: list[str], environ: dict[str, str]) -> None:
        self.protocol = protocol
        self.arguments = arguments
        self.environ = environ
        self.signals: list[str] = []
        self.pid = 7
        self.channel: Any = None
        self.blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        protocol.transport = self

    def signalProcess(self, name: str) -> None:
        self.signals.append(name)

    def exits(self, code: int = 1) -> None:
        self.protocol.processExited(Failure(ProcessTerminated(code) if code else ProcessDone(0)))

    def answers(self, **answer: Any) -> None:
        """Answer that the process runs, and then the newest call."""
        calls = self.calls
        for number, given in [
            *((each["id"], {"answer": None}) for each in calls[:-1] if each["call"] == "ping"),
            (calls[-1]["id"], answer),
        ]:
            self.channel.dataReceived(json.dumps({"id": number, **given}).encode() + b"\n")

    @property
    def calls(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.channel.transport.value().splitlines()]


class RecordingReactor(Clock):
    """Records the processes that it should start."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[StartedProcess] = []
        self.failing: OSError | None = None
        self.channel: Any = None

    def callWhenRunning(self, call: Any) -> None:
        call()

    def spawnProcess(self, protocol: Any, _: str, arguments: list[str], env: Any, childFDs: Any) -> None:
        if self.failing is not None:
            raise self.failing
        self.started.append(StartedProcess(protocol, arguments, env))
        self.started[-1].channel = self.channel

    def adoptStreamConnection(self, _: int, __: Any, factory: Any) -> None:
        """Connect the channel of the next process."""
        self.channel = factory.buildProtocol(None)
        self.channel.makeConnection(StringTransport())


def program_of(
    reactor: RecordingReactor, module: str, environ: dict[str, str], later: str | None = None
) -> WorkerProgram:
    """The program of workers whose replacements run another module."""
    first = SpawnedWorkers(module, environ, reactor)
    return WorkerProgram(first.start, SpawnedWorkers(later or module, environ, reactor).start, memory=0)


@pytest.fixture
def reactor() -> RecordingReactor:
    return RecordingReactor()


@pytest.fixture
def pool(reactor: RecordingReactor) -> WorkerPool:
    """Two workers, which were started."""
    pool = WorkerPool(
        2, program_of(reactor, "a.module", {"A": "b"}, "another.module"), list, lambda: "so", 30, reactor
    )
    pool.startService()
    return pool


def test_workers_get_the_settings_over_the_channel(pool: WorkerPool, reactor: RecordingReactor) -> None:
    """Nothing of them is in the arguments."""
    assert [each.arguments[1:4] for each in reactor.started] == [["-P", "-m", "a.module"]] * 2
    assert [(q["call"], q["value"]) for each in reactor.started for q in each.calls] == [("start", "so")] * 2
    assert all(each.environ["A"] == "b" and "so" not in str(each.arguments) for each in reactor.started)


def test_a_worker_imports_nothing_from_its_directory(reactor: RecordingReactor, tmp_path: Path) -> None:
    """A module there does not replace an installed one."""
    (tmp_path / "bcrypt.py").write_text("open('has_run', 'w').close()")
    environ = dict(os.environ)
    program = program_of(reactor, "dockmirror.app.worker_main", environ)
    WorkerPool(1, program, list, lambda: "", 30, reactor).startService()
    (worker,) = reactor.started
    ended = subprocess.run(  # noqa: S603
        worker.arguments, env=worker.environ, cwd=tmp_path, capture_output=True, text=True
    )
    assert "Bad file descriptor" in ended.stderr  # all is imported by then
    assert not (tmp_path / "has_run").exists()


def test_a_worker_starts_with_signals_blocked_that_it_handles_later(
    pool: WorkerPool, reactor: RecordingReactor
) -> None:
    """They would end it while it imports; the binding process blocks them for that moment only."""
    assert [each.blocked >= set(WORKER_SIGNALS) for each in reactor.started] == [True, True]
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & set(WORKER_SIGNALS)


def test_a_worker_that_cannot_start_is_replaced(pool: WorkerPool, reactor: RecordingReactor) -> None:
    first, second = reactor.started
    second.answers(answer=None)
    with logged() as texts:
        first.answers(error="no certificate")
    assert "a worker cannot start: no certificate" in texts[0]
    assert (first.signals, second.signals) == (["TERM"], [])
    first.exits()
    reactor.advance(1)
    assert len(reactor.started) == 3


def test_clients_are_served_once_one_worker_has_started(pool: WorkerPool, reactor: RecordingReactor) -> None:
    calls: list[None] = []
    pool.when_serving(lambda: calls.append(None))
    first, second = reactor.started
    first.answers(error="no certificate")
    assert not calls
    second.answers(answer=None)
    first.exits()
    reactor.advance(1)
    reactor.started[2].answers(answer=None)
    assert len(calls) == 1


def test_the_delay_grows_while_workers_die_young(pool: WorkerPool, reactor: RecordingReactor) -> None:
    """A worker that has lived longer is replaced at once."""
    for pause in (1, 5, 15, 30, 30):
        count = len(reactor.started)
        reactor.started[-1].exits()
        reactor.advance(pause - 0.5)
        assert len(reactor.started) == count
        reactor.advance(0.5)
        assert len(reactor.started) == count + 1
    reactor.started[-1].answers(answer=None)
    reactor.advance(11)
    count = len(reactor.started)
    reactor.started[-1].exits()
    reactor.advance(0)
    assert len(reactor.started) == count + 1


def test_a_worker_that_never_served_has_died_young_at_any_age(
    pool: WorkerPool, reactor: RecordingReactor
) -> None:
    """A slow machine takes long to find out that it cannot start."""
    for pause in (1, 5, 15, 30):
        count = len(reactor.started)
        reactor.advance(20)
        reactor.started[-1].exits()
        reactor.advance(pause - 0.5)
        assert len(reactor.started) == count
        reactor.advance(0.5)
        assert len(reactor.started) == count + 1


def test_output_that_workers_have_passed_on_is_printed_in_whole_lines(
    pool: WorkerPool, reactor: RecordingReactor, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (each.protocol for each in reactor.started)
    first.childDataReceived(1, b"one\nha")
    second.childDataReceived(2, b"two\n")
    first.childDataReceived(2, b"error\n")
    first.childDataReceived(1, b"lf\n\xff\n")
    assert capsys.readouterr().out == "one\ntwo\nerror\nhalf\n\N{REPLACEMENT CHARACTER}\n"


def test_workers_that_replace_others_start_in_another_way(
    pool: WorkerPool, reactor: RecordingReactor
) -> None:
    reactor.started[0].exits()
    reactor.advance(1)
    assert [each.arguments[3] for each in reactor.started] == ["a.module", "a.module", "another.module"]


def test_a_process_that_cannot_be_spawned_is_tried_again(pool: WorkerPool, reactor: RecordingReactor) -> None:
    """Memory or descriptors may be available later."""
    reactor.failing = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    reactor.started[0].exits()
    with logged() as texts:
        reactor.advance(1)
    reason = "before it started: Resource temporarily unavailable"
    assert f"a worker exited, {reason}; starting another one in 5 s" in texts[0]
    assert len(pool.workers) == 1
    reactor.failing = None
    reactor.advance(5)
    assert len(reactor.started) == len(pool.workers) + 1 == 3


def test_stopping_waits_for_all_workers(pool: WorkerPool, reactor: RecordingReactor) -> None:
    """A worker that outlives the grace period is killed, and none is replaced or waited for in vain."""
    reactor.failing = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    failed = WorkerPool(2, program_of(reactor, "a.module", {}), list, lambda: "so", 30, reactor)
    failed.startService()
    assert Outcome(failed.stopService())
    reactor.failing = None
    ending = Outcome(pool.stopService())
    assert pool.is_stopping
    assert [each.signals for each in reactor.started] == [["TERM"]] * 2
    reactor.started[0].exits(0)
    assert not ending
    reactor.advance(30)
    assert reactor.started[1].signals == ["TERM", "KILL"]
    reactor.started[1].exits()
    assert ending
    reactor.advance(100)
    assert len(reactor.started) == 2


def test_the_grace_of_workers_can_be_ended_early(pool: WorkerPool, reactor: RecordingReactor) -> None:
    """Each is told to cut off its transfers, and killed if it does not exit soon."""
    ending = Outcome(pool.stopService())
    pool.abort()
    assert [each.calls[-1]["call"] for each in reactor.started] == ["abort"] * 2
    reactor.started[0].exits(0)
    reactor.advance(ABORT_GRACE)
    assert reactor.started[1].signals == ["TERM", "KILL"]
    reactor.started[1].exits()
    assert ending


@pytest.fixture
def serving(pool: WorkerPool, reactor: RecordingReactor) -> WorkerPool:
    """The pool, whose workers have started."""
    for each in reactor.started:
        each.answers(answer=None)
    return pool


def test_answers_come_by_worker(serving: WorkerPool, reactor: RecordingReactor) -> None:
    """A late worker is left out; an exception in one fails the call."""
    calls = Outcome(serving.call("state"))
    reactor.started[0].answers(answer=7)
    reactor.advance(CALL_TIMEOUT)
    assert calls.get() == {1: 7}
    reactor.started[1].answers(answer=8)
    failed = Outcome(serving.call("serve"))
    reactor.started[0].answers(answer=None)
    reactor.started[1].answers(error="wrong")
    assert isinstance(failed.error, RpcError)


def test_the_answer_of_a_worker_that_has_exited_since_does_not_count(
    serving: WorkerPool, reactor: RecordingReactor
) -> None:
    calls = Outcome(serving.call("metrics"))
    reactor.started[0].answers(answer=7)
    reactor.started[0].exits()
    reactor.started[1].answers(answer=8)
    assert calls.get() == {2: 8}


def test_calls_wait_for_no_worker_that_starts_or_hangs(pool: WorkerPool, reactor: RecordingReactor) -> None:
    """A worker that hangs is asked again once it answers, or if no other one does."""
    first, second = reactor.started
    assert Outcome(pool.call("state")).get() == {}
    first.answers(answer=None)
    one = Outcome(pool.call("state"))
    first.answers(answer=7)
    assert one.get() == {1: 7}
    second.answers(answer=None)
    reactor.advance(CHECK_INTERVAL)
    first.answers(answer=None)
    reactor.advance(CALL_TIMEOUT)
    without = Outcome(pool.call("state"))
    first.answers(answer=7)
    assert without.get() == {1: 7}
    second.answers(answer=None)
    both = Outcome(pool.call("state"))
    reactor.advance(CALL_TIMEOUT)
    assert both.get() == {}
    none_answers = Outcome(pool.call("state"))
    first.answers(answer=7)
    second.answers(answer=8)
    assert none_answers.get() == {1: 7, 2: 8}


def test_the_checks_of_the_store_are_answered_in_the_time_of_a_call() -> None:
    assert STORE_TIMEOUT < CALL_TIMEOUT


def test_a_call_of_all_workers_waits_for_those_that_start_or_are_slow(
    pool: WorkerPool, reactor: RecordingReactor
) -> None:
    """It is over when each has answered, or is gone."""
    first, second = reactor.started
    applied = Outcome(pool.call_all("apply", "new"))
    assert [each.calls[-1]["value"] for each in (first, second)] == ["new", "new"]
    first.answers(answer=None)
    reactor.advance(CHECK_INTERVAL)
    assert not applied
    second.channel.connectionLost(Failure(ConnectionDone()))
    assert applied.get() is None


@pytest.mark.parametrize(
    ("missed", "is_serving", "expected"),
    [(5, True, False), (6, True, True), (6, False, False), (29, False, False), (30, False, True)],
)
def test_a_worker_hangs_if_it_misses_many_checks(missed: int, is_serving: bool, expected: bool) -> None:
    """More of them while it starts."""
    assert is_hung(missed, is_serving) is expected


def check(reactor: RecordingReactor, times: int, answering: StartedProcess) -> None:
    """Let some checks pass, which only one worker answers."""
    for _ in range(times):
        reactor.advance(CHECK_INTERVAL)
        answering.answers(answer=None)


def test_a_worker_that_hangs_is_named_killed_and_replaced(
    serving: WorkerPool, reactor: RecordingReactor
) -> None:
    first, second = reactor.started
    with logged() as texts:
        check(reactor, 6, answering=first)
        assert (texts, second.signals) == ([], [])
        check(reactor, 1, answering=first)
        (text,) = texts
    assert "the worker with process ID 7 has not answered for 60 s, and is killed" in text
    reactor.advance(ABORT_GRACE)
    assert (first.signals, second.signals) == ([], ["TERM", "KILL"])
    second.exits()
    reactor.advance(0)
    assert len(reactor.started) == 3


def test_a_worker_that_answers_late_is_not_killed(serving: WorkerPool, reactor: RecordingReactor) -> None:
    first, second = reactor.started
    for _ in range(3):
        check(reactor, 6, answering=first)
        second.answers(answer=None)
    assert second.signals == []


def test_a_pause_of_the_binding_process_kills_no_worker(
    serving: WorkerPool, reactor: RecordingReactor
) -> None:
    """Its clock may be an hour ahead afterwards, and the answers not read yet."""
    reactor.advance(CHECK_INTERVAL)
    reactor.advance(3600)
    assert [each.signals for each in reactor.started] == [[], []]


def test_workers_that_finish_their_transfers_are_not_checked(
    serving: WorkerPool, reactor: RecordingReactor
) -> None:
    serving.stopService()
    for _ in range(2):
        reactor.advance(CHECK_INTERVAL)
    assert [each.calls[-1]["call"] for each in reactor.started] == ["start", "start"]


class Pair:
    """Both ends of a channel; ``carry`` delivers what they have sent."""

    def __init__(self, **methods: Any) -> None:
        self.lost = 0
        self.here, self.there = RpcChannel({}, self._lost), RpcChannel(methods)
        for end in (self.here, self.there):
            end.makeConnection(StringTransport())

    def carry(self, piece: int = 7) -> None:
        """Deliver all messages in small pieces, until no end sends any more."""
        moved = True
        while moved:
            moved = False
            for sender, receiver in ((self.here, self.there), (self.there, self.here)):
                transport: Any = sender.transport
                sent = transport.value()
                transport.clear()
                for start in range(0, len(sent), piece):
                    receiver.dataReceived(sent[start : start + piece])
                moved = moved or bool(sent)

    def disconnect(self) -> None:
        """Lose the connection."""
        for end in (self.here, self.there):
            end.connectionLost(Failure(ConnectionDone()))

    def _lost(self) -> None:
        self.lost += 1


async def double(value: Any) -> Any:
    return value * 2


def test_answers_reach_their_callers_in_any_order() -> None:
    """Values are JSON, and each answer belongs to its own call."""
    waiting: list[Deferred[str]] = []

    async def later(value: str) -> str:
        waiting.append(Deferred())
        return value + await waiting[-1]

    pair = Pair(later=later, double=double)
    first, second = (Outcome(pair.here.call("later", name)) for name in ("a", "b"))
    quick = Outcome(pair.here.call("double", ["\n", "\N{SNOWMAN}"]))
    pair.carry()
    assert quick.get() == ["\n", "\N{SNOWMAN}"] * 2
    waiting[1].callback("2")
    waiting[0].callback("1")
    pair.carry()
    assert (first.get(), second.get()) == ("a1", "b2")


def test_an_exception_reaches_the_caller_as_its_text() -> None:
    """A large message fits into a line."""

    async def fails(_: object) -> None:
        raise ValueError("no: \N{SNOWMAN}")

    pair = Pair(fails=fails, double=double)
    failed, unknown = (Outcome(pair.here.call(name)) for name in ("fails", "unknown"))
    large = Outcome(pair.here.call("double", "x" * 300_000))
    pair.carry(10_000)
    assert [type(each.error) for each in (failed, unknown)] == [RpcError, RpcError]
    assert (str(failed.error), large.get()) == ("no: \N{SNOWMAN}", "x" * 600_000)


def test_calls_fail_when_the_other_end_is_gone() -> None:
    """Both waiting calls and new ones fail."""
    pair = Pair(double=double)
    waiting = Outcome(pair.here.call("double", 1))
    pair.disconnect()
    assert pair.lost == 1
    assert isinstance(waiting.error, PeerLost)
    assert isinstance(Outcome(pair.here.call("double", 1)).error, PeerLost)
    assert isinstance(Outcome(RpcChannel({}).call("x")).error, PeerLost)


def test_the_answer_to_a_cancelled_call_is_ignored() -> None:
    pair = Pair(double=double)
    cancelled = Outcome(pair.here.call("double", 1))
    cancelled.work.cancel()
    pair.carry()
    assert isinstance(cancelled.error, CancelledError)
    after = Outcome(pair.here.call("double", 2))
    pair.carry()
    assert after.get() == 4


def test_an_answer_to_a_lost_caller_is_dropped() -> None:
    waiting: Deferred[int] = Deferred()

    async def later(_: object) -> int:
        return await waiting

    pair = Pair(later=later)
    Outcome(pair.here.call("later"))
    pair.carry()
    pair.disconnect()
    waiting.callback(1)
    transport: Any = pair.there.transport
    assert transport.value() == b""
