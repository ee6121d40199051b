"""Requests as bytes that no honest client sends, each with the statuses that it may get."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

CANARY = "smuggled/canary"
"""The repository of each request that an ambiguous one hides: it must never be requested."""
DIGEST = f"sha256:{'0' * 64}"
_LONG = 100 * 1024


@dataclass(frozen=True)
class Hostile:
    """A request, and the statuses of all its responses; None if any will do."""

    name: str
    data: bytes
    gets: tuple[int, ...] | None = None


def request(host: str, *fields: bytes, line: bytes = b"GET /v2/ HTTP/1.1", body: bytes = b"") -> bytes:
    """One of HTTP/1.1, as it is sent."""
    return b"\r\n".join([line, b"Host: " + host.encode(), *fields, b"", b""]) + body


LENGTH, CODING = b"Content-Length: 5", b"Transfer-Encoding: chunked"
_LENGTHS = (b"", b"+5", b"-1", b"5, 5", b"0x5", b"5_0", b"5 5", b"\xb25", b"1e1", b"9" * 30, b"5;", b'"5"')
_CODINGS = (
    b"identity", b"chunked, chunked", b"gzip, chunked", b"chunked, identity", b"xchunked", b"chunked\x0b",
    b"\x0bchunked", b'"chunked"', b"chunked;q=1", b"", b"chunked\xa0",
)  # fmt: skip
AMBIGUOUS: dict[str, tuple[bytes, ...]] = {
    "two lengths": (b"Content-Length: 0", LENGTH),
    "one length twice": (LENGTH, LENGTH),
    **{f"length {each!r}": (b"Content-Length: " + each,) for each in _LENGTHS},
    "length and coding": (LENGTH, CODING),
    "coding and length": (CODING, LENGTH),
    "coding twice": (CODING, CODING),
    **{f"coding {each!r}": (b"Transfer-Encoding: " + each,) for each in _CODINGS},
    "a space before the colon": (b"Transfer-Encoding : chunked",),
    "a folded coding": (b"Transfer-Encoding:\r\n chunked",),
    "a folded field": (b"A: b\r\n c",),
    "a folded field by tab": (b"A: b\r\n\tc",),
    "a bare CR in a value": (b"A: b\rContent-Length: 5",),
    "a bare LF in a value": (b"A: b\nContent-Length: 5",),
    "a NUL": (b"A: \0",),
    "no colon": (b"nonsense",),
    "no name": (b": value",),
    "a name of no token": (b"A(b): c",),
    "a name in other letters": ("Ä: b".encode(),),
    "a second host": (b"Host: other",),
    "a second host in other letters": (b"hOST: other",),
}
"""Fields by which a request's end could be understood in two ways."""


def framing(host: str) -> Iterator[Hostile]:
    """Requests whose end could be understood in two ways, and another behind each."""
    canary = request(host, line=f"GET /v2/{CANARY}/manifests/latest HTTP/1.1".encode())
    refused = {**AMBIGUOUS, "the same host twice": (b"Host: " + host.encode(),)}
    for name, fields in refused.items():
        yield Hostile(name, request(host, *fields) + canary, (400,))
    for name, line in _HOSTS.items():
        yield Hostile(f"host: {name}", b"GET /v2/ HTTP/1.1\r\n" + line + b"\r\n" + canary, (400,))
    for line in _LINES:
        yield Hostile(f"line {line!r}", request(host, line=line) + canary, (400,))
    yield Hostile("a coding in HTTP/1.0", request(host, CODING, line=b"GET / HTTP/1.0") + canary, (400,))
    yield Hostile("ended by LF alone", canary.replace(b"\r\n", b"\n"), (400,))
    yield Hostile("a space before the first field", b"GET /v2/ HTTP/1.1\r\n Host: a\r\n\r\n" + canary, (400,))
    body = b"Content-Length: %d" % len(canary)
    yield Hostile("a request as the body of another", request(host, body, body=canary), (401,))
    other = request(host, line=b"GET http://other.test/v2/ HTTP/1.1")
    yield Hostile("the host of another in the target", other, (404,))


_HOSTS = {
    "none": b"",
    "two in a line": b"Host: a, b\r\n",
    "with a name": b"Host: user@docker.io\r\n",
    "with a path": b"Host: docker.io/v2\r\n",
    "with a space": b"Host: docker.io evil\r\n",
    "in other letters": "Host: döcker.io\r\n".encode(),
    "with a port of letters": b"Host: docker.io:http\r\n",
    "with a quote": b'Host: a"b\r\n',
    "an open bracket": b"Host: [::1\r\n",
}
_LINES = (
    b"GET  /v2/ HTTP/1.1", b"GET\t/v2/\tHTTP/1.1", b" GET /v2/ HTTP/1.1", b"GET /v2/", b"GET /v2/ HTTP/1.1 ",
    b"GET /v2/ HTTP/0.9", b"GET /v2/ HTTP/1.2", b"GET /v2/ HTTP/2.0", b"GET /v2/ http/1.1",
    b"GET /v2/ HTTP/1.1x", b"G(T /v2/ HTTP/1.1", b"GET /v2/ /v2/ HTTP/1.1", b"GET v2/ HTTP/1.1",
    b"GET * HTTP/1.1", b"OPTIONS * HTTP/1.1", b"CONNECT docker.io:443 HTTP/1.1",
    b"GET docker.io:443 HTTP/1.1", b"GET ftp://docker.io/v2/ HTTP/1.1", b"GET http:///v2/ HTTP/1.1",
    b"GET http://a@docker.io/v2/ HTTP/1.1", b"GET http://docker.io\\@evil/v2/ HTTP/1.1",
    b"GET http://docker.io#/v2/ HTTP/1.1", "GET /v2/é HTTP/1.1".encode(), b"GET /v2/\xff HTTP/1.1",
    b"GET /v2/\x7f HTTP/1.1", b"G\xc9T /v2/ HTTP/1.1",
)  # fmt: skip


CHUNKS = (
    b"-1\r\na\r\n0\r\n\r\n", b"0x1\r\na\r\n0\r\n\r\n", b"+1\r\na\r\n0\r\n\r\n", b"1\na\n0\n\n",
    b"1\r\nab\r\n0\r\n\r\n", b"g\r\na\r\n0\r\n\r\n", b"\r\na\r\n0\r\n\r\n", b" 1\r\na\r\n0\r\n\r\n",
    b"1 \r\na\r\n0\r\n\r\n", b"1_0\r\naaaaaaaaaaaaaaaa\r\n0\r\n\r\n",
    b"1\r\na\n0\r\n\r\n", b"1;a\nb\r\na\r\n0\r\n\r\n", b"1;a\rb\r\na\r\n0\r\n\r\n",
    b"1;\0\r\na\r\n0\r\n\r\n",
)  # fmt: skip
"""Chunked bodies that are malformed."""


def forms(host: str) -> Iterator[Hostile]:
    """Forms of a login in pieces that end where they should not; the statuses are those of the first."""
    kind = (b"Content-Type: application/x-www-form-urlencoded", b"Transfer-Encoding: chunked")
    canary = request(host, line=f"GET /v2/{CANARY}/manifests/latest HTTP/1.1".encode())
    for body in CHUNKS:
        sent = request(host, *kind, line=b"POST /v2/auth HTTP/1.1", body=body)
        yield Hostile(f"pieces {body[:30]!r}", sent + canary, (400,))
    endless = request(host, *kind, line=b"POST /v2/auth HTTP/1.1", body=b"f" * 40 + b"\r\na\r\n0\r\n\r\n")
    yield Hostile("a piece without an end", endless + canary, (408,))
    huge = request(host, *kind, line=b"POST /v2/auth HTTP/1.1", body=b"20000\r\n" + b"a" * 0x20000)
    yield Hostile("a form of 128 KiB", huge, (413,))


def sizes(host: str) -> Iterator[Hostile]:
    """Requests with more than the mirror reads."""
    long = b"a" * _LONG
    yield Hostile("a line of 100 KB", request(host, line=b"GET /v2/%b HTTP/1.1" % long), (431,))
    yield Hostile("a query of 100 KB", request(host, line=b"GET /v2/?%b HTTP/1.1" % long), (431,))
    yield Hostile("a field of 100 KB", request(host, b"A: " + long), (431,))
    yield Hostile("a name of 100 KB", request(host, long + b": a"), (431,))
    yield Hostile("100 KB of fields", request(host, *[b"A: b"] * (_LONG // 6)), (431,))
    yield Hostile("100 KB without a line", long, (431,))
    yield Hostile(
        "50 KB of parameters", request(host, line=b"GET /v2/?%b HTTP/1.1" % (b"a&" * 25_000)), (400,)
    )


def traversals(hosts: Sequence[str]) -> Iterator[Hostile]:
    """Names that mean something else to a file system, a URL or a terminal, wherever a name stands."""
    for name in _NAMES:
        paths = (
            f"/v2/{name}/manifests/latest", f"/v2/library/{name}/manifests/latest",
            f"/v2/library/a/manifests/{name}", f"/v2/library/a/blobs/{name}",
            f"/v2/library/a/blobs/sha256:{name}", f"/v2/library/a/referrers/{name}",
            f"/{name}/v2/library/a/manifests/latest", f"/v2/a/tags/list/{name}", f"/v2/_catalog/{name}",
            f"/v2/docker.io/{name}/a/manifests/latest", f"/export?image={name}", f"/export?image=a:{name}",
            f"/v2/library/a/manifests/latest?ns={name}",
        )  # fmt: skip
        for path in paths:
            for host in hosts:
                line = f"GET {path} HTTP/1.1".encode()
                yield Hostile(line.decode(), request(host, b"Connection: close", line=line))


_NAMES = (
    "..", ".", "../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e", "%2e%2e%2f%2e%2e", "%252e%252e%252f",
    "..%5c..", "..\\..", "%00", "a%00b", "a%0d%0aX-Injected:%20b", "a%0aX-Injected:%20b",
    "%c0%ae%c0%ae%c0%af", "%ef%bc%8e%ef%bc%8e", "%ff", "%c3%a9", "%e2%80%8b", "_uploads", "_manifests", "A",
    "a//b", "/etc/passwd", "%2fetc", "a@b", "%25", "%", "%zz", "a%20b", "a%3fb", "a%23b", "a%2fb", "a;b",
    "http://169.254.169.254/", "%1b[31m", "x" * 300, "con", "a:b:c",
)  # fmt: skip
