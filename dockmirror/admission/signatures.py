"""Signatures of images: what they cover, and who has made them, verified without I/O.

Two forms are verified.  Simple signing, which cosign 2, skopeo and podman write: a layer is a small JSON
document with the digest of the image, and an annotation of that layer is the signature of these bytes.
Sigstore bundles, which cosign 3 and GitHub's attestations write: an in-toto statement in a signed envelope
(DSSE).

A public key verifies both.  An identity verifies bundles by the library ``sigstore``: the certificate, its
place in the transparency log, and the time.  Older keyless signatures in the form of simple signing have no
inclusion proof, which the library demands; they are not verified.

Sources: containers/image, "containers-signature(5)" and cosign's SIGNATURE_SPEC.md (simple signing); the
Sigstore bundle format; DSSE, protocol.md; in-toto attestation framework, statement.md.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from attrs import field, frozen
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from ..oci.digest import Descriptor, Digest
from ..oci.errors import DigestInvalid
from ..oci.manifest import ManifestDocument

SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
BUNDLE = "application/vnd.dev.sigstore.bundle"
ENVELOPE = "application/vnd.dsse.envelope.v1+json"
"""The type of attestations that cosign 2 writes."""
SIGNATURE_ANNOTATION = "dev.cosignproject.cosign/signature"
_STATEMENT_PAYLOAD = "application/vnd.in-toto+json"
_STATEMENTS = ("https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1")
_PREDICATES = ("https://sigstore.dev/cosign/sign/v1", "https://slsa.dev/provenance/v1")
"""The statements that count as a signature: "this is mine" and "I have built this"."""
_SIMPLE_SIGNING_TYPE = "cosign container image signature"

_Key = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


class SignatureInvalid(Exception):
    """A signature does not count; the text says why, as part of a sentence."""


@frozen
class PublicKey:
    """A public key that the operator trusts: RSA, ECDSA or Ed25519.

    :ivar name: the key's name in verdicts and errors, such as its file's.
    """

    name: str
    _key: _Key = field(repr=False)

    @property
    def id(self) -> str:
        der = self._key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return str(Digest.of(der))

    def __str__(self) -> str:
        return f"the key {self.name}"

    @classmethod
    def parse(cls, name: str, pem: bytes) -> PublicKey:
        """:raises ValueError: when the text is no public key of these kinds in PEM."""
        key = load_pem_public_key(pem)
        if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
            raise ValueError("expected a public key of RSA, ECDSA or Ed25519")
        return cls(name, key)

    def has_signed(self, data: bytes, signature: bytes) -> bool:
        """Return whether this is the key's signature of the data, as cosign makes it, with SHA-256."""
        try:
            match self._key:
                case rsa.RSAPublicKey():
                    self._key.verify(signature, data, padding.PKCS1v15(), SHA256())
                case ec.EllipticCurvePublicKey():
                    self._key.verify(signature, data, ec.ECDSA(SHA256()))
                case ed25519.Ed25519PublicKey():
                    self._key.verify(signature, data)
        except InvalidSignature:
            return False
        return True


@frozen
class Identity:
    """A keyless signer that the operator trusts.

    :ivar issuer: the service that vouched for the signer, exactly.
    :ivar subject: a pattern for the signer's address or workflow, in which ``*`` matches everything.
    """

    issuer: str
    subject: str

    @property
    def id(self) -> str:
        return f"{self.issuer} {self.subject}"

    def __str__(self) -> str:
        return f"{self.subject} of {self.issuer}"


VerifyBundle = Callable[[bytes, Sequence[Identity]], tuple[str, bytes, Identity]]
"""Verifies a keyless bundle; returns the type and the bytes of its payload, and who has signed it.

Raises ``SignatureInvalid``.
"""


@frozen
class Signers:
    """Everybody whose signature the operator accepts for some images; one of them is enough."""

    keys: Sequence[PublicKey] = ()
    identities: Sequence[Identity] = ()

    @property
    def ids(self) -> frozenset[str]:
        """The identifiers of the signers in kept verdicts."""
        return frozenset([*(key.id for key in self.keys), *(each.id for each in self.identities)])

    def __str__(self) -> str:
        return " or ".join(map(str, (*self.keys, *self.identities)))


@frozen
class SignatureLayer:
    """A layer of a manifest that carries a signature or a bundle."""

    descriptor: Descriptor
    signature: bytes | None = None

    @property
    def is_bundle(self) -> bool:
        return (self.descriptor.media_type or "").startswith(BUNDLE)


def parse_signature_layers(manifest: bytes) -> list[SignatureLayer]:
    """Return the layers of a manifest that carry signatures; none if it is no manifest."""
    try:
        return [layer for each in json.loads(manifest)["layers"] if (layer := _layer(each)) is not None]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, DigestInvalid):
        return []


def claims_to_be_signatures(manifest: ManifestDocument) -> bool:
    """Return whether all layers of a manifest have the types of signatures and attestations.

    A runtime may unpack such a layer all the same: only ``is_signature_document`` shows that it cannot.
    """
    types = [layer.media_type or "" for layer in manifest.layers]
    is_only = all(each in (SIMPLE_SIGNING, ENVELOPE) or each.startswith(BUNDLE) for each in types)
    return bool(types) and is_only and not manifest.foreign


def is_signature_document(data: bytes) -> bool:
    """Return whether a layer is a JSON object that no runtime can unpack.

    Compressed data is no JSON, but a tar archive of texts can be.
    """
    try:
        return isinstance(json.loads(data.decode()), dict) and not _is_tar(data)
    except (ValueError, RecursionError):
        return False


def _is_tar(data: bytes) -> bool:
    """Return whether data begins with a header of a tar archive, which its checksum shows.

    Source: POSIX, pax, "ustar Interchange Format"; programs sum up signed bytes, too.
    """
    try:
        stated = int(data[148:156].strip(b" \0"), 8)
    except ValueError:
        return False
    summed = data[:148] + b" " * 8 + data[156:512]
    return stated in (sum(summed), sum(each - 256 if each > 127 else each for each in summed))


def _layer(fields: Mapping[str, Any]) -> SignatureLayer | None:
    media_type = str(fields["mediaType"])
    descriptor = Descriptor(media_type, Digest.parse(fields["digest"]), int(fields["size"]))
    if media_type.startswith(BUNDLE):
        return SignatureLayer(descriptor)
    if media_type != SIMPLE_SIGNING:
        return None
    return SignatureLayer(
        descriptor, _decode(str((fields.get("annotations") or {}).get(SIGNATURE_ANNOTATION, "")))
    )


def verify_layer(
    layer: SignatureLayer, data: bytes, digest: Digest, signers: Signers, verify_bundle: VerifyBundle
) -> tuple[str, str]:
    """Return identifier and name of the signer whose signature of the digest a layer's bytes are.

    :raises SignatureInvalid: when they are none, or that of another signer or another digest.
    """
    if not layer.is_bundle:
        key = _verify_simple_signing(data, layer.signature or b"", digest, signers.keys)
        return key.id, str(key)
    bundle = _object(data, "the bundle")
    signer: PublicKey | Identity
    material = bundle.get("verificationMaterial")
    if isinstance(material, dict) and "publicKey" in material:
        envelope = bundle.get("dsseEnvelope")
        payload_type, payload, signer = _verify_envelope(
            envelope if isinstance(envelope, dict) else {}, signers.keys
        )
    else:
        if not signers.identities:
            raise SignatureInvalid("it is signed without a key, and only keys are trusted")
        payload_type, payload, signer = verify_bundle(data, signers.identities)
    _check_statement(payload_type, payload, digest)
    return signer.id, str(signer)


def _verify_simple_signing(
    payload: bytes, signature: bytes, digest: Digest, keys: Iterable[PublicKey]
) -> PublicKey:
    signer = _find_signer(payload, signature, keys)
    critical = _object(payload, "the payload").get("critical")
    image = critical.get("image") if isinstance(critical, dict) else None
    if not isinstance(critical, dict) or not isinstance(image, dict):
        raise SignatureInvalid("its payload names no image")
    if critical.get("type") != _SIMPLE_SIGNING_TYPE or image.get("docker-manifest-digest") != str(digest):
        raise SignatureInvalid("it is the signature of another image")
    return signer


def _verify_envelope(envelope: Mapping[str, Any], keys: Iterable[PublicKey]) -> tuple[str, bytes, PublicKey]:
    """Verify a DSSE envelope, and return the type and the bytes of its payload, and the signer."""
    payload_type, payload = str(envelope.get("payloadType")), _decode(str(envelope.get("payload") or ""))
    encoded, signatures = payload_type.encode("utf-8", "replace"), envelope.get("signatures")
    signed = b"DSSEv1 %d %s %d %s" % (len(encoded), encoded, len(payload), payload)
    for each in signatures if isinstance(signatures, list) else ():
        if isinstance(each, dict):
            return payload_type, payload, _find_signer(signed, _decode(str(each.get("sig") or "")), keys)
    raise SignatureInvalid("its bundle has no signature")


def _check_statement(payload_type: str, payload: bytes, digest: Digest) -> None:
    """:raises SignatureInvalid: unless the payload is a statement by which the digest is signed."""
    statement = _object(payload, "the statement")
    if payload_type != _STATEMENT_PAYLOAD or statement.get("_type") not in _STATEMENTS:
        raise SignatureInvalid("its bundle has no in-toto statement")
    if statement.get("predicateType") not in _PREDICATES:
        raise SignatureInvalid("its statement is neither a signature nor about the origin of the image")
    subjects = statement.get("subject")
    for each in subjects if isinstance(subjects, list) else ():
        digests = each.get("digest") if isinstance(each, dict) else None
        if isinstance(digests, dict) and digests.get(digest.algorithm) == digest.hex:
            return
    raise SignatureInvalid("it is the signature of another image")


def _find_signer(data: bytes, signature: bytes, keys: Iterable[PublicKey]) -> PublicKey:
    for key in keys:
        if key.has_signed(data, signature):
            return key
    raise SignatureInvalid("it is of another signer than the trusted ones")


def _object(data: bytes, name: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise SignatureInvalid(f"{name} of a signature is not JSON")
    return value


def _decode(text: str) -> bytes:
    """Decode base64; text that is none becomes a signature that no key has made."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
