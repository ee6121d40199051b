"""Requests to a virtual host, and the requests that reach its upstream."""

# mypy: allow-untyped-calls

from __future__ import annotations

import pytest

from dockmirror.oci.media import EVERYTHING
from tests.fake_registry import digest
from tests.fakes import Seen
from tests.house import House
from tests.internet import BUSYBOX, Internet

DOCKER, K8S = "docker.mirror.example", "k8s.mirror.example"
K8S_HOST = "registry.k8s.io"
DIGEST = digest(b"")
BLOB = f"/v2/a/blobs/{DIGEST}"


@pytest.mark.parametrize("host", [DOCKER, "docker-staging.mirror.example"])
@pytest.mark.parametrize("endpoint", ["manifests/latest", f"blobs/{DIGEST}", f"referrers/{DIGEST}"])
def test_short_names_are_completed(internet: Internet, house: House, host: str, endpoint: str) -> None:
    house.get(host, f"/v2/auth/{endpoint}")
    assert [seen.path for seen in internet.seen] == [f"/v2/library/auth/{endpoint}"]


def test_short_names_may_be_redirected(internet: Internet) -> None:
    """Tokens are for the completed name."""
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
        ("/v2/library%2Fbusybox/manifests/latest", 400, "NAME_INVALID"),
        ("/v2/../../manifests/latest", 400, "NAME_INVALID"),
        ("/v2/a/manifests/.x", 400, "TAG_INVALID"),
        ("/v2/a/blobs/latest", 400, "DIGEST_INVALID"),
        ("/v2/a/manifests%2Flatest", 404, "UNSUPPORTED"),
        ("/v2//", 404, "UNSUPPORTED"),
        ("/v2/auth/", 404, "UNSUPPORTED"),
    ],
)
def test_invalid_paths_are_refused(
    internet: Internet, house: House, path: str, status: int, code: str
) -> None:
    for host in (DOCKER, K8S, "mirror.example"):
        assert house.get(host, path, "Authorization: Bearer x").error == (status, code)
    assert internet.seen == []


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "get"])
@pytest.mark.parametrize("path", ["/v2/", "/v2", BLOB, "/v2/a/blobs/uploads/", "/v2/x"])
def test_other_methods_are_refused(internet: Internet, house: House, method: str, path: str) -> None:
    """A push learns that it is not offered, and not that nothing is there."""
    for host in (DOCKER, "mirror.example"):
        answer = house.ask(method, host, path)
        assert (answer.error, answer["Allow"]) == ((405, "UNSUPPORTED"), "GET, HEAD")
    assert internet.seen == []


@pytest.mark.parametrize("path", ["/v2/team/image/manifests/1", "/v2/team/image/tags/list"])
def test_a_head_has_the_headers_of_a_get(internet: Internet, house: House, path: str) -> None:
    got, head = house.get(K8S, path), house.ask("HEAD", K8S, path)
    assert (head.body, head.headers) == (b"", got.headers)
    assert [seen.method for seen in internet.seen] == ["GET", "HEAD"]


@pytest.mark.parametrize("path", ["/v2/a/tags/list", f"/v2/a/referrers/{DIGEST}", "/v2/_catalog"])
def test_parameters_of_lists_are_passed_on_except_ns(internet: Internet, house: House, path: str) -> None:
    house.get(K8S, f"{path}?n=1&last=a%2Fb%26c&ns=registry.k8s.io&artifactType=x/y%2Bz&n=2&empty=")
    assert internet.seen[0].path == path
    assert internet.seen[0].query == (
        ("n", "1"), ("last", "a/b&c"), ("artifactType", "x/y+z"), ("n", "2"), ("empty", ""),
    )  # fmt: skip


@pytest.mark.parametrize("path", ["/v2/a/manifests/latest", BLOB])
def test_parameters_of_contents_are_dropped(internet: Internet, house: House, path: str) -> None:
    house.get(K8S, f"{path}?ns=registry.k8s.io&x=y")
    assert internet.seen[0].url == f"https://{K8S_HOST}{path}"


def test_ns_is_answered_and_may_not_contradict_the_host(internet: Internet, house: House) -> None:
    """A 404 lets containerd move on."""
    path = "/v2/team/image/manifests/1"
    assert house.get(K8S, f"{path}?ns=Registry.K8s.io")["OCI-Namespace"] == "Registry.K8s.io"
    assert house.get(K8S, path)["OCI-Namespace"] is None
    internet.seen.clear()
    for each in (path, "/v2/"):
        assert house.get(K8S, f"{each}?ns=docker.io").error == (404, "NAME_UNKNOWN")
    assert internet.seen == []


def test_more_than_50_parameters_are_refused(house: House) -> None:
    assert house.get(K8S, "/v2/a/tags/list?" + "&".join(["n=1"] * 51)).error == (400, "UNKNOWN")
    assert house.get(K8S, "/v2/a/tags/list?" + "&".join(["n=1"] * 50)).status == 200


HIDDEN = (
    "User-Agent: x", "Cookie: a=b", "Proxy-Authorization: Basic x", "TE: trailers", "Upgrade: h2c",
    "Connection: keep-alive, X-Hop", "X-Hop: 1", "Keep-Alive: 1", "X-Meta-Secret: 1", "Referer: http://x/",
    "Origin: http://x", "Accept-Encoding: zstd, gzip", "Accept-Language: de", "If-Modified-Since: 0",
    "If-Match: x", "Via: 1.1 x", "Expect: 100-continue", "Content-Type: text/plain", "Docker-Upload-UUID: x",
)  # fmt: skip
SENT = {"accept-encoding": ["identity"], "connection": ["close"], "host": [K8S_HOST]}


def test_a_manifest_request_has_accept_and_conditions(internet: Internet, house: House) -> None:
    """All media types are accepted for a client that names none."""
    house.get(
        K8S, "/v2/team/image/manifests/1", "Accept: a/b", "Accept: c/d", 'If-None-Match: "x"',
        "Range: bytes=0-1", "Authorization: Bearer x", *HIDDEN,
    )  # fmt: skip
    assert _without_loop(internet.seen[0]) == {
        **SENT, "accept": ["a/b", "c/d"], "if-none-match": ['"x"'], "authorization": ["Bearer x"]
    }  # fmt: skip
    house.get(K8S, "/v2/team/image/manifests/1")
    assert internet.seen[1].header("Accept") == ", ".join(EVERYTHING)


def test_a_blob_is_requested_with_range_and_credentials(internet: Internet, house: House) -> None:
    """The condition is dropped: the blob of a digest is never another."""
    condition = f'If-Range: "{DIGEST}"'
    house.get(K8S, BLOB, "Range: bytes=0-1, 5-", condition, "Authorization: Basic x", *HIDDEN)
    sent = _without_loop(internet.seen[0])
    assert sent == {**SENT, "range": ["bytes=0-1,5-"], "authorization": ["Basic x"]}


def _without_loop(seen: Seen) -> dict[str, list[str]]:
    """Return the headers but ``CDN-Loop``, whose values are random; see test_loops.py."""
    return {name: values for name, values in seen.headers.items() if name != "cdn-loop"}


@pytest.mark.parametrize("path", ["/v2/team/image/manifests/1", "/v2/team/image/tags/list"])
def test_no_cache_is_passed_on(internet: Internet, house: House, path: str) -> None:
    """A mirror that is the upstream shall ask its own upstream, too."""
    for header in ("Cache-Control: max-age=0, no-cache", "Cache-Control: no-store"):
        house.get(K8S, path, header)
    assert [seen.header("Cache-Control") for seen in internet.seen] == ["no-cache", None]


def test_no_cache_for_a_blob_is_not_passed_on(internet: Internet, house: House) -> None:
    """No other bytes have its digest, and a cache would fetch them anew for nothing."""
    house.get(K8S, BLOB, "Cache-Control: no-cache")
    assert internet.seen[0].header("Cache-Control") is None


@pytest.mark.parametrize(
    "headers",
    [
        ("Range: bytes=5-", 'If-Range: "x"'),
        ("Range: bytes=5-", f'If-Range: W/"{DIGEST}"'),
        ("Range: bytes=5-", "If-Range: Thu, 01 Jan 1970 00:00:00 GMT"),
        ("Range: items=0-1",),
        ("Range: bytes=5-1",),
    ],
)
def test_a_range_without_meaning_is_ignored(
    internet: Internet, house: House, headers: tuple[str, ...]
) -> None:
    """RFC 9110, 13.1.5 and 14.2."""
    house.get(K8S, BLOB, *headers)
    assert internet.seen[0].header("Range") is None


def test_two_authorizations_are_refused(internet: Internet, house: House) -> None:
    answer = house.get(K8S, BLOB, "Authorization: Basic x", "Authorization: Bearer x")
    assert (answer.status, internet.seen) == (400, [])
