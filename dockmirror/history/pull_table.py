"""Memory that the processes of one mirror share, by which each knows the pulls that others have begun."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from struct import Struct
from typing import NamedTuple

from attrs import define, field

from ..oci.manifest import ManifestDocument
from ..system.shared_table import hash_key
from .tracker import Member

_MEMBERS = 8
_MEMBER = Struct("<QQd?7x")
"""Number of the pull, hash of the tag or manifest, time of the pull's last byte, True if it was served."""
_LAST, _SERVED = 16, 24
"""Offsets in a member: of its time, and of the mark that it was served."""
_TIME = Struct("<d")
_HEAD = Struct("<QQ")
"""Key, and a count of the members that were ever added."""
_CLIENT_BYTES = _HEAD.size + _MEMBERS * _MEMBER.size
_CLIENT_SIZE = 8192 * _CLIENT_BYTES
_NAMED = Struct("<QB23s")
"""Key of a manifest and a content that it names, whether that is a layer, and its platform."""
_NAMED_SIZE = 65_536 * _NAMED.size
PULL_TABLE_SIZE = _CLIENT_SIZE + _NAMED_SIZE
"""Bytes of memory for 8192 clients' repositories and 65,536 named contents; pages are used as needed."""
_MAX_NAMES = 1000
"""Contents of a manifest that join its pull; more of them would evict those of others."""
_CANDIDATES = 8
_KEY = Struct("<Q")
_MASK = 2**64 - 1


class Named(NamedTuple):
    """A content that a manifest names; the platform is that of an index's manifest."""

    is_layer: bool
    platform: str


@define(eq=False)
class ClientRecord:
    """The running pulls of a client from a repository, as this process has last seen them in the memory.

    :ivar head: the key and the count before the members, as they were read; those of a new record are not
        its own.
    :ivar members: those that were added, at most eight.
    """

    key: int
    offset: int
    head: tuple[int, int] = (0, 0)
    members: list[Member] = field(factory=list)

    def member(self, number: int, name: int) -> Member | None:
        """Return the member of a pull that has a name, or None."""
        for each in self.members:
            if each[0] == number and each[1] == name:
                return each
        return None


@lru_cache(maxsize=16_384)
def hash_text(text: str) -> int:
    return hash_key(text.encode())


class PullTable:
    """The running pulls by client and repository, and what their manifests name.

    Processes that write at the same moment may lose one of two updates: then a request is counted alone.

    :param memory: at most ``PULL_TABLE_SIZE`` bytes, zero at first.
    """

    def __init__(self, memory: memoryview) -> None:
        self._clients = memory[:_CLIENT_SIZE]
        self._named = memory[_CLIENT_SIZE:]

    def open(self, name: tuple[object, ...]) -> ClientRecord:
        """Return the record of a client, its user and a repository; it is to be read."""
        key = hash_key(repr(name).encode())
        return ClientRecord(key, key % (_CLIENT_SIZE // _CLIENT_BYTES) * _CLIENT_BYTES)

    def read(self, record: ClientRecord) -> None:
        """Read the members of a record, which has none if it is new."""
        key, additions = self.head(record)
        if key not in (record.key, 0):
            record.offset = _find(self._clients, record.key, _CLIENT_BYTES)[0]
            key, additions = self.head(record)
        record.head = key, additions
        first = record.offset + _HEAD.size
        end = first + (min(additions, _MEMBERS) * _MEMBER.size if key == record.key else 0)
        record.members = list(_MEMBER.iter_unpack(self._clients[first:end]))

    def head(self, record: ClientRecord) -> tuple[int, int]:
        """Return the head of a record, which changes when any process adds a member."""
        key, additions = _HEAD.unpack_from(self._clients, record.offset)
        return key, additions

    def update(
        self,
        record: ClientRecord,
        number: int,
        last: float,
        names: Collection[int] = (),
        is_served: bool = False,
    ) -> tuple[int, int]:
        """Note the last byte of a pull, and add manifests and tags to it, in place of the oldest members.

        :param is_served: True if they were served, also those that are members already.
        :return: the record's head after that.
        """
        memory, missing = self._clients, set(names)
        if _HEAD.unpack_from(memory, record.offset) != record.head:
            self.read(record)
        position = record.offset + _HEAD.size
        for other, name, _, _ in record.members:
            if other == number:
                _TIME.pack_into(memory, position + _LAST, last)
                if name in missing:
                    missing.discard(name)
                    memory[position + _SERVED] |= is_served
            position += _MEMBER.size
        if missing:
            self._add(record, [(number, name, last, is_served) for name in missing])
        return record.head

    def _add(self, record: ClientRecord, added: Sequence[Member]) -> None:
        if len(record.members) + len(added) > _MEMBERS:
            self.read(record)  # for the times of others' members
        members = record.members
        for member in added:
            place = len(members)
            if place < _MEMBERS:
                members.append(member)
            else:
                place = min(range(_MEMBERS), key=lambda each: members[each][2])
                members[place] = member
            _MEMBER.pack_into(self._clients, record.offset + _HEAD.size + place * _MEMBER.size, *member)
        before = record.head[1] if record.head[0] == record.key else 0
        record.head = record.key, before + len(added)
        _HEAD.pack_into(self._clients, record.offset, *record.head)

    def named(self, manifest: int, content: int) -> Named | None:
        """Return what a manifest says of a content; None if it does not name it."""
        offset, is_found = _find(self._named, _pair(manifest, content), _NAMED.size)
        if not is_found:
            return None
        _, is_layer, platform = _NAMED.unpack_from(self._named, offset)
        return Named(bool(is_layer), platform.rstrip(b"\0").decode())

    def add_named(self, manifest: int, named: Mapping[int, Named]) -> None:
        for content, each in named.items():
            key = _pair(manifest, content)
            offset = _find(self._named, key, _NAMED.size)[0]
            platform = each.platform.encode("ascii", "replace")[:23]
            _NAMED.pack_into(self._named, offset, key, each.is_layer, platform)


def _find(memory: memoryview, key: int, size: int) -> tuple[int, bool]:
    """Return the offset of a key and True, or the offset where to put it.

    If all of its places are taken, it takes one of them that the key decides: these tables are much larger
    than the number of pulls that run at once.
    """
    count = len(memory) // size
    first = key % count
    for place in range(first, first + _CANDIDATES):
        offset = place % count * size
        (found,) = _KEY.unpack_from(memory, offset)
        if found == key or not found:
            return offset, found == key
    return (key + (key >> 32) % _CANDIDATES) % count * size, False


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
    return dict(islice(named.items(), _MAX_NAMES))
