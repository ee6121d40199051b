"""Right requests of clients that pull and push, and the same, each spoilt in one or more places."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from .hostile import DIGEST, Hostile, request

VALUES = (
    b"Authorization: Bearer \xff\xfe", b"Authorization: Basic !!!!", b"Authorization: Bearer a b c",
    b"Authorization: ", b"Authorization: Basic YTpi\r\nAuthorization: Basic Yzpk",
    b"Authorization: Bearer " + b"x" * 5000, b"Accept: \xff", b"Accept: a\x80b/c", b"Accept: nonsense",
    b"Accept: ,,,", b'Accept: a/b;c="', b"Accept: */*;q=0", b"If-None-Match: \xff",
    b"If-None-Match: nonsense", b'If-None-Match: "a', b"If-None-Match: *", b"Range: bytes=0-0,1-1,2-2",
    b"Range: bytes=99999999999999999999-", b"Range: bytes=\xff", b"Range: bytes=-0", b"Range: items=0-1",
    b"If-Range: \xff", b"X-Forwarded-For: 8.8.8.8", b"Forwarded: for=8.8.8.8", b"Expect: 100-continue",
    b"Expect: \xff", b"Connection: upgrade\r\nUpgrade: h2c", b"Connection: close, TE", b"TE: trailers",
    b"Cookie: a=b", b"Accept-Language: \xff;q=zz", b"Accept-Encoding: br", b"Content-Type: \xff",
    b"User-Agent: \x80", b"Proxy-Authorization: a",
)  # fmt: skip


Right = Callable[[Random], bytes]
"""One of many right requests."""


def questions(hosts: tuple[str, ...], paths: tuple[str, ...]) -> Right:
    """The requests of clients that pull, with other methods than GET, too."""

    def question(source: Random) -> bytes:
        method = source.choice(("GET", "GET", "HEAD", "POST", "PUT", "DELETE", "get", "PRI"))
        line = f"{method} {source.choice(paths)} HTTP/1.1".encode()
        return request(source.choice(hosts), *_fields(source), line=line)

    return question


def changes(host: str, location: str, repository: str) -> Right:
    """The requests of clients that push to that repository.

    :param location: where an upload goes on that has begun.
    """
    uploads, other = f"/v2/{repository}/blobs/uploads/", DIGEST.replace("0", "1")
    bodies = (
        ("PATCH", location),
        ("PUT", f"{location}?digest={DIGEST}"),
        ("POST", f"{uploads}?digest={DIGEST}"),
    )
    manifests = [
        ("PUT", f"/v2/{repository}/manifests/{each}") for each in ("latest", DIGEST, f"{DIGEST}?tag=a&tag=b")
    ]
    bare = (
        ("POST", uploads), ("POST", f"{uploads}?mount={DIGEST}&from=library/a"),
        ("POST", f"{uploads}?mount={DIGEST}&digest={other}&from=library/a&from=library/b"), ("GET", location),
        ("HEAD", location), ("DELETE", location), ("DELETE", f"/v2/{repository}/manifests/latest"),
        ("DELETE", f"/v2/{repository}/blobs/{DIGEST}"),
    )  # fmt: skip

    def change(source: Random) -> bytes:
        method, path = source.choice((*bodies, *manifests, *bare))
        fields, body = _fields(source), b""
        if (method, path) not in bare:
            body = source.choice((b"", b"{}", source.randbytes(300), b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n"))
            in_pieces = source.random() < 0.5
            fields.append(b"Transfer-Encoding: chunked" if in_pieces else b"Content-Length: %d" % len(body))
            fields.append(source.choice(_OF_BODIES))
            body = _in_pieces(body) if in_pieces else body
        return request(host, *fields, line=f"{method} {path} HTTP/1.1".encode(), body=body)

    return change


_OF_BODIES = (
    b"Content-Type: application/octet-stream", b"Content-Type: a/b; c=d", b"Content-Range: 0-299",
    b"Content-Range: 5-304", b"Content-Range: bytes 0-299/300", b"Content-Range: 0-299\r\nContent-Range: 1-2",
    b"Content-Range: \xff", b"Content-Range: 1-0", b"Content-Encoding: gzip", b"Trailer: Content-Length",
    b"Authorization: Basic YTpi",
)  # fmt: skip


def _fields(source: Random) -> list[bytes]:
    return source.sample([*VALUES, *[b"Connection: close"] * len(VALUES)], source.randrange(1, 6))


def _in_pieces(body: bytes) -> bytes:
    half = len(body) // 2
    pieces = [piece for piece in (body[:half], body[half:]) if piece]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))


def mutations(right: Right, source: Random, count: int) -> Iterator[Hostile]:
    """Right requests, each spoilt in one or more places."""
    for number in range(count):
        data = right(source)
        for _ in range(source.randrange(4)):
            data = source.choice(_MUTATIONS)(data, source)
        yield Hostile(f"number {number}", data)


def _inserted(data: bytes, source: Random) -> bytes:
    at = source.randrange(len(data) + 1)
    return data[:at] + source.choice(_PIECES) + data[at:]


def _cut(data: bytes, source: Random) -> bytes:
    at = source.randrange(len(data) + 1)
    return data[:at] + data[at + source.randrange(20) :]


def _doubled(data: bytes, source: Random) -> bytes:
    at, end = source.randrange(len(data) + 1), source.randrange(len(data) + 1)
    return data[:end] + data[at:end] + data[end:]


def _flipped(data: bytes, source: Random) -> bytes:
    at = source.randrange(len(data))
    return data[:at] + source.randbytes(1) + data[at + 1 :]


def _escaped(data: bytes, source: Random) -> bytes:
    at = source.randrange(len(data))
    return data[:at] + b"%%%02x" % data[at] + data[at + 1 :]


_MUTATIONS = (_inserted, _inserted, _cut, _doubled, _flipped, _escaped)
_PIECES = (
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b"/", b"//", b"..", b"/../", b"%2f", b"%2e", b"%00",
    b"%0d%0a", b"?", b"&", b"#", b"@", b":", b";", b",", b'"', b"\xff", b"\xc3\xa9", b"\r\n ", b"\r\n\r\n",
    b"Content-Length: 3\r\n", b"0\r\n\r\n", b"Transfer-Encoding: chunked\r\n", b"?ns=docker.io", b"&ns=..",
    b"?n=-1&last=%ff", b"v2/", b"sha256:", b"x" * 300,
)  # fmt: skip
