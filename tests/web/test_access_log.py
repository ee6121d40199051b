"""The access log: a line for each request."""

# mypy: allow-untyped-calls

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, cast

import bcrypt
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.logger import ILogObserver, Logger, capturedLogs, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from zope.interface import implementer

from dockmirror.app.message_log import MessageLog
from dockmirror.http.server_request import ServerRequest
from dockmirror.interfaces import Answer, IBody
from dockmirror.oci.digest import Descriptor
from dockmirror.oci.errors import Unavailable
from dockmirror.web.access_log import AccessLog
from dockmirror.web.respond import respond
from tests.fake_registry import MANIFEST, basic, digest
from tests.fakes import Reply
from tests.house import House
from tests.internet import LAYER, PASSWORD, USER, Internet

DOCKER = "docker.mirror.example"
K8S, HOST = "k8s.mirror.example", "registry.k8s.io"
TIME = "1970-01-01T00:00:00.000+00:00"


@pytest.fixture
def internet() -> Internet:
    """The well-known registries."""
    return Internet()


def test_as_text(internet: Internet) -> None:
    """Time, client, host, method, path, status, bytes, seconds, what the upstream said, and the pull."""
    house = House(internet)
    answer = house.get(f"{K8S}:8080", "/v2/team/image/manifests/1?x=y")
    ((line, _, pull),) = [each.rpartition(" ") for each in house.lines]
    assert line == (
        f"{TIME} 192.168.1.1 {K8S}:8080 GET /v2/team/image/manifests/1 200 {len(answer.body)} 0.0 200"
    )
    assert pull.isdecimal()


def test_what_is_not_known_is_a_dash(internet: Internet) -> None:
    """Here what an upstream said that was not asked, and the pull that a page is no part of."""
    house = House(internet)
    house.get(K8S, "/")
    assert house.lines[0].endswith(" 0.0 - -")


def test_as_json(internet: Internet) -> None:
    """The same fields, by name."""
    house = House(internet, log_format="json")
    answer = house.get(K8S, "/v2/team/image/manifests/nope")
    fields = json.loads(house.lines[0])
    assert fields.pop("pull").isdecimal()
    assert fields == {
        "kind": "request", "time": TIME, "client": "192.168.1.1", "host": K8S, "method": "GET",
        "path": "/v2/team/image/manifests/nope", "status": 404, "bytes": len(answer.body),
        "seconds": 0.0, "upstream": 404, "via": None, "accel": False, "cut_off": False,
        "reason": "the upstream answered 404 MANIFEST_UNKNOWN",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "status", "upstream"),
    [
        ("/", 200, None),
        ("/nothing", 404, None),
        ("/v2/A/manifests/x", 400, None),
        ("/v2/a/tags/list", 200, 200),
        ("/v2/a/manifests/moved", 200, 200),
        ("/v2/a/manifests/broken", 502, 200),
        ("/v2/a/manifests/busy", 429, 429),
        (f"/v2/a/blobs/{digest(b'x')}", 502, 403),
    ],
)
def test_what_the_upstream_said(internet: Internet, path: str, status: int, upstream: int | None) -> None:
    """Stands beside what the client was told; nothing where it was not asked."""
    for redirected, end in ((f"/v2/a/blobs/{digest(b'x')}", "no"), ("/v2/a/manifests/moved", "end")):
        leads = (("Location", f"https://cdn.example/{end}"),)
        internet.reply(HOST, redirected, Reply(307, b"", leads))
    internet.reply("cdn.example", "/no", Reply(403))
    internet.reply("cdn.example", "/end", Reply(200, b"{}"))
    internet.reply(HOST, "/v2/a/manifests/broken", Reply(200, b"<html>", (("Content-Type", "text/html"),)))
    internet.reply(HOST, "/v2/a/manifests/busy", Reply(429))
    house = House(internet, log_format="json")
    house.get(K8S, path)
    line = json.loads(house.lines[0])
    assert (line["status"], line["upstream"]) == (status, upstream)


def test_the_requests_of_a_pull_have_one_number(internet: Internet) -> None:
    """Another client's pull has another one, and what is no pull has none."""
    layer = {"mediaType": "a/b", "digest": digest(LAYER), "size": len(LAYER)}
    fields = {"schemaVersion": 2, "mediaType": MANIFEST, "config": layer, "layers": [layer]}
    manifest = json.dumps(fields).encode()
    given = (("Content-Type", MANIFEST), ("Docker-Content-Digest", digest(manifest)))
    internet.reply(HOST, "/v2/a/manifests/1", Reply(200, manifest, given))
    internet.reply(HOST, f"/v2/a/blobs/{digest(LAYER)}", Reply(200, LAYER))
    house = House(internet, log_format="json")
    house.clock.advance(1_000_000)
    for peer in ("192.168.1.1", "192.168.1.2"):
        for path in ("/v2/", "/v2/a/manifests/1", f"/v2/a/blobs/{digest(LAYER)}"):
            assert house.connect(peer).ask("GET", K8S, path).answer.status == 200
    numbers = [json.loads(line)["pull"] for line in house.lines]
    first, second = numbers[1], numbers[4]
    assert numbers == [None, first, first, None, second, second]
    assert first != second


def test_how_long_it_took_and_how_much_was_sent(internet: Internet) -> None:
    """Duration and bytes are those at the end, even if the client left early."""
    path = f"/v2/a/blobs/{digest(LAYER)}"
    internet.reply(HOST, path, Reply(200, LAYER).cut(100_000, end="stalled"))
    house = House(internet, log_format="json")
    client = house.connect("127.0.0.1").ask("GET", K8S, path)
    house.pass_time(1.5)
    assert house.lines == []
    client.leave()
    line = json.loads(house.lines[0])
    assert (line["seconds"], line["bytes"], line["cut_off"]) == (1.5, 100_000, True)
    assert (line["client"], line["status"], line["upstream"]) == ("127.0.0.1", 200, 200)


def test_one_that_was_cut_off_says_so(internet: Internet) -> None:
    """The text format marks responses that were cut off."""
    path = f"/v2/a/blobs/{digest(LAYER)}"
    internet.reply(HOST, path, Reply(200, LAYER).cut(100_000, end="stalled"))
    house = House(internet)
    client = house.connect().ask("GET", K8S, path)
    internet.go_on(b"x" * (len(LAYER) - 100_000))
    assert client.aborted
    client.leave()
    reason = f"the upstream's content is not {digest(LAYER)}"
    assert house.lines == [f'{TIME} 192.168.1.1 {K8S} GET {path} 200 100000 0.0 200 - cut off "{reason}"']


@implementer(IBody)
class BrokenBody:
    """A body that breaks off when the Deferred fires."""

    def __init__(self, breaks: Deferred[None]) -> None:
        self.descriptor = Descriptor("a/b", None, 100)
        self._breaks = breaks

    def deliver(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(b"part")
        return self._breaks

    def discard(self) -> None:
        raise AssertionError("it is delivered")


class Pulls(Resource):
    """Answers each path as a part of the pull with that number, and breaks off."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.breaks: list[Deferred[None]] = []

    def render_GET(self, request: ServerRequest) -> int:
        return respond(request, self._answer(request))

    async def _answer(self, request: ServerRequest) -> Answer:
        request.join_pull(request.path.decode().strip("/"))
        self.breaks.append(Deferred())
        return Answer(BrokenBody(self.breaks[-1]))


@pytest.mark.parametrize("form", ["text", "json"])
def test_every_line_of_a_pull_has_its_number(internet: Internet, form: Literal["text", "json"]) -> None:
    """So have the mirror's messages about it, although other pulls run at the same time."""
    house, pulls, lines = House(internet), Pulls(), list[str]()
    house.site.serve(pulls, AccessLog(form, house.clock, lines.append))
    messages = cast(ILogObserver, MessageLog(lines.append))
    globalLogPublisher.addObserver(messages)
    try:
        clients = [house.connect().ask("GET", K8S, f"/{number}") for number in (7, 8)]
        for each in reversed(pulls.breaks):
            each.errback(Failure(Unavailable("it broke off")))
        Logger("dockmirror.tests").info("of no pull")
    finally:
        globalLogPublisher.removeObserver(messages)
    for client in clients:
        client.leave()
    told = [line.partition(" ")[2] for line in lines[:3]]
    assert told == [*(f"warning: pull {n}: /{n}: cut off: it broke off" for n in (8, 7)), "of no pull"]
    if form == "json":
        assert [json.loads(line)["pull"] for line in lines[3:]] == ["7", "8"]
    else:
        assert [line.split(" cut off")[0].split()[-1] for line in lines[3:]] == ["7", "8"]


@pytest.mark.parametrize("peer", ["8.8.8.8", "::ffff:8.8.8.8"])
def test_who_is_not_let_in_has_a_line(internet: Internet, peer: str) -> None:
    """A rejected request is logged with the peer's address and the requested host."""
    house = House(internet)
    house.connect(peer).ask("GET", K8S, "/v2/")
    (line,) = house.lines
    assert line.split()[1:6] == ["8.8.8.8", K8S, "GET", "/v2/", "403"]


def test_who_is_not_let_in_behind_a_proxy(internet: Internet) -> None:
    """A rejected client behind a proxy is logged with its own address."""
    house = House(internet, trust_proxy=["127.0.0.1"])
    house.connect("127.0.0.1").ask("GET", K8S, "/v2/", "X-Forwarded-For: 203.0.113.9")
    assert house.lines[0].split()[1:6] == ["203.0.113.9", K8S, "GET", "/v2/", "403"]


def test_the_client_behind_a_believed_proxy(internet: Internet) -> None:
    """Behind a trusted proxy, the client and host that it names are logged."""
    house = House(internet, trust_proxy=["127.0.0.1"])
    forwarded = ("X-Forwarded-For: 10.0.0.9", f"X-Forwarded-Host: {K8S}")
    house.connect("127.0.0.1").ask("GET", "backend", "/v2/", *forwarded)
    assert house.lines[0].split()[1:3] == ["10.0.0.9", K8S]


@pytest.mark.parametrize(
    "request_line",
    [b"nonsense", b'GET /%20%0a" HTTP/1.0', b"GET /a HTTP/1.0", b"G\xffT / HTTP/1.1", b"GET / HTTP/9.9"],
)
def test_a_request_makes_one_line_of_ten_words(internet: Internet, request_line: bytes) -> None:
    """Whatever is in it, and whatever is missing; the reason of a refusal follows in quotes."""
    house = House(internet)
    house.connect().channel.dataReceived(request_line + b"\r\n\r\n")
    (line,) = house.lines
    words = line[: line.rindex(' "')].split(" ")
    assert len(words) == 10
    assert all(words)
    assert line.isprintable()


@pytest.mark.parametrize("uploads", ["/v2/a/blobs/uploads", "/docker.io/v2/a/b/%62lobs/uploads"])
def test_the_name_of_an_upload_is_left_out(internet: Internet, tmp_path: Path, uploads: str) -> None:
    """It contains the upstream's address of the upload, whose query may hold a signature."""
    house = House(internet, access={"audit": str(tmp_path / "audit.log")})
    house.get(DOCKER, f"{uploads}/c2lnbmVk.address")
    house.get(DOCKER, f"{uploads}/c2lnbmVk.address/")
    house.get(DOCKER, f"{uploads}//c2lnbmVk.address")
    house.get(DOCKER, f"{uploads}/")
    shown = [f"{uploads}/...", f"{uploads}/...", f"{uploads}//...", f"{uploads}/"]
    assert [line.split()[4] for line in house.lines] == shown
    assert "c2lnbmVk" not in (tmp_path / "audit.log").read_text()


def test_the_reason_of_a_failure_follows_in_quotes(internet: Internet) -> None:
    """It is the sentence that the client gets, and for a 5xx the status line has it too."""
    internet.reply(HOST, "/v2/a/tags/list", Reply(500))
    house = House(internet)
    answer = house.get(K8S, "/v2/a/tags/list")
    assert house.lines[0].endswith(f' 502 - "{answer.message}"') or house.lines[0].endswith(
        f' 500 - "{answer.message}"'
    )


def test_a_challenge_has_no_reason_and_a_wrong_password_has(internet: Internet) -> None:
    """Most pulls begin with a challenge."""
    house = House(internet)
    house.get(DOCKER, "/v2/team/private/manifests/1")
    house.get(DOCKER, "/v2/auth?scope=repository:team/private:pull", f"Authorization: {basic(USER, 'x')}")
    assert '"' not in house.lines[0]
    assert house.lines[1].endswith('"')


def test_a_tls_hello_is_no_request(internet: Internet) -> None:
    """It has no line; the client gets plain HTTP, which it reports; the log says so once a minute."""
    house = House(internet)
    with capturedLogs() as logged:
        for _ in range(3):
            client = house.connect()
            client.channel.dataReceived(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
            assert client.transport.value().startswith(b"HTTP/1.1 400 Bad Request\r\n")
        house.pass_time(60)
        house.connect().channel.dataReceived(b"\x16\x03\x01")
    lines = [formatEvent(event) for event in logged if event["log_namespace"].endswith("request_reader")]
    assert house.lines == []
    assert len(lines) == 2
    assert lines[0].startswith("192.168.1.1 spoke TLS to a port of plain HTTP: it needs http://")
    assert "as did 2 others since" in lines[1]


def test_one_line_for_each(internet: Internet) -> None:
    """Each request on a reused connection has its own line."""
    house = House(internet)
    client = house.connect()
    for path in ("/v2/", "/", "/v2/team/image/tags/list"):
        client.ask("GET", K8S, path)
    assert [line.split()[4] for line in house.lines] == ["/v2/", "/", "/v2/team/image/tags/list"]


def test_the_audit_log(internet: Internet, tmp_path: Path) -> None:
    """The audit log says who got what from where, also behind a trusted proxy, without query and secrets."""
    file = tmp_path / "audit"
    house = House(internet, access={"audit": str(file)}, trust_proxy=["192.168.1.1"])
    forwarded = ("X-Forwarded-For: 10.0.0.7", f"Authorization: {basic(USER, PASSWORD)}")
    house.get(DOCKER, "/v2/auth?account=alice&service=x", *forwarded)
    house.get("unknown.example", "/v2/", "X-Forwarded-For: 203.0.113.1")
    token, refused = map(json.loads, file.read_text().splitlines())
    assert token == {
        "time": "1970-01-01T00:00:00.000+00:00", "client": "10.0.0.7", "host": DOCKER, "method": "GET",
        "path": "/v2/auth", "status": 200, "bytes": token["bytes"], "pull": None, "user": None, "whole": True,
        "accel": False, "reason": None,
    }  # fmt: skip
    assert (refused["client"], refused["status"]) == ("203.0.113.1", 403)
    assert (refused["host"], bool(refused["reason"])) == ("unknown.example", True)
    assert PASSWORD not in file.read_text()


def test_the_audit_log_of_a_mirror_with_names(internet: Internet, tmp_path: Path) -> None:
    """The audit log names the user, and marks responses that were cut off."""
    file, names = tmp_path / "audit", tmp_path / "htpasswd"
    names.write_text(f"bob:{bcrypt.hashpw(b'b', bcrypt.gensalt(4)).decode()}\n")
    access = {"audit": str(file), "htpasswd": str(names), "keys": str(tmp_path / "keys")}
    internet.reply("registry.k8s.io", "/v2/a/tags/list", Reply(200, b'{"name":"a"').cut(5, end="stalled"))
    client = House(internet, access=access).connect()
    client.ask("GET", "k8s.mirror.example", "/v2/a/tags/list", f"Authorization: {basic('bob', 'b')}").leave()
    (line,) = map(json.loads, file.read_text().splitlines())
    assert (line["user"], line["whole"]) == ("bob", False)
