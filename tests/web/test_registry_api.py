"""Requests to a virtual host, and what of them reaches the upstream."""

# mypy: allow-untyped-calls

from __future__ import annotations

import pytest

from dockmirror.oci.media import EVERYTHING
from tests.fake_registry import digest
from tests.fakes import Reply
from tests.house import House
from tests.internet import BUSYBOX, HUB, HUB_CDN, LAYER, Internet

DOCKER, K8S, QUAY = "docker.mirror.example", "k8s.mirror.example", "quay.mirror.example"
K8S_HOST = "registry.k8s.io"
DIGEST = digest(b"")
BLOB = f"/v2/a/blobs/{DIGEST}"


@pytest.fixture
def internet() -> Internet:
    """Docker Hub and all others."""
    return Internet()


@pytest.fixture
def house(internet: Internet) -> House:
    """The mirror in front."""
    return House(internet)


class TestNames:
    """Repositories' names, and what looks like one."""

    @pytest.mark.parametrize(
        "name",
        ["v2/auth", "library/v2", "manifests/blobs", "blobs/manifests/tags", "tags/list", "a-b.c_d__e/f-g",
         "foo/bar/baz/deep", "auth", "v2", "one", "manifests", "0" * 255],
    )  # fmt: skip
    @pytest.mark.parametrize(
        "endpoint",
        ["manifests/latest", f"manifests/{DIGEST}", f"blobs/{DIGEST}", "tags/list", f"referrers/{DIGEST}"],
    )
    def test_odd_ones_are_routed_rightly(
        self, internet: Internet, house: House, name: str, endpoint: str
    ) -> None:
        """The last segments say what is meant; elsewhere than on Docker Hub a name is left as it is."""
        path = f"/v2/{name}/{endpoint}"
        internet.reply(K8S_HOST, path, Reply(418))
        assert house.get(K8S, path).status == 418
        assert [seen.path for seen in internet.seen] == [path]

    @pytest.mark.parametrize(
        ("name", "asked"), [("busybox", "library/busybox"), ("auth", "library/auth"), ("a/b", "a/b")]
    )
    @pytest.mark.parametrize(
        "endpoint", ["manifests/latest", f"blobs/{DIGEST}", "tags/list", f"referrers/{DIGEST}"]
    )
    @pytest.mark.parametrize("host", [DOCKER, "docker-staging.mirror.example"])
    def test_short_ones_are_completed(
        self, internet: Internet, house: House, host: str, endpoint: str, name: str, asked: str
    ) -> None:
        """Short names of Docker Hub are completed without a redirect, for every endpoint."""
        house.get(host, f"/v2/{name}/{endpoint}")
        assert [seen.path for seen in internet.seen] == [f"/v2/{asked}/{endpoint}"]

    def test_short_ones_may_be_redirected(self, internet: Internet) -> None:
        """Short names may be redirected instead; tokens are for the completed name."""
        house = House(internet, upstreams={"docker": {"short_names": "redirect"}})
        answer = house.get(DOCKER, "/v2/busybox/tags/list?n=1", "Authorization: Bearer x")
        assert (answer.status, answer["Location"]) == (301, "/v2/library/busybox/tags/list?n=1")
        assert answer.body == b""
        assert house.ask("HEAD", DOCKER, "/v2/busybox/manifests/latest").status == 301
        assert internet.seen == []
        assert house.pull(DOCKER, "/v2/library/busybox/manifests/latest").body == BUSYBOX

    @pytest.mark.parametrize(
        ("path", "status", "code"),
        [
            ("/v2/Busybox/manifests/latest", 400, "NAME_INVALID"),
            ("/v2/a//b/manifests/latest", 400, "NAME_INVALID"),
            ("/v2/-a/manifests/latest", 400, "NAME_INVALID"),
            ("/v2/a%00b/manifests/latest", 400, "NAME_INVALID"),
            ("/v2/a%0d%0aX:y/manifests/latest", 400, "NAME_INVALID"),
            ("/v2/%2e%2e/%2e%2e/manifests/latest", 400, "NAME_INVALID"),
            ("/v2/../../manifests/latest", 400, "NAME_INVALID"),
            ("/v2/library%2Fbusybox/manifests/latest", 400, "NAME_INVALID"),
            ("/v2/a%252Fb/manifests/latest", 400, "NAME_INVALID"),
            ("/v2/%c3%a4/manifests/latest", 400, "NAME_INVALID"),
            (f"/v2/{'a' * 256}/manifests/latest", 400, "NAME_INVALID"),
            ("/v2/a/manifests/.x", 400, "TAG_INVALID"),
            ("/v2/a/manifests/", 400, "TAG_INVALID"),
            (f"/v2/a/manifests/{'x' * 129}", 400, "TAG_INVALID"),
            ("/v2/a/manifests/a%2Fb", 400, "TAG_INVALID"),
            ("/v2/a/manifests/sha256:0", 400, "DIGEST_INVALID"),
            (f"/v2/a/blobs/{DIGEST.upper()}", 400, "DIGEST_INVALID"),
            ("/v2/a/blobs/latest", 400, "DIGEST_INVALID"),
            ("/v2/a/referrers/latest", 400, "DIGEST_INVALID"),
            ("/v2/a/manifests%2Flatest", 404, "UNSUPPORTED"),
            ("/v2/a/tags/lists", 404, "UNSUPPORTED"),
            ("/v2/a/b", 404, "UNSUPPORTED"),
            ("/v2/manifests/latest", 404, "UNSUPPORTED"),
            ("/v2/_catalog/", 404, "UNSUPPORTED"),
            ("/v2//", 404, "UNSUPPORTED"),
            ("/v2/auth/", 404, "UNSUPPORTED"),
            ("/v2/extensions/v2/a/signatures/x", 404, "UNSUPPORTED"),
        ],
    )
    def test_what_means_nothing(
        self, internet: Internet, house: House, path: str, status: int, code: str
    ) -> None:
        """Invalid paths are rejected here, on any host; encoding does not change their structure."""
        for host in (DOCKER, K8S, "mirror.example"):
            assert house.get(host, path, "Authorization: Bearer x").error == (status, code)
        assert internet.seen == []

    def test_what_is_encoded_needlessly(self, internet: Internet, house: House) -> None:
        """Means the same, and is asked for plainly."""
        house.get(K8S, f"/v2/%61/b%2Dc/blobs/{DIGEST.replace(':', '%3A')}")
        assert internet.seen[0].path == f"/v2/a/b-c/blobs/{DIGEST}"


class TestMethods:
    """Reading alone."""

    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "get"])
    @pytest.mark.parametrize(
        "path",
        ["/v2/", "/v2", "/v2/a/manifests/latest", BLOB, "/v2/a/blobs/uploads/", "/v2/_catalog", "/v2/x"],
    )
    def test_others_are_refused(self, internet: Internet, house: House, method: str, path: str) -> None:
        """Whatever the path: so a push learns that it is not offered, and not that nothing is there."""
        for host in (DOCKER, "mirror.example"):
            answer = house.ask(method, host, path)
            assert answer.error == (405, "UNSUPPORTED")
            assert answer["Allow"] == "GET, HEAD"
        assert internet.seen == []

    @pytest.mark.parametrize("path", ["/v2/team/image/manifests/1", "/v2/team/image/tags/list"])
    def test_a_head_stays_one(self, internet: Internet, house: House, path: str) -> None:
        """HEAD is passed on as HEAD, and has the headers of a GET without its body."""
        got, told = house.get(K8S, path), house.ask("HEAD", K8S, path)
        assert told.body == b""
        assert told.headers == got.headers
        assert [seen.method for seen in internet.seen] == ["GET", "HEAD"]

    def test_a_head_of_a_layer_does_not_fetch_it(self, internet: Internet, house: House) -> None:
        """Where the upstream redirects to, one byte tells its size: that address is signed for a GET."""
        answer = house.pull(DOCKER, f"/v2/busybox/blobs/{internet.layer}")
        bearer = internet.seen[-2].authorization
        told = house.ask("HEAD", DOCKER, f"/v2/busybox/blobs/{internet.layer}", f"Authorization: {bearer}")
        assert (told.headers, told.body, answer.body) == (answer.headers, b"", LAYER)
        ranges = [(seen.method, seen.header("Range")) for seen in internet.asked(HUB_CDN)]
        assert ranges == [("GET", None), ("GET", "bytes=0-0")]

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/v2/", 200),
            ("GET", "/v2/auth", 200),
            ("POST", "/v2/", 405),
            ("POST", "/v2/a/blobs/uploads/", 405),
        ],
    )
    def test_a_body_is_not_read(
        self, internet: Internet, house: House, method: str, path: str, status: int
    ) -> None:
        """No body is read, except a token request's form; the answer comes at once."""
        client = house.connect().ask(method, K8S, path, "Content-Length: 1000000")
        assert client.answer.status == status
        assert not any("content-length" in seen.headers for seen in internet.seen)


class TestQuery:
    """Parameters."""

    @pytest.mark.parametrize("path", ["/v2/a/tags/list", f"/v2/a/referrers/{DIGEST}", "/v2/_catalog"])
    def test_of_lists_are_kept(self, internet: Internet, house: House, path: str) -> None:
        """Parameters of lists are passed on in order, except ``ns``, which is for mirrors."""
        query = "n=1&last=a%2Fb%26c&ns=registry.k8s.io&artifactType=x/y%2Bz&n=2&empty="
        house.get(K8S, f"{path}?{query}")
        assert internet.seen[0].path == path
        assert internet.seen[0].query == (
            ("n", "1"), ("last", "a/b&c"), ("artifactType", "x/y+z"), ("n", "2"), ("empty", ""),
        )  # fmt: skip

    @pytest.mark.parametrize("path", ["/v2/a/manifests/latest", BLOB])
    def test_of_contents_are_dropped(self, internet: Internet, house: House, path: str) -> None:
        """They have none that an upstream should see."""
        house.get(K8S, f"{path}?ns=registry.k8s.io&x=y")
        assert internet.seen[0].url == f"https://{K8S_HOST}{path}"

    def test_ns_is_answered(self, house: House) -> None:
        """``ns`` is answered as specified for mirrors, in any letter case."""
        answer = house.get(K8S, "/v2/team/image/manifests/1?ns=Registry.K8s.io")
        assert answer["OCI-Namespace"] == "Registry.K8s.io"
        assert house.get(K8S, "/v2/team/image/manifests/1")["OCI-Namespace"] is None

    @pytest.mark.parametrize("path", ["/v2/team/image/manifests/1", "/v2/"])
    def test_ns_may_contradict_the_host(self, internet: Internet, house: House, path: str) -> None:
        """404, so that containerd moves on."""
        assert house.get(K8S, f"{path}?ns=docker.io").error == (404, "NAME_UNKNOWN")
        assert internet.seen == []

    def test_too_many(self, house: House) -> None:
        """Too many parameters are rejected."""
        assert house.get(K8S, "/v2/a/tags/list?" + "&".join(["n=1"] * 51)).error == (400, "UNKNOWN")
        assert house.get(K8S, "/v2/a/tags/list?" + "&".join(["n=1"] * 50)).status == 200


class TestHeaders:
    """Request headers that are passed on."""

    HIDDEN = (
        "User-Agent: x", "Cookie: a=b", "Proxy-Authorization: Basic x", "TE: trailers", "Upgrade: h2c",
        "Connection: keep-alive, X-Hop", "X-Hop: 1", "Keep-Alive: 1", "X-Meta-Secret: 1", "Referer: http://x/",
        "Origin: http://x", "Accept-Encoding: zstd, gzip", "Accept-Language: de", "If-Modified-Since: 0",
        "If-Match: x", "Via: 1.1 x", "Expect: 100-continue", "Content-Type: text/plain",
        "Docker-Upload-UUID: x",
    )  # fmt: skip

    def test_of_a_manifest(self, internet: Internet, house: House) -> None:
        """For manifests: ``Accept``, conditions and credentials, but no range."""
        house.get(
            K8S, "/v2/team/image/manifests/1", "Accept: a/b", "Accept: c/d", 'If-None-Match: "x"',
            "Range: bytes=0-1", "Authorization: Bearer x", *self.HIDDEN,
        )  # fmt: skip
        assert internet.seen[0].headers == {
            "accept": ["a/b", "c/d"], "if-none-match": ['"x"'], "authorization": ["Bearer x"],
            "accept-encoding": ["identity"], "connection": ["close"], "host": [K8S_HOST],
        }  # fmt: skip

    def test_of_a_manifest_without_accept(self, internet: Internet, house: House) -> None:
        """All kinds are asked for."""
        house.get(K8S, "/v2/team/image/manifests/1")
        assert internet.seen[0].header("Accept") == ", ".join(EVERYTHING)

    def test_of_a_blob(self, internet: Internet, house: House) -> None:
        """A range besides, without its condition: the blob of a digest is never another."""
        condition = f'If-Range: "{DIGEST}"'
        house.get(K8S, BLOB, "Range: bytes=0-1, 5-", condition, "Authorization: Basic x", *self.HIDDEN)
        assert internet.seen[0].headers == {
            "range": ["bytes=0-1,5-"], "authorization": ["Basic x"], "accept-encoding": ["identity"],
            "connection": ["close"], "host": [K8S_HOST],
        }  # fmt: skip

    @pytest.mark.parametrize("tag", ['"x"', f'W/"{DIGEST}"', "Thu, 01 Jan 1970 00:00:00 GMT"])
    def test_a_range_of_another_content_is_ignored(self, internet: Internet, house: House, tag: str) -> None:
        """A range of another content is ignored, and the whole is sent (RFC 9110, 13.1.5)."""
        house.get(K8S, BLOB, "Range: bytes=5-", f"If-Range: {tag}")
        assert internet.seen[0].header("Range") is None

    @pytest.mark.parametrize(
        "header", ["Range: items=0-1", "Range: bytes=x", "Range: bytes=5-1", "Range: bytes="]
    )
    def test_a_range_that_is_none_is_ignored(self, internet: Internet, house: House, header: str) -> None:
        """A malformed range is ignored, as HTTP requires."""
        house.get(K8S, BLOB, header)
        assert internet.seen[0].header("Range") is None

    def test_credentials_go_to_the_registry_alone(self, internet: Internet, house: House) -> None:
        """Credentials are not sent to the CDN that a registry redirects to."""
        answer = house.pull(DOCKER, f"/v2/busybox/blobs/{internet.layer}")
        assert answer.body == LAYER
        assert [seen.authorization for seen in internet.asked(HUB_CDN)] == [None]
        assert internet.asked(HUB)[-1].authorization == "Bearer t0ken-0-anonymous"
