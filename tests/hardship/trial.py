"""One thing of one image, asked for through a mirror whose upstream is meddled with."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import chain as chained
from itertools import repeat
from typing import Protocol

from tests.integration.parts.accounts import Account
from tests.integration.parts.chain import Chain
from tests.integration.parts.images import Image
from tests.integration.parts.plain import Response
from tests.integration.parts.server import Exchange

from .wire import Answer

RIGHT, CUT_OFF = "the right bytes", "cut off"
SPAN = range(1000, 200_000)
"""The part that is asked for where only a part is."""


@dataclass(frozen=True)
class Trial:
    """An image at the upstream, of which the mirror has nothing yet.

    :ivar asks: for its "manifest", its "blob", or a "range" of that.
    :ivar account: who asks, where not everybody may have it.
    """

    chain: Chain
    image: Image
    repository: str
    asks: str
    account: Account | None = None

    @property
    def data(self) -> bytes:
        """The right bytes of what is asked for, whole."""
        return self.image.manifest.data if self.asks == "manifest" else self.image.layers[0].data

    def pull(self) -> str:
        """Pull, and return RIGHT, an error in the registry's format, or CUT_OFF.

        :raises AssertionError: it is anything else.
        """
        try:
            response = self._ask()
        except (http.client.HTTPException, ConnectionError):
            return CUT_OFF
        if response.status in (200, 206):
            assert response.status == (206 if self.asks == "range" else 200)
            assert response.body == (self.data[SPAN.start : SPAN.stop] if self.asks == "range" else self.data)
            return RIGHT
        return refusal(response)

    def _ask(self) -> Response:
        client = self.chain.mirror.client("docker", self.account)
        if self.asks == "manifest":
            return client.manifest(self.repository, "latest")
        span = {"Range": f"bytes={SPAN.start}-{SPAN.stop - 1}"} if self.asks == "range" else {}
        return client.blob(self.repository, self.image.layers[0].digest, span)


def refusal(response: Response) -> str:
    """The code of an error in the registry's format.

    :raises AssertionError: it is none.
    """
    assert response.headers["Content-Type"].startswith("application/json"), response
    code = json.loads(response.body)["errors"][0]["code"]
    pause = response.headers["Retry-After"]
    return f"{response.status} {code}" + (f", Retry-After: {pause}" if pause else "")


class Tried(Protocol):
    """Whatever is tried through a chain."""

    @property
    def chain(self) -> Chain:
        """The chain with the fault."""


Fault = Callable[[Trial], AbstractContextManager[None]]


def meddling(part: str, *answers: Answer | None, for_ever: bool = False) -> Fault:
    """Answer each request for the image at a part of the chain by the next answer; None is the right one.

    :param for_ever: whether the last answer is given to all that follow, too.
    """

    @contextmanager
    def fault(trial: Trial) -> Iterator[None]:
        left = len(answers)
        turns = chained(answers, repeat(answers[-1] if for_ever else None))
        lock = threading.Lock()

        def meddle(exchange: Exchange) -> bool:
            nonlocal left
            if exchange.path == "/v2/":
                return False
            with lock:
                answer = next(turns)
                left -= 1
            if answer is not None:
                answer(exchange, trial.data)
            return answer is not None

        with getattr(trial.chain, part).meddled_with(meddle):
            yield
        assert left <= 0, "the mirror has not met with it"

    return fault


def always(part: str, answer: Answer) -> Fault:
    """Give every request to that part of the chain this answer."""
    return meddling(part, answer, for_ever=True)


def stopped(part: str) -> Callable[[Tried], AbstractContextManager[None]]:
    """Stop listening at that part."""
    return lambda trial: getattr(trial.chain, part).stopped()


def black_hole(part: str) -> Callable[[Tried], AbstractContextManager[None]]:
    """Neither accept nor refuse connections to that part."""

    @contextmanager
    def fault(trial: Tried) -> Iterator[None]:
        server = getattr(trial.chain, part)
        with server.stopped(), socket.create_server((server.host, server.port), backlog=0):
            waiting = []
            try:
                for _ in range(3):
                    waiting.append(socket.socket())
                    waiting[-1].setblocking(False)
                    waiting[-1].connect_ex((server.host, server.port))
                yield
            finally:
                for each in waiting:
                    each.close()

    return fault
