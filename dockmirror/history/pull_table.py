"""Memory that the processes of one mirror share, by which each knows the pulls that others have begun."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from struct import Struct
from typing import NamedTuple

from ..oci.manifest import ManifestDocument
from ..system.shared_table import SharedTable, hash_key
from .tracker import Member

_MEMBERS = 8
_MEMBER = Struct("<QQd")
"""Number of the pull, hash of the tag or the manifest, time of the pull's last byte."""
_CLIENT = Struct("<Q" + "QQd" * _MEMBERS)
_CLIENT_SIZE = 8192 * _CLIENT.size
_NAMED = Struct("<QB23s")
"""Key of a manifest and a content that it names, whether that is a layer, and its platform."""
_NAMED_SIZE = 65_536 * _NAMED.size
PULL_TABLE_SIZE = _CLIENT_SIZE + _NAMED_SIZE
"""Bytes of memory for 8192 clients' repositories and 65,536 named contents; pages are used as needed."""
_MASK = 2**64 - 1


class Named(NamedTuple):
    """A content that a manifest names; the platform is that of an index's manifest."""

    is_layer: bool
    platform: str


@lru_cache(maxsize=16_384)
def hash_text(text: str) -> int:
    return hash_key(text.encode())


class PullTable:
    """The running pulls by client and repository, and what their manifests name.

    Processes that write at the same moment may lose one of two updates: then a request is counted alone.

    :param memory: at most ``PULL_TABLE_SIZE`` bytes, zero at first.
    """

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory[:_CLIENT_SIZE]
        self._clients = SharedTable(self._memory, _CLIENT, lambda record: max(record[3::3]))
        self._named = SharedTable(memory[_CLIENT_SIZE:], _NAMED, lambda _: 0)

    def members(self, client: int) -> list[Member]:
        """Return the running pulls of a client from a repository.

        :param client: the hash of the client, its user and the repository.
        """
        record = self._clients.find(client)[1]
        if record is None:
            return []
        return [Member(*record[at : at + 3]) for at in range(1, 3 * _MEMBERS, 3) if record[at]]

    def touch(self, client: int, number: int, now: float, name: int | None = None) -> None:
        """Note that bytes were sent in a pull, and that it has a manifest or a tag of that name."""
        offset, record = self._clients.find(client)
        if record is None:
            record = (client, *(0, 0, 0.0) * _MEMBERS)
            self._clients.put(offset, *record)
        is_known = name is None
        for position in range(_MEMBERS):
            if record[1 + 3 * position] == number:
                is_known = is_known or record[2 + 3 * position] == name
                self._write(offset, position, Member(number, record[2 + 3 * position], now))
        if name is not None and not is_known:
            oldest = min(range(_MEMBERS), key=lambda position: record[3 + 3 * position])
            self._write(offset, oldest, Member(number, name, now))

    def _write(self, offset: int, position: int, member: Member) -> None:
        _MEMBER.pack_into(self._memory, offset + 8 + position * _MEMBER.size, *member)

    def named(self, manifest: int, content: int) -> Named | None:
        """Return what a manifest says of a content; None if it does not name it."""
        record = self._named.find(_pair(manifest, content))[1]
        return None if record is None else Named(bool(record[1]), record[2].rstrip(b"\0").decode())

    def add_named(self, manifest: int, named: Mapping[int, Named]) -> None:
        for content, each in named.items():
            key = _pair(manifest, content)
            platform = each.platform.encode("ascii", "replace")[:23]
            self._named.put(self._named.find(key)[0], key, each.is_layer, platform)


def _pair(manifest: int, content: int) -> int:
    return (manifest * 0x9E3779B97F4A7C15 + content) & _MASK or 1


def read_names(manifest: bytes) -> dict[int, Named]:
    """Return what a manifest names, by the hashes of the digests; nothing if it is of an unknown type."""
    document = ManifestDocument.parse(manifest)
    if document is None:
        return {}
    named = {hash_text(str(each.digest)): Named(True, "") for each in document.layers}
    if document.config is not None:
        named[hash_text(str(document.config.digest))] = Named(False, "")
    for child in document.children:
        platform = str(child.platform) if child.platform and child.platform.is_real else ""
        named[hash_text(str(child.descriptor.digest))] = Named(False, platform)
    return named
