"""Push: blobs in one piece, in chunks, and mounted from other repositories."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.integration.parts.media import sha256
from tests.integration.parts.plain import Response

from .asked import OCTETS, Asked, code, with_digest

pytestmark = pytest.mark.integration

CHUNK = 2000


def _pieces(data: bytes) -> Iterator[bytes]:
    for begin in range(0, len(data), 700):
        yield data[begin : begin + 700]


def _chunk(registry: Asked, location: str, data: bytes, begin: int, method: str = "PATCH") -> Response:
    """A part of the data, with its place."""
    part = data[begin : begin + CHUNK]
    return registry.ask(
        method, location, part, {**OCTETS, "Content-Range": f"{begin}-{begin + len(part) - 1}"}
    )


def _is_there(registry: Asked, data: bytes) -> None:
    got = registry.ask("GET", f"blobs/{sha256(data)}")
    assert (got.status, got.body) == (200, data)


def _is_created(registry: Asked, data: bytes, answer: Response) -> None:
    """The answer is of a blob that was taken, and leads to it."""
    assert answer.status == 201
    assert answer.headers.get("Docker-Content-Digest", sha256(data)) == sha256(data)
    assert registry.ask("GET", registry.location(answer)).body == data


def test_post_then_put(registry: Asked) -> None:
    """The plainest way."""
    data = registry.bytes("put")
    _is_created(
        registry, data, registry.ask("PUT", with_digest(registry.begin(), sha256(data)), data, OCTETS)
    )


def test_put_in_chunks(registry: Asked) -> None:
    """A PUT without a length is taken."""
    data = registry.bytes("chunked put")
    target = with_digest(registry.begin(), sha256(data))
    _is_created(registry, data, registry.ask("PUT", target, _pieces(data), OCTETS))


def test_empty_blob(registry: Asked) -> None:
    """A blob may be empty."""
    assert registry.upload(b"") == sha256(b"")
    _is_there(registry, b"")


def test_single_post(registry: Asked) -> None:
    """A registry takes a blob with the first request, or begins an upload as always."""
    data = registry.bytes("single")
    posted = registry.ask("POST", f"blobs/uploads/?digest={sha256(data)}", data, OCTETS)
    if posted.status == 202:
        target = with_digest(registry.location(posted), sha256(data))
        posted = registry.ask("PUT", target, data, OCTETS)
    _is_created(registry, data, posted)


def test_stream_then_put(registry: Asked) -> None:
    """docker sends one PATCH without a length, and a PUT without a body."""
    data = registry.bytes("streamed", 300_000)
    patched = registry.ask("PATCH", registry.begin(), _pieces(data), OCTETS)
    assert patched.status == 202
    assert patched.headers["Range"] == f"0-{len(data) - 1}"
    target = with_digest(registry.location(patched), sha256(data))
    _is_created(registry, data, registry.ask("PUT", target, b""))


@pytest.mark.parametrize("last", ["in the PUT", "before it"])
def test_chunks(registry: Asked, last: str) -> None:
    """Each response has the offset, and the location for the next chunk."""
    data = registry.bytes(f"chunks {last}", 3 * CHUNK - 500)
    location = registry.begin()
    for begin in (0, CHUNK) if last == "in the PUT" else (0, CHUNK, 2 * CHUNK):
        answer = _chunk(registry, location, data, begin)
        assert answer.status == 202
        assert answer.headers["Range"] == f"0-{min(begin + CHUNK, len(data)) - 1}"
        location = registry.location(answer)
    location = with_digest(location, sha256(data))
    if last == "in the PUT":
        put = _chunk(registry, location, data, 2 * CHUNK, "PUT")
    else:
        put = registry.ask("PUT", location, b"")
    _is_created(registry, data, put)


def test_status(registry: Asked) -> None:
    """An upload that is asked for tells how far it has come; so a client that was cut off goes on."""
    data = registry.bytes("resumed", 2 * CHUNK)
    patched = _chunk(registry, registry.begin(), data, 0)
    status = registry.ask("GET", registry.location(patched))
    assert (status.status, status.headers["Range"]) == (204, f"0-{CHUNK - 1}")
    patched = _chunk(registry, registry.location(status), data, CHUNK)
    target = with_digest(registry.location(patched), sha256(data))
    _is_created(registry, data, registry.ask("PUT", target, b""))


@pytest.mark.lacks(
    "distribution", "2.8 gives up an upload that was cut off, once it has noticed", sometimes=True
)
def test_cut_off(registry: Asked) -> None:
    """A client that was cut off in the middle of a chunk asks how far it has come, and goes on from there.

    How far that is depends on how the connection ended. The chunk that was cut off may still be on its way
    when the client goes on; its ``Content-Range`` keeps it from being appended after the rest.
    """
    data, again = registry.bytes("cut off", 3 * CHUNK), registry.beside("cut-off")
    location = again.location(_chunk(again, again.begin(), data, 0))
    again.is_cut_off(location, data[CHUNK : CHUNK + 1000], CHUNK, CHUNK)
    for _ in range(50):
        status = again.ask("GET", location)
        assert status.status == 204
        begin = int(status.headers["Range"].partition("-")[2]) + 1
        assert CHUNK <= begin <= CHUNK + 1000
        rest = {**OCTETS, "Content-Range": f"{begin}-{len(data) - 1}"}
        patched = again.ask("PATCH", again.location(status), data[begin:], rest)
        if patched.status == 202:
            break
        time.sleep(0.1)  # the registry has not noticed yet that the client went away
    target = with_digest(again.location(patched), sha256(data))
    _is_created(again, data, again.ask("PUT", target, b""))


@pytest.mark.lacks("distribution", "2.8 takes each chunk for the next one")
def test_out_of_order(registry: Asked) -> None:
    """A chunk that is not the next one is refused with 416, and the upload goes on where it was."""
    data = registry.bytes("order", 2 * CHUNK)
    location = registry.location(_chunk(registry, registry.begin(), data, 0))
    refused = _chunk(registry, location, data, CHUNK + 100)
    assert refused.status == 416
    assert refused.headers["Range"] == f"0-{CHUNK - 1}"
    status = registry.ask("GET", registry.location(refused))
    assert (status.status, status.headers["Range"]) == (204, f"0-{CHUNK - 1}")
    patched = _chunk(registry, registry.location(status), data, CHUNK)
    target = with_digest(registry.location(patched), sha256(data))
    _is_created(registry, data, registry.ask("PUT", target, b""))


@pytest.mark.lacks("distribution", "2.8 does not read the place of a chunk")
@pytest.mark.parametrize("told", ["0-", "bytes", "100-1"])
def test_place_of_no_sense(registry: Asked, told: str) -> None:
    """A ``Content-Range`` that says nothing is refused with 416."""
    data = registry.bytes(told)
    refused = registry.ask("PATCH", registry.begin(), data, {**OCTETS, "Content-Range": told})
    assert refused.status == 416


@pytest.mark.lacks("distribution", "2.8 has no shortest chunk")
def test_shortest_chunk(registry: Asked) -> None:
    """A registry may say how long chunks have to be."""
    begun = registry.ask("POST", "blobs/uploads/", b"")
    assert begun.headers.get("OCI-Chunk-Min-Length") == "1000"


def test_wrong_digest(registry: Asked) -> None:
    """A blob that does not match its digest is refused and not stored."""
    data, other = registry.bytes("right"), registry.bytes("wrong")
    refused = registry.ask("PUT", with_digest(registry.begin(), sha256(other)), data, OCTETS)
    assert (refused.status, code(refused)) == (400, "DIGEST_INVALID")
    for each in (data, other):
        assert registry.ask("GET", f"blobs/{sha256(each)}").status == 404


def test_no_digest(registry: Asked) -> None:
    """An upload is not complete without a digest."""
    refused = registry.ask("PUT", registry.begin(), registry.bytes("none"), OCTETS)
    assert (refused.status, code(refused)) == (400, "DIGEST_INVALID")


def test_cancelled(registry: Asked) -> None:
    """An upload that was ended is unknown from then on."""
    location = registry.location(_chunk(registry, registry.begin(), registry.bytes("cancelled"), 0))
    assert registry.ask("DELETE", location).status == 204
    for method in ("GET", "DELETE", "PATCH"):
        gone = registry.ask(method, location, b"more" if method == "PATCH" else None, OCTETS)
        assert (gone.status, code(gone)) == (404, "BLOB_UPLOAD_UNKNOWN")


def test_uploads_beside_each_other(registry: Asked) -> None:
    """Two uploads do not affect each other."""
    first, second = registry.bytes("first"), registry.bytes("second")
    locations = [registry.begin(), registry.begin()]
    assert locations[0] != locations[1]
    for location, data in zip(reversed(locations), (second, first), strict=True):
        put = registry.ask("PUT", with_digest(location, sha256(data)), data, OCTETS)
        _is_created(registry, data, put)


def test_seen_at_once(registry: Asked) -> None:
    """A blob that was asked for in vain is there as soon as it is pushed."""
    data = registry.bytes("late")
    assert registry.ask("HEAD", f"blobs/{sha256(data)}").status == 404
    registry.upload(data)
    assert registry.ask("HEAD", f"blobs/{sha256(data)}").status == 200


def test_mount(registry: Asked) -> None:
    """A blob of another repository is taken from there, without its bytes."""
    data, source = registry.bytes("mounted"), registry.beside("source")
    source.upload(data)
    target = f"blobs/uploads/?mount={sha256(data)}&from={source.repository}"
    _is_created(registry, data, registry.ask("POST", target, b""))


def test_mount_of_nothing(registry: Asked) -> None:
    """A blob that cannot be mounted can be pushed instead."""
    data = registry.bytes("not mounted")
    target = f"blobs/uploads/?mount={sha256(data)}&from={registry.repository}-nobodys"
    begun = registry.ask("POST", target, b"")
    assert begun.status == 202
    put = registry.ask("PUT", with_digest(registry.location(begun), sha256(data)), data, OCTETS)
    _is_created(registry, data, put)


def test_mount_from_anywhere(registry: Asked) -> None:
    """Without a source a registry mounts what it finds, or begins an upload."""
    data = registry.bytes("anywhere")
    registry.beside("source").upload(data)
    begun = registry.ask("POST", f"blobs/uploads/?mount={sha256(data)}", b"")
    assert begun.status in (201, 202)
    if begun.status == 202:
        begun = registry.ask("PUT", with_digest(registry.location(begun), sha256(data)), data, OCTETS)
    _is_created(registry, data, begun)
