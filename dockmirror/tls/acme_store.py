"""The certificates, account key and challenge proofs that the ACME client keeps on disk; the calls block."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .certificate_files import PemFile

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,256}")
_RENEW_AFTER = 2 / 3


class AcmeStore:
    """Files in the subdirectory ``acme``, readable only by the mirror.

    ``NAME.pem`` is a certificate with its key, ``account`` the account key, and ``proofs`` holds challenge
    proofs while an authority may ask for them.

    :param directory: of all certificates; created if it is missing.
    """

    def __init__(self, directory: Path) -> None:
        self.folder = directory / "acme"
        self._proofs = self.folder / "proofs"

    def certificate_path(self, name: str) -> Path:
        """Return the path of the name's certificate, which need not exist."""
        return self.folder / f"{name}.pem"

    def save_certificate(self, name: str, pem: bytes) -> None:
        """Save a certificate with its key, replacing the previous one."""
        _write(self.certificate_path(name), pem)

    def renewal_time(self, name: str) -> float | None:
        """Return when two thirds of the certificate's life have passed, in seconds since 1970, or None."""
        try:
            certificate = PemFile.parse(self.certificate_path(name).read_bytes()).certificates[0]
        except (OSError, ValueError, IndexError):
            return None
        begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        return begins.timestamp() + _RENEW_AFTER * (ends - begins).total_seconds()

    def account_key(self, make: Callable[[], bytes]) -> bytes:
        """Return the account key; create it if there is none."""
        path = self.folder / "account"
        if not path.exists():
            _write(path, make())
        return path.read_bytes()

    @contextmanager
    def publish_proofs(self) -> Iterator[Callable[[str, str], None]]:
        """Yield a function that publishes the proof for a token; remove all proofs at the end.

        Proofs that a killed mirror left behind are removed first.
        """

        def prove(token: str, proof: str) -> None:
            if not _TOKEN.fullmatch(token):
                raise OSError("the authority sent an invalid token")
            _write(self._proofs / token, proof.encode())

        self._remove_proofs()
        try:
            yield prove
        finally:
            self._remove_proofs()

    def _remove_proofs(self) -> None:
        with suppress(OSError):
            for path in self._proofs.iterdir():
                path.unlink()

    def find_proof(self, token: str) -> bytes | None:
        """Return the proof for a token, or None if no authority is asking for it now."""
        try:
            return (self._proofs / token).read_bytes() if _TOKEN.fullmatch(token) else None
        except OSError:
            return None


def _write(path: Path, data: bytes) -> None:
    """Replace the file atomically."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
