"""Keyless Sigstore bundles, verified by the library ``sigstore``, which is an optional dependency."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from attrs import define, field
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

_REFRESH = 86_400.0
_log = Logger()


def is_sigstore_installed() -> bool:
    """Report whether the library can be imported; blocks for a second the first time."""
    try:
        import sigstore.verify  # noqa: F401
    except ImportError:
        return False
    return True


@define
class KeylessVerifier:
    """Verifies bundles; calls block and may come from several threads.

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
        from sigstore.models import TrustedRoot
        from sigstore.verify import Verifier

        if self.trust_root is not None:
            try:
                return Verifier(trusted_root=TrustedRoot.from_file(str(self.trust_root)))
            except (Error, ValueError) as error:
                raise OSError(f"{self.trust_root} is no root of trust: {_first_line(error)}") from error
        try:
            return Verifier.production(offline=self.offline)
        except (Error, OSError) as error:
            _log.warn("cannot refresh the root of trust of Sigstore: {reason}", reason=_first_line(error))
            return self._verifier or Verifier.production(offline=True)


class IdentityPolicy:
    """A policy for the library: the certificate must be of one of the identities.

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
