"""Responses to the clients of a virtual host."""

# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.error import DNSLookupError
from twisted.python.failure import Failure

from dockmirror.web.respond import render_coroutine
from tests.fake_registry import MANIFEST, digest
from tests.fakes import DEAD, SILENT, Reply
from tests.house import House
from tests.internet import HUB, Internet
from tests.stacks import logged

K8S, OWN, HOST = "k8s.mirror.example", "mirror.example", "registry.k8s.io"
BODY = b'{"schemaVersion":2}'
TAG, BLOB, LIST = "/v2/a/manifests/latest", f"/v2/a/blobs/{digest(BODY)}", "/v2/a/tags/list"
JSON = ("Content-Type", "application/json")
GIVEN = Reply(200, BODY, (("Content-Type", MANIFEST), ("Docker-Content-Digest", digest(BODY))))
GIVEN_AT = {TAG: GIVEN, BLOB: Reply(200, BODY), LIST: Reply(200, b'{"tags":[]}', (JSON,))}
CREDENTIALS = "Authorization: Bearer x"
DESCRIBED = {
    "content-length": "19", "docker-content-digest": digest(BODY), "etag": f'"{digest(BODY)}"',
    "accept-ranges": "bytes",
}  # fmt: skip
HIDDEN = (
    ("Set-Cookie", "a=b"), ("Strict-Transport-Security", "max-age=1"), ("Alt-Svc", 'h3=":443"'),
    ("X-Registry-Supports-Signatures", "1"), ("Docker-RateLimit-Source", "192.0.2.1"),
    ("Keep-Alive", "5"), ("X-Hop", "1"), ("Connection", "X-Hop"), ("Trailer", "x"), ("Upgrade", "h2"),
    ("Via", "1.1 x"), ("Server", "nginx"), ("Cache-Control", "max-age=99"), ("Age", "5"), ("Vary", "*"),
    ("X-Amz-Id-2", "x"), ("Location", "https://cdn.example/"), ("WWW-Authenticate", "Basic"),
    ("Content-Encoding", "gzip"), ("Retry-After", "1"), ("Access-Control-Allow-Origin", "*"),
    ("Content-Disposition", "x"),
)  # fmt: skip


@pytest.fixture
def internet() -> Internet:
    """A registry for everybody, which has a content at each path."""
    internet = Internet()
    for path, reply in GIVEN_AT.items():
        internet.reply(HOST, path, reply)
    return internet


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        (TAG, {**DESCRIBED, "content-type": MANIFEST, "age": "5"}),
        (BLOB, {**DESCRIBED, "content-type": "application/octet-stream"}),
        (LIST, {"content-type": "application/json", "content-length": "11", "age": "5"}),
    ],
)
@pytest.mark.parametrize("host", [K8S, f"{OWN}?ns={HOST}"])
def test_only_headers_that_describe_the_content_are_passed_on(
    internet: Internet, house: House, host: str, path: str, headers: dict[str, str]
) -> None:
    """And the age of a tag or a list, by which clients know how old it is."""
    internet.reply(HOST, path, GIVEN_AT[path].having(*HIDDEN))
    host, _, query = host.partition("?")
    answer = house.get(host, f"{path}?{query}" if query else path)
    own = {
        "server": "dockmirror", "date": answer["Date"], "docker-distribution-api-version": "registry/2.0",
        "x-content-type-options": "nosniff", **({"oci-namespace": HOST} if query else {}),
        **({} if path == BLOB else {"age": "5"}),
    }  # fmt: skip
    assert sorted(answer.headers) == sorted({**own, **headers}.items())


@pytest.mark.parametrize("path", [TAG, BLOB])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_digest_is_the_only_entity_tag(internet: Internet, house: House, path: str, method: str) -> None:
    internet.reply(HOST, path, GIVEN_AT[path].having(("ETag", '"x"')))
    answer = house.connect().ask(method, K8S, path).answer
    assert [value for name, value in answer.headers if name == "etag"] == [f'"{digest(BODY)}"']


@pytest.mark.parametrize("path", [TAG, BLOB, LIST, "/v2/", "/v2/a/manifests/nope"])
def test_an_answer_to_credentials_is_private(house: House, path: str) -> None:
    """No cache on the way may give it to others, and no browser takes it for a page."""
    with_credentials, without = house.get(K8S, path, CREDENTIALS), house.get(K8S, path)
    assert (with_credentials["Cache-Control"], without["Cache-Control"]) == ("private, no-store", None)
    assert without["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("host", "server", "name", "link"),
    [
        (K8S, HOST, "a", f"https://{HOST}/v2/a/tags/list?n=1&last=b%2Fc"),
        (K8S, HOST, "a", "/v2/a/tags/list?n=1&last=b/c"),
        ("docker.mirror.example", HUB, "busybox", "/v2/library/busybox/tags/list?n=1&last=b/c"),
    ],
)
def test_the_next_page_has_the_clients_path_and_the_upstreams_query(
    internet: Internet, house: House, host: str, server: str, name: str, link: str
) -> None:
    path = f"/v2/library/{name}/tags/list" if server == HUB else LIST
    internet.reply(server, path, Reply(200, b'{"tags":[]}', (JSON, ("Link", f'<{link}>; rel="next"'))))
    answer = house.get(host, f"/v2/{name}/tags/list?n=1")
    assert answer["Link"] == f'</v2/{name}/tags/list?n=1&last=b%2Fc>; rel="next"'


def test_a_list_of_unknown_length_is_sent_chunked(internet: Internet, house: House) -> None:
    internet.reply(HOST, LIST, Reply(200, b'{"tags":[]}', (JSON,), told=False))
    answer = house.get(K8S, LIST)
    assert (answer["Transfer-Encoding"], answer["Content-Length"]) == ("chunked", None)
    assert answer.body == b'{"tags":[]}'


@pytest.mark.parametrize("path", [TAG, BLOB])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_client_that_has_the_content_gets_304_without_a_body(house: House, path: str, method: str) -> None:
    """The connection can be used again."""
    client = house.connect().ask(
        method, K8S, path, 'If-None-Match: "other"', f'If-None-Match: "{digest(BODY)}"'
    )
    answer = client.answer
    assert (answer.status, answer.body) == (304, b"")
    assert (answer["ETag"], answer["Docker-Content-Digest"]) == (f'"{digest(BODY)}"', digest(BODY))
    assert (answer["Content-Type"], answer["Content-Length"]) == (None, None)
    assert client.ask("GET", K8S, BLOB).answer.body == BODY


@pytest.mark.parametrize("status", [400, 403, 404, 429, 451, 503, 520])
@pytest.mark.parametrize(("path", "unknown"), [(TAG, "MANIFEST"), (BLOB, "BLOB"), (LIST, "NAME")])
def test_a_web_page_becomes_an_error(
    internet: Internet, house: House, path: str, unknown: str, status: int
) -> None:
    page = Reply(status, b"<html>no</html>", (("Content-Type", "text/html"), ("Retry-After", "7")))
    internet.reply(HOST, path, page)
    answer = house.get(K8S, path)
    code = {403: "DENIED", 404: f"{unknown}_UNKNOWN", 429: "TOOMANYREQUESTS"}.get(status)
    assert answer.error == (status, code or ("UNKNOWN" if status < 500 else "UNAVAILABLE"))
    assert (answer.detail, answer["Retry-After"]) == ("<html>no</html>", "7")
    assert [answer[name] for name in ("WWW-Authenticate", "Allow", "Content-Range")] == [None] * 3
    assert answer["Docker-Distribution-Api-Version"] == "registry/2.0"
    head = house.ask("HEAD", K8S, path)
    assert (head.status, head["Content-Type"], head.body) == (status, "application/json", b"")


@pytest.mark.parametrize(
    ("failure", "reason"), [(DNSLookupError(), "its name cannot be resolved"), (Refused(), "refused")]
)
@pytest.mark.parametrize("path", [TAG, "/v2/", "/v2/auth"])
def test_an_unreachable_upstream_is_a_502_that_names_it(
    internet: Internet, house: House, path: str, failure: Exception, reason: str
) -> None:
    internet.agent.failing[HOST] = failure
    answer = house.get(K8S, path)
    assert answer.error == (502, "UNAVAILABLE")
    assert answer.message.startswith(f"the upstream k8s cannot be reached: {HOST}: ")
    assert reason in answer.message


@pytest.mark.parametrize("host", [K8S, OWN])
def test_a_silent_upstream_is_a_504_after_a_minute(internet: Internet, house: House, host: str) -> None:
    internet.reply(HOST, TAG, SILENT)
    client = house.connect().ask("GET", host, f"{TAG}?ns={HOST}")
    house.pass_time(59.9)
    assert client.answers == []
    house.pass_time(0.1)
    assert client.answer.error == (504, "UNAVAILABLE")
    assert internet.abandoned == internet.seen


@pytest.mark.parametrize(
    ("reply", "expected", "field", "value"),
    [
        (Reply(405, b"", (("Allow", "PATCH"),)), (405, "UNSUPPORTED"), "Allow", "GET, HEAD"),
        (Reply(200, b"<html>login", (("Content-Type", "text/html"),)), (502, "UNAVAILABLE"), "Allow", None),
        (DEAD, (502, "UNAVAILABLE"), "Allow", None),
    ],
)
def test_an_unusable_answer_is_an_error(
    internet: Internet, house: House, reply: Reply, expected: tuple[int, str], field: str, value: str | None
) -> None:
    """Clients store any body that comes with a 200."""
    internet.reply(HOST, LIST, reply)
    answer = house.get(K8S, LIST)
    assert (answer.error, answer[field]) == (expected, value)


@pytest.mark.parametrize("reply", [Reply(416, b"", (("Content-Range", "bytes */19"),)), Reply(200, BODY)])
def test_a_range_beyond_the_content_is_416(internet: Internet, house: House, reply: Reply) -> None:
    internet.reply(HOST, BLOB, reply)
    answer = house.get(K8S, BLOB, "Range: bytes=99-")
    assert (answer.error, answer["Content-Range"]) == ((416, "RANGE_INVALID"), "bytes */19")


def test_an_unexpected_exception_is_answered_without_details(internet: Internet, house: House) -> None:
    internet.agent.failing[HOST] = ZeroDivisionError("a secret")
    with logged() as log:
        answer = house.get(K8S, TAG)
    assert (answer.error, answer.message) == ((500, "UNKNOWN"), "internal error")
    assert "a secret" in "".join(log)


class FakeRequest:
    """A request that records failures of the mirror."""

    def __init__(self) -> None:
        self.finished: Deferred[None] = Deferred()
        self.failures: list[type[BaseException]] = []

    def notifyFinish(self) -> Deferred[None]:
        return self.finished

    def processingFailed(self, failure: Failure) -> Failure:
        assert failure.type is not None
        self.failures.append(failure.type)
        return failure


def rendered(answering: Coroutine[Any, Any, None]) -> FakeRequest:
    """Return a request that a coroutine answers."""
    request = FakeRequest()
    render_coroutine(request, answering)  # type: ignore[arg-type]
    return request


def test_a_client_that_leaves_cancels_its_coroutine() -> None:
    cancelled: list[str] = []

    async def wait() -> None:
        try:
            await Deferred()
        except CancelledError:
            cancelled.append("cancelled")
            raise

    request = rendered(wait())
    request.finished.errback(Failure(ConnectionError()))
    assert (cancelled, request.failures) == (["cancelled"], [])


def test_a_coroutine_ends_with_a_failure_or_before_its_client_leaves() -> None:
    async def fail() -> None:
        raise ValueError

    async def succeed() -> None:
        return None

    assert rendered(fail()).failures == [ValueError]
    request = rendered(succeed())
    request.finished.errback(Failure(ConnectionError()))
    assert request.failures == []
