"""The limits on images: for manifests and indexes of all shapes, and on images pulled through the gate."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dockmirror.admission.image_limits import ImageLimits, check_image
from dockmirror.config.settings import ConfigurationError
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import Denied
from dockmirror.oci.manifest import ManifestDocument, Platform
from dockmirror.oci.media import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, SIGNED

from ..shelf import ATTESTED, FOR_AMD, FOR_ARM, UNUSUAL_PLATFORMS
from ..shelf import image as shelf_image
from ..shelf import index as shelf_index
from .verdict_gate import GatedShelf, served

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"
WASM = "application/wasm"
OCI_FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
DOCKER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
AMD64, ARM64, UNKNOWN = Platform("linux", "amd64"), Platform("linux", "arm64"), Platform("unknown", "unknown")


def content(
    number: int, media_type: str = LAYER, size: int | None = 1_000_000, **more: Any
) -> dict[str, Any]:
    digest = f"sha256:{number:064x}"
    return {"mediaType": media_type, "digest": digest, **({} if size is None else {"size": size}), **more}


def image(
    *layers: dict[str, Any], config: str = CONFIG, media_type: str = OCI_MANIFEST, **more: Any
) -> bytes:
    fields = {"schemaVersion": 2, "mediaType": media_type, "config": content(0, config, **more)}
    return json.dumps(fields | {"layers": layers}).encode()


def ambiguous() -> bytes:
    """An image with small layers, and with large ones for clients that pay no regard to case."""
    fields = json.loads(image(content(1)))
    return json.dumps(fields | {"Layers": [content(2, size=10**9)]}).encode()


def index(*platforms: Platform, **more: Any) -> bytes:
    children = [
        content(number, OCI_MANIFEST, platform={"os": each.os, "architecture": each.architecture}, **more)
        for number, each in enumerate(platforms)
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}).encode()


ONLY_AMD64 = ImageLimits(platforms=[AMD64])
SMALL = ImageLimits(max_size=3_000_000)
IMAGES_ONLY = ImageLimits(media_types=["application/vnd.oci.image.*"])
NOTHING_FOREIGN = ImageLimits(foreign_layers=False)
ELSEWHERE: dict[str, Any] = {"urls": ["https://elsewhere.example/layer"]}


@pytest.mark.parametrize(
    ("limits", "manifest", "problem"),
    [
        (ImageLimits(), index(ARM64), ""),
        (ImageLimits(), b"no manifest", ""),
        (ONLY_AMD64, index(ARM64, AMD64), ""),
        (ONLY_AMD64, index(ARM64, UNKNOWN), "it is for linux/arm64, and the allowed platforms"),
        (ONLY_AMD64, index(UNKNOWN), ""),
        (ONLY_AMD64, image(content(1)), ""),
        (SMALL, image(content(1), content(2)), ""),
        (SMALL, image(content(1), content(1), content(2)), ""),
        (SMALL, image(content(1), content(2), content(3)), "its 4.0 MB are more than the allowed 3.0 MB"),
        (SMALL, image(content(1, size=None)), "its manifest does not state the size of each layer"),
        (SMALL, image(content(1, size=-5_000_000), content(2)), "its manifest does not state the size"),
        (SMALL, image(content(1), content(1, size=3_000_000)), "its 4.0 MB are more than the allowed 3.0 MB"),
        (SMALL, image(content(1, size=3_000_000, **ELSEWHERE)), "its 4.0 MB are more than"),
        (SMALL, image(content(1, OCI_FOREIGN, 3_000_000)), "its 4.0 MB are more than the allowed 3.0 MB"),
        (SMALL, image(content(1, OCI_FOREIGN, 3_000_000, **ELSEWHERE)), ""),
        (SMALL, image(content(1, DOCKER_FOREIGN, 3_000_000, **ELSEWHERE)), ""),
        (SMALL, image(*(content(1, OCI_FOREIGN, 3_000_000, **more) for more in ({}, ELSEWHERE))), "its 4.0"),
        (ImageLimits(max_size=10), image(size=11), "its 11 B are more than the allowed 10 B"),
        (SMALL, index(AMD64, size=10**9, **ELSEWHERE), ""),
        (SMALL, index(AMD64, ARM64, UNKNOWN, AMD64), ""),
        (SMALL, b"no manifest", "its manifest is of an unknown type"),
        (SMALL, json.dumps({"schemaVersion": 1, "mediaType": SIGNED}).encode(), "its manifest is of an"),
        (SMALL, ambiguous(), "its manifest is of an unknown type, or can be read"),
        (IMAGES_ONLY, image(content(1)), ""),
        (IMAGES_ONLY, index(AMD64), ""),
        (IMAGES_ONLY, image(content(1, WASM)), "it has a content of type application/wasm, which"),
        (IMAGES_ONLY, image(config="application/vnd.helm"), "it has a content of type application/vnd.helm"),
        (IMAGES_ONLY, image(media_type=DOCKER_MANIFEST), f"it has a content of type {DOCKER_MANIFEST}"),
        (IMAGES_ONLY, image(content(1, "")), "it has a content without a type"),
        (IMAGES_ONLY, image(content(1, WASM, **ELSEWHERE)), "it has a content of type application/wasm"),
        (IMAGES_ONLY, image(content(1), content(1, WASM)), "it has a content of type application/wasm"),
        (IMAGES_ONLY, image(content(1, OCI_FOREIGN, **ELSEWHERE)), ""),
        (NOTHING_FOREIGN, image(content(1)), ""),
        (NOTHING_FOREIGN, image(content(1), content(2, **ELSEWHERE)), "it has contents that"),
        (NOTHING_FOREIGN, image(**ELSEWHERE), "it has contents that"),
        (NOTHING_FOREIGN, index(AMD64, **ELSEWHERE), "it has contents that"),
    ],
)  # fmt: skip
def test_limits(limits: ImageLimits, manifest: bytes, problem: str) -> None:
    found = check_image(limits, ManifestDocument.parse(manifest)).problem
    assert found.startswith(problem)
    assert bool(found) == bool(problem)


@pytest.mark.parametrize(("platform", "is_allowed"), [(AMD64, True), (ARM64, False), (UNKNOWN, True)])
def test_an_image_of_an_index_is_for_the_platform_that_the_index_states(
    platform: Platform, is_allowed: bool
) -> None:
    assert (
        check_image(ONLY_AMD64, ManifestDocument.parse(image(content(1))), [platform]).problem == ""
    ) == is_allowed


@pytest.mark.parametrize(
    ("policies", "rule"),
    [
        ([{"platforms": ["linux/amd64"]}], None),
        ([{"platforms": "linux/s390x linux/ppc64le"}], "platforms"),
        ([{"images": "docker.io/**", "platforms": ["linux/amd64"]}, {"platforms": ["linux/s390x"]}], None),
        ([{"images": "ghcr.io/**", "platforms": "linux/amd64"}, {"platforms": "linux/s390x"}], "platforms"),
        ([{"media_types": ["application/vnd.oci.*"]}], None),
        ([{"media_types": ["application/vnd.docker.*"]}], "media_types"),
        ([{"foreign_layers": False, "max_size": "1GB"}], None),
        ([{"media_types": ["x/*"], "mode": "off"}], None),
    ],
)  # fmt: skip
def test_limits_of_an_index(policies: list[dict[str, Any]], rule: str | None) -> None:
    """For GET and HEAD alike."""
    gated = GatedShelf(*policies)
    for head in (False, True):
        outcome = gated.pull(head=head)
        assert (outcome.get().status == 200) if rule is None else isinstance(outcome.error, Denied)
    assert gated.counted == ([] if rule is None else [(rule, "refused")] * 2)


@pytest.mark.parametrize(
    ("child", "is_served"), [(FOR_AMD, True), (FOR_ARM, False), (ATTESTED, True)]
)  # fmt: skip
def test_images_of_an_index_are_for_the_platform_that_it_states(child: bytes, is_served: bool) -> None:
    gated = GatedShelf({"platforms": ["linux/amd64"]})
    served(gated.pull())
    gated.restart()
    outcome = gated.pull(Digest.of(child))
    assert served(outcome) if is_served else isinstance(outcome.error, Denied)


@pytest.mark.parametrize("platform", UNUSUAL_PLATFORMS)
def test_an_image_for_a_platform_that_is_not_allowed_is_refused_after_a_restart(
    platform: dict[str, str],
) -> None:
    gated = GatedShelf({"platforms": ["linux/amd64"]})
    data = json.loads(shelf_index(amd64=FOR_AMD, arm=FOR_ARM))
    data["manifests"][1]["platform"] = platform
    gated.shelf.put(json.dumps(data).encode())
    served(gated.pull())
    gated.restart()
    assert isinstance(gated.pull(Digest.of(FOR_ARM)).error, Denied)


def test_the_size_of_an_image() -> None:
    gated = GatedShelf({"max_size": 8})
    assert served(gated.pull(Digest.of(FOR_AMD)))
    tight = GatedShelf({"max_size": 7})
    assert "is not allowed by the rule max_size: its 8 B are more than the allowed 7 B" in str(
        tight.pull(Digest.of(FOR_AMD)).error
    )
    assert served(tight.pull())


@pytest.mark.parametrize(
    "policy",
    [
        {"max_size": "1GB"},
        {"media_types": ["**"]},
        {"platforms": ["linux/amd64"]},
        {"foreign_layers": False},
        {"signed_by": [{"issuer": "https://issuer.example", "subject": "*"}]},
    ],
)
def test_a_manifest_that_can_be_read_in_different_ways_is_refused(policy: dict[str, Any]) -> None:
    """With a signature's layer for one program, and an image's for another."""
    gated = GatedShelf(policy)
    layers = b'"Layers":[],"layers":[{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json",'
    data = shelf_image(b"amd", b"{}").replace(b'"layers": [{"mediaType": "",', layers)
    assert layers in data
    gated.shelf.put(data)
    assert isinstance(gated.pull().error, Denied)
    open_for_all = GatedShelf()
    open_for_all.shelf.put(data)
    assert served(open_for_all.pull()) == data


def test_a_platform_that_is_none() -> None:
    with pytest.raises(ConfigurationError, match="expected a platform such as linux/amd64"):
        GatedShelf({"platforms": ["amd64"]})
