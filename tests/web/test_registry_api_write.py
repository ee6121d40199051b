"""Writes of clients: what reaches the upstream, and what comes back."""

# mypy: allow-untyped-calls

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from dockmirror.config.load import load
from dockmirror.config.settings import ConfigurationError
from tests.fake_registry import Tokens, basic, digest
from tests.fakes import DEAD, SILENT, Reply
from tests.house import Answer, House
from tests.internet import AUTH, HUB, PASSWORD, USER, Internet

DOCKER, K8S = "docker.mirror.example", "k8s.mirror.example"
K8S_HOST = "registry.k8s.io"
BLOB = b"a blob"
DIGEST = digest(BLOB)
UPLOADS = "/v2/team/image/blobs/uploads/"
MANIFEST = b'{"schemaVersion":2}'
LENGTH = f"Content-Length: {len(BLOB)}"


@pytest.fixture
def internet() -> Internet:
    """Every registry."""
    return Internet()


@pytest.fixture
def house(internet: Internet, tmp_path: Path) -> House:
    """A mirror that may be written through to Docker Hub and to registry.k8s.io."""
    return writable(internet, tmp_path)


def writable(internet: Internet, state: Path, **k8s: Any) -> House:
    """The same with settings of registry.k8s.io's own."""
    upstreams = {"docker": {"writes": True}, "k8s": {"writes": True, **k8s}}
    return House(internet, upstreams=upstreams, access={"keys": state / "keys"})


def begun(location: str, status: int = 202) -> Reply:
    """An upload that goes on there."""
    told = (("Location", location), ("Docker-Upload-UUID", "u-1"), ("Range", "0-0"))
    return Reply(status, b"", (*told, ("OCI-Chunk-Min-Length", "5"), ("X-Secret", "x")))


def begin(internet: Internet, house: House, location: str, **query: str) -> Answer:
    """An upload begun."""
    internet.reply(K8S_HOST, UPLOADS, begun(location))
    return house.ask("POST", K8S, UPLOADS, "Content-Length: 0")


def at(answer: Answer) -> str:
    """Return the location of the upload."""
    location = answer["Location"]
    assert location is not None
    assert location.startswith(UPLOADS)
    return location


def send(house: House, method: str, path: str, *headers: str, body: bytes = BLOB) -> Answer:
    """A request with a body."""
    client = house.connect().ask(method, K8S, path, f"Content-Length: {len(body)}", *headers, body=body)
    return client.answer


class TestUploads:
    """Uploads from the first request to the last."""

    @pytest.mark.parametrize(
        "location",
        [
            f"https://{K8S_HOST}{UPLOADS}u-1?_state=a%2Fb%3D",
            f"{UPLOADS}u-1?_state=a%2Fb%3D",
            f"http://{K8S_HOST}{UPLOADS}u-1?_state=a%2Fb%3D",
            "u-1?_state=a%2Fb%3D",
        ],
    )
    def test_a_location(self, internet: Internet, house: House, location: str) -> None:
        """However it is written: the client gets one of the mirror's, the upstream is asked by its own."""
        answer = begin(internet, house, location)
        assert answer.status == 202
        assert answer["Docker-Upload-UUID"] == "u-1"
        assert answer["OCI-Chunk-Min-Length"] == "5"
        assert answer["X-Secret"] is None
        assert "u-1" not in at(answer)
        internet.reply(K8S_HOST, f"{UPLOADS}u-1", Reply(201, b"", (("Location", "/anywhere"),)))
        done = send(house, "PUT", f"{at(answer)}?digest={DIGEST}", "Content-Type: application/octet-stream")
        assert done.status == 201
        assert done["Location"] == f"/v2/team/image/blobs/{DIGEST}"
        seen = internet.seen[-1]
        assert (
            seen.url == f"https://{K8S_HOST}{UPLOADS}u-1?_state=a%2Fb%3D&digest={DIGEST.replace(':', '%3A')}"
        )
        assert (seen.body, seen.header("Content-Type")) == (BLOB, "application/octet-stream")

    @pytest.mark.parametrize("location", ["file:///etc/passwd", "http://[", "mailto:a@b", ""])
    def test_a_location_that_is_no_address(self, internet: Internet, house: House, location: str) -> None:
        """Leads nowhere, and the client is told so when the upload begins."""
        answer = begin(internet, house, location)
        assert answer.status == 502
        assert answer["Location"] is None

    def test_in_chunks(self, internet: Internet, house: House) -> None:
        """Each goes where the last answer said; how far it is, a GET tells; it may be given up."""
        answer = begin(internet, house, f"{UPLOADS}u-1")
        internet.reply(K8S_HOST, f"{UPLOADS}u-1", begun(f"{UPLOADS}u-2"))
        answer = send(house, "PATCH", at(answer), "Content-Range: 0-5")
        assert internet.seen[-1].header("Content-Range") == "0-5"
        internet.reply(K8S_HOST, f"{UPLOADS}u-2", begun(f"{UPLOADS}u-2", 204))
        told = house.ask("GET", K8S, at(answer))
        assert (told.status, told["Range"], told["Content-Length"]) == (204, "0-0", None)
        assert at(told)
        internet.reply(K8S_HOST, f"{UPLOADS}u-2", Reply(204))
        assert house.ask("DELETE", K8S, at(answer)).status == 204
        assert internet.seen[-1].method == "DELETE"

    def test_a_chunk_of_an_unknown_length(self, internet: Internet, house: House) -> None:
        """A chunk of unknown length is sent on chunked."""
        answer = begin(internet, house, f"{UPLOADS}u-1")
        internet.reply(K8S_HOST, f"{UPLOADS}u-1", begun(f"{UPLOADS}u-1"))
        client = house.connect().ask("PATCH", K8S, at(answer), "Transfer-Encoding: chunked")
        for piece in (b"3\r\na b\r\n", b"3\r\nlob\r\n0\r\n\r\n"):
            client.channel.dataReceived(piece)
        internet.agent.flush()
        assert client.answer.status == 202
        assert internet.seen[-1].body == BLOB
        assert internet.seen[-1].header("Transfer-Encoding") == "chunked"

    def test_a_chunk_that_is_out_of_order(self, internet: Internet, house: House) -> None:
        """A chunk out of order gets 416 with the received range and the location."""
        answer = begin(internet, house, f"{UPLOADS}u-1")
        refused = Reply(416, b"", (("Range", "0-99"), ("Location", f"{UPLOADS}u-1")))
        internet.reply(K8S_HOST, f"{UPLOADS}u-1", refused)
        answer = send(house, "PATCH", at(answer), "Content-Range: 200-205")
        assert answer.error == (416, "RANGE_INVALID")
        assert answer["Range"] == "0-99"
        assert at(answer)

    def test_at_once(self, internet: Internet, house: House) -> None:
        """A blob can be uploaded in one request."""
        internet.reply(K8S_HOST, UPLOADS, Reply(201, b"", (("Docker-Content-Digest", DIGEST),)))
        done = send(house, "POST", f"{UPLOADS}?digest={DIGEST}")
        assert (done.status, done["Location"]) == (201, f"/v2/team/image/blobs/{DIGEST}")
        assert internet.seen[-1].query == (("digest", DIGEST),)
        assert internet.seen[-1].body == BLOB

    def test_mounted(self, internet: Internet, house: House) -> None:
        """A blob is mounted, or an upload begins if the upstream does not mount."""
        internet.reply(K8S_HOST, UPLOADS, Reply(201), begun(f"{UPLOADS}u-1"))
        path = f"{UPLOADS}?mount={DIGEST}&from=team/other"
        assert house.ask("POST", K8S, path)["Location"] == f"/v2/team/image/blobs/{DIGEST}"
        assert at(house.ask("POST", K8S, path))
        assert internet.seen[-1].query == (("mount", DIGEST), ("from", "team/other"))

    def test_short_names(self, internet: Internet, house: House) -> None:
        """Short names are completed, also of mount sources; clients see the name that they used."""
        internet.reply(HUB, "/v2/library/a/blobs/uploads/", begun("/v2/library/a/blobs/uploads/u-1"))
        answer = house.ask("POST", DOCKER, f"/v2/a/blobs/uploads/?mount={DIGEST}&from=b")
        assert internet.seen[-1].query == (("mount", DIGEST), ("from", "library/b"))
        location = answer["Location"]
        assert location is not None
        assert location.startswith("/v2/a/blobs/uploads/")
        internet.reply(HUB, "/v2/library/a/blobs/uploads/u-1", Reply(204))
        assert house.ask("DELETE", DOCKER, location).status == 204

    @pytest.mark.parametrize("other", ["https://evil.example/x", "http://127.0.0.1/", f"{UPLOADS}u-1"])
    def test_nobody_else_says_where_it_goes_on(self, internet: Internet, house: House, other: str) -> None:
        """A location that the mirror has not given, or has given for something else, is none."""
        path = urlsplit(at(begin(internet, house, f"{UPLOADS}u-1"))).path
        internet.seen.clear()
        forged = [
            UPLOADS + other.replace("/", "%2F"),
            UPLOADS + "u-1",
            path + "x",
            path.replace("team/image", "team/other"),
        ]
        for each in forged:
            assert house.ask("DELETE", K8S, each).error == (404, "BLOB_UPLOAD_UNKNOWN")
        assert house.ask("DELETE", DOCKER, path).error == (404, "BLOB_UPLOAD_UNKNOWN")
        assert internet.seen == []

    def test_on_another_host(self, internet: Internet, house: House) -> None:
        """Nobody's credentials go there, and the client never does."""
        answer = begin(internet, house, "https://storage.example/up?signature=s1gned")
        internet.reply("storage.example", "/up", Reply(201))
        done = send(house, "PUT", f"{at(answer)}?digest={DIGEST}", "Authorization: Bearer secret")
        assert done.status == 201
        seen = internet.seen[-1]
        assert (seen.host, seen.body, seen.authorization) == ("storage.example", BLOB, None)
        assert seen.query == (("signature", "s1gned"), ("digest", DIGEST))

    def test_refused_on_another_host(self, internet: Internet, house: House) -> None:
        """A refusal by another host does not blame the client's credentials."""
        answer = begin(internet, house, "https://storage.example/up")
        internet.reply("storage.example", "/up", Reply(403))
        assert send(house, "PUT", at(answer)).error == (502, "UNAVAILABLE")


class TestManifests:
    """Put and deleted."""

    PATH = "/v2/team/image/manifests/1"

    def test_put(self, internet: Internet, house: House) -> None:
        """A manifest keeps its media type, and its subject is reported."""
        told = (("Docker-Content-Digest", digest(MANIFEST)), ("OCI-Subject", DIGEST), ("Location", "/x"))
        internet.reply(K8S_HOST, self.PATH, Reply(201, b"", told))
        answer = send(house, "PUT", self.PATH, "Content-Type: a/b", "Authorization: Bearer t", body=MANIFEST)
        assert (answer.status, answer.body) == (201, b"")
        assert answer["Location"] == f"/v2/team/image/manifests/{digest(MANIFEST)}"
        assert (answer["Docker-Content-Digest"], answer["OCI-Subject"]) == (digest(MANIFEST), DIGEST)
        seen = internet.seen[-1]
        assert (seen.method, seen.body, seen.header("Content-Type")) == ("PUT", MANIFEST, "a/b")
        assert seen.authorization == "Bearer t"

    def test_tags_that_were_set(self, internet: Internet, house: House) -> None:
        """All tags that were set are reported."""
        path = f"/v2/team/image/manifests/{digest(MANIFEST)}"
        internet.reply(K8S_HOST, path, Reply(201, b"", (("OCI-Tag", "a"), ("OCI-Tag", "b"))))
        answer = send(house, "PUT", f"{path}?tag=a&tag=b", "Content-Type: a/b", body=MANIFEST)
        assert answer.lines("OCI-Tag") == ["a", "b"]

    def test_too_large(self, internet: Internet, house: House) -> None:
        """A manifest that is announced as too large is not read."""
        size = 4 * 1024 * 1024 + 1
        client = house.connect().ask("PUT", K8S, self.PATH, f"Content-Length: {size}")
        assert client.answer.error == (413, "SIZE_INVALID")
        client = house.connect().ask("PUT", K8S, self.PATH, "Transfer-Encoding: chunked")
        client.channel.dataReceived(b"%x\r\n" % size + bytes(size))
        assert client.answer.error == (413, "SIZE_INVALID")
        assert internet.seen == []

    @pytest.mark.parametrize(
        "path", [PATH, f"/v2/team/image/manifests/{DIGEST}", f"/v2/team/image/blobs/{DIGEST}"]
    )
    def test_deleted(self, internet: Internet, house: House, path: str) -> None:
        """A manifest is deleted, or not, as the upstream answers."""
        internet.reply(K8S_HOST, path, Reply(202), Reply(405))
        assert house.ask("DELETE", K8S, path).status == 202
        refused = house.ask("DELETE", K8S, path)
        assert refused.error == (405, "UNSUPPORTED")
        assert "DELETE" in (refused["Allow"] or "")

    def test_redirected(self, internet: Internet, house: House) -> None:
        """It is sent once more, where the upstream says, without credentials."""
        internet.reply(K8S_HOST, self.PATH, Reply(307, b"", (("Location", "https://other.example/m"),)))
        internet.reply("other.example", "/m", Reply(201))
        assert send(house, "PUT", self.PATH, "Authorization: Bearer t", body=MANIFEST).status == 201
        assert [(seen.host, seen.body, seen.authorization) for seen in internet.seen] == [
            (K8S_HOST, MANIFEST, "Bearer t"), ("other.example", MANIFEST, None),
        ]  # fmt: skip


class TestCredentials:
    """The client's, and nobody else's."""

    def test_the_token_dance(self, internet: Internet, house: House) -> None:
        """Tokens are for pushing, and for pulling from the mount source."""
        path = f"/v2/a/blobs/uploads/?mount={DIGEST}&from=b"
        challenged = house.ask("POST", DOCKER, path)
        assert challenged.status == 401
        scopes = "repository:a:pull,push repository:b:pull"
        assert f'scope="{scopes}"' in (challenged["WWW-Authenticate"] or "")
        query = "scope=repository:a:pull,push&scope=repository:b:pull&service=x"
        token = house.get(DOCKER, f"/v2/auth?{query}", f"Authorization: {basic(USER, PASSWORD)}")
        assert token.status == 200
        (asked,) = internet.asked(AUTH)
        assert [value for key, value in asked.query if key == "scope"] == [
            "repository:library/a:pull,push", "repository:library/b:pull",
        ]  # fmt: skip
        assert isinstance(internet.hub.door, Tokens)

    def test_as_much_as_the_registry_wants(self, internet: Internet, house: House) -> None:
        """The scope has the registry's actions and the client's repository name."""
        challenge = (
            'Bearer realm="https://t.example",service="s",scope="repository:library/a:pull,push,delete"'
        )
        path = f"/v2/library/a/blobs/{DIGEST}"
        internet.reply(HUB, path, Reply(401, b"", (("WWW-Authenticate", challenge),)))
        told = house.ask("DELETE", DOCKER, f"/v2/a/blobs/{DIGEST}")["WWW-Authenticate"] or ""
        assert 'scope="repository:a:pull,push,delete"' in told
        assert f'realm="http://{DOCKER}/v2/auth"' in told

    def test_none_of_the_mirror_s_own(self, internet: Internet, house: House) -> None:
        """Writes never use the mirror's own credentials."""
        internet.reply(K8S_HOST, UPLOADS, begun("u"))
        house.ask("POST", K8S, UPLOADS)
        house.ask("POST", K8S, UPLOADS, "Authorization: Bearer anonymous")
        assert [seen.authorization for seen in internet.seen] == [None, None]


class TestWhere:
    """Hosts and repositories that accept writes."""

    def test_only_where_the_operator_says_so(self, internet: Internet, house: House) -> None:
        """Writes need the operator's permission, and a virtual host."""
        for host, path in [
            ("quay.mirror.example", UPLOADS), ("mirror.example", UPLOADS),
            ("mirror.example", f"{UPLOADS}?ns=docker.io"),
            ("mirror.example", "/docker.io/v2/a/blobs/uploads/"),
            ("mirror.example", "/v2/docker.io/library/a/blobs/uploads/"),
        ]:  # fmt: skip
            answer = house.ask("POST", host, path)
            assert answer.error == (405, "UNSUPPORTED")
            assert answer["Allow"] == "GET, HEAD"
        assert internet.seen == []

    @pytest.mark.parametrize(
        ("method", "path", "allow"),
        [
            ("PUT", UPLOADS, "POST"),
            ("POST", f"{UPLOADS}x", "GET, HEAD, PATCH, PUT, DELETE"),
            ("POST", "/v2/a/manifests/1", "GET, HEAD, PUT, DELETE"),
            ("PUT", "/v2/_catalog", "GET, HEAD"),
            ("GET", UPLOADS, "POST"),
        ],
    )
    def test_by_which_methods(
        self, internet: Internet, house: House, method: str, path: str, allow: str
    ) -> None:
        """Others are 405, with those that there are."""
        answer = house.ask(method, K8S, path)
        assert (answer.error, answer["Allow"]) == ((405, "UNSUPPORTED"), allow)
        assert internet.seen == []

    def test_names_that_are_none(self, internet: Internet, house: House) -> None:
        """Invalid names are rejected before the body is read."""
        for path in ("/v2/A/blobs/uploads/", "/v2/a/manifests/-", f"{UPLOADS}?digest=x"):
            client = house.connect().ask(
                "PUT" if "manif" in path else "POST", K8S, path, LENGTH, "Expect: 100-continue"
            )
            assert client.answer.status == 400
        assert internet.seen == []

    def test_rules(self, internet: Internet, tmp_path: Path) -> None:
        """Repositories that may not be pulled may not be pushed or mounted from."""
        house = writable(internet, tmp_path, deny=["team/secret", "team/image:old"], rewrite={"a": "b"})
        for path in ("/v2/team/secret/blobs/uploads/", f"{UPLOADS}?mount={DIGEST}&from=team/secret"):
            answer = house.ask("POST", K8S, path)
            assert answer.error == (403, "DENIED")
            assert "may not be pushed here" in answer.message
        assert send(house, "PUT", "/v2/team/image/manifests/old").error == (403, "DENIED")
        assert internet.seen == []
        house.ask("POST", K8S, "/v2/a/x/blobs/uploads/")
        assert internet.seen[-1].path == "/v2/b/x/blobs/uploads/"

    def test_ns(self, internet: Internet, house: House) -> None:
        """Names this registry, or nothing is written; the upstream is not told."""
        internet.reply(K8S_HOST, UPLOADS, begun("u"))
        assert house.ask("POST", K8S, f"{UPLOADS}?ns=quay.io").error == (404, "NAME_UNKNOWN")
        assert house.ask("POST", K8S, f"{UPLOADS}?ns={K8S_HOST}").status == 202
        assert [seen.query for seen in internet.seen] == [()]

    @pytest.mark.parametrize(
        ("settings", "environ"),
        [
            ({"access": {"htpasswd": __file__}, "upstreams": {"docker": {"writes": True}}}, {}),
            ({"networks": ["private"], "upstreams": {"docker": {"writes": True, "username": "a"}}}, {}),
        ],
    )
    def test_nobody_writes_as_the_mirror(self, settings: dict[str, Any], environ: dict[str, str]) -> None:
        """Nothing can be written where clients' credentials are not passed on."""
        with pytest.raises(ConfigurationError, match=r"upstreams\.docker\.writes"):
            load(settings, environ)


class TestFailing:
    """Upstreams that do not take it."""

    def test_that_is_dead(self, internet: Internet, house: House) -> None:
        """A request without a body is tried once more, one with a body is not."""
        internet.reply(K8S_HOST, UPLOADS, DEAD, begun("u"))
        assert house.ask("POST", K8S, UPLOADS).status == 202
        internet.seen.clear()
        internet.reply(K8S_HOST, UPLOADS, DEAD)
        assert send(house, "POST", f"{UPLOADS}?digest={DIGEST}").error == (502, "UNAVAILABLE")
        assert len(internet.seen) == 1

    def test_that_is_silent(self, internet: Internet, house: House) -> None:
        """Gets its time, and with a body more of it."""
        internet.reply(K8S_HOST, UPLOADS, SILENT)
        for fields, body, seconds in (((), b"", 60.0), ((LENGTH,), BLOB, 300.0)):
            client = house.connect().ask("POST", K8S, UPLOADS, *fields, body=body)
            house.pass_time(seconds - 0.1)
            assert client.answers == []
            house.pass_time(0.1)
            assert client.answer.error == (504, "UNAVAILABLE")

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
    def test_that_refuses(
        self, internet: Internet, house: House, reply: Reply, expected: tuple[int, str]
    ) -> None:
        """The upstream's refusal is passed on in the specification's format."""
        internet.reply(K8S_HOST, UPLOADS, reply)
        answer = send(house, "POST", UPLOADS)
        assert answer.error == expected
        if expected[0] == 429:
            assert answer["Retry-After"] == "7"

    def test_that_redirects_a_body(self, internet: Internet, house: House) -> None:
        """After a redirect of a body the client is told to send it again, to the mirror.

        The other host gets no credentials.
        """
        answer = begin(internet, house, f"{UPLOADS}u-1")
        internet.reply(
            K8S_HOST, f"{UPLOADS}u-1", Reply(307, b"", (("Location", "https://storage.example/up"),))
        )
        moved = send(house, "PUT", f"{at(answer)}?digest={DIGEST}", "Authorization: Bearer t")
        assert moved.status == 307
        internet.reply("storage.example", "/up", Reply(201))
        assert send(house, "PUT", at(moved), "Authorization: Bearer t").status == 201
        assert (internet.seen[-1].body, internet.seen[-1].authorization) == (BLOB, None)

    def test_that_redirects_without_a_body(self, internet: Internet, house: House) -> None:
        """A redirect without a body is followed."""
        internet.reply(K8S_HOST, UPLOADS, Reply(308, b"", (("Location", "https://other.example/up/"),)))
        internet.reply("other.example", "/up/", begun("u-1"))
        answer = house.ask("POST", K8S, UPLOADS, "Authorization: Bearer t")
        assert at(answer)
        assert [seen.authorization for seen in internet.seen] == ["Bearer t", None]

    def test_a_client_that_stops(self, internet: Internet, house: House) -> None:
        """A client that stops sending gets an error, and the upstream connection is released."""
        answer = begin(internet, house, f"{UPLOADS}u-1")
        client = house.connect().ask("PATCH", K8S, at(answer), LENGTH, body=b"a")
        house.pass_time(30)
        assert client.answer.status == 408
        assert client.answer["Connection"] == "close"

    def test_a_client_that_leaves(self, internet: Internet, house: House) -> None:
        """Leaves nothing behind."""
        answer = begin(internet, house, f"{UPLOADS}u-1")
        before = house.clock.getDelayedCalls()
        client = house.connect().ask("PATCH", K8S, at(answer), LENGTH, body=b"a")
        client.leave()
        assert house.clock.getDelayedCalls() == before

    def test_100_continue(self, internet: Internet, house: House) -> None:
        """100 Continue is sent once the upstream is ready."""
        internet.reply(K8S_HOST, UPLOADS, begun("u"))
        client = house.connect().ask("POST", K8S, UPLOADS, LENGTH, "Expect: 100-continue")
        assert client.transport.value() == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert "expect" not in {key for seen in internet.seen for key in seen.headers}


def test_what_is_counted(internet: Internet, house: House) -> None:
    """Bytes to the upstream."""
    internet.reply(K8S_HOST, UPLOADS, begun("u"))
    send(house, "POST", UPLOADS)
    assert house.metrics.registry.get_sample_value(
        "dockmirror_pushed_bytes_total", {"upstream": "k8s"}
    ) == len(BLOB)


def test_writes_are_counted(internet: Internet, house: House) -> None:
    """Writes are counted by their result."""
    internet.reply(K8S_HOST, UPLOADS, begun("u"), Reply(403), DEAD)
    for _ in range(3):
        send(house, "POST", UPLOADS)
    value = house.metrics.registry.get_sample_value
    for status in ("202", "403", "502"):
        told = {"upstream": "k8s", "method": "POST", "status": status}
        assert value("dockmirror_writes_total", told) == 1
    failed = {"upstream": "k8s", "reason": "unreachable"}
    assert value("dockmirror_upstream_failures_total", failed) == 1
