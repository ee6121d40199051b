"""Signatures of images, made here with real keys, and a published one without a key."""

from __future__ import annotations

import base64
import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dockmirror.admission.signature_source import KeylessVerifier
from dockmirror.admission.signatures import (
    BUNDLE,
    SIGNATURE_ANNOTATION,
    SIMPLE_SIGNING,
    Identity,
    PublicKey,
    SignatureInvalid,
    SignatureLayer,
    Signers,
    claims_to_be_signatures,
    is_signature_document,
    parse_signature_layers,
    verify_layer,
)
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.manifest import ManifestDocument

DATA = Path(__file__).parent / "data"
IMAGE, OTHER = Digest.of(b"image"), Digest.of(b"other")
SIGNED_WORKFLOW = Digest.parse("sha256:07e4b8c0e3580b3e4a1eb62c70f1ffb86004d3d94f50767cb404fa7a639b4d05")
GITHUB = "https://token.actions.githubusercontent.com"
COSIGN = "https://sigstore.dev/cosign/sign/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
BUNDLE_TYPE = f"{BUNDLE}.v0.3+json"

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
EC = ec.generate_private_key(ec.SECP256R1())
PRIVATE: dict[str, PrivateKey] = {
    "P-256": EC,
    "P-384": ec.generate_private_key(ec.SECP384R1()),
    "RSA": rsa.generate_private_key(65537, 2048),
    "Ed25519": ed25519.Ed25519PrivateKey.generate(),
}


def public(private: PrivateKey, name: str = "team.pub") -> PublicKey:
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return PublicKey.parse(name, pem)


def sign(private: PrivateKey, data: bytes) -> bytes:
    match private:
        case ec.EllipticCurvePrivateKey():
            return private.sign(data, ec.ECDSA(SHA256()))
        case rsa.RSAPrivateKey():
            return private.sign(data, padding.PKCS1v15(), SHA256())
        case ed25519.Ed25519PrivateKey():
            return private.sign(data)


def simple(digest: Digest = IMAGE, private: PrivateKey = EC, **changed: Any) -> tuple[SignatureLayer, bytes]:
    """A signature in the form of simple signing, and the bytes of its layer."""
    critical = {
        "identity": {"docker-reference": "registry.example/app"},
        "image": {"docker-manifest-digest": str(digest)},
        "type": "cosign container image signature",
    }
    payload = json.dumps({"critical": critical | changed, "optional": None}).encode()
    return SignatureLayer(Descriptor(SIMPLE_SIGNING), sign(private, payload)), payload


def bundle(
    digest: Digest = IMAGE,
    predicate: str = COSIGN,
    private: PrivateKey = EC,
    payload_type: str = "application/vnd.in-toto+json",
    statement_type: str = "https://in-toto.io/Statement/v1",
) -> tuple[SignatureLayer, bytes]:
    """A bundle that a key has signed, as cosign 3 writes it, and the bytes of its layer."""
    statement = {
        "_type": statement_type,
        "subject": [{"name": "", "digest": {digest.algorithm: digest.hex}}],
        "predicateType": predicate,
        "predicate": {},
    }
    payload = json.dumps(statement).encode()
    signed = f"DSSEv1 {len(payload_type)} {payload_type} {len(payload)} ".encode() + payload
    fields = {
        "mediaType": BUNDLE_TYPE,
        "verificationMaterial": {"publicKey": {"hint": ""}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": payload_type,
            "signatures": [{"sig": base64.b64encode(sign(private, signed)).decode()}],
        },
    }
    return SignatureLayer(Descriptor(BUNDLE_TYPE)), json.dumps(fields).encode()


def keyless(identity: Identity, digest: Digest = SIGNED_WORKFLOW, data: bytes | None = None) -> str:
    verifier = KeylessVerifier(DATA / "trusted_root.json", lambda: 0.0)
    data = data or (DATA / "reusable-workflow-attestation.sigstore.json").read_bytes()
    layer = SignatureLayer(Descriptor(BUNDLE_TYPE))
    return verify_layer(layer, data, digest, Signers(identities=[identity]), verifier.verify)[1]


def no_library(*_: object) -> Any:
    raise AssertionError("a key needs no library")


def verify(signed: tuple[SignatureLayer, bytes], *keys: PublicKey) -> str:
    return verify_layer(*signed, IMAGE, Signers(keys or [public(EC)]), no_library)[1]


@pytest.mark.parametrize("make", [simple, bundle])
@pytest.mark.parametrize("kind", PRIVATE)
def test_a_key_verifies_its_signature(make: Any, kind: str) -> None:
    """Any of the trusted keys is enough."""
    signed = make(private=PRIVATE[kind])
    keys = [public(each, name) for name, each in PRIVATE.items()]
    assert verify(signed, *keys) == f"the key {kind}"
    with pytest.raises(SignatureInvalid, match="another signer"):
        verify(signed, *(key for key in keys if key.name != kind))


@pytest.mark.parametrize(
    ("signed", "reason"),
    [
        (simple(OTHER), "signature of another image"),
        (simple(type="atomic container signature"), "signature of another image"),
        (simple(image=None), "names no image"),
        (bundle(OTHER), "signature of another image"),
        (bundle(predicate="https://cosign.sigstore.dev/attestation/vuln/v1"), "neither a signature nor"),
        (bundle(payload_type="text/plain"), "no in-toto statement"),
        (bundle(statement_type="https://example.com/"), "no in-toto statement"),
        ((simple()[0], simple(OTHER)[1]), "another signer"),
        ((SignatureLayer(Descriptor(SIMPLE_SIGNING)), b"{}"), "another signer"),
        ((SignatureLayer(Descriptor(BUNDLE_TYPE)), b"["), "not JSON"),
        ((SignatureLayer(Descriptor(BUNDLE_TYPE)), b"[" * 100_000), "not JSON"),
        ((SignatureLayer(Descriptor(BUNDLE_TYPE)), b"{}"), "only keys are trusted"),
        (
            (SignatureLayer(Descriptor(BUNDLE_TYPE)), b'{"verificationMaterial":{"publicKey":{}}}'),
            "its bundle has no signature",
        ),
        (
            (
                SignatureLayer(Descriptor(BUNDLE_TYPE)),
                b'{"verificationMaterial":{"publicKey":{}},"dsseEnvelope":{"signatures":[{"sig":"!"}]}}',
            ),
            "another signer",
        ),
    ],
)
def test_signatures_that_do_not_count(signed: tuple[SignatureLayer, bytes], reason: str) -> None:
    with pytest.raises(SignatureInvalid, match=reason):
        verify(signed)


def test_provenance_counts_as_a_signature() -> None:
    assert verify(bundle(predicate=PROVENANCE)) == "the key team.pub"


@pytest.mark.parametrize("subject", ["https://github.com/bdehamer/*", "*@refs/heads/main"])
def test_a_published_bundle_is_verified_without_a_key(subject: str) -> None:
    assert keyless(Identity(GITHUB, subject)) == f"{subject} of {GITHUB}"


@pytest.mark.parametrize(
    ("identity", "digest", "changed", "reason"),
    [
        (Identity(GITHUB, "https://github.com/somebody/*"), SIGNED_WORKFLOW, b"", "who is not trusted"),
        (Identity("https://accounts.google.com", "*"), SIGNED_WORKFLOW, b"", "who is not trusted"),
        (Identity(GITHUB, "*"), IMAGE, b"", "signature of another image"),
        (Identity(GITHUB, "*"), SIGNED_WORKFLOW, b'"integratedTime": "1716332177"', "its bundle is invalid"),
        (Identity(GITHUB, "*"), SIGNED_WORKFLOW, b'"sig": "MEUCIQCj', "its bundle is invalid"),
        (Identity(GITHUB, "*"), SIGNED_WORKFLOW, b'"kind": "dsse"', "its bundle is invalid"),
    ],
)
def test_a_published_bundle_is_refused(
    identity: Identity, digest: Digest, changed: bytes, reason: str
) -> None:
    """For other signers, for another image, and where one value of it was changed."""
    data = (DATA / "reusable-workflow-attestation.sigstore.json").read_bytes()
    if changed:
        assert changed in data
        data = data.replace(changed, changed[:-4] + b"0" + changed[-3:])
    with pytest.raises(SignatureInvalid, match=reason):
        keyless(identity, digest, data)


def test_a_file_that_is_no_root_of_trust() -> None:
    verifier = KeylessVerifier(DATA / "README.md", lambda: 0.0)
    with pytest.raises(OSError, match=r"README\.md is no root of trust"):
        verifier.verify(b"{}", [Identity(GITHUB, "*")])


def layer(media_type: str, **annotations: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(IMAGE), "size": 5, "annotations": annotations}


@pytest.mark.parametrize(
    ("layers", "signatures", "is_only_signatures"),
    [
        ([layer(SIMPLE_SIGNING, **{SIGNATURE_ANNOTATION: "c2ln"})], [b"sig"], True),
        ([layer(SIMPLE_SIGNING)], [b""], True),
        ([layer(BUNDLE_TYPE)], [None], True),
        ([layer("application/vnd.dsse.envelope.v1+json")], [], True),
        ([layer(BUNDLE_TYPE) | {"urls": ["https://elsewhere.example/"]}], [None], False),
        ([layer(BUNDLE_TYPE), layer("application/vnd.oci.image.layer.v1.tar")], [None], False),
        ([], [], False),
        ([7], [], False),
        ("x", [], False),
    ],
)
def test_layers_with_signatures(
    layers: Any, signatures: list[bytes | None], is_only_signatures: bool
) -> None:
    config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": str(OTHER), "size": 2}
    manifest = json.dumps({"schemaVersion": 2, "config": config, "layers": layers}).encode()
    assert [each.signature for each in parse_signature_layers(manifest)] == signatures
    document = ManifestDocument.parse(manifest)
    assert (document is not None and claims_to_be_signatures(document)) == is_only_signatures


def archive_of_texts(end: bytes) -> bytes:
    """Return a tar archive with one file, whose name begins, and whose contents end, with this text."""
    header = bytearray(tarfile.TarInfo('{"' + "a" * 98).tobuf(tarfile.USTAR_FORMAT))
    header[100:148] = b"0000644 0000000 0000000 00000001000 00000000000 "
    header[157:512] = b"a" * 172 + b" " * 16 + b"a" * 167
    header[148:156] = b"%07o " % (sum(header[:148]) + 8 * 32 + sum(header[156:]))
    return bytes(header) + b"#!/bin/sh -c id".ljust(512 - len(end), b"a") + end


@pytest.mark.parametrize(
    ("data", "is_document"),
    [
        (b'{"critical": {}}', True),
        (json.dumps({"a": "x" * 2000}).encode(), True),
        (b' {"a": "7"}'.ljust(600), True),
        (bundle(IMAGE)[1], True),
        (b"[]", False),
        (b"", False),
        (b"{" * 50_000, False),
        ('{"a": "b"}'.encode("utf-16"), False),
        (gzip.compress(b"{}", mtime=0), False),
        (archive_of_texts(b'":7}'), False),
        (archive_of_texts(b"a"), False),
    ],
)
def test_only_a_json_object_that_is_no_archive_is_a_signature(data: bytes, is_document: bool) -> None:
    assert is_signature_document(data) == is_document


def test_an_archive_can_be_a_json_object() -> None:
    data = archive_of_texts(b'":7}')
    assert isinstance(json.loads(data), dict)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        extracted = archive.extractfile(archive.getmembers()[0])
        assert extracted is not None
        assert extracted.read(9) == b"#!/bin/sh"


@pytest.mark.parametrize("pem", [b"", b"-----BEGIN PUBLIC KEY-----\nMA==\n-----END PUBLIC KEY-----\n"])
def test_texts_that_are_no_key(pem: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        PublicKey.parse("x.pub", pem)
