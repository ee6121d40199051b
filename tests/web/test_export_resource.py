"""Images as archives over HTTP."""

# mypy: allow-untyped-calls

from __future__ import annotations

import json

import pytest

from dockmirror.oci.digest import Digest
from dockmirror.oci.media import OCI_INDEX
from tests.archive.packing import described, files, index, manifest
from tests.fakes import Reply
from tests.house import Answer, House
from tests.internet import HUB, PRIVATE, Internet

OWN = "mirror.example"
CONFIG = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers"}}).encode()
LAYER = bytes(range(256)) * 400
IMAGE = "image=registry.k8s.io/team/app:1"


class Shop(Internet):
    """Registries with an image for two platforms, ``team/app:1``, at registry.k8s.io."""

    def __init__(self) -> None:
        super().__init__()
        self.k8s = self.registries["k8s"]
        self.layers = [LAYER, LAYER[::-1]]
        self.manifests = [manifest(CONFIG, layer) for layer in self.layers]
        for blob in (CONFIG, *self.layers):
            self.k8s.add("team/app", blob)
        for number, each in enumerate(self.manifests):
            self.k8s.push("team/app", f"child{number}", each)
        self.index = index(**dict(zip(("amd64", "arm64"), self.manifests, strict=True)))
        self.k8s.push("team/app", "1", self.index)


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def house(shop: Shop) -> House:
    return House(shop, export=True)


def export(house: House, query: str, *headers: str, method: str = "GET") -> Answer:
    """Return the response to an export."""
    return house.ask(method, OWN, f"/export?{query}", *headers)


def test_an_archive_of_one_platform_has_only_its_contents(house: House, shop: Shop) -> None:
    """It has a file name, and a length that is known beforehand."""
    answer = export(house, "image=registry.k8s.io/team/app:1&platform=linux/arm64")
    assert (answer.status, answer["Content-Type"]) == (200, "application/x-tar")
    assert int(str(answer["Content-Length"])) == len(answer.body)
    assert answer["Content-Disposition"] == 'attachment; filename="app.tar"'
    found = files(answer.body)
    blobs = {data for name, data in found.items() if name.startswith("blobs/")}
    assert blobs == {shop.manifests[1], CONFIG, shop.layers[1]}
    (saved,) = json.loads(found["manifest.json"])
    assert saved["RepoTags"] == ["registry.k8s.io/team/app:1"]


def test_a_platform_of_a_digest_has_its_own_name(house: House, shop: Shop) -> None:
    query = f"image=registry.k8s.io/team/app@{Digest.of(shop.index)}&platform=linux/arm64"
    (listed,) = json.loads(files(export(house, query).body)["index.json"])["manifests"]
    name = listed["annotations"]["io.containerd.image.name"]
    assert name == f"registry.k8s.io/team/app@{Digest.of(shop.manifests[1])}"


def test_an_archive_has_all_platforms_by_default(house: House, shop: Shop) -> None:
    found = files(export(house, IMAGE).body)
    blobs = {data for name, data in found.items() if name.startswith("blobs/")}
    assert blobs == {shop.index, *shop.manifests, CONFIG, *shop.layers}


def test_a_head_states_the_length_and_fetches_no_blob(house: House, shop: Shop) -> None:
    head, part = (export(house, IMAGE, *ranges, method="HEAD") for ranges in ((), ("Range: bytes=5-",)))
    assert (head.status, part.status, part["Content-Length"]) == (200, 200, head["Content-Length"])
    assert int(str(head["Content-Length"])) > 2 * len(LAYER)
    assert not any("/blobs/" in seen.path for seen in shop.seen)


def test_a_download_of_the_same_archive_can_be_resumed(house: House) -> None:
    whole = export(house, IMAGE)
    size = len(whole.body)
    for start in (0, 511, size // 3, size - 1):
        for condition in ((), (f"If-Range: {whole['ETag']}",)):
            rest = export(house, IMAGE, f"Range: bytes={start}-", *condition)
            assert (rest.status, rest["Content-Range"]) == (206, f"bytes {start}-{size - 1}/{size}")
            assert rest.body == whole.body[start:]
    other = export(house, IMAGE, "Range: bytes=5-", 'If-Range: "other"')
    assert (other.status, other.body) == (200, whole.body)
    beyond = export(house, IMAGE, f"Range: bytes={size}-")
    assert (beyond.status, beyond["Content-Range"]) == (416, f"bytes */{size}")


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("image=registry.k8s.io/team/app:2", 404),
        (f"{IMAGE}&platform=linux/s390x", 404),
        (f"{IMAGE}&platform=linux", 400),
        ("image=", 400),
        ("", 400),
        ("image=A%20B", 400),
        (f"image=quay.io/{PRIVATE}:latest", 403),
        ("image=unknown.example/a:1", 404),
    ],
)
def test_an_error_of_the_registry_is_the_answer(house: House, query: str, status: int) -> None:
    answer = export(house, query)
    assert answer.error[0] == status
    assert answer["Content-Disposition"] is None


def test_a_missing_blob_cuts_the_archive_off(house: House, shop: Shop) -> None:
    shop.reply("registry.k8s.io", f"/v2/team/app/blobs/{Digest.of(LAYER)}", Reply(404, b"{}"))
    answer = export(house, IMAGE)
    assert (answer.status, answer.whole) == (200, False)


def test_manifests_that_are_too_large_are_refused_before_all_are_read(house: House, shop: Shop) -> None:
    fields = {"mediaType": OCI_INDEX, "manifests": []}
    indexes = [json.dumps({**fields, "filling": f"{n}{'x' * 4_000_000}"}).encode() for n in range(12)]
    for number, each in enumerate(indexes):
        shop.k8s.push("team/large", f"child{number}", each)
    children = [described(each, OCI_INDEX) for each in indexes]
    shop.k8s.push("team/large", "1", json.dumps({**fields, "manifests": children}).encode())
    answer = export(house, "image=registry.k8s.io/team/large:1")
    assert answer.error == (413, "SIZE_INVALID")
    assert "too large to be exported" in answer.message
    assert len([seen for seen in shop.seen if "/team/large/" in seen.path]) == 10


def test_export_works_on_the_own_host_if_the_operator_enables_it(shop: Shop, house: House) -> None:
    disabled = House(shop).get(OWN, f"/export?{IMAGE}")
    assert disabled.error == (404, "UNSUPPORTED")
    assert "'export' is not set" in disabled.message
    assert house.get("k8s.mirror.example", f"/export?{IMAGE}").status == 404
    assert house.connect("8.8.8.8").ask("GET", OWN, "/export?image=nginx").answer.status == 403
    assert export(house, "image=nginx", method="POST").error == (405, "UNSUPPORTED")
    assert shop.asked(HUB) == []
