"""Hundreds of clients of every kind, in processes of their own: ``python -m tests.hardship.swarm``."""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Self

from tests.integration.parts.accounts import ALICE, BOB, Account
from tests.integration.parts.images import Image, artifact
from tests.integration.parts.mirror import Mirror
from tests.integration.parts.plain import PlainClient, Response

KB = 1024
PUBLIC = {f"library/load-{number}": (number % 5 + 1) * 400 * KB for number in range(20)}
PRIVATE = {f"private/load-{number}": (number % 3 + 1) * 300 * KB for number in range(6)}
"""The repositories, each with one image under the tag ``latest``, and the size of its layer."""
PAUSE = 6.0
"""Seconds between two things that a client does, at most."""
TRIES = 20
_CHECKOUT = Path(__file__).parents[2]


@cache
def image_of(repository: str) -> Image:
    """The image of a repository."""
    return artifact(repository, size={**PUBLIC, **PRIVATE}[repository])


class Wrong(AssertionError):
    """A client was given what it must not be given."""


@dataclass
class Client:
    """Does one thing after another, and looks at all that it gets."""

    plain: Callable[[Account | None], PlainClient]
    chance: random.Random
    done: Counter[str] = field(default_factory=Counter)
    again: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def run(self, until: float) -> None:
        """Do things until that time."""
        kinds = (self.pull, self.part, self.leave, self.head, self.nothing, self.private, self.stranger)
        while time.monotonic() < until:
            self._try(self.chance.choices(kinds, weights=(10, 10, 6, 8, 4, 4, 1))[0])
            time.sleep(self.chance.uniform(0, PAUSE))

    def _try(self, kind: Callable[[], None]) -> None:
        """Repeat one thing as often as real clients do, and more."""
        name = kind.__name__
        for _ in range(TRIES):
            try:
                kind()
            except Wrong as error:
                self.wrong.append(f"{name}: {error}")
                return
            except (OSError, http.client.HTTPException, AssertionError) as error:
                self.again.append(f"{name}: {type(error).__name__}: {error}")
                time.sleep(1)
            else:
                self.done[name] += 1
                return
        self.failed.append(name)

    def pull(self, repository: str | None = None, account: Account | None = None) -> None:
        """An image, whole: by its tag, by its digest, and its blobs."""
        repository = repository or self._public()
        image, client = image_of(repository), self.plain(account)
        for reference in ("latest", image.digest):
            _right(client.manifest(repository, reference), image.manifest.data)
        for blob in image.blobs:
            _right(client.blob(repository, blob.digest), blob.data)

    def part(self) -> None:
        """A part of a blob."""
        repository = self._public()
        layer = image_of(repository).layers[0]
        first = self.chance.randrange(len(layer.data))
        last = min(len(layer.data) - 1, first + self.chance.randrange(300 * KB))
        asked = {"Range": f"bytes={first}-{last}"}
        response = self.plain(None).blob(repository, layer.digest, asked)
        _right(response, layer.data[first : last + 1], 206)

    def leave(self) -> None:
        """Disconnect in the middle of a blob."""
        repository = self._public()
        layer, client = image_of(repository).layers[0], self.plain(None)
        host, _, port = client.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            path = f"/v2/{repository}/blobs/{layer.digest}"
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {client.host}\r\n\r\n".encode())
            connection.recv(self.chance.randrange(1, 100 * KB))

    def head(self) -> None:
        """Make HEAD requests of a manifest and a blob."""
        repository = self._public()
        image, client = image_of(repository), self.plain(None)
        for kind, content in (("manifests", image.manifest), ("blobs", image.layers[0])):
            response = client.request("HEAD", f"/v2/{repository}/{kind}/{content.digest}")
            _right(response, b"")
            if int(response.headers["Content-Length"]) != len(content.data):
                raise Wrong(f"the length of {content.digest}")

    def nothing(self) -> None:
        """Request contents that do not exist."""
        client, nobodys = self.plain(None), f"sha256:{self.chance.randbytes(32).hex()}"
        for response in (client.manifest(self._public(), "never"), client.blob(self._public(), nobodys)):
            assert response.status == 404, response

    def private(self) -> None:
        """An image that is not everybody's, by one who may have it."""
        self.pull(self.chance.choice(list(PRIVATE)), ALICE)

    def stranger(self) -> None:
        """An image that is not everybody's, by those who may not have it."""
        repository = self.chance.choice(list(PRIVATE))
        image = image_of(repository)
        for account in (None, BOB):
            client = self.plain(account)
            answers = client.manifest(repository, "latest"), client.blob(repository, image.layers[0].digest)
            for response in answers:
                if response.status not in (401, 403, 404):
                    raise Wrong(f"{account} was given {repository}: {response.status}")

    def _public(self) -> str:
        return self.chance.choice(list(PUBLIC))


def _right(response: Response, data: bytes, status: int = 200) -> None:
    assert response.status == status, (response.status, response.body[:300])
    if response.body != data:
        raise Wrong(f"{len(response.body)} bytes of {hashlib.sha256(data).hexdigest()}")


@dataclass
class Swarm:
    """The results of all of them.

    :ivar done: how often each thing was done.
    :ivar again: why something was tried again: the upstream of the tests, too, has a limit.
    :ivar failed: what no try has brought.
    :ivar wrong: what was given, and must not be.
    """

    done: Counter[str]
    again: list[str]
    failed: list[str]
    wrong: list[str]

    def __add__(self, other: Self) -> Swarm:
        return Swarm(
            self.done + other.done,
            self.again + other.again,
            self.failed + other.failed,
            self.wrong + other.wrong,
        )


class Process:
    """Some of the clients, in a process of theirs."""

    def __init__(self, mirror: Mirror, clients: int, seconds: float, seed: int) -> None:
        arguments = [mirror.url, mirror.host("docker"), str(clients), str(seconds), str(seed)]
        self._out = tempfile.TemporaryFile("w+")  # noqa: SIM115  # a pipe would be full
        self._popen = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "tests.hardship.swarm", *arguments], stdout=self._out, cwd=_CHECKOUT
        )

    def running(self) -> bool:
        """Return True until all are done."""
        return self._popen.poll() is None

    def result(self) -> Swarm:
        """The results."""
        assert self._popen.wait() == 0
        with self._out:
            self._out.seek(0)
            told = json.load(self._out)
        return Swarm(Counter(told["done"]), told["again"], told["failed"], told["wrong"])

    def end(self) -> None:
        """Kill the process."""
        self._popen.kill()
        self._popen.wait()
        self._out.close()


def main(url: str, host: str, clients: str, seconds: str, seed: str) -> None:
    """Runs them, and prints what they have come to."""
    for repository in (*PUBLIC, *PRIVATE):
        image_of(repository)
    until = time.monotonic() + float(seconds)
    everyone = [
        Client(lambda account: PlainClient(url, account, host), random.Random(f"{seed} {number}"))
        for number in range(int(clients))
    ]
    threads = [threading.Thread(target=each.run, args=(until,)) for each in everyone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    swarms = (Swarm(each.done, each.again, each.failed, each.wrong) for each in everyone)
    json.dump(vars(sum(swarms, Swarm(Counter(), [], [], []))), sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
