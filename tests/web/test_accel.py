"""Files that are left to nginx: who decides, for which requests, and what is counted."""

# mypy: allow-untyped-calls

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import maybeDeferred
from zope.interface import implementer

from dockmirror.app.site_builder import apply_access_rules
from dockmirror.app.telemetry import make_request_counter
from dockmirror.config.load import load
from dockmirror.http.accel import ACCEL_FIELD, CACHE_CONTROL_FIELD
from dockmirror.http.server import HttpSite
from dockmirror.http.server_request import ServerRequest
from dockmirror.interfaces import Answer, ContentKind, IRegistry
from dockmirror.middleware.observers import RequestObserver
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.errors import BlobUnknown
from dockmirror.oci.header_fields import CacheStatus
from dockmirror.oci.request import Blob, RegistryRequest, Repository
from dockmirror.pullthrough.blobs import cached_response
from dockmirror.store import layout
from dockmirror.store.local_store import LocalContentStore
from dockmirror.store.store_directory import prepare_directory
from dockmirror.web.access_log import AccessLog, AuditLog
from dockmirror.web.site import RegistryHost
from tests.answering import now
from tests.fakes import Reply, World
from tests.house import DOMAIN, House
from tests.house import Answer as Response
from tests.internet import Internet
from tests.store.threads import inline

PLACE = Repository("docker.io/library/nginx")
DATA = os.urandom(100_000)
DIGEST = Digest.of(DATA)
PATH = f"/v2/library/nginx/blobs/{DIGEST}"
NAME = f"/dockmirror-blobs/sha256/{DIGEST.hex[:2]}/{DIGEST.hex}/data"
PROXY, CLIENT = "127.0.0.1", "X-Forwarded-For: 192.168.1.1"
LOCATION = "X-Accel-Redirect"


@implementer(IRegistry)
class StoredBlobs:
    """A registry that serves what a store holds.

    :ivar before_answer: is called between the opening of a blob and its delivery.
    """

    def __init__(self, contents: LocalContentStore) -> None:
        self.contents = contents
        self.before_answer: Callable[[], object] = lambda: None

    async def fetch(self, request: RegistryRequest) -> Answer:
        assert isinstance(request.target, Blob)
        stored = await self.contents.open(PLACE, request.target.digest, ContentKind.BLOB)
        if stored is None:
            raise BlobUnknown
        descriptor = Descriptor("application/octet-stream", request.target.digest, stored.size)
        answer = cached_response(request, stored, descriptor, CacheStatus(immutable=True))
        self.before_answer()
        return answer


class AccelHouse(House):
    """A mirror behind nginx, which serves what lies in a directory.

    :ivar audited: the lines of the audit log.
    """

    def __init__(self, root: Path, group: int | None = None, **settings: Any) -> None:
        super().__init__(World())
        group = os.getgid() if group is None else group
        prepare_directory(root, group=group)
        self.root = root
        self.registry = StoredBlobs(LocalContentStore(root, self.clock, inline, group=group))
        self.audited: list[str] = []
        chosen = {
            "log_format": "json",
            "accel": "nginx",
            "trust_proxy": [PROXY],
            "cache": str(root),
            "cache_group": str(group),
        }
        loaded = load({"domain": DOMAIN, **chosen, **settings}, {})
        host = RegistryHost(RequestObserver(self.registry, "docker", self.metrics), {})
        guarded = apply_access_rules(loaded, host, self.clock, maybeDeferred, self.memory, self.metrics)
        logs: list[Callable[[ServerRequest], None]] = [
            AccessLog(loaded.log_format, self.clock, self.lines.append),
            AuditLog(self.clock, self.audited.append),
            make_request_counter(loaded, self.metrics),
        ]

        def log(request: ServerRequest) -> None:
            for each in logs:
                each(request)

        self.site = HttpSite(guarded, self.clock, log=log)

    def hold(self, data: bytes = DATA) -> Path:
        """Store a blob, and return its file."""
        now(self.registry.contents.add(PLACE, Digest.of(data), ContentKind.BLOB, data))
        return self.root / layout.data(Digest.of(data))

    def through(self, *headers: str, path: str = PATH, method: str = "GET", peer: str = PROXY) -> Response:
        """The mirror's response to the proxy."""
        return self.connect(peer).ask(method, DOMAIN, path, CLIENT, *headers).answer

    def log(self) -> dict[str, Any]:
        """The last line of the access log."""
        line: dict[str, Any] = json.loads(self.lines[-1])
        return line

    def counted(self, metric: str, **labels: str) -> float | None:
        """The value of a metric."""
        return self.metrics.registry.get_sample_value(metric, labels)


@pytest.fixture
def house(tmp_path: Path) -> AccelHouse:
    """A mirror that holds a blob."""
    house = AccelHouse(tmp_path / "cache")
    house.hold()
    return house


def sent_by_mirror(response: Response) -> bool:
    """Tell whether the mirror has sent the blob itself, and named no file."""
    assert response[LOCATION] is None
    assert response[CACHE_CONTROL_FIELD] is None
    return response.body == DATA


def test_nginx_gets_the_name_in_place_of_the_bytes(house: AccelHouse) -> None:
    """It gets the fields that it passes on, and none of those that it would send twice."""
    response = house.through()
    assert (response.status, response.body, response["Content-Length"]) == (200, b"", "0")
    assert response[LOCATION] == NAME
    assert response["Docker-Content-Digest"] == str(DIGEST)
    assert (response["ETag"], response["Cache-Status"]) == (f'"{DIGEST}"', "dockmirror; hit")
    assert response["Content-Type"] == "application/octet-stream"
    assert response[CACHE_CONTROL_FIELD] == "public, max-age=31536000, immutable"
    assert [response[name] for name in ("Cache-Control", "Accept-Ranges", "Content-Range")] == [None] * 3


def test_a_part_is_left_to_nginx(house: AccelHouse) -> None:
    """nginx resolves the range, which is in its own request."""
    response = house.through("Range: bytes=10-19")
    assert (response.status, response.body, response[LOCATION]) == (206, b"", NAME)
    assert (house.log()["status"], house.log()["bytes"]) == (206, 10)


def test_connection_stays_open(house: AccelHouse) -> None:
    """Another request follows on the same connection."""
    connection = house.connect(PROXY).ask("GET", DOMAIN, PATH, CLIENT).ask("GET", DOMAIN, PATH, CLIENT)
    assert [answer[LOCATION] for answer in connection.answers] == [NAME, NAME]


@pytest.mark.parametrize(
    "headers",
    [
        ("Range: bytes=abc",),
        ("Range: bytes=5-1",),
        ("Range: items=1-2",),
        ("Range: bytes=1-2", 'If-Range: "another"'),
        ("Range: bytes=1-2", "If-Range: Fri, 01 Jan 2100 00:00:00 GMT"),
        ('If-Match: "another"',),
        ("If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT",),
        ("If-Unmodified-Since: Sat, 01 Jan 2000 00:00:00 GMT",),
        (f"{ACCEL_FIELD}: off",),
        (f"{ACCEL_FIELD}: on",),
    ],
)
def test_the_mirror_sends_what_nginx_would_answer_otherwise(
    house: AccelHouse, headers: tuple[str, ...]
) -> None:
    assert sent_by_mirror(house.through(*headers))
    assert house.log()["accel"] is False


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (("Range: bytes = 1-2",), 206),
        (("Range: bytes=1-2,5-6",), 206),
        (("Range: bytes=1-2", "Range: bytes=5-6"), 206),
        (("Range: bytes=200000-",), 416),
        ((f'If-None-Match: "{DIGEST}"',), 304),
        (("If-None-Match: *",), 304),
    ],
)
def test_responses_without_one_part(house: AccelHouse, headers: tuple[str, ...], status: int) -> None:
    response = house.through(*headers)
    assert (response.status, response[LOCATION]) == (status, None)


def test_a_head_names_no_file(house: AccelHouse) -> None:
    response = house.through(method="HEAD")
    assert (response.status, response[LOCATION]) == (200, None)
    assert response["Content-Length"] == str(len(DATA))


@pytest.mark.parametrize("peer", [PROXY, "192.168.1.1"])
def test_clients_without_the_proxy_get_bytes(house: AccelHouse, peer: str) -> None:
    """Also one on the proxy's own machine, which forwards nothing."""
    for headers in ((), (f"{LOCATION}: {NAME}",), (f"{ACCEL_FIELD}: on",), ("X-Accel-Mapping: /=/",)):
        assert sent_by_mirror(house.connect(peer).ask("GET", DOMAIN, PATH, *headers).answer)


def test_an_untrusted_proxy_is_refused(house: AccelHouse) -> None:
    response = house.through(peer="192.168.1.2")
    assert (response.status, response[LOCATION]) == (403, None)


def test_without_the_setting(tmp_path: Path) -> None:
    house = AccelHouse(tmp_path / "cache", accel="off")
    house.hold()
    assert sent_by_mirror(house.through())


def test_small_blobs_are_sent(house: AccelHouse) -> None:
    """They are verified in memory whenever they are opened."""
    small = b"small" * 1000
    house.hold(small)
    response = house.through(path=f"/v2/library/nginx/blobs/{Digest.of(small)}")
    assert (response.body, response[LOCATION]) == (small, None)


def test_what_was_granted_is_counted(house: AccelHouse) -> None:
    """The log, the audit log and the metrics have the bytes, and say that they were left to nginx."""
    house.through()
    assert (house.log()["bytes"], house.log()["accel"], house.log()["cut_off"]) == (len(DATA), True, False)
    audited = json.loads(house.audited[-1])
    assert (audited["bytes"], audited["accel"], audited["whole"]) == (len(DATA), True, True)
    assert house.counted("dockmirror_accel_bytes_total", host=DOMAIN) == len(DATA)
    assert house.counted("dockmirror_sent_bytes_total", host=DOMAIN) == len(DATA)
    assert house.counted("dockmirror_cache_sent_bytes_total", upstream="docker") == len(DATA)
    house.through(f"{ACCEL_FIELD}: off")
    assert house.counted("dockmirror_accel_bytes_total", host=DOMAIN) == len(DATA)
    assert house.counted("dockmirror_sent_bytes_total", host=DOMAIN) == 2 * len(DATA)


def test_the_limit_counts_what_was_granted(tmp_path: Path) -> None:
    """A client may have no more bytes from nginx than from the mirror."""
    house = AccelHouse(tmp_path / "cache", access={"bytes": len(DATA)})
    house.hold()
    assert house.through()[LOCATION] == NAME
    response = house.through()
    assert (response.status, response[LOCATION]) == (429, None)


def test_an_upstream_cannot_name_a_file() -> None:
    """Fields of an upstream that nginx obeys reach nobody."""
    internet = Internet()
    house = House(internet)
    fields = ((LOCATION, NAME), ("X-Accel-Buffering", "no"), ("X-Accel-Limit-Rate", "1"))
    path = f"/v2/a/blobs/{Digest.of(b'data')}"
    internet.reply("registry.k8s.io", path, Reply(200, b"data", fields))
    response = house.get(f"k8s.{DOMAIN}", path)
    assert (response.status, response.body) == (200, b"data")
    assert [response[name] for name, _ in fields] == [None] * 3


def test_text_log(tmp_path: Path) -> None:
    house = AccelHouse(tmp_path / "cache", log_format="text")
    house.hold()
    house.through()
    house.through("Range: bytes=x")
    assert [line.endswith(" accel") for line in house.lines] == [True, False]


def rewrite(file: Path) -> None:
    """Replace a file by another one with the same bytes and no seal."""
    data = file.read_bytes()
    file.unlink()
    file.write_bytes(data)


@pytest.mark.parametrize("spoil", [Path.unlink, rewrite, lambda file: os.utime(file)])
def test_a_file_that_changed_since_it_was_opened(house: AccelHouse, spoil: Callable[[Path], object]) -> None:
    """A file that is gone, another one, or no longer sealed at that moment is sent from the open file."""
    file = house.root / layout.data(DIGEST)
    house.registry.before_answer = lambda: spoil(file)
    assert sent_by_mirror(house.through())


def test_a_truncated_file_is_not_left_to_nginx(house: AccelHouse) -> None:
    """It has lost its seal: it is verified, and deleted."""
    assert house.through()[LOCATION] == NAME
    os.truncate(house.root / layout.data(DIGEST), 90_000)
    response = house.through()
    assert (response.status, response[LOCATION]) == (404, None)


def test_a_file_that_the_group_may_not_read(house: AccelHouse) -> None:
    """A store that shares its files with nobody has no names for nginx."""
    house.registry.contents = LocalContentStore(house.root, house.clock, inline)
    assert sent_by_mirror(house.through())
