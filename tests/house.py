"""The whole mirror in front of a world of servers, and clients that speak to it in bytes."""

# mypy: allow-untyped-calls

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import partial
from http.client import HTTPResponse, IncompleteRead
from io import BytesIO
from itertools import repeat
from typing import Any
from urllib.parse import urlencode, urlsplit

from attrs import field, frozen
from twisted.internet.address import IPv4Address
from twisted.internet.defer import maybeDeferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import alsoProvides

from dockmirror.app.accounts import RunProgram, load_accounts
from dockmirror.app.cache_stack import StackContext
from dockmirror.app.site_builder import ConnectionShare, InThread, SiteBuilder
from dockmirror.app.telemetry import Telemetry
from dockmirror.config.load import load
from dockmirror.http.server import HttpSite, LimitedHTTPChannel
from dockmirror.oci.errors import parse_challenges
from dockmirror.system.external_program import ProcessFailed, ProcessResult
from dockmirror.web.shared_tables import SharedTables

from .fakes import World

DOMAIN = "mirror.example"


@frozen
class Answer:
    """A response as a client reads it; names of headers in lower case, one pair for each line.

    :ivar whole: whether all of the body came that was announced.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(repr=False)
    whole: bool = True

    def lines(self, name: str) -> list[str]:
        """The values of a header, a line each."""
        return [value for key, value in self.headers if key == name.lower()]

    def __getitem__(self, name: str) -> str | None:
        """The only value of a header; None where there is none."""
        lines = self.lines(name)
        assert len(lines) < 2
        return lines[0] if lines else None

    @property
    def json(self) -> Any:
        """The body."""
        assert self["Content-Type"] == "application/json"
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str]:
        """Status and code of a refusal in the specification's format."""
        return self.status, self._entry["code"]

    @property
    def message(self) -> str:
        return str(self._entry["message"])

    @property
    def detail(self) -> Any:
        return self._entry["detail"]

    @property
    def _entry(self) -> Any:
        (entry,) = self.json["errors"]
        assert set(entry) == {"code", "message", "detail"}
        return entry


class _Kept(BytesIO):
    def makefile(self, _: str) -> _Kept:
        return self

    def close(self) -> None:
        """The next response is in here too."""


class _Transport(StringTransport):
    def setTcpNoDelay(self, _: bool) -> None:
        """Asked of what may be secure."""


class Connection:
    """A client at the other end of a connection."""

    def __init__(self, house: Any, peer: str, secure: bool) -> None:
        self.transport = _Transport(peerAddress=IPv4Address("TCP", peer, 50_000))
        if secure:
            alsoProvides(self.transport, ISSLTransport)
        self._world = house.world
        self._methods: list[str] = []
        built: Any = house.site.buildProtocol(self.transport.getPeer())
        self.channel: LimitedHTTPChannel = built
        self.channel.makeConnection(self.transport)

    def ask(self, method: str, host: str, path: str, *headers: str, body: bytes = b"") -> Connection:
        """Sends a request."""
        self._methods.append(method)
        head = "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host}", *headers, "", ""])
        self.channel.dataReceived(head.encode() + body)
        self._world.agent.flush()
        return self

    def leave(self) -> None:
        """Closes the connection, or sees that it is closed."""
        self.channel.connectionLost(Failure(ConnectionDone()))
        self._world.agent.flush()

    @property
    def producer(self) -> Any:
        """The producer that a full client pauses."""
        return self.transport.producer

    @property
    def aborted(self) -> bool:
        """True if the mirror has cut off the connection."""
        return bool(self.transport.disconnected)

    @property
    def answers(self) -> list[Answer]:
        """All responses so far."""
        return read_answers(self.transport.value(), self._methods)

    @property
    def answer(self) -> Answer:
        """The newest of the responses; there is one to each request."""
        assert len(self.answers) == len(self._methods)
        return self.answers[-1]


def read_answers(data: bytes, methods: Iterable[str] = repeat("GET")) -> list[Answer]:
    """Return the responses to requests with these methods, which are all of the data."""
    received: Any = _Kept(data)
    requested = iter(methods)
    answers = []
    while received.tell() < len(data):
        answers.append(_read(HTTPResponse(received, method=next(requested))))
    return answers


def _read(response: HTTPResponse) -> Answer:
    response.begin()
    headers = tuple((name.lower(), value) for name, value in response.getheaders())
    try:
        return Answer(response.status, headers, response.read())
    except IncompleteRead as error:
        return Answer(response.status, headers, error.partial, whole=False)


async def _nobody(*_: Any) -> ProcessResult:
    raise ProcessFailed("is not to be asked")


class House:
    """The mirror as its service builds it, but for what connects to the world.

    :param environ: the environment in which it is started.
    :param in_thread: where passwords are looked at.
    :param ask: what runs credential helpers.
    :ivar lines: of the access log.
    :ivar metrics: what it counts.
    :ivar watched: all that it notes.
    """

    def __init__(
        self,
        world: World,
        environ: Mapping[str, str] | None = None,
        in_thread: InThread = maybeDeferred,
        ask: RunProgram = _nobody,
        **settings: Any,
    ) -> None:
        self.world = world
        self.clock = Clock()
        self.lines: list[str] = []
        loaded = load({"domain": DOMAIN, **settings}, environ or {})
        self.memory = SharedTables.create()
        self.watched = Telemetry.create(self.memory, self.clock)
        self.metrics = self.watched.metrics
        self.serving = SiteBuilder(
            StackContext(self.clock, lambda *_: world.agent, self.watched),
            partial(load_accounts, environ=environ or {}, run=ask, clock=self.clock),
            self.lines.append,
            in_thread,
            self.memory,
            ConnectionShare(1000),
        )
        self.serving.apply(loaded)
        self.site: HttpSite = self.serving.site

    def connect(self, peer: str = "192.168.1.1", secure: bool = False) -> Connection:
        """A client's connection, by TLS where it is secure."""
        return Connection(self, peer, secure)

    def get(self, host: str, path: str, *headers: str) -> Answer:
        """The answer to a GET on a connection of its own."""
        return self.ask("GET", host, path, *headers)

    def ask(self, method: str, host: str, path: str, *headers: str) -> Answer:
        """The answer to a request on a connection of its own."""
        return self.connect().ask(method, host, path, *headers).answer

    def post(self, host: str, path: str, form: str, *headers: str) -> Answer:
        """The answer to a form."""
        fields = ("Content-Type: application/x-www-form-urlencoded", f"Content-Length: {len(form)}", *headers)
        return self.connect().ask("POST", host, path, *fields, body=form.encode()).answer

    def pull(self, host: str, path: str, *headers: str, authorization: str | None = None) -> Answer:
        """Return the answer after a challenge and a token request."""
        challenged = self.get(host, path, *headers)
        if challenged.status != 401:
            return challenged
        (challenge,) = parse_challenges(challenged.lines("WWW-Authenticate"))
        query = urlencode({key: challenge.get(key) for key in ("service", "scope")})
        realm = urlsplit(challenge.get("realm"))
        login = (f"Authorization: {authorization}",) if authorization else ()
        given = self.get(realm.netloc, f"{realm.path}?{query}", *login)
        assert given.status == 200
        return self.get(host, path, *headers, f"Authorization: Bearer {given.json['token']}")

    def pass_time(self, *seconds: float) -> None:
        """Lets time pass in steps."""
        for step in seconds:
            self.clock.advance(step)
            self.world.agent.flush()
