"""Memory that the processes of one mirror share, by which each knows the pulls that others have begun."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from struct import Struct
from typing import NamedTuple

from ..oci.manifest import ManifestDocument
from ..system.shared_table import hash_key
from .tracker import Member

_MEMBERS = 8
_MEMBER = Struct("<QQd?7x")
"""Number of the pull, hash of the tag or manifest, time of the pull's last byte, True if it was served."""
_LAST = Struct("<d")
_HEAD = Struct("<QQ")
"""Key, and a count of the members that were ever added."""
_CLIENT = Struct(_HEAD.format + "QQd?7x" * _MEMBERS)
_EMPTY = bytes(_CLIENT.size)
_FIELDS = range(2, 2 + 4 * _MEMBERS, 4)
"""The indices at which the fields of each member begin."""
_CLIENT_SIZE = 8192 * _CLIENT.size
_NAMED = Struct("<QB23s")
"""Key of a manifest and a content that it names, whether that is a layer, and its platform."""
_NAMED_SIZE = 65_536 * _NAMED.size
PULL_TABLE_SIZE = _CLIENT_SIZE + _NAMED_SIZE
"""Bytes of memory for 8192 clients' repositories and 65,536 named contents; pages are used as needed."""
_CANDIDATES = 8
_KEY = Struct("<Q")
_MASK = 2**64 - 1


class Named(NamedTuple):
    """A content that a manifest names; the platform is that of an index's manifest."""

    is_layer: bool
    platform: str


class ClientRecord(NamedTuple):
    """The running pulls of a client from a repository, at their place in the memory.

    :ivar additions: how many members were ever added.
    :ivar members: those that were added, at most eight.
    """

    key: int
    offset: int
    additions: int
    members: tuple[Member, ...]

    def positions(self, number: int) -> tuple[int, ...]:
        """Return the offsets of a pull's members."""
        first = self.offset + _HEAD.size
        return tuple(
            [first + place * _MEMBER.size for place, each in enumerate(self.members) if each[0] == number]
        )

    def position(self, member: Member) -> int:
        return self.offset + _HEAD.size + self.members.index(member) * _MEMBER.size

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

    def find(self, key: int) -> ClientRecord:
        """Return the record of a client's pulls from a repository, which has no members if it is new.

        :param key: the hash of the client, its user and the repository.
        """
        offset, is_found = _find(self._clients, key, _CLIENT.size)
        if not is_found:
            return ClientRecord(key, offset, 0, ())
        fields = _CLIENT.unpack_from(self._clients, offset)
        members = []
        for first in _FIELDS:
            if not fields[first]:
                break
            members.append(Member(*fields[first : first + 4]))
        return ClientRecord(key, offset, fields[1], tuple(members))

    def is_current(self, record: ClientRecord) -> bool:
        """Return whether no process has added a member since the record was read."""
        return _HEAD.unpack_from(self._clients, record.offset) == (record.key, record.additions)

    def touch(self, positions: Iterable[int], record: ClientRecord, now: float) -> None:
        """Note that bytes were sent in a pull whose members have these positions."""
        if _KEY.unpack_from(self._clients, record.offset)[0] == record.key:
            for position in positions:
                _LAST.pack_into(self._clients, position + 16, now)

    def add(
        self, record: ClientRecord, number: int, names: Iterable[int], now: float, is_served: bool = False
    ) -> ClientRecord:
        """Add manifests or tags to a pull, in place of the oldest members; return the record after that.

        :param is_served: True if they were served, also those that are members already.
        """
        members, count, is_known = list(record.members), record.additions, False
        if not members:
            self._clients[record.offset : record.offset + _CLIENT.size] = _EMPTY
        for name in names:
            known = record.member(number, name)
            if known is not None:
                is_known = True
                if is_served and not known.is_served:
                    _MEMBER.pack_into(self._clients, record.position(known), number, name, now, True)
                continue
            place = len(members) if len(members) < _MEMBERS else _oldest(members)
            members[place : place + 1] = [Member(number, name, now, is_served)]
            position = record.offset + _HEAD.size + place * _MEMBER.size
            _MEMBER.pack_into(self._clients, position, number, name, now, is_served)
            count += 1
        if count != record.additions:
            _HEAD.pack_into(self._clients, record.offset, record.key, count)
            record = ClientRecord(record.key, record.offset, count, tuple(members))
        if is_known:
            self.touch(record.positions(number), record, now)
        return record

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


def _oldest(members: Sequence[Member]) -> int:
    return min(range(len(members)), key=lambda place: members[place].last)


def _find(memory: memoryview, key: int, size: int) -> tuple[int, bool]:
    """Return the offset of a key and True, or the offset where to put it.

    If all of its places are taken, it takes one of them that the key decides: these tables are much larger
    than the number of pulls that run at once.
    """
    count = len(memory) // size
    for step in range(_CANDIDATES):
        offset = (key + step) % count * size
        (found,) = _KEY.unpack_from(memory, offset)
        if found == key:
            return offset, True
        if not found:
            return offset, False
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
    return named
