"""Exports of images that policies are about: an archive has nothing that the running mirror refuses."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dockmirror.archive.archive_plan import blob_path
from dockmirror.oci.digest import Digest
from dockmirror.oci.request import Repository, Tag
from dockmirror.store import layout
from dockmirror.store.tag_history import TagHistoryFiles, TagRecord

from ..admission.test_signature_source import signature_manifest
from ..admission.test_signatures import EC, simple
from ..archive.packing import files, index, manifest
from .shop import AMD, ARM, CONFIG, INDEX, LAYER, NGINX, Shop

IMAGE = Digest.of(AMD)
ATTESTATION = manifest(b"{}", b"attested")


def export(shop: Shop, tmp_path: Path, policy: str, image: str = "nginx:1.27", code: int = 0) -> str:
    """Export an image under a policy, and return the messages."""
    key, settings, output = tmp_path / "team.pub", tmp_path / "settings.toml", tmp_path / "image.tar"
    key.write_bytes(EC.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    gate = '[gate]\nurl = "https://policy.example/"\n'
    settings.write_text(f'{gate}[[policy]]\nimages = "**"\n{policy.format(key=json.dumps(str(key)))}\n')
    output.unlink(missing_ok=True)
    arguments = ["export", "-c", str(settings), image, "--platform", "linux/amd64", "-o", str(output)]
    result = shop.run(*arguments, code=code)
    assert output.exists() == (code == 0)
    return result.stderr


def sign(shop: Shop, digest: Digest) -> None:
    layer, payload = simple(digest)
    manifest = signature_manifest(payload, layer.descriptor.media_type or "", layer.signature)
    shop.image(NGINX, f"sha256-{digest.hex}.sig", manifest, payload, b"{}")


@pytest.mark.parametrize(
    ("policy", "problem"),
    [
        ("signed_by = [{key}]", "is not signed by a trusted signer: it has no signature"),
        ('platforms = ["linux/amd64"]', None),
        ('platforms = ["linux/s390x"]', "is not allowed by the rule platforms"),
        ("max_size = 100", "is not allowed by the rule max_size"),
        ('max_size = 100\nmode = "warn"', None),
        ("hook = true", "pull the image through the running mirror first"),
        ('hook = true\non_error = "serve"', None),
    ],
)
def test_rules_hold_for_exports(shop: Shop, tmp_path: Path, policy: str, problem: str | None) -> None:
    """Also for the images of an index."""
    printed = export(shop, tmp_path, policy, "nginx:latest", code=0 if problem is None else 1)
    assert problem is None or problem in printed


@pytest.mark.parametrize(("image", "digest"), [("nginx:1.27", IMAGE), ("nginx:latest", Digest.of(INDEX))])
def test_a_signature_in_the_cache_is_verified(shop: Shop, tmp_path: Path, image: str, digest: Digest) -> None:
    sign(shop, digest)
    export(shop, tmp_path, "signed_by = [{key}]", image)


def test_an_unsigned_artifact_is_left_out(shop: Shop, tmp_path: Path) -> None:
    """It may be an image that runs; signatures need no signature, and belong to the signed image."""
    sign(shop, IMAGE)
    subject = {"digest": str(IMAGE), "size": len(AMD)}
    runnable = json.dumps({**json.loads(manifest(CONFIG, LAYER)), "subject": subject}).encode()
    tag = f"sha256-{IMAGE.hex}.att"
    shop.image(NGINX, "", runnable, CONFIG, LAYER)
    shop.image(NGINX, tag, runnable)
    printed = export(shop, tmp_path, "signed_by = [{key}]")
    for reference in (f"@{Digest.of(runnable)}", f":{tag}"):
        assert printed.count(f"left out: library/nginx{reference} is not signed by a trusted signer") == 1
    contents = files((tmp_path / "image.tar").read_bytes())
    assert blob_path(Digest.of(runnable)) not in contents
    listed = json.loads(contents["index.json"])["manifests"]
    names = [each["annotations"]["io.containerd.image.name"] for each in listed]
    assert names == [f"{NGINX}:1.27", f"{NGINX}:sha256-{IMAGE.hex}.sig"]
    assert export(shop, tmp_path, 'signed_by = [{key}]\nmode = "warn"').count("left out") == 0


@pytest.mark.parametrize(("allow", "seconds", "code"), [(True, 60, 0), (False, 60, 1), (True, -60, 1)])
def test_a_kept_verdict_of_the_policy_server_counts(
    shop: Shop, tmp_path: Path, allow: bool, seconds: float, code: int
) -> None:
    """As long as it is valid."""
    server = Digest.of(b"https://policy.example/").hex[:16]
    name = f"verdicts/{server}/docker.io/library/nginx/{IMAGE.algorithm}/{IMAGE.hex}"
    path = shop.root / layout.document(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    now = time.time()
    path.write_text(json.dumps([now - 120, now + seconds, allow, "flaws"]))
    printed = export(shop, tmp_path, "hook = true", code=code)
    assert allow or "is refused by the policy server: flaws" in printed


@pytest.mark.parametrize("image", ["nginx:1.27", f"nginx@{IMAGE}"])
def test_policy_test_says_why_an_image_would_be_refused(shop: Shop, tmp_path: Path, image: str) -> None:
    """A rule is unknown if the cache lacks the image or its signature."""
    export(shop, tmp_path, "signed_by = [{key}]", code=1)
    settings = str(tmp_path / "settings.toml")
    for each in (image, "nginx:absent"):
        (told,) = shop.json("-c", settings, "policy", "test", each)
        assert told["verdict"] == "unknown"
        assert told["why"].startswith("the rule signed_by cannot be checked: ")
    sign(shop, IMAGE)
    (told,) = shop.json("-c", settings, "policy", "test", image)
    assert told["verdict"] == "served"
    export(shop, tmp_path, "max_size = 100", code=1)
    (told,) = shop.json("-c", settings, "policy", "test", image, code=1)
    assert told["verdict"] == "refused"
    assert "is not allowed by the rule max_size" in told["why"]
    export(shop, tmp_path, 'max_size = 100\nmode = "warn"')
    (told,) = shop.json("-c", settings, "policy", "test", image)
    assert (told["verdict"], "max_size" in told["warning"]) == ("served", True)


def test_only_known_digests(shop: Shop, tmp_path: Path) -> None:
    """A digest is known if a tag was served as it."""
    settings = tmp_path / "settings.toml"
    settings.write_text('[[policy]]\nimages = "**"\nmin_age = "7d"\ndigests = "known"\n')
    (told,) = shop.json("-c", str(settings), "policy", "test", f"nginx@{IMAGE}", code=1)
    assert "is not known" in told["why"]
    record = TagRecord().with_sighting(IMAGE, time.time())
    key = "docker", Repository("library/nginx"), Tag("1.27")
    TagHistoryFiles(shop.root).update(key, lambda _: record)
    (told,) = shop.json("-c", str(settings), "policy", "test", f"nginx@{IMAGE}")
    assert told["verdict"] == "served"


def test_an_index_is_judged_with_its_images(shop: Shop, tmp_path: Path) -> None:
    """Images that the cache does not have are unknown, and attestations do not count."""
    settings = tmp_path / "settings.toml"
    whole = index(amd64=AMD, arm64=ARM)
    attested = json.loads(whole)
    attested["manifests"] += json.loads(index(unknown=ATTESTATION))["manifests"]
    attested["manifests"][-1]["platform"]["os"] = "unknown"
    multi = json.dumps(attested).encode()
    shop.image(NGINX, "multi", multi, manifests=[AMD, ARM, ATTESTATION])

    def test(rules: str, image: str = "nginx:multi", code: int = 0) -> Any:
        settings.write_text(f'[[policy]]\nimages = "**"\n{rules}\n')
        (told,) = shop.json("-c", str(settings), "policy", "test", image, code=code)
        return told

    def platforms(told: Any) -> list[tuple[str, str]]:
        return [(each["platform"], each["verdict"]) for each in told["platforms"]]

    for image in ("nginx:multi", f"nginx@{Digest.of(multi)}"):
        refused = test("max_size = 1000", image, code=1)
        assert refused["verdict"] == "refused"
        assert refused["why"].startswith("no image of it is served; linux/amd64: ")
    warned = test("max_size = 1000\nmode = 'warn'")
    assert (warned["verdict"], "max_size" in warned["warning"]) == ("served", True)
    partly = test("max_size = 3000")
    assert (partly["verdict"], platforms(partly)) == ("served", [("linux/amd64", "refused")])
    lines = shop.run("-c", str(settings), "policy", "test", "nginx:multi").stdout
    assert "  linux/amd64: refused: library/nginx@" in lines
    assert "platforms" not in test("max_size = 100000")

    shop.path(Digest.of(ARM)).unlink()
    unknown = test("max_size = 3000")
    assert unknown["verdict"] == "unknown"
    assert platforms(unknown) == [("linux/amd64", "refused"), ("linux/arm64", "unknown")]
    known = test("max_size = 100000")
    assert (known["verdict"], platforms(known)) == ("served", [("linux/arm64", "unknown")])


def test_the_images_of_a_known_index_are_known(shop: Shop, tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text('[[policy]]\nimages = "**"\nmin_age = "7d"\ndigests = "known"\n')
    (told,) = shop.json("-c", str(settings), "policy", "test", "nginx:latest")
    assert told["verdict"] == "served"


def test_an_image_of_an_index_that_needs_a_recalled_layer_is_refused(shop: Shop) -> None:
    shop.run("recall", str(Digest.of(LAYER)), "--reason", "CVE-1", "--yes")
    (told,) = shop.json("policy", "test", "nginx:latest")
    assert [(each["platform"], "CVE-1" in each["why"]) for each in told["platforms"]] == [
        ("linux/amd64", True)
    ]
