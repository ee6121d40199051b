"""Responses to the clients of a virtual host."""

from __future__ import annotations

import json
from collections.abc import Coroutine
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.error import DNSLookupError
from twisted.python.failure import Failure

from dockmirror.web.respond import render_coroutine
from tests.fake_registry import MANIFEST, digest, error
from tests.fakes import DEAD, SILENT, Reply
from tests.house import House
from tests.internet import Internet
from tests.stacks import logged

K8S, OWN, HOST = "k8s.mirror.example", "mirror.example", "registry.k8s.io"
BODY = b'{"schemaVersion":2}'
TAG = "/v2/a/manifests/latest"
BLOB = f"/v2/a/blobs/{digest(BODY)}"
LIST = "/v2/a/tags/list"
JSON = ("Content-Type", "application/json")
GIVEN = Reply(200, BODY, (("Content-Type", MANIFEST), ("Docker-Content-Digest", digest(BODY))))
GIVEN_AT = {TAG: GIVEN, BLOB: Reply(200, BODY), LIST: Reply(200, b'{"tags":[]}', (JSON,))}
CREDENTIALS = "Authorization: Bearer x"


@pytest.fixture
def internet() -> Internet:
    """A registry for everybody, which has something at each path."""
    internet = Internet()
    for path, reply in GIVEN_AT.items():
        internet.reply(HOST, path, reply)
    return internet


@pytest.fixture
def house(internet: Internet) -> House:
    """The mirror in front."""
    return House(internet)


class TestHeaders:
    """Response headers, the upstream's and the mirror's own."""

    HIDDEN = (
        ("Set-Cookie", "a=b"), ("Strict-Transport-Security", "max-age=1"), ("Alt-Svc", 'h3=":443"'),
        ("X-Registry-Supports-Signatures", "1"), ("Docker-RateLimit-Source", "192.0.2.1"),
        ("Keep-Alive", "5"), ("X-Hop", "1"), ("Connection", "X-Hop"), ("Trailer", "x"), ("Upgrade", "h2"),
        ("Via", "1.1 x"), ("Server", "nginx"), ("Cache-Control", "max-age=99"), ("Age", "5"), ("Vary", "*"),
        ("X-Amz-Id-2", "x"), ("Location", "https://cdn.example/"), ("WWW-Authenticate", "Basic"),
        ("Content-Encoding", "gzip"), ("Retry-After", "1"), ("Access-Control-Allow-Origin", "*"),
        ("Content-Disposition", "x"),
    )  # fmt: skip

    @pytest.mark.parametrize(
        ("path", "headers"),
        [
            (TAG, {"content-type": MANIFEST, "content-length": "19", "docker-content-digest": digest(BODY),
                   "etag": f'"{digest(BODY)}"', "accept-ranges": "bytes"}),
            (BLOB, {"content-type": "application/octet-stream", "content-length": "19",
                    "docker-content-digest": digest(BODY), "etag": f'"{digest(BODY)}"',
                    "accept-ranges": "bytes"}),
            (LIST, {"content-type": "application/json", "content-length": "11"}),
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("host", [K8S, f"{OWN}?ns={HOST}"])
    def test_nothing_else(self, internet: Internet, host: str, path: str, headers: dict[str, str]) -> None:
        """Only headers that describe the content are passed on, no cookies or security policies."""
        internet.reply(HOST, path, GIVEN_AT[path].having(*self.HIDDEN))
        host, _, query = host.partition("?")
        answer = House(internet).get(host, f"{path}?{query}" if query else path)
        ours = {
            "server": "dockmirror",
            "date": answer["Date"],
            "docker-distribution-api-version": "registry/2.0",
            "x-content-type-options": "nosniff",
        }
        if query:
            ours["oci-namespace"] = HOST
        assert dict(answer.headers) == {**ours, **headers}
        assert len(answer.headers) == len(dict(answer.headers))

    def test_what_tells_of_limits_travels(self, internet: Internet, house: House) -> None:
        """Rate limit headers and warnings are passed on."""
        told = (("RateLimit-Limit", "100;w=21600"), ("RateLimit-Remaining", "76"), ("Warning", '299 - "old"'))
        internet.reply(HOST, TAG, GIVEN.having(*told))
        answer = house.get(K8S, TAG)
        assert [(name, answer[name]) for name, _ in told] == list(told)

    @pytest.mark.parametrize("path", [TAG, BLOB, LIST, "/v2/"])
    def test_what_credentials_were_given_for_is_kept_by_nobody(self, house: House, path: str) -> None:
        """No cache on the way may give it to others; the rest it may."""
        assert house.get(K8S, path, CREDENTIALS)["Cache-Control"] == "private, no-store"
        assert house.get(K8S, path)["Cache-Control"] is None
        assert house.get(K8S, "/v2/a/manifests/nope", CREDENTIALS)["Cache-Control"] == "private, no-store"

    @pytest.mark.parametrize("path", [TAG, BLOB, LIST, "/v2/", "/v2/a/manifests/nope"])
    def test_a_browser_takes_nothing_for_a_page(self, house: House, path: str) -> None:
        """Whatever lies in a registry, and whatever its host is called."""
        assert house.get(K8S, path)["X-Content-Type-Options"] == "nosniff"

    @pytest.mark.parametrize(
        "link",
        [
            f'<https://{HOST}/v2/a/tags/list?n=1&last=b%2Fc>; rel="next"',
            "</v2/a/tags/list?n=1&last=b/c>;rel=next",
        ],
    )
    def test_the_next_page_is_the_mirrors(self, internet: Internet, house: House, link: str) -> None:
        """The next page's link has the client's path and the upstream's query."""
        internet.reply(HOST, LIST, Reply(200, b'{"tags":[]}', (JSON, ("Link", link))))
        assert house.get(K8S, f"{LIST}?n=1")["Link"] == f'<{LIST}?n=1&last=b%2Fc>; rel="next"'

    def test_it_is_in_the_clients_spelling(self, internet: Internet, house: House) -> None:
        """A short name stays short."""
        told = ("Link", '</v2/library/busybox/tags/list?last=x>; rel="next"')
        internet.reply(
            "registry-1.docker.io", "/v2/library/busybox/tags/list", Reply(200, b"{}", (JSON, told))
        )
        answer = house.get("docker.mirror.example", "/v2/busybox/tags/list")
        assert answer["Link"] == '</v2/busybox/tags/list?last=x>; rel="next"'

    def test_a_list_of_unknown_length(self, internet: Internet, house: House) -> None:
        """A list of unknown length is sent chunked."""
        internet.reply(HOST, LIST, Reply(200, b'{"tags":[]}', (JSON,), told=False))
        answer = house.get(K8S, LIST)
        assert (answer["Transfer-Encoding"], answer["Content-Length"]) == ("chunked", None)
        assert answer.body == b'{"tags":[]}'


class TestConditional:
    """A client that has it already."""

    @pytest.mark.parametrize("path", [TAG, BLOB])
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_304(self, house: House, path: str, method: str) -> None:
        """A 304 has no body, and names the client's content."""
        answer = house.ask(method, K8S, path, f'If-None-Match: "{digest(BODY)}"')
        assert (answer.status, answer.body) == (304, b"")
        assert (answer["ETag"], answer["Docker-Content-Digest"]) == (f'"{digest(BODY)}"', digest(BODY))
        assert (answer["Content-Type"], answer["Content-Length"]) == (None, None)

    def test_the_connection_goes_on(self, house: House) -> None:
        """The next answer is the next request's."""
        client = house.connect().ask("GET", K8S, TAG, "If-None-Match: *").ask("GET", K8S, BLOB)
        assert [answer.status for answer in client.answers] == [304, 200]


class TestErrors:
    """Refusals in the specification's format, whatever the upstream's looked like."""

    PAGES = (
        (b"<html><h1>Bad Gateway</h1></html>", "text/html"),
        (b"<Error><Code>X</Code></Error>", "application/xml"),
        (b"Not Authorized", "text/plain"),
        (b"", "application/json"),
        (b'{"message":"no"}', "application/json"),
    )

    @pytest.mark.parametrize(("body", "kind"), PAGES)
    @pytest.mark.parametrize("status", [400, 403, 404, 429, 451, 500, 502, 503, 520])
    @pytest.mark.parametrize(("path", "unknown"), [(TAG, "MANIFEST"), (BLOB, "BLOB"), (LIST, "NAME")])
    def test_pages_are_wrapped(
        self, internet: Internet, house: House, path: str, unknown: str, status: int, body: bytes, kind: str
    ) -> None:
        """The status is kept, and the reason is the detail."""
        internet.reply(HOST, path, Reply(status, body, (("Content-Type", kind), ("Retry-After", "7"))))
        answer = house.get(K8S, path)
        code = {403: "DENIED", 404: f"{unknown}_UNKNOWN", 429: "TOOMANYREQUESTS"}.get(status)
        assert answer.error == (status, code or ("UNKNOWN" if status < 500 else "UNAVAILABLE"))
        assert answer.detail == (body.decode() or None)
        assert answer["Retry-After"] == "7"
        assert [answer[name] for name in ("WWW-Authenticate", "Allow", "Content-Range")] == [None] * 3
        assert answer["Docker-Distribution-Api-Version"] == "registry/2.0"

    def test_a_registrys_own_words_are_kept(self, internet: Internet, house: House) -> None:
        """All of its errors."""
        errors = [{"code": "DENIED", "message": "no", "detail": {"a": [1]}},
                  {"code": "X", "message": "", "detail": None}]  # fmt: skip
        internet.reply(HOST, TAG, Reply(403, json.dumps({"errors": errors}).encode(), (JSON,)))
        answer = house.get(K8S, TAG)
        assert (answer.status, answer.json) == (403, {"errors": errors})

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_a_head_has_no_body(self, internet: Internet, house: House, method: str) -> None:
        """An error to a HEAD has length and type but no body."""
        internet.reply(HOST, TAG, error(404, "MANIFEST_UNKNOWN"))
        answer = house.ask(method, K8S, TAG)
        assert (answer.status, answer["Content-Type"]) == (404, "application/json")
        assert bool(answer.body) is (method == "GET")

    @pytest.mark.parametrize(
        ("failure", "why"),
        [(DNSLookupError(), "its name cannot be resolved"), (Refused(), "refused")],
    )
    @pytest.mark.parametrize("path", [TAG, BLOB, LIST, "/v2/", "/v2/auth"])
    def test_an_upstream_that_is_not_reached(
        self, internet: Internet, house: House, path: str, failure: Exception, why: str
    ) -> None:
        """An unreachable upstream is a 502 that names it and the reason, never a 404."""
        internet.agent.failing[HOST] = failure
        answer = house.get(K8S, path)
        assert answer.error == (502, "UNAVAILABLE")
        assert answer.message.startswith(f"the upstream k8s cannot be reached: {HOST}: ")
        assert why in answer.message

    @pytest.mark.parametrize("host", [K8S, OWN])
    def test_an_upstream_that_is_silent(self, internet: Internet, house: House, host: str) -> None:
        """A silent upstream is a 504 after a minute."""
        internet.reply(HOST, TAG, SILENT)
        client = house.connect().ask("GET", host, f"{TAG}?ns={HOST}")
        house.pass_time(59.9)
        assert client.answers == []
        house.pass_time(0.1)
        assert client.answer.error == (504, "UNAVAILABLE")
        assert internet.abandoned == internet.seen

    def test_what_an_upstream_does_not_offer(self, internet: Internet, house: House) -> None:
        """An unsupported operation is a 405 with the mirror's methods."""
        internet.reply(HOST, LIST, Reply(405, b"", (("Allow", "PATCH"),)))
        answer = house.get(K8S, LIST)
        assert answer.error == (405, "UNSUPPORTED")
        assert answer["Allow"] == "GET, HEAD"

    def test_what_nobody_expected(self, internet: Internet, house: House) -> None:
        """An unexpected exception is logged; the client gets a 500 without details."""
        internet.agent.failing[HOST] = ZeroDivisionError("a secret")
        with logged() as log:
            answer = house.get(K8S, TAG)
        assert answer.error == (500, "UNKNOWN")
        assert answer.message == "internal error"
        assert "a secret" in "".join(log)

    def test_an_upstream_that_always_closes(self, internet: Internet, house: House) -> None:
        """An upstream that always closes connections counts as unreachable."""
        internet.reply(HOST, TAG, DEAD)
        assert house.get(K8S, TAG).error == (502, "UNAVAILABLE")

    @pytest.mark.parametrize("path", [TAG, LIST, "/v2/"])
    def test_no_page_is_answered_200(self, internet: Internet, house: House, path: str) -> None:
        """Clients store whatever they are given with that."""
        internet.reply(HOST, path, Reply(200, b"<html>login", (("Content-Type", "text/html"),)))
        assert house.get(K8S, path).error == (502, "UNAVAILABLE")

    @pytest.mark.parametrize(
        ("ranges", "reply"), [("bytes=99-", Reply(416, b"", (("Content-Range", "bytes */19"),))),
                              ("bytes=99-", Reply(200, BODY))]
    )  # fmt: skip
    def test_a_range_outside(self, internet: Internet, house: House, ranges: str, reply: Reply) -> None:
        """A range outside of the content is a 416 with its size."""
        internet.reply(HOST, BLOB, reply)
        answer = house.get(K8S, BLOB, f"Range: {ranges}")
        assert answer.error == (416, "RANGE_INVALID")
        assert answer["Content-Range"] == "bytes */19"


class Asked:
    """A request of which only what is used here is there.

    :ivar failures: what was told as a failure of the mirror.
    """

    def __init__(self) -> None:
        self.left: Deferred[None] = Deferred()
        self.failures: list[type[BaseException]] = []

    def notifyFinish(self) -> Deferred[None]:
        return self.left

    def processingFailed(self, failure: Failure) -> Failure:
        assert failure.type is not None
        self.failures.append(failure.type)
        return failure


def asked(answering: Coroutine[Any, Any, None]) -> Asked:
    """A request that is answered by that."""
    request = Asked()
    render_coroutine(request, answering)  # type: ignore[arg-type]
    return request


def test_a_client_that_leaves() -> None:
    """A client that leaves gets no further answer, and nothing is logged."""
    seen: list[str] = []

    async def answering() -> None:
        try:
            await Deferred()
        except CancelledError:
            seen.append("cancelled")
            raise

    request = asked(answering())
    request.left.errback(Failure(ConnectionError()))
    assert (seen, request.failures) == (["cancelled"], [])


def test_a_failure() -> None:
    """An exception of the coroutine is a 500."""

    async def answering() -> None:
        raise ValueError

    assert asked(answering()).failures == [ValueError]


def test_one_that_is_done() -> None:
    """A finished coroutine is not cancelled when the client leaves."""

    async def answering() -> None:
        return None

    request = asked(answering())
    request.left.errback(Failure(ConnectionError()))
    assert request.failures == []
