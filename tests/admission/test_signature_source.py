"""Images that must be signed, pulled through the gate."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dockmirror.admission.signatures import SIGNATURE_ANNOTATION, SIMPLE_SIGNING
from dockmirror.config.settings import ConfigurationError
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import Denied, Unauthorized, Unreachable
from dockmirror.oci.media import OCI_INDEX, OCI_MANIFEST
from dockmirror.oci.request import Blob, Manifest, Referrers, Tag

from ..shelf import FOR_AMD, FOR_ARM, PLACE, UNUSUAL_PLATFORMS, described, image, index
from .test_signatures import BUNDLE_TYPE, DATA, EC, GITHUB, PRIVATE, bundle, simple
from .verdict_gate import GatedShelf, served

SKOPEO_IMAGE = (DATA / "skopeo-image.json").read_bytes()


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "team.pub"
    path.write_bytes(EC.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


def put_blob(gated: GatedShelf, data: bytes) -> None:
    gated.shelf.contents[str(Blob(PLACE, Digest.of(data)))] = data


def signature_manifest(data: bytes, media_type: str, signature: bytes | None = None) -> bytes:
    annotations = {} if signature is None else {SIGNATURE_ANNOTATION: base64.b64encode(signature).decode()}
    layer = described(data, media_type, annotations=annotations)
    config = described(b"{}", "application/vnd.oci.empty.v1+json")
    fields = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer]}
    return json.dumps(fields).encode()


def sign_by_tag(gated: GatedShelf, digest: Digest, **how: Any) -> None:
    """As cosign 2, skopeo and podman do."""
    layer, payload = simple(digest, **how)
    put_blob(gated, payload)
    manifest = signature_manifest(payload, layer.descriptor.media_type or "", layer.signature)
    gated.shelf.put(manifest, Tag(f"sha256-{digest.hex}.sig"))


def list_referrer(gated: GatedShelf, digest: Digest, manifest: bytes, kind: str, target: str) -> None:
    gated.shelf.put(manifest, Digest.of(manifest))
    listed = described(manifest, OCI_MANIFEST, artifactType=kind)
    fields = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [listed]}
    gated.shelf.contents[target] = json.dumps(fields).encode()


def sign_by_referrer(gated: GatedShelf, digest: Digest, **how: Any) -> None:
    """As cosign does with OCI 1.1."""
    layer, payload = simple(digest, **how)
    put_blob(gated, payload)
    manifest = signature_manifest(payload, layer.descriptor.media_type or "", layer.signature)
    kind = "application/vnd.dev.cosign.artifact.sig.v1+json"
    list_referrer(gated, digest, manifest, kind, str(Referrers(PLACE, digest)))


def sign_by_bundle(gated: GatedShelf, digest: Digest, **how: Any) -> None:
    """As cosign 3 does."""
    data = bundle(digest, **how)[1]
    put_blob(gated, data)
    list_referrer(
        gated, digest, signature_manifest(data, BUNDLE_TYPE), BUNDLE_TYPE, str(Referrers(PLACE, digest))
    )


def sign_by_bundle_and_tag(gated: GatedShelf, digest: Digest, **how: Any) -> None:
    """As cosign 3 does at a registry without the referrers API."""
    data = bundle(digest, **how)[1]
    put_blob(gated, data)
    tag = str(Manifest(PLACE, Tag(f"sha256-{digest.hex}")))
    list_referrer(gated, digest, signature_manifest(data, BUNDLE_TYPE), BUNDLE_TYPE, tag)


WAYS = [sign_by_tag, sign_by_referrer, sign_by_bundle, sign_by_bundle_and_tag]
LATEST = Digest.of(served(GatedShelf().pull()))


@pytest.mark.parametrize("sign", WAYS)
def test_a_signed_image_is_served_and_another_is_refused(key: Path, sign: Callable[..., None]) -> None:
    gated = GatedShelf({"signed_by": [str(key)]})
    refused = gated.pull().error
    assert isinstance(refused, Denied)
    assert str(refused) == (
        "library/nginx:latest is not signed by a trusted signer: it has no signature; use a signed version,"
        " or ask the operator to trust its signer"
    ).replace("library/nginx", str(PLACE))
    sign(gated, LATEST)
    assert Digest.of(served(gated.pull())) == LATEST
    assert gated.pull(head=True).get().status == 200
    assert gated.counted == [("signature", "refused")]


@pytest.mark.parametrize("sign", WAYS)
def test_signatures_of_others_do_not_count(key: Path, sign: Callable[..., None]) -> None:
    gated = GatedShelf({"signed_by": [str(key)]})
    sign(gated, LATEST, private=PRIVATE["P-384"])
    assert "it is of another signer than the trusted ones" in str(gated.pull().error)


def test_a_signature_of_skopeo_counts() -> None:
    """It was pushed by skopeo 1.18; see data/README.md."""
    gated = GatedShelf({"signed_by": [str(DATA / "skopeo.pub")]})
    gated.shelf.put(SKOPEO_IMAGE)
    assert isinstance(gated.pull().error, Denied)
    put_blob(gated, (DATA / "skopeo-payload.json").read_bytes())
    tag = Tag(f"sha256-{Digest.of(SKOPEO_IMAGE).hex}.sig")
    gated.shelf.put((DATA / "skopeo-signature.json").read_bytes(), tag)
    assert served(gated.pull()) == SKOPEO_IMAGE


def test_a_signature_is_checked_once(key: Path) -> None:
    """Also across a restart, and not for another key."""
    gated = GatedShelf({"signed_by": [str(key)]})
    sign_by_tag(gated, LATEST)
    served(gated.pull())
    gated.shelf.contents.pop(str(Manifest(PLACE, Tag(f"sha256-{LATEST.hex}.sig"))))
    gated.restart()
    gated.reads()
    served(gated.pull(LATEST))
    assert gated.reads() == [f"GET {Manifest(PLACE, LATEST)}"]
    key.write_bytes(PRIVATE["RSA"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    gated.restart()
    assert isinstance(gated.pull().error, Denied)


@pytest.mark.parametrize("child", [FOR_AMD, FOR_ARM])
def test_the_images_of_a_signed_index_follow_it(key: Path, child: bytes) -> None:
    """The index may have been served by another process; other images of the repository do not follow."""
    gated = GatedShelf({"signed_by": [str(key)]})
    digest, other = Digest.of(child), image(b"amd", b"other")
    assert isinstance(gated.pull(digest).error, Denied)
    sign_by_tag(gated, LATEST)
    served(gated.pull())
    gated.restart()
    assert served(gated.pull(digest)) == child
    gated.shelf.put(other)
    assert isinstance(gated.pull(Digest.of(other)).error, Denied)


def test_the_images_of_an_index_in_a_signed_one_follow_it(key: Path) -> None:
    """Not those of an index that lists the signed one; and an index that was never served has none."""
    gated = GatedShelf({"signed_by": [str(key)]})
    inner = index(amd64=FOR_AMD)
    listed = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [described(inner, OCI_INDEX)]}
    outer = json.dumps(listed).encode()
    above = json.dumps(listed | {"manifests": [described(outer), described(FOR_ARM)]}).encode()
    for each in (inner, above, outer):
        gated.shelf.put(each)
    sign_by_tag(gated, Digest.of(outer))
    served(gated.pull())
    assert isinstance(gated.pull(Digest.of(FOR_AMD)).error, Denied)
    served(gated.pull(Digest.of(inner)))
    gated.restart()
    assert served(gated.pull(Digest.of(FOR_AMD))) == FOR_AMD
    for each in (above, FOR_ARM):
        assert isinstance(gated.pull(Digest.of(each)).error, Denied)


@pytest.mark.parametrize("platform", UNUSUAL_PLATFORMS)
def test_the_images_of_a_signed_index_follow_it_for_any_platform(key: Path, platform: dict[str, str]) -> None:
    """Across a restart, too; and where an earlier version could not read the platform again."""
    gated = GatedShelf({"signed_by": [str(key)]})
    stated = {"os": "linux", "architecture": "amd64"}
    children = [described(FOR_AMD, OCI_MANIFEST, platform=each) for each in (stated, platform)]
    data = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}).encode()
    gated.shelf.put(data)
    sign_by_tag(gated, Digest.of(data))
    served(gated.pull())
    gated.restart()
    assert served(gated.pull(Digest.of(FOR_AMD))) == FOR_AMD
    name = f"parents/docker.io/{PLACE}/sha256/{Digest.of(FOR_AMD).hex}"
    assert len(json.loads(gated.documents.documents[name])) == 2
    gated.documents.documents[name] = json.dumps([[str(Digest.of(data)), "amd64"]]).encode()
    gated.restart()
    assert served(gated.pull(Digest.of(FOR_AMD))) == FOR_AMD


@pytest.mark.parametrize("error", [Unreachable(), Unauthorized()])
def test_a_signature_that_cannot_be_read_refuses(key: Path, error: Exception) -> None:
    """Unless the operator says otherwise."""
    for on_error, is_served in (("refuse", False), ("serve", True)):
        gated = GatedShelf({"signed_by": [str(key)], "on_error": on_error})
        gated.failing = error
        outcome = gated.pull()
        if is_served:
            assert served(outcome)
        else:
            assert "the rule signed_by cannot be checked: " in str(outcome.error)


def test_signatures_themselves_are_served(key: Path) -> None:
    """A client that verifies needs them; no runtime runs them as images."""
    gated = GatedShelf({"signed_by": [str(key)]})
    sign_by_tag(gated, LATEST)
    assert served(gated.pull(f"sha256-{LATEST.hex}.sig"))
    assert gated.pull(f"sha256-{LATEST.hex}.sig", head=True).get().status == 200


ENVELOPE_TYPE = "application/vnd.dsse.envelope.v1+json"


@pytest.mark.parametrize("kind", [SIMPLE_SIGNING, BUNDLE_TYPE, ENVELOPE_TYPE])
def test_what_only_claims_to_be_a_signature_is_refused(key: Path, kind: str) -> None:
    """Runtimes unpack a layer of any type if it is an archive."""
    gated = GatedShelf({"signed_by": [str(key)]})
    put_blob(gated, b'{"payload": ""}')
    gated.shelf.put(signature_manifest(b'{"payload": ""}', kind))
    assert served(gated.pull())
    for data, problem in (
        (gzip.compress(b"layer", mtime=0), "has the type of a signature and is none"),
        (b'{"a": "%b"}' % (b"a" * 1024 * 1024), "has the type of a signature and cannot be read: "),
    ):
        put_blob(gated, data)
        manifest = signature_manifest(data, kind)
        gated.shelf.put(manifest)
        assert f"its layer {Digest.of(data)} {problem}" in str(gated.pull().error)
        sign_by_tag(gated, Digest.of(manifest))
        gated.restart()
        assert served(gated.pull(Digest.of(manifest))) == manifest


def test_a_signature_that_the_registry_does_not_have_is_none(key: Path) -> None:
    """Also for an operator who has images served that cannot be checked."""
    gated = GatedShelf({"signed_by": [str(key)], "on_error": "serve"})
    gated.shelf.put(signature_manifest(b"absent", SIMPLE_SIGNING))
    assert "has the type of a signature and is none" in str(gated.pull().error)


def test_a_manifest_with_very_many_signatures_is_refused(key: Path) -> None:
    gated = GatedShelf({"signed_by": [str(key)]})
    fields = json.loads(signature_manifest(b"{}", SIMPLE_SIGNING))
    fields["layers"] = [described(b'{"a": %d}' % number, SIMPLE_SIGNING) for number in range(33)]
    for layer in range(33):
        put_blob(gated, b'{"a": %d}' % layer)
    gated.shelf.put(json.dumps(fields).encode())
    assert "it has more than 32 layers with signatures, so they are not read" in str(gated.pull().error)
    fields["layers"].pop()
    gated.shelf.put(json.dumps(fields).encode())
    assert served(gated.pull())


def test_a_rule_that_only_warns_serves(key: Path) -> None:
    gated = GatedShelf({"signed_by": [str(key)], "mode": "warn"})
    answer = gated.pull().get()
    assert [name for name, _ in answer.headers] == ["Warning"]
    assert gated.counted == [("signature", "would_refuse")]


def test_a_keyless_signer_in_the_settings() -> None:
    """The published bundle is of another digest, so it does not count for this image."""
    signer = {"issuer": GITHUB, "subject": "https://github.com/bdehamer/*"}
    gated = GatedShelf({"signed_by": [signer]}, trust_root=str(DATA / "trusted_root.json"))
    data = (DATA / "reusable-workflow-attestation.sigstore.json").read_bytes()
    put_blob(gated, data)
    manifest = signature_manifest(data, BUNDLE_TYPE)
    list_referrer(gated, LATEST, manifest, BUNDLE_TYPE, str(Referrers(PLACE, LATEST)))
    assert "it is the signature of another image" in str(gated.pull().error)
    sign_by_bundle(gated, LATEST)
    assert "another signer" in str(gated.pull().error)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("no key", "policy.0.signed_by: expected a public key of RSA, ECDSA or Ed25519 in PEM in "),
        (None, "x.pub cannot be read"),
    ],
)
def test_keys_that_are_none(tmp_path: Path, content: str | None, problem: str) -> None:
    path = tmp_path / "x.pub"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError) as caught:
        GatedShelf({"signed_by": [str(path)]})
    assert problem in str(caught.value)
