"""Upstreams whose headers mean harm: none reaches a client, or the next server, as a header of ours."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, product

import pytest

from tests.integration.conftest import MakeDirectory, MakeMachine
from tests.integration.parts.images import Image, artifact
from tests.integration.parts.mirror import Mirror

from .grammar import SENT_ON, statuses
from .raw import sent
from .rows import Record, hardship
from .witness import Witness

pytestmark = pytest.mark.integration

INJECTED = b"X-Injected"
VALUES = (
    b"a\rX-Injected: b", b"a\r X-Injected: b", b"a\r\n X-Injected: b", b"a\0X-Injected: b",
    b"a\x0bX-Injected: b", b"\x1b[31mX-Injected", b"\xff\xfe", "Ä\u2028X-Injected: b".encode(),
    b"a" * 15_000, b"", b'"', b"\\", b"\x85X-Injected: b", b"%0d%0aX-Injected:%20b",
    b"http://127.0.0.1:1/%0d%0aX-Injected:%20b", b"http://127.0.0.1:1/\r\n\tX-Injected: b",
    b"http://a\\@127.0.0.1:1/", b"//127.0.0.1:1", b"http://[", b"http://127.0.0.1:99999/",
    b"javascript:alert(1)", b"/v2/library/a b", b"/v2/\xc3\xa4", b"?n=1&last=%0d%0aX-Injected:%20b",
    b"9" * 5000, b"-1", b"1, 2", b"NaN",
)  # fmt: skip
ANSWERS = {
    "Location": b"307 Temporary Redirect",
    "WWW-Authenticate": b"401 Unauthorized",
    "Retry-After": b"503 Service Unavailable",
    "Content-Range": b"416 Range Not Satisfiable",
    **dict.fromkeys(
        (
            "ETag",
            "Content-Type",
            "Warning",
            "Link",
            "Docker-Content-Digest",
            "Last-Modified",
            "RateLimit-Limit",
        ),
        b"200 OK",
    ),
}
SHAPES = {
    "Location": (b"%b",),
    "WWW-Authenticate": (b"%b", b'Bearer realm="%b",service="a"', b'Bearer realm="http://127.0.0.1:1/t",service="%b"',
                         b'Basic realm="%b"'),
    "Link": (b"%b", b'<%b>; rel="next"', b'</v2/a/tags/list?last=%b>; rel="next"'),
    "ETag": (b"%b", b'"%b"'),
}  # fmt: skip


class Spoiler(Witness):
    """Answers with one field of the test's."""

    field, status = b"", b"200 OK"

    def answer(self, head: bytes) -> bytes:
        """See ``Witness``."""
        right = super().answer(head)
        if b" /v2/ " in head or b"/token" in head:
            return right
        _, _, body = right.partition(b"\r\n\r\n")
        length = b"Content-Length: %d\r\n" % len(body)
        spoilt = b"HTTP/1.1 " + self.status + b"\r\n" + length + self.field + b"\r\n\r\n"
        return spoilt + (b"" if head.startswith(b"HEAD") else body)


@pytest.fixture(scope="module")
def image() -> Image:
    """The image of the upstream."""
    return artifact("hostile answers")


@pytest.fixture(scope="module")
def spoiler(image: Image) -> Iterator[Spoiler]:
    """The upstream."""
    with Spoiler(image, SENT_ON) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def mirror(directory: MakeDirectory, make_machine: MakeMachine, spoiler: Spoiler) -> Iterator[Mirror]:
    """A mirror of it, which leaves nothing alone."""
    upstreams = {"docker": {"url": spoiler.url, "timeout": 5}}
    with Mirror(directory("mirror"), make_machine(), upstreams, tag_ttl=0) as process:
        yield process


@hardship("hostile: headers of the upstream's that no server sends")
def test_answers(mirror: Mirror, spoiler: Spoiler, image: Image, came: Record) -> None:
    """Every response is well-formed, without a field that the upstream has injected."""
    numbers, wrong, got = count(), [], set()
    for (field, status), value in product(ANSWERS.items(), VALUES):
        for shape in SHAPES.get(field, (b"%b",)):
            spoiler.field, spoiler.status = field.encode() + b": " + shape % value, status
            name = f"library/a{next(numbers)}"
            for path in (
                f"{name}/manifests/latest",
                f"{name}/tags/list",
                f"{name}/blobs/{image.layers[0].digest}",
            ):
                asked = (
                    f"GET /v2/{path} HTTP/1.1\r\nHost: {mirror.host('docker')}\r\nConnection: close\r\n\r\n"
                )
                received, _ = sent(mirror.port, [asked.encode()], 30)
                try:
                    (answer,) = statuses(received)
                except ValueError as error:
                    wrong.append(f"{spoiler.field!r} {path}: {error}")
                    continue
                got.add(answer)
                if answer == 500 or b"\n" + INJECTED in received.replace(b"\r", b"\n"):
                    wrong.append(f"{spoiler.field!r} {path}: {answer}: {received[:600]!r}")
    assert not wrong, "\n".join(wrong)
    assert not spoiler.faults, "\n".join(spoiler.faults)
    assert mirror.failures() == ""
    came(
        f"{next(numbers)} of them, {len(spoiler.asked)} requests upstream: {', '.join(map(str, sorted(got)))}"
    )
