"""The examples of load balancers: which mirror gets which digest, and what a mirror that hangs costs."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import ssl
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import BinaryIO

import pytest

from .conftest import MakeDirectory
from .parts.authority import Authority, Certificate
from .parts.balancers import Balancer
from .parts.mirror import DOMAIN
from .parts.numbered import NumberedBackend
from .parts.process import free_port
from .parts.programs import require

pytestmark = pytest.mark.integration

DIGESTS = [f"sha256:{hashlib.sha256(str(n).encode()).hexdigest()}" for n in range(20_000)]
MIB = 1024 * 1024
BATCH = 500
"""Requests for one connection: nginx closes one after a thousand."""
PATIENCE = 120
"""Seconds; the balancers' own time-outs are shorter."""
ANSWERING = {
    "nginx": "server {{ listen 127.0.0.1:{port}; location / {{ return 200 {number}; }} }}\n",
    "haproxy": """
frontend answering-{number}
    bind 127.0.0.1:{port}
    http-request return status 200 content-type text/plain string {number}
""",
}
"""A backend that answers everything with its number, in the words of each program."""


@dataclass(frozen=True)
class Balancing:
    """Makes balancers of one of the programs, with the example for it."""

    program: str
    directory: MakeDirectory
    certificate: Certificate

    def balancer(self, servers: Mapping[int, int], changed: Mapping[str, str], beside: str = "") -> Balancer:
        """One in front of these servers; see ``Balancer``."""
        return Balancer(self.directory("balancer"), self.program, self.certificate, servers, changed, beside)

    def answering(self, servers: Mapping[int, int]) -> Balancer:
        """One that has the servers in its own process, which is fast."""
        answering = ANSWERING[self.program]
        beside = [answering.format(number=number, port=port) for number, port in servers.items()]
        return self.balancer(servers, {}, "".join(beside))


@pytest.fixture(params=["nginx", "haproxy"])
def balancing(request: pytest.FixtureRequest, directory: MakeDirectory, authority: Authority) -> Balancing:
    """Each of the balancers for which the documents have an example."""
    require(request.param)
    certificate = authority.issue("127.0.0.1", DOMAIN, f"*.{DOMAIN}")
    return Balancing(request.param, directory, certificate)


class Client:
    """A client of the mirrors behind a balancer."""

    def __init__(self, balancer: Balancer, authority: Authority) -> None:
        self._port = balancer.port
        self._context = ssl.create_default_context(cafile=authority.certificate)

    def owners(self, digests: Sequence[str]) -> dict[str, int]:
        """The number of the mirror that gets the requests for each digest."""
        found: dict[str, int] = {}
        for n in range(0, len(digests), BATCH):
            batch = digests[n : n + BATCH]
            found.update(zip(batch, self._ask(batch), strict=True))
        return found

    def _ask(self, digests: Sequence[str]) -> list[int]:
        """Send all requests at once; the answers come in the order of the requests."""
        heads = [f"GET /v2/image/blobs/{each} HTTP/1.1\r\nHost: docker.{DOMAIN}\r\n\r\n" for each in digests]
        with self._connect() as connection, connection.makefile("rb") as received:
            connection.sendall("".join(heads).encode())
            return [_number(received) for _ in digests]

    def send(self, method: str, path: str, body: bytes | None = None) -> http.client.HTTPResponse:
        """Send a request; the body of the response is still to be read."""
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self._port, timeout=PATIENCE, context=self._context
        )
        connection.request(method, path, body, {"Host": f"docker.{DOMAIN}", "Connection": "close"})
        return connection.getresponse()

    def owner(self, path: str) -> int:
        """The number of the mirror that answers."""
        with self.send("GET", path) as response:
            assert response.status == 200
            return int(response.read())

    def _connect(self) -> ssl.SSLSocket:
        connection = socket.create_connection(("127.0.0.1", self._port), timeout=PATIENCE)
        return self._context.wrap_socket(connection, server_hostname=f"docker.{DOMAIN}")


def _number(received: BinaryIO) -> int:
    """Read one response, whose body is a number."""
    assert received.readline().startswith(b"HTTP/1.1 200 ")
    length = 0
    for line in iter(received.readline, b"\r\n"):
        assert line, "the connection was closed"
        if line.lower().startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    return int(received.read(length))


def test_spread(balancing: Balancing, authority: Authority) -> None:
    """The busiest of ten mirrors has little more than the mean; removing the first moves only its digests.

    HAProxy places the mirrors by their ids, the same in each run; nginx by their ports, which differ.
    """
    servers = {number: free_port() for number in range(1, 11)}
    with balancing.answering(servers) as ten:
        before = Client(ten, authority).owners(DIGESTS)
    busiest = max(Counter(before.values()).values()) / (len(DIGESTS) / len(servers))
    assert busiest < (1.05 if balancing.program == "haproxy" else 1.12)

    del servers[1]
    with balancing.answering(servers) as nine:
        after = Client(nine, authority).owners(DIGESTS)
    assert [each for each in DIGESTS if before[each] not in (1, after[each])] == []


@pytest.fixture
def backends() -> Iterator[dict[int, NumberedBackend]]:
    """Three mirrors in miniature."""
    with ExitStack() as stack:
        yield {number: stack.enter_context(NumberedBackend(number)) for number in range(1, 4)}


@pytest.fixture
def client(
    balancing: Balancing, backends: dict[int, NumberedBackend], authority: Authority
) -> Iterator[Client]:
    """A client of three mirrors."""
    servers = {number: each.port for number, each in backends.items()}
    shorter = {"proxy_read_timeout 90s": "proxy_read_timeout 3s"} if balancing.program == "nginx" else {}
    with balancing.balancer(servers, shorter) as balancer:
        yield Client(balancer, authority)


def test_hanging(client: Client, backends: dict[int, NumberedBackend]) -> None:
    """A mirror that hangs without dying holds no client for long: the next mirror answers."""
    digest = DIGESTS[0]
    owner = client.owner(f"/v2/image/blobs/{digest}")
    with client.send("GET", f"/v2/unfinished/blobs/{digest}") as unfinished:
        hanging = int(unfinished.read(1))
        assert hanging == owner
        backends[hanging].hang()
        assert client.owner(f"/v2/image/blobs/{digest}") != hanging
        with pytest.raises(http.client.IncompleteRead):
            unfinished.read()
    assert client.owner(f"/v2/image/blobs/{digest}") != hanging


@pytest.mark.parametrize("balancing", ["haproxy"], indirect=True)
def test_a_limit_for_all_mirrors_together(
    balancing: Balancing, backends: dict[int, NumberedBackend], authority: Authority
) -> None:
    """The lines of the example that are commented out count a client's requests to all mirrors."""
    servers = {number: each.port for number, each in backends.items()}
    uncommented = {f"    #{word}": f"    {word}" for word in ("stick-table", "http-request")}
    with balancing.balancer(servers, {**uncommented, "gt 6000": "gt 2"}) as balancer:
        client = Client(balancer, authority)
        answers = [client.send("GET", f"/v2/image/blobs/{digest}") for digest in DIGESTS[:3]]
        assert [each.status for each in answers] == [200, 200, 429]
        assert json.loads(answers[2].read())["errors"][0]["code"] == "TOOMANYREQUESTS"
        assert answers[2].headers["Retry-After"] == "3600"


def test_pushed(client: Client) -> None:
    """A layer of any size passes."""
    with client.send("PUT", "/v2/image/blobs/uploads/1?digest=x", bytes(2 * MIB)) as response:
        assert response.status == 200
