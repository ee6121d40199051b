"""The source of the fact that a trusted signer has signed a digest, with a key or without one.

A digest is checked once for each trusted signer: that it has signed is kept as a document, by digest.  That
it has not is never kept, since a signature may follow.  What a signed index lists, or an index in it, needs
no signature of its own.  Signatures and attestations themselves need none, if their layers were read and are
such.

Keyless bundles are verified by the library ``sigstore``, which is an optional dependency.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from attrs import define, evolve, field
from cryptography.x509 import (
    Certificate,
    ExtensionNotFound,
    RFC822Name,
    SubjectAlternativeName,
    UniformResourceIdentifier,
)
from twisted.logger import Logger

from .signatures import Identity, SignatureInvalid

if TYPE_CHECKING:
    from sigstore.verify import Verifier
import json
from collections.abc import AsyncIterator, Mapping
from functools import partial

from attrs import frozen
from zope.interface import implementer

from ..concurrency.coroutines import RunInThread, gather
from ..config.image_rules import SignedBy
from ..interfaces import IDocumentStore
from ..oci.digest import Digest
from ..oci.errors import RegistryError, summarize_error
from ..oci.manifest import ManifestDocument
from ..oci.request import Tag
from .admit import SignatureVerdict, Subject
from .policies import FactContext, IFactSource, RepositoryReader
from .signatures import (
    BUNDLE,
    SIMPLE_SIGNING,
    SignatureLayer,
    Signers,
    VerifyBundle,
    claims_to_be_signatures,
    is_signature_document,
    parse_signature_layers,
    verify_layer,
)
from .tag_facts import KnownParents

_REFRESH = 86_400.0
_LAYER_LIMIT = 1024 * 1024
_MOST_SIGNATURES = 32
_MOST_CANDIDATES = 32
"""The most digests that are looked for as signed: of a manifest, and of the indexes that it belongs to."""
_SIGNATURE_TYPES = ("", SIMPLE_SIGNING, "application/vnd.dev.cosign.artifact.sig.v1+json")
"""The types of referrers that may be signatures, beside bundles."""
_log = Logger()


def is_sigstore_installed() -> bool:
    """Report whether ``sigstore`` can be imported; blocks for a second the first time."""
    try:
        import sigstore.verify  # noqa: F401
    except ImportError:
        return False
    return True


def load_verifier(trust_root: Path) -> Verifier:
    """Return a verifier with the root of trust in a file.

    :raises OSError: when the file cannot be read, or is no root of trust.
    """
    from sigstore.errors import Error
    from sigstore.models import TrustedRoot
    from sigstore.verify import Verifier

    try:
        return Verifier(trusted_root=TrustedRoot.from_file(str(trust_root)))
    except (Error, ValueError) as error:
        raise OSError(f"{trust_root} is no root of trust: {_first_line(error)}") from error


@define
class KeylessVerifier:
    """Verifies keyless bundles; calls block and may come from several threads.

    :ivar trust_root: a file with the root of trust (``trusted_root.json``), which is never replaced.  Without
        one, that of the public Sigstore is fetched by the library (TUF), and again after a day; while that
        fails, the last one or the library's own is used.
    :ivar seconds: tells the time.
    :ivar offline: True if the library's own root of trust is used instead of the one that it would fetch.
    """

    trust_root: Path | None
    seconds: Callable[[], float]
    offline: bool = False
    _verifier: Verifier | None = None
    _fetched: float = 0.0
    _lock: Lock = field(factory=Lock)

    def verify(self, bundle: bytes, identities: Sequence[Identity]) -> tuple[str, bytes, Identity]:
        """Return the type and the bytes of a bundle's payload, and the trusted identity that signed it.

        :raises SignatureInvalid: when it is invalid, or of another signer.
        :raises OSError: when there is no root of trust.
        """
        from sigstore.errors import Error
        from sigstore.models import Bundle

        policy = IdentityPolicy(identities)
        verifier = self._current()
        try:
            payload_type, payload = verifier.verify_dsse(Bundle.from_json(bundle), policy)
        except (Error, ValueError, ExtensionNotFound) as error:
            raise SignatureInvalid(f"its bundle is invalid: {_first_line(error)}") from error
        return payload_type, payload, policy.found[0]

    def _current(self) -> Verifier:
        """Return a verifier with the root of trust; fetch that if it is due.

        While one thread fetches it anew, the others use the last one.
        """
        last = self._verifier
        if last is not None and not self._is_due():
            return last
        if not self._lock.acquire(blocking=last is None):
            assert last is not None
            return last
        try:
            if self._verifier is None or self._is_due():
                self._verifier = self._load()
                self._fetched = self.seconds()
            return self._verifier
        finally:
            self._lock.release()

    def _is_due(self) -> bool:
        return self.trust_root is None and self.seconds() - self._fetched >= _REFRESH

    def _load(self) -> Verifier:
        from sigstore.errors import Error
        from sigstore.verify import Verifier

        if self.trust_root is not None:
            return load_verifier(self.trust_root)
        try:
            return Verifier.production(offline=self.offline)
        except (Error, OSError) as error:
            _log.warn("cannot refresh the root of trust of Sigstore: {reason}", reason=_first_line(error))
            return self._verifier or Verifier.production(offline=True)


class IdentityPolicy:
    """A policy for ``sigstore``: the certificate must be of one of the identities.

    :ivar found: the identities that certificates matched.
    """

    def __init__(self, identities: Sequence[Identity]) -> None:
        self.found: list[Identity] = []
        self._identities = identities

    def verify(self, cert: Certificate) -> None:
        """:raises VerificationError: when the certificate is of nobody who is trusted."""
        from sigstore.errors import VerificationError

        subjects = _subjects(cert)
        for identity in self._identities:
            is_subject = any(fnmatchcase(subject, identity.subject) for subject in subjects)
            if is_subject and _has_issuer(cert, identity.issuer):
                self.found.append(identity)
                return
        raise VerificationError(f"it was signed by {' '.join(subjects) or 'nobody'}, who is not trusted")


def _has_issuer(certificate: Certificate, issuer: str) -> bool:
    from sigstore.errors import VerificationError
    from sigstore.verify.policy import AnyOf, OIDCIssuer, OIDCIssuerV2

    try:
        AnyOf([OIDCIssuer(issuer), OIDCIssuerV2(issuer)]).verify(certificate)
    except VerificationError:
        return False
    return True


def _subjects(certificate: Certificate) -> list[str]:
    names = certificate.extensions.get_extension_for_class(SubjectAlternativeName).value
    return [*names.get_values_for_type(RFC822Name), *names.get_values_for_type(UniformResourceIdentifier)]


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]


@implementer(IFactSource)
@frozen
class SignatureSource:
    """Verifies signatures as the client that requests the image, and remembers who has signed what.

    :ivar signers: everybody who is trusted, by the setting of a policy.
    """

    signers: Mapping[SignedBy, Signers]
    documents: IDocumentStore
    parents: KnownParents
    verify_bundle: VerifyBundle
    in_thread: RunInThread
    fact = "signature"
    setting = "signed_by"
    is_about_tags = False

    async def gather(self, context: FactContext) -> SignatureVerdict | None:
        """:raises RegistryError: when a signature cannot be read."""
        subject, signed_by, reader = context.subject, context.policy.signed_by, context.reader
        if subject.digest is None or not signed_by:
            return None
        manifest = await context.read_manifest()
        problem = ""
        if manifest is not None and claims_to_be_signatures(manifest):
            problem = await _find_other_content(manifest, reader)
            if not problem:
                return None
        verdict = await self._find(subject, subject.digest, self.signers[signed_by], reader)
        if verdict.signer:
            await self.parents.record(subject, manifest)
        elif problem:
            return SignatureVerdict(problem=problem)
        return verdict

    async def _find(
        self, subject: Subject, digest: Digest, signers: Signers, reader: RepositoryReader
    ) -> SignatureVerdict:
        """Return the signer of the digest, or of an index above it, or the problem of the digest.

        :raises RegistryError: when a signature cannot be read.
        """
        candidates = [digest]
        for candidate in candidates:
            if kept := await self._read_signer(candidate, signers):
                return SignatureVerdict(kept)
            parents = await self.parents.find(evolve(subject, digest=candidate))
            indexes = dict.fromkeys(each.digest for each in parents)
            room = _MOST_CANDIDATES - len(candidates)
            candidates += [each for each in indexes if each not in candidates][:room]
        found = [await self._find_signer(each, signers, reader) for each in candidates]
        return next((each for each in found if each.signer), found[0])

    async def _read_signer(self, digest: Digest, signers: Signers) -> str | None:
        """Return the trusted signer that was found before, or None."""
        kept = _parse_kept(await self.documents.read(_document(digest)))
        return next((name for key, name in kept.items() if key in signers.ids), None)

    async def _find_signer(
        self, digest: Digest, signers: Signers, reader: RepositoryReader
    ) -> SignatureVerdict:
        """Return who has signed a digest, or why no signature counts.

        :raises RegistryError: when a signature cannot be read, and none before it counts.
        """
        problem = "it has no signature"
        async for layer, data in _read_signatures(digest, reader):
            verify = partial(verify_layer, layer, data, digest, signers, self.verify_bundle)
            try:
                signer_id, name = await self.in_thread(verify)
            except SignatureInvalid as error:
                problem = str(error)
                continue
            await self._keep(digest, signer_id, name)
            return SignatureVerdict(name)
        return SignatureVerdict(problem=problem)

    async def _keep(self, digest: Digest, signer_id: str, name: str) -> None:
        kept = _parse_kept(await self.documents.read(_document(digest)))
        await self.documents.write(_document(digest), json.dumps(kept | {signer_id: name}).encode())


async def _find_other_content(manifest: ManifestDocument, reader: RepositoryReader) -> str:
    """Return why a manifest that claims to be signatures may be something else; empty if it is not."""
    digests = dict.fromkeys(layer.digest for layer in manifest.layers if layer.digest is not None)
    if len(digests) > _MOST_SIGNATURES:
        return f"it has more than {_MOST_SIGNATURES} layers with signatures, so they are not read"
    problems = await gather(_check_layer(each, reader) for each in digests)
    return next(filter(None, problems), "")


async def _check_layer(digest: Digest, reader: RepositoryReader) -> str:
    try:
        data = await reader.blob(digest, _LAYER_LIMIT)
    except RegistryError as error:
        return f"its layer {digest} has the type of a signature and cannot be read: {summarize_error(error)}"
    if data is not None and is_signature_document(data):
        return ""
    return f"its layer {digest} has the type of a signature and is none"


async def _read_signatures(
    digest: Digest, reader: RepositoryReader
) -> AsyncIterator[tuple[SignatureLayer, bytes]]:
    """Yield the signatures of a digest: those under cosign's tag, then those that refer to it."""
    count = 0
    async for manifest in _read_signature_manifests(digest, reader):
        for layer in parse_signature_layers(manifest):
            count += 1
            if count > _MOST_SIGNATURES:
                return
            assert layer.descriptor.digest is not None
            data = await reader.blob(layer.descriptor.digest, _LAYER_LIMIT)
            if data is not None:
                yield layer, data


async def _read_signature_manifests(digest: Digest, reader: RepositoryReader) -> AsyncIterator[bytes]:
    tagged = await reader.manifest(Tag(f"{digest.algorithm}-{digest.hex}.sig"))
    if tagged is not None:
        yield tagged
    referrers = await reader.referrers(digest)
    signatures = [each for kind, each in referrers if kind in _SIGNATURE_TYPES or kind.startswith(BUNDLE)]
    for referrer in signatures[:_MOST_SIGNATURES]:
        manifest = await reader.manifest(referrer)
        if manifest is not None:
            yield manifest


def _document(digest: Digest) -> str:
    return f"signed/{digest.algorithm}/{digest.hex}"


def _parse_kept(document: bytes | None) -> dict[str, str]:
    """Return the names of signers by their identifiers."""
    try:
        kept = json.loads(document or b"{}")
    except ValueError:
        return {}
    return {key: str(name) for key, name in kept.items()} if isinstance(kept, dict) else {}
