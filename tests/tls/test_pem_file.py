"""What PEM files hold."""

from __future__ import annotations

import pytest

from dockmirror.tls.pem_file import PemFile, public_key
from tests.issued import issue

ONE, OTHER = issue("one.example"), issue("other.example")


def test_parse() -> None:
    """Certificates and keys are found in their order, between whatever else people put there."""
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    pem = PemFile.parse(
        b"Bag Attributes\n" + parameters + ONE.key + ONE.certificate + b"\n# x\n" + OTHER.certificate
    )
    assert [each.serial_number for each in pem.certificates] == [ONE.serial, OTHER.serial]
    assert [public_key(key) for key in pem.keys] == [public_key(pem.certificates[0])]
    assert PemFile.parse(b"") == PemFile()


def test_line_ends() -> None:
    """Files from other systems are read as well."""
    assert PemFile.parse(ONE.certificate.replace(b"\n", b"\r\n")).certificates[0].serial_number == ONE.serial


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (ONE.key + ONE.certificate[:-30], "ends within a block"),
        (ONE.certificate.replace(b"M", b"N"), "a certificate that cannot be read"),
        (ONE.key.replace(b"M", b"N"), "a key that cannot be read"),
        (issue("x.example", password=b"hunter2").key, "a key that is encrypted"),
    ],
    ids=["half", "certificate", "key", "encrypted"],
)
def test_wrong(data: bytes, told: str) -> None:
    """What is wrong is told in words of ours; nothing of a key is in them."""
    with pytest.raises(ValueError, match=told) as raised:
        PemFile.parse(data)
    assert not any(line in str(raised.value).encode() for line in ONE.key.splitlines())


def test_secret() -> None:
    """A key shows in no representation."""
    assert "key" not in repr(PemFile.parse(ONE.key)).lower()
