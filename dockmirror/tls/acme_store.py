"""What the mirror itself has put into its directory of certificates; calls that block."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .certificate_files import PemFile

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,256}")
_SHARE = 2 / 3


class AcmeStore:
    """Files that only the mirror may read, in a folder of the directory.

    ``NAME.pem`` is a certificate with its key, ``account`` the key by which an authority knows the mirror,
    and what is in ``proofs`` is there for as long as an authority may ask for it.

    :param directory: of all certificates; made where there is none.
    """

    def __init__(self, directory: Path) -> None:
        self.folder = directory / "acme"
        self._proofs = self.folder / "proofs"

    def certificate_path(self, name: str) -> Path:
        """Where the name's certificate is, or is to be."""
        return self.folder / f"{name}.pem"

    def save_certificate(self, name: str, pem: bytes) -> None:
        """A certificate with its key, in the place of the one before."""
        _write(self.certificate_path(name), pem)

    def renewal_time(self, name: str) -> float | None:
        """When the certificate has had two thirds of its life, in seconds since 1970; None without one."""
        try:
            certificate = PemFile.parse(self.certificate_path(name).read_bytes()).certificates[0]
        except (OSError, ValueError, IndexError):
            return None
        begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        return begins.timestamp() + _SHARE * (ends - begins).total_seconds()

    def account_key(self, make: Callable[[], bytes]) -> bytes:
        """The account's key; made where there is none."""
        path = self.folder / "account"
        if not path.exists():
            _write(path, make())
        return path.read_bytes()

    @contextmanager
    def publish_proofs(self) -> Iterator[Callable[[str, str], None]]:
        """Gives what puts down the proof that belongs to a token; afterwards there is none.

        Nor is there any from before: a mirror that ended in the middle has left its own.
        """

        def prove(token: str, proof: str) -> None:
            if not _TOKEN.fullmatch(token):
                raise OSError("the authority's token is none")
            _write(self._proofs / token, proof.encode())

        self._forget_proofs()
        try:
            yield prove
        finally:
            self._forget_proofs()

    def _forget_proofs(self) -> None:
        with suppress(OSError):
            for path in self._proofs.iterdir():
                path.unlink()

    def find_proof(self, token: str) -> bytes | None:
        """What an authority is to find; None for any token that none asks for just now."""
        try:
            return (self._proofs / token).read_bytes() if _TOKEN.fullmatch(token) else None
        except OSError:
            return None


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}")
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)
