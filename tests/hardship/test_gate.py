"""Nothing refused is served by any route while the registry or the policy server fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import count
from typing import Any

import pytest

from tests.integration.conftest import MakeDirectory, MakeMachine, seaweedfs, sharing
from tests.integration.parts.authority import Authority
from tests.integration.parts.chain import new_chain
from tests.integration.parts.programs import require
from tests.integration.parts.server import Exchange
from tests.integration.parts.sharing import Sharing
from tests.long import LONG

from .gate import POLICIES, Gate, GatedChain, PolicyServer
from .rows import Record, hardship
from .trial import Fault, Trial, always, black_hole, stopped
from .wire import Answer, drips, endless, head, is_silent, refuses, resets_at, sends, whole

pytestmark = pytest.mark.integration

__all__ = ["seaweedfs", "sharing"]

GETS = "nothing refused is served; allowed images are, at once if they are held, else afterwards"
_numbers = count(1)
_page = refuses(200, b"<html>Please accept the terms.</html>", Content_Type="text/html")
_UPSTREAM: dict[str, Fault] = {
    "refuses connections": stopped("front"),
    "is a black hole": black_hole("front"),
    "does not answer": always("front", is_silent),
    "resets within the headers": always("front", resets_at(-20)),
    "answers with headers without an end": always(
        "front", endless(b"HTTP/1.1 200 OK\r\n", b"X-Header: y\r\n")
    ),
    "answers 503": always("front", refuses(503)),
    "answers with a web page": always("front", _page),
    "sends a byte a second": always("front", drips(10)),
    "has no token service": stopped("tokens"),
    "answers 429": always("front", refuses(429, Retry_After="9")),
}


def _hook(answer: Answer) -> Fault:
    """Read the question, and give this answer."""

    def read_and_answer(exchange: Exchange, data: bytes) -> None:
        exchange.body()
        answer(exchange, data)

    return always("hook", read_and_answer)


_ALLOW = b'{"allow": true}'
_HOOK: dict[str, Fault] = {
    "refuses connections": stopped("hook"),
    "is a black hole": black_hole("hook"),
    "does not answer": _hook(is_silent),
    "is slow": _hook(drips(10)),
    "resets within the headers": _hook(resets_at(-20)),
    "resets within the body": _hook(resets_at(5)),
    "answers 500 with a permission": _hook(refuses(500, _ALLOW)),
    "answers 204": _hook(refuses(204)),
    "answers 302": _hook(refuses(302, _ALLOW, Location="/elsewhere")),
    "answers with a web page": _hook(_page),
    "answers with half a permission": _hook(sends(lambda _: whole(_ALLOW)[:-1])),
    "allows by a word": _hook(refuses(200, b'{"allow": "yes"}')),
    "allows for a time that is none": _hook(refuses(200, b'{"allow": true, "valid_for": "long"}')),
    "answers without an end": _hook(endless(head("200 OK"), b" " * 10_000)),
}
_FAULTS = [
    *(("registry", name, fault) for name, fault in _UPSTREAM.items()),
    *(("policy server", name, fault) for name, fault in _HOOK.items()),
]
TWO = [
    pytest.param(fault, id=f"{what}-{name}".replace(" ", "-"), marks=hardship(f"gate: the {what} {name}"))
    for what, name, fault in _FAULTS
]


def _gate_settings(hook: PolicyServer) -> dict[str, Any]:
    gate = {"url": f"{hook.url}/verdict", "timeout": 1}
    return {"policy": POLICIES, "gate": gate, "export": True, "tag_ttl": 0, "workers": 2}


@pytest.fixture(scope="module")
def gate(directory: MakeDirectory, make_machine: MakeMachine, authority: Authority) -> Iterator[Gate]:
    """A mirror of two workers."""
    require("docker-registry")
    upstream = {"timeout": 2, "connect_timeout": 2}
    with (
        PolicyServer() as hook,
        new_chain(directory("gate"), make_machine(), authority, upstream, **_gate_settings(hook)) as chain,
    ):
        gate = Gate(GatedChain(**vars(chain), hook=hook, mirrors=(chain.mirror,)))
        gate.prepare()
        yield gate


def _under(gate: Gate, fault: Fault) -> AbstractContextManager[None]:
    return fault(Trial(gate.chain, gate.young, "library/cooled", "manifest"))


@pytest.mark.parametrize("fault", TWO if LONG else TWO[::3])
def test_two_workers(gate: Gate, fault: Fault, came: Record) -> None:
    """During the fault and after it; what is held and allowed is served all the time."""
    with _under(gate, fault):
        assert gate.find_given() == []
        assert gate.find_refused() == []
    assert gate.find_given() == []
    gate.await_recovery(f"after {next(_numbers)}")
    came(GETS)


@hardship("gate: three mirrors of a bucket, while the registry and the policy server fail")
def test_three_mirrors(sharing: Sharing, came: Record) -> None:
    """A recall, a cool-down and the policy server's verdicts hold in each of them, and in their commands."""
    with PolicyServer() as hook:
        settings = {**_gate_settings(hook), "redirect": True}
        mirrors = tuple(sharing.add(**settings) for _ in range(3))
        chain = GatedChain(
            mirrors[0], sharing.upstream, sharing.blobs, sharing.registry, sharing.tokens, hook, mirrors
        )
        gate = Gate(chain)
        gate.prepare()
        assert gate.find_given_by_commands() == []
        faults = [
            always("front", refuses(503)),
            stopped("hook"),
            _hook(refuses(500, _ALLOW)),
            stopped("front"),
        ]
        for fault in faults:
            with _under(gate, fault):
                assert gate.find_given() == []
                assert gate.find_refused() == []
            gate.await_recovery(f"after {next(_numbers)}")  # else the next fault may meet a pause
        with _under(gate, stopped("front")):
            assert gate.find_given_by_commands() == []
        gate.await_recovery("after all")
    came(GETS)
