"""Digests and descriptors of contents, and a verifier that hashes content as it passes.

Source: OCI image specification, descriptor.md.  Only algorithms that this process can compute are
accepted, since content that cannot be verified is not served.
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
    """An algorithm and the hash of a content in hexadecimal."""

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """:raises DigestInvalid: when the text is no digest, or its algorithm is not supported."""
        algorithm, _, hexadecimal = text.partition(":")
        if len(hexadecimal) != _HEX_LENGTHS.get(algorithm) or not _HEX.fullmatch(hexadecimal):
            raise DigestInvalid(
                "invalid digest: expected sha256, sha384 or sha512, and lower-case hexadecimal"
            )
        return cls(algorithm, hexadecimal)

    @classmethod
    def of(cls, content: bytes, algorithm: str = "sha256") -> Digest:
        """Return the digest of these bytes."""
        return cls(algorithm, hashlib.new(algorithm, content).hexdigest())

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    def matches(self, content: bytes) -> bool:
        return Digest.of(content, self.algorithm) == self

    def verifier(self) -> Verifier:
        """Return a verifier that has seen no bytes yet."""
        return Verifier(self)


@frozen
class Descriptor:
    """Media type, digest and size in bytes, each None if the upstream did not state it."""

    media_type: str | None = None
    digest: Digest | None = None
    size: int | None = None


class Verifier:
    """Hashes content as it passes, and compares the hash with a digest."""

    def __init__(self, digest: Digest) -> None:
        self.digest = digest
        self._hash = hashlib.new(digest.algorithm)

    def copy(self) -> Verifier:
        """Return an independent verifier with the same state."""
        copied = Verifier(self.digest)
        copied._hash = self._hash.copy()
        return copied

    def update(self, data: bytes | memoryview) -> None:
        self._hash.update(data)

    def matches(self) -> bool:
        """Return whether the bytes so far have the digest."""
        return self._hash.hexdigest() == self.digest.hex
