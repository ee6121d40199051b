"""The files that an archive consists of: its parts, compressed or not, and its checksums; all calls block."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from shutil import copyfileobj
from typing import BinaryIO, cast

import zstandard
from attrs import frozen

from .archive_files import ArchiveRefused

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_PIECE = 1024 * 1024
CHECKSUM_SUFFIXES = (".sha256", ".sha256.sig")
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_NUMBER = re.compile(r"\.[0-9]{3,}")
OpenTemporary = Callable[[], BinaryIO]
"""Opens an empty file that is deleted when it is closed."""
Sign = Callable[[bytes], bytes]
"""Returns the signature of some bytes."""


def group_parts(paths: Sequence[Path]) -> list[list[Path]]:
    """Return the paths of each archive: those of its parts in order, or its only one.

    Files with a number at the end are parts if the first one is named, too: else the number may be a date.
    Checksums and signatures, which ``archive.tar.*`` names too, are left out, and so are the parts of an
    earlier, longer archive of the same name.

    :raises ArchiveRefused: when a part is missing, or no archive is left.
    """
    groups: dict[Path, list[Path]] = {}
    archives = dict.fromkeys(each for each in paths if not each.name.endswith(CHECKSUM_SUFFIXES))
    if not archives:
        raise ArchiveRefused("these are checksums; name the archives, too")
    for path in archives:
        first = _part(path, 1) if _part_number(path) else path
        groups.setdefault(first if first in archives else path, []).append(path)
    found = [_select_listed(sorted(parts, key=_part_number)) for parts in groups.values()]
    for parts in found:
        for number, part in enumerate(parts, 1):
            if len(parts) > 1 and _part_number(part) != number:
                raise ArchiveRefused(f"{_part(part, number)} is missing")
    return found


def _select_listed(parts: list[Path]) -> list[Path]:
    """Return the parts that the checksums beside them list, or all if those list none of them."""
    listed = ChecksumFiles.of_archive(parts[0].with_suffix("")).names() if len(parts) > 1 else set()
    return [part for part in parts if part.name in listed] or parts


def find_parts(path: Path) -> list[Path]:
    """Return all parts of the archive to which a part belongs; of an archive in one file, that."""
    if not _part_number(path) or not _part(path, 1).is_file():
        return [path]
    return [each for each in path.parent.iterdir() if each.stem == path.stem and _part_number(each)]


def part_advice(paths: Sequence[Path]) -> str:
    """Return advice, if a file that is refused by itself may be one of several parts."""
    if len(paths) != 1 or not _part_number(paths[0]):
        return ""
    return f"; if it is a part of an archive, name all parts, from {_part(paths[0], 1).name} on"


def _part_number(path: Path) -> int:
    """Return the number at the end of a file's name, 0 if there is none."""
    return int(path.suffix[1:]) if _NUMBER.fullmatch(path.suffix) and not path.is_dir() else 0


def _part(path: Path, number: int) -> Path:
    return path.with_suffix(f".{number:03}")


def open_seekable(files: Sequence[BinaryIO], open_temporary: OpenTemporary) -> BinaryIO:
    """Return the archive in these files as one that is uncompressed and seekable.

    :param open_temporary: opens a file for an archive that has to be decompressed, or comes from a pipe.
    :raises ArchiveRefused: when its compression is corrupt.
    """
    file = files[0] if len(files) == 1 else cast(BinaryIO, io.BufferedReader(_JoinedFiles(files)))
    if not file.seekable():
        file = _copy(file, open_temporary)
    file.seek(0)
    beginning = file.read(4)
    file.seek(0)
    try:
        if beginning.startswith(_GZIP):
            with gzip.open(file) as decompressed:
                return _copy(cast(BinaryIO, decompressed), open_temporary)
        if beginning == _ZSTD:
            reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
            return _copy(cast(BinaryIO, reader), open_temporary)
    except (gzip.BadGzipFile, zlib.error, EOFError, zstandard.ZstdError) as error:
        raise ArchiveRefused(f"it cannot be decompressed: {error}") from None
    return file


def _copy(file: BinaryIO, open_temporary: OpenTemporary) -> BinaryIO:
    copy = open_temporary()
    copyfileobj(file, copy, _PIECE)
    copy.seek(0)
    return copy


class _JoinedFiles(io.RawIOBase):
    """Several files as if they were one."""

    def __init__(self, files: Sequence[BinaryIO]) -> None:
        self._files = files
        self._ends: list[int] = []
        for file in files:
            self._ends.append((self._ends[-1] if self._ends else 0) + file.seek(0, io.SEEK_END))
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._ends[-1]}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override, unused-ignore]
        for number, end in enumerate(self._ends):
            if self._position < end:
                file = self._files[number]
                file.seek(self._position - (self._ends[number - 1] if number else 0))
                data = file.read(min(len(buffer), end - self._position))
                buffer[: len(data)] = data
                self._position += len(data)
                return len(data)
        return 0


def load_signer(pem: bytes) -> Sign:
    """Return what signs with a private key of RSA, ECDSA or Ed25519 in PEM.

    :raises ValueError: when it is none, or is encrypted.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem, None)
    except TypeError:
        raise ValueError("expected a private key that is not encrypted") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("expected a private key of RSA, ECDSA or Ed25519 in PEM") from None
    match key:
        case ed25519.Ed25519PrivateKey():
            return key.sign
        case ec.EllipticCurvePrivateKey():
            return lambda data: key.sign(data, ec.ECDSA(SHA256()))
        case rsa.RSAPrivateKey():
            return lambda data: key.sign(data, padding.PKCS1v15(), SHA256())
    raise ValueError("expected a private key of RSA, ECDSA or Ed25519 in PEM")


@frozen
class ChecksumFiles:
    """The file of an archive's checksums, as ``sha256sum --check`` reads them, and that of their signature.

    The signature is the one that ``cosign verify-blob --key`` checks: of the checksums, in base64.
    """

    sums: Path
    signature: Path

    @classmethod
    def of_archive(cls, archive: Path) -> ChecksumFiles:
        """Return the files beside an archive.

        :param archive: its name without the number of a part.
        """
        return cls(*(archive.with_name(archive.name + each) for each in CHECKSUM_SUFFIXES))

    @classmethod
    def of_directory(cls, directory: Path) -> ChecksumFiles:
        return cls(directory / "SHA256SUMS", directory / "SHA256SUMS.sig")

    def write(self, sums: Mapping[str, str], sign: Sign | None) -> None:
        """Write the checksums, by the names of the files, and sign them if there is a key."""
        data = "".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode()
        self.sums.write_bytes(data)
        if sign is None:
            self.signature.unlink(missing_ok=True)  # it is that of other checksums
        else:
            self.signature.write_bytes(b64encode(sign(data)) + b"\n")

    def names(self) -> set[str]:
        """Return the names of the files that the checksums list, signed or not."""
        text = self.sums.read_text("utf-8", "replace") if self.sums.is_file() else ""
        return {line[2] for line in map(_LINE.fullmatch, text.splitlines()) if line}

    def read(self, has_signed: Callable[[bytes, bytes], bool]) -> dict[str, str]:
        """Return the checksums by the names of the files.

        :raises ArchiveRefused: when the trusted key has not signed them, or they are missing or malformed.
        """
        for each in (self.sums, self.signature):
            if not each.is_file():
                raise ArchiveRefused(f"it is not signed: {each.name} is missing")
        data = self.sums.read_bytes()
        try:
            signature = b64decode(self.signature.read_bytes(), validate=False)
        except ValueError:
            signature = b""
        if not has_signed(data, signature):
            raise ArchiveRefused("its checksums are not signed with the given key")
        found = {}
        for line in data.decode("utf-8", "replace").splitlines():
            parts = _LINE.fullmatch(line)
            if parts is None:
                raise ArchiveRefused(f"a line of its checksums is malformed: {line[:80]!r}")
            found[parts[2]] = parts[1]
        return found


def check_sum(name: str, pieces: Iterable[bytes], sums: Mapping[str, str]) -> None:
    """:raises ArchiveRefused: when a file with these bytes has another sum, or none is given for it."""
    if name not in sums:
        raise ArchiveRefused(f"the checksums do not list {name}")
    hashed = sha256()
    for data in pieces:
        hashed.update(data)
    if hashed.hexdigest() != sums[name]:
        raise ArchiveRefused(f"{name} does not match its checksum")
