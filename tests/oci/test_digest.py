"""Digests: their grammar, and what they are digests of."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given

from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import DigestInvalid

from ..values import CHUNKS, digests

EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", "sha256", "sha256:", "latest", EMPTY[:-1], EMPTY + "0", EMPTY.upper(), f" {EMPTY}"),
        *(EMPTY + "\n", EMPTY[:-1] + "g", EMPTY[:-1] + "\u0663", EMPTY.replace(":", "::")),
        EMPTY.replace(":", ""),
        *("SHA256" + EMPTY[6:], "md5:" + "0" * 32, "sha1:" + "0" * 40, "blake3:" + "0" * 64),
        *("sha512" + EMPTY[6:], "sha256:../../../etc/passwd", "sha256:" + "%61" * 21 + "a"),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    """Other lengths, other letters, other algorithms: what cannot be verified is not served."""
    with pytest.raises(DigestInvalid) as caught:
        Digest.parse(text)
    assert caught.value.status == 400


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_a_digest_is_of_its_content_alone(algorithm: str) -> None:
    """A digest matches only its own content, for each algorithm."""
    digest = Digest.of(b"content", algorithm)
    assert digest == Digest(algorithm, hashlib.new(algorithm, b"content").hexdigest())
    assert digest.matches(b"content")
    assert not digest.matches(b"content ")


@given(CHUNKS, digests)
def test_a_verifier_hashes_all_chunks(chunks: list[bytes], other: Digest) -> None:
    content = b"".join(chunks)
    right, wrong = Digest.of(content).verifier(), other.verifier()
    for chunk in chunks:
        right.update(chunk)
        wrong.update(chunk)
    assert right.matches()
    assert wrong.matches() is other.matches(content)


def test_a_copy_goes_on_by_itself() -> None:
    """A copy continues independently from the same state."""
    verifier = Digest.of(b"content").verifier()
    verifier.update(b"con")
    copy = verifier.copy()
    copy.update(b"tent")
    assert copy.matches()
    assert not verifier.matches()
    verifier.update(memoryview(b"tent"))
    assert verifier.matches()
