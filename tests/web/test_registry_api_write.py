"""Writes of clients: uploads, manifests and deletions that are passed to the upstream."""

# mypy: allow-untyped-calls

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dockmirror.config.load import load
from dockmirror.config.settings import ConfigurationError
from tests.fake_registry import basic, digest
from tests.fakes import DEAD, SILENT, Reply
from tests.house import Answer, House
from tests.internet import AUTH, HUB, PASSWORD, USER, Internet

DOCKER, K8S = "docker.mirror.example", "k8s.mirror.example"
K8S_HOST = "registry.k8s.io"
BLOB, MANIFEST = b"a blob", b'{"schemaVersion":2}'
DIGEST = digest(BLOB)
UPLOADS = "/v2/team/image/blobs/uploads/"
TAG = "/v2/team/image/manifests/1"
LENGTH = f"Content-Length: {len(BLOB)}"
BEARER = "Authorization: Bearer t"


@pytest.fixture
def house(internet: Internet, tmp_path: Path) -> House:
    """A mirror that may be written through to Docker Hub and to registry.k8s.io."""
    return writable(internet, tmp_path)


def writable(internet: Internet, state: Path, **k8s: Any) -> House:
    """Build such a mirror with further settings of registry.k8s.io."""
    upstreams = {"docker": {"writes": True}, "k8s": {"writes": True, **k8s}}
    return House(internet, upstreams=upstreams, access={"keys": state / "keys"})


def accepted(location: str, status: int = 202) -> Reply:
    """Answer that an upload continues at a location."""
    fields = (("Location", location), ("Docker-Upload-UUID", "u-1"), ("Range", "0-0"))
    return Reply(status, b"", (*fields, ("OCI-Chunk-Min-Length", "5"), ("X-Secret", "x")))


def redirect(url: str, status: int = 307) -> Reply:
    return Reply(status, b"", (("Location", url),))


def begin(internet: Internet, house: House, location: str = f"{UPLOADS}u-1") -> Answer:
    """Begin an upload that the upstream continues at a location."""
    internet.reply(K8S_HOST, UPLOADS, accepted(location))
    return house.ask("POST", K8S, UPLOADS, "Content-Length: 0")


def location_of(answer: Answer) -> str:
    """Return the location of the upload at the mirror."""
    location = answer["Location"] or ""
    assert location.startswith(UPLOADS)
    return location


def send(house: House, method: str, path: str, *headers: str, body: bytes = BLOB) -> Answer:
    """Send a request with a body."""
    return house.connect().ask(method, K8S, path, f"Content-Length: {len(body)}", *headers, body=body).answer


@pytest.mark.parametrize(
    "location",
    [
        f"https://{K8S_HOST}{UPLOADS}u-1?_state=a%2Fb%3D",
        f"http://{K8S_HOST}{UPLOADS}u-1?_state=a%2Fb%3D",
        "u-1?_state=a%2Fb%3D",
    ],
)
def test_an_upload_continues_at_the_mirror(internet: Internet, house: House, location: str) -> None:
    """The upstream is asked at its own."""
    answer = begin(internet, house, location)
    fields = ("Docker-Upload-UUID", "OCI-Chunk-Min-Length", "X-Secret")
    assert (answer.status, *[answer[name] for name in fields]) == (202, "u-1", "5", None)
    assert "u-1" not in location_of(answer)
    internet.reply(K8S_HOST, f"{UPLOADS}u-1", Reply(201, b"", (("Location", "/anywhere"),)))
    kind = "Content-Type: application/octet-stream"
    done = send(house, "PUT", f"{location_of(answer)}?digest={DIGEST}", kind)
    assert (done.status, done["Location"]) == (201, f"/v2/team/image/blobs/{DIGEST}")
    seen = internet.seen[-1]
    query = f"_state=a%2Fb%3D&digest={DIGEST.replace(':', '%3A')}"
    assert seen.url == f"https://{K8S_HOST}{UPLOADS}u-1?{query}"
    assert (seen.body, seen.header("Content-Type")) == (BLOB, "application/octet-stream")


def test_a_blob_is_uploaded_in_chunks(internet: Internet, house: House) -> None:
    """A GET returns the progress, and a DELETE gives the upload up."""
    answer = begin(internet, house)
    internet.reply(K8S_HOST, f"{UPLOADS}u-1", accepted(f"{UPLOADS}u-2"))
    answer = send(house, "PATCH", location_of(answer), "Content-Range: 0-5")
    assert internet.seen[-1].header("Content-Range") == "0-5"
    internet.reply(K8S_HOST, f"{UPLOADS}u-2", accepted(f"{UPLOADS}u-2", 204), Reply(204))
    progress = house.ask("GET", K8S, location_of(answer))
    assert (progress.status, progress["Range"], progress["Content-Length"]) == (204, "0-0", None)
    assert location_of(progress)
    assert house.ask("DELETE", K8S, location_of(answer)).status == 204
    assert internet.seen[-1].method == "DELETE"


def test_a_chunk_out_of_order_gets_416_with_the_received_range(internet: Internet, house: House) -> None:
    answer = begin(internet, house)
    refused = Reply(416, b"", (("Range", "0-99"), ("Location", f"{UPLOADS}u-1")))
    internet.reply(K8S_HOST, f"{UPLOADS}u-1", refused)
    answer = send(house, "PATCH", location_of(answer), "Content-Range: 200-205")
    assert (answer.error, answer["Range"]) == ((416, "RANGE_INVALID"), "0-99")
    assert location_of(answer)


def test_a_blob_is_uploaded_in_one_request_or_mounted(internet: Internet, house: House) -> None:
    """An upload begins if the upstream does not mount."""
    mount = f"{UPLOADS}?mount={DIGEST}&from=team/other"
    internet.reply(K8S_HOST, UPLOADS, Reply(201), Reply(201), accepted(f"{UPLOADS}u-1"))
    for answer in (send(house, "POST", f"{UPLOADS}?digest={DIGEST}"), house.ask("POST", K8S, mount)):
        assert (answer.status, answer["Location"]) == (201, f"/v2/team/image/blobs/{DIGEST}")
    assert (internet.seen[0].query, internet.seen[0].body) == ((("digest", DIGEST),), BLOB)
    assert location_of(house.ask("POST", K8S, mount))
    assert internet.seen[-1].query == (("mount", DIGEST), ("from", "team/other"))


def test_short_names_are_completed_and_clients_see_their_own(internet: Internet, house: House) -> None:
    internet.reply(HUB, "/v2/library/a/blobs/uploads/", accepted("/v2/library/a/blobs/uploads/u-1"))
    answer = house.ask("POST", DOCKER, f"/v2/a/blobs/uploads/?mount={DIGEST}&from=b")
    assert internet.seen[-1].query == (("mount", DIGEST), ("from", "library/b"))
    location = answer["Location"] or ""
    assert location.startswith("/v2/a/blobs/uploads/")
    internet.reply(HUB, "/v2/library/a/blobs/uploads/u-1", Reply(204))
    assert house.ask("DELETE", DOCKER, location).status == 204


def test_a_redirected_body_is_sent_again_to_the_mirror(internet: Internet, house: House) -> None:
    answer = begin(internet, house)
    internet.reply(K8S_HOST, f"{UPLOADS}u-1", redirect("https://storage.example/up"))
    moved = send(house, "PUT", f"{location_of(answer)}?digest={DIGEST}", BEARER)
    assert moved.status == 307
    internet.reply("storage.example", "/up", Reply(201))
    assert send(house, "PUT", location_of(moved), BEARER).status == 201
    assert (internet.seen[-1].body, internet.seen[-1].authorization) == (BLOB, None)


def test_a_manifest_is_put_with_its_media_type(internet: Internet, house: House) -> None:
    """Its subject and all tags that were set are reported."""
    fields = (("Docker-Content-Digest", digest(MANIFEST)), ("OCI-Subject", DIGEST), ("Location", "/x"))
    internet.reply(K8S_HOST, TAG, Reply(201, b"", (*fields, ("OCI-Tag", "a"), ("OCI-Tag", "b"))))
    answer = send(house, "PUT", TAG, "Content-Type: a/b", BEARER, body=MANIFEST)
    assert (answer.status, answer.body, answer.lines("OCI-Tag")) == (201, b"", ["a", "b"])
    assert answer["Location"] == f"/v2/team/image/manifests/{digest(MANIFEST)}"
    assert (answer["Docker-Content-Digest"], answer["OCI-Subject"]) == (digest(MANIFEST), DIGEST)
    seen = internet.seen[-1]
    assert (seen.method, seen.body, seen.header("Content-Type")) == ("PUT", MANIFEST, "a/b")
    assert seen.authorization == "Bearer t"


def test_a_manifest_that_is_too_large_is_refused(internet: Internet, house: House) -> None:
    size = 4 * 1024 * 1024 + 1
    client = house.connect().ask("PUT", K8S, TAG, f"Content-Length: {size}")
    assert client.answer.error == (413, "SIZE_INVALID")
    client = house.connect().ask("PUT", K8S, TAG, "Transfer-Encoding: chunked")
    client.channel.dataReceived(b"%x\r\n" % size + bytes(size))
    assert client.answer.error == (413, "SIZE_INVALID")
    assert internet.seen == []


@pytest.mark.parametrize("path", [TAG, f"/v2/team/image/blobs/{DIGEST}"])
def test_a_deletion_is_answered_as_by_the_upstream(internet: Internet, house: House, path: str) -> None:
    internet.reply(K8S_HOST, path, Reply(202), Reply(405))
    assert house.ask("DELETE", K8S, path).status == 202
    refused = house.ask("DELETE", K8S, path)
    assert refused.error == (405, "UNSUPPORTED")
    assert "DELETE" in (refused["Allow"] or "")


def test_a_redirected_deletion_is_followed(internet: Internet, house: House) -> None:
    """Also if the client sends a body, which means nothing and is not passed on."""
    path = f"/v2/team/image/blobs/{DIGEST}"
    internet.reply(K8S_HOST, path, redirect(f"https://{K8S_HOST}/moved"))
    internet.reply(K8S_HOST, "/moved", Reply(202))
    assert send(house, "DELETE", path, BEARER).status == 202
    assert internet.seen[-1].body == b""


def test_the_scope_of_a_mount_has_both_repositories(internet: Internet, house: House) -> None:
    challenged = house.ask("POST", DOCKER, f"/v2/a/blobs/uploads/?mount={DIGEST}&from=b")
    assert challenged.status == 401
    assert 'scope="repository:a:pull,push repository:b:pull"' in (challenged["WWW-Authenticate"] or "")
    query = "scope=repository:a:pull,push&scope=repository:b:pull&service=x"
    assert house.get(DOCKER, f"/v2/auth?{query}", f"Authorization: {basic(USER, PASSWORD)}").status == 200
    (seen,) = internet.asked(AUTH)
    scopes = ["repository:library/a:pull,push", "repository:library/b:pull"]
    assert [value for key, value in seen.query if key == "scope"] == scopes


def test_the_scope_has_the_actions_that_the_registry_names(internet: Internet, house: House) -> None:
    scope = "repository:library/a:pull,push,delete"
    demand = f'Bearer realm="https://t.example",service="s",scope="{scope}"'
    internet.reply(HUB, f"/v2/library/a/blobs/{DIGEST}", Reply(401, b"", (("WWW-Authenticate", demand),)))
    line = house.ask("DELETE", DOCKER, f"/v2/a/blobs/{DIGEST}")["WWW-Authenticate"] or ""
    assert 'scope="repository:a:pull,push,delete"' in line
    assert f'realm="http://{DOCKER}/v2/auth"' in line


def test_a_write_never_uses_the_mirrors_own_credentials(internet: Internet, house: House) -> None:
    internet.reply(K8S_HOST, UPLOADS, accepted("u"))
    house.ask("POST", K8S, UPLOADS)
    house.ask("POST", K8S, UPLOADS, "Authorization: Bearer anonymous")
    assert [seen.authorization for seen in internet.seen] == [None, None]


@pytest.mark.parametrize(
    ("host", "path"),
    [
        ("quay.mirror.example", UPLOADS),
        ("mirror.example", f"{UPLOADS}?ns=docker.io"),
        ("mirror.example", "/docker.io/v2/a/blobs/uploads/"),
        ("mirror.example", "/v2/docker.io/library/a/blobs/uploads/"),
    ],
)
def test_writes_need_a_virtual_host(internet: Internet, house: House, host: str, path: str) -> None:
    answer = house.ask("POST", host, path)
    assert (answer.error, answer["Allow"], internet.seen) == ((405, "UNSUPPORTED"), "GET, HEAD", [])


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", UPLOADS, "POST"),
        ("POST", f"{UPLOADS}x", "GET, HEAD, PATCH, PUT, DELETE"),
        ("POST", TAG, "GET, HEAD, PUT, DELETE"),
        ("PUT", "/v2/_catalog", "GET, HEAD"),
        ("GET", UPLOADS, "POST"),
    ],
)
def test_other_methods_get_405(internet: Internet, house: House, method: str, path: str, allow: str) -> None:
    answer = house.ask(method, K8S, path)
    assert (answer.error, answer["Allow"], internet.seen) == ((405, "UNSUPPORTED"), allow, [])


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v2/A/blobs/uploads/"), ("PUT", "/v2/a/manifests/-"), ("POST", f"{UPLOADS}?digest=x")],
)
def test_an_invalid_name_is_refused_at_once(internet: Internet, house: House, method: str, path: str) -> None:
    client = house.connect().ask(method, K8S, path, LENGTH, "Expect: 100-continue")
    assert (client.answer.status, internet.seen) == (400, [])


def test_ns_of_a_write_must_name_this_registry(internet: Internet, house: House) -> None:
    internet.reply(K8S_HOST, UPLOADS, accepted("u"))
    assert house.ask("POST", K8S, f"{UPLOADS}?ns=quay.io").error == (404, "NAME_UNKNOWN")
    assert house.ask("POST", K8S, f"{UPLOADS}?ns={K8S_HOST}").status == 202
    assert [seen.query for seen in internet.seen] == [()]


@pytest.mark.parametrize(
    "settings",
    [
        {"access": {"htpasswd": __file__}, "upstreams": {"docker": {"writes": True}}},
        {"networks": ["private"], "upstreams": {"docker": {"writes": True, "username": "a"}}},
    ],
)
def test_writes_need_credentials_of_clients(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"upstreams\.docker\.writes"):
        load(settings, {})


def test_only_a_request_without_a_body_is_repeated(internet: Internet, house: House) -> None:
    internet.reply(K8S_HOST, UPLOADS, DEAD, accepted("u"))
    assert house.ask("POST", K8S, UPLOADS).status == 202
    internet.seen.clear()
    internet.reply(K8S_HOST, UPLOADS, DEAD)
    assert send(house, "POST", f"{UPLOADS}?digest={DIGEST}").error == (502, "UNAVAILABLE")
    assert len(internet.seen) == 1


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(413, b"nginx"), (413, "SIZE_INVALID")),
        (Reply(429).having(("Retry-After", "7")), (429, "TOOMANYREQUESTS")),
        (Reply(500), (500, "UNAVAILABLE")),
        (Reply(403, json.dumps({"errors": [{"code": "DENIED"}]}).encode()), (403, "DENIED")),
        (Reply(404), (404, "NAME_UNKNOWN")),
        (Reply(303, b"", (("Location", "/x"),)), (502, "UNAVAILABLE")),
    ],
)
def test_a_refusal_is_passed_on_in_the_specifications_format(
    internet: Internet, house: House, reply: Reply, expected: tuple[int, str]
) -> None:
    internet.reply(K8S_HOST, UPLOADS, reply)
    answer = send(house, "POST", UPLOADS)
    assert (answer.error, answer["Retry-After"]) == (expected, "7" if expected[0] == 429 else None)


def test_a_client_that_stops_sending_gets_an_error(internet: Internet, house: House) -> None:
    """One that leaves leaves no timer behind."""
    path = location_of(begin(internet, house))
    before = house.clock.getDelayedCalls()
    house.connect().ask("PATCH", K8S, path, LENGTH, body=b"a").leave()
    assert house.clock.getDelayedCalls() == before
    client = house.connect().ask("PATCH", K8S, path, LENGTH, body=b"a")
    house.pass_time(30)
    assert (client.answer.status, client.answer["Connection"]) == (408, "close")


@pytest.mark.parametrize(("method", "seconds"), [("PUT", 300), ("DELETE", 60)])
def test_an_upstream_has_longer_to_verify_a_blob(
    internet: Internet, house: House, method: str, seconds: int
) -> None:
    """Most clients send a blob in parts, and complete it by a PUT without a body."""
    path = location_of(begin(internet, house))
    internet.reply(K8S_HOST, f"{UPLOADS}u-1", SILENT)
    client = house.connect().ask(method, K8S, f"{path}?digest={DIGEST}")
    house.pass_time(seconds - 1)
    assert client.answers == []
    house.pass_time(1)
    assert client.answer.error == (504, "UNAVAILABLE")


def test_100_continue_is_sent_once_the_upstream_is_ready(internet: Internet, house: House) -> None:
    internet.reply(K8S_HOST, UPLOADS, accepted("u"))
    client = house.connect().ask("POST", K8S, UPLOADS, LENGTH, "Expect: 100-continue")
    assert client.transport.value() == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert "expect" not in {key for seen in internet.seen for key in seen.headers}


def test_writes_and_their_bytes_are_counted(internet: Internet, house: House) -> None:
    internet.reply(K8S_HOST, UPLOADS, accepted("u"), Reply(403), DEAD)
    value = house.metrics.registry.get_sample_value
    send(house, "POST", UPLOADS)
    assert value("dockmirror_pushed_bytes_total", {"upstream": "k8s"}) == len(BLOB)
    for _ in range(2):
        send(house, "POST", UPLOADS)
    for status in ("202", "403", "502"):
        labels = {"upstream": "k8s", "method": "POST", "status": status}
        assert value("dockmirror_writes_total", labels) == 1
    failed = {"upstream": "k8s", "reason": "unreachable"}
    assert value("dockmirror_upstream_failures_total", failed) == 1
