"""Images as archives over HTTP."""

# mypy: allow-untyped-calls

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

import pytest

from dockmirror.oci.digest import Digest
from tests.fakes import Reply
from tests.house import Answer, House
from tests.internet import HUB, PRIVATE, Internet

OWN = "mirror.example"
CONFIG = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers"}}).encode()
LAYER = bytes(range(256)) * 400
OCI = "application/vnd.oci.image"


def described(kind: str, data: bytes, **more: Any) -> dict[str, Any]:
    """A descriptor of these bytes."""
    return {"mediaType": kind, "digest": str(Digest.of(data)), "size": len(data), **more}


class Shop(Internet):
    """Has an image for two platforms, ``team/app:1``, at registry.k8s.io."""

    def __init__(self) -> None:
        super().__init__()
        self.k8s = self.registries["k8s"]
        self.layers = [LAYER, LAYER[::-1]]
        self.manifests = [self._manifest(layer) for layer in self.layers]
        platforms = [{"os": "linux", "architecture": each} for each in ("amd64", "arm64")]
        children = [
            described(f"{OCI}.manifest.v1+json", manifest, platform=platform)
            for manifest, platform in zip(self.manifests, platforms, strict=True)
        ]
        index = {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": children}
        for number, manifest in enumerate(self.manifests):
            self.k8s.push("team/app", f"child{number}", manifest)
        self.index = json.dumps(index).encode()
        self.k8s.push("team/app", "1", self.index)

    def _manifest(self, layer: bytes) -> bytes:
        for data in (CONFIG, layer):
            self.k8s.add("team/app", data)
        return json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": f"{OCI}.manifest.v1+json",
                "config": described(f"{OCI}.config.v1+json", CONFIG),
                "layers": [described(f"{OCI}.layer.v1.tar", layer)],
            }
        ).encode()


@pytest.fixture
def shop() -> Shop:
    """The registries."""
    return Shop()


@pytest.fixture
def house(shop: Shop) -> House:
    """A mirror that exports."""
    return House(shop, export=True)


def export(house: House, query: str, *headers: str, method: str = "GET") -> Answer:
    """Return the response to an export."""
    return house.ask(method, OWN, f"/export?{query}", *headers)


def files(archive: bytes) -> dict[str, bytes]:
    """Return the files of an archive."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        found = {each.name: opened.extractfile(each) for each in opened if each.isfile()}
        return {name: file.read() for name, file in found.items() if file}


def test_one_platform(house: House, shop: Shop) -> None:
    """The archive of one platform has only its contents, a file name, and a length known beforehand."""
    answer = export(house, "image=registry.k8s.io/team/app:1&platform=linux/arm64")
    assert (answer.status, answer["Content-Type"]) == (200, "application/x-tar")
    assert int(str(answer["Content-Length"])) == len(answer.body)
    assert answer["Content-Disposition"] == 'attachment; filename="app.tar"'
    found = files(answer.body)
    blobs = {bytes(data) for name, data in found.items() if name.startswith("blobs/")}
    assert blobs == {shop.manifests[1], CONFIG, shop.layers[1]}
    (saved,) = json.loads(found["manifest.json"])
    assert saved["RepoTags"] == ["registry.k8s.io/team/app:1"]


def test_all_platforms(house: House, shop: Shop) -> None:
    """Without ``platform`` the archive has all platforms."""
    found = files(export(house, "image=registry.k8s.io/team/app:1").body)
    blobs = {data for name, data in found.items() if name.startswith("blobs/")}
    assert blobs == {shop.index, *shop.manifests, CONFIG, *shop.layers}


def test_a_head(house: House, shop: Shop) -> None:
    """HEAD states the whole length, also with a range, and fetches no blob."""
    answer = export(house, "image=registry.k8s.io/team/app:1", method="HEAD")
    assert answer.status == 200
    assert int(str(answer["Content-Length"])) > 2 * len(LAYER)
    part = export(house, "image=registry.k8s.io/team/app:1", "Range: bytes=5-", method="HEAD")
    assert (part.status, part["Content-Length"]) == (200, answer["Content-Length"])
    assert not any("/blobs/" in seen.path for seen in shop.seen)


def test_a_download_that_goes_on(house: House) -> None:
    """A download resumes at any offset, but only of the same archive."""
    query = "image=registry.k8s.io/team/app:1"
    whole = export(house, query)
    size = len(whole.body)
    for start in (0, 1, 511, size // 3, size // 2, size - 1):
        for condition in ((), (f"If-Range: {whole['ETag']}",)):
            rest = export(house, query, f"Range: bytes={start}-", *condition)
            assert rest.status == 206
            assert rest["Content-Range"] == f"bytes {start}-{size - 1}/{size}"
            assert rest.body == whole.body[start:]
    other = export(house, query, "Range: bytes=5-", 'If-Range: "other"')
    assert (other.status, other.body) == (200, whole.body)
    beyond = export(house, query, f"Range: bytes={size}-")
    assert beyond.error[0] == 416
    assert beyond["Content-Range"] == f"bytes */{size}"


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("image=registry.k8s.io/team/app:2", 404),
        ("image=registry.k8s.io/team/app:1&platform=linux/s390x", 404),
        ("image=registry.k8s.io/team/app:1&platform=linux", 400),
        ("image=", 400),
        ("", 400),
        ("image=A%20B", 400),
        (f"image=quay.io/{PRIVATE}:latest", 403),
        ("image=unknown.example/a:1", 404),
    ],
)
def test_what_is_not_given(house: House, query: str, status: int) -> None:
    """Errors are the registry's own, such as for private images."""
    answer = export(house, query)
    assert answer.error[0] == status
    assert answer["Content-Disposition"] is None


def test_a_blob_that_is_not_there(house: House, shop: Shop) -> None:
    """Cuts the archive off; it is never completed."""
    shop.reply("registry.k8s.io", f"/v2/team/app/blobs/{Digest.of(LAYER)}", Reply(404, b"{}"))
    answer = export(house, "image=registry.k8s.io/team/app:1")
    assert answer.status == 200
    assert not answer.whole


def test_manifests_that_are_too_large(house: House, shop: Shop) -> None:
    """Manifests that are too large are rejected before all of them are read."""
    filling = "x" * 4_000_000
    manifests = [
        json.dumps(
            {"mediaType": f"{OCI}.index.v1+json", "manifests": [], "filling": f"{n}{filling}"}
        ).encode()
        for n in range(12)
    ]
    for number, manifest in enumerate(manifests):
        shop.k8s.push("team/large", f"child{number}", manifest)
    children = [described(f"{OCI}.index.v1+json", each) for each in manifests]
    index = {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": children}
    shop.k8s.push("team/large", "1", json.dumps(index).encode())
    answer = export(house, "image=registry.k8s.io/team/large:1")
    assert answer.error == (413, "SIZE_INVALID")
    assert "too large to be exported" in answer.message
    assert len([seen for seen in shop.seen if "/team/large/" in seen.path]) == 10


def test_only_where_it_is_wanted(shop: Shop, house: House) -> None:
    """Export works on the own host only, for allowed clients, if the operator enables it."""
    elsewhere = House(shop).get(OWN, "/export?image=registry.k8s.io/team/app:1")
    assert elsewhere.error == (404, "UNSUPPORTED")
    assert "'export' is not set" in elsewhere.message
    assert house.get("k8s.mirror.example", "/export?image=registry.k8s.io/team/app:1").status == 404
    assert house.connect("8.8.8.8").ask("GET", OWN, "/export?image=nginx").answer.status == 403
    assert export(house, "image=nginx", method="POST").error == (405, "UNSUPPORTED")
    assert shop.asked(HUB) == []
