"""Digests, and the check that hashes as bytes pass.

Source: OCI image specification, descriptor.md, "Digests".  Only algorithms that this process can
check are accepted: content that cannot be verified is not served.
"""

from __future__ import annotations

import hashlib
import re

from attrs import frozen

from .errors import DigestInvalid

_HEX_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}
ALGORITHMS = tuple(_HEX_LENGTHS)
_HEX = re.compile(r"[0-9a-f]+")


@frozen
class Digest:
    """An algorithm and the hexadecimal hash of the content."""

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """:raises DigestInvalid: when the text is no digest, or of an algorithm that is not known here."""
        algorithm, _, hexadecimal = text.partition(":")
        if len(hexadecimal) != _HEX_LENGTHS.get(algorithm) or not _HEX.fullmatch(hexadecimal):
            raise DigestInvalid(
                "invalid digest: expected sha256, sha384 or sha512, and lower-case hexadecimal"
            )
        return cls(algorithm, hexadecimal)

    @classmethod
    def of(cls, content: bytes, algorithm: str = "sha256") -> Digest:
        """The digest of these bytes."""
        return cls(algorithm, hashlib.new(algorithm, content).hexdigest())

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    def matches(self, content: bytes) -> bool:
        """Whether these bytes are the content."""
        return Digest.of(content, self.algorithm) == self

    def verifier(self) -> Verifier:
        """A new check, of no bytes yet."""
        return Verifier(self)


class Verifier:
    """Hashes what passes; ``verified()`` says whether it was the content, whole."""

    def __init__(self, digest: Digest) -> None:
        self.digest = digest
        self._hash = hashlib.new(digest.algorithm)

    def copy(self) -> Verifier:
        """Another that goes on from here."""
        copied = Verifier(self.digest)
        copied._hash = self._hash.copy()
        return copied

    def update(self, data: bytes | memoryview) -> None:
        """Takes the next bytes."""
        self._hash.update(data)

    def matches(self) -> bool:
        """Whether the bytes so far hash to the digest."""
        return self._hash.hexdigest() == self.digest.hex
