"""Memory that the processes of one mirror share, by which each knows the pulls that others have begun."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from itertools import islice
from struct import Struct
from typing import NamedTuple

from attrs import define, field

from ..oci.manifest import ManifestDocument
from ..oci.request import Reference, Tag
from ..system.shared_table import hash_key
from .tracker import Member, has_several_pulls

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
    :ivar read_at: when they were read.
    :ivar has_several: True if a request may join more than one pull.
    :ivar number: of the pull that requests for the contents and manifests below join without a search.
    :ivar contents: those that one of its manifests names; none after the members were read again.
    :ivar manifests: those that it has served, by the hashes of their references; none after that, either.
    """

    key: int
    offset: int
    head: tuple[int, int] = (0, 0)
    members: list[Member] = field(factory=list)
    read_at: float = 0.0
    has_several: bool = False
    number: int = 0
    contents: Mapping[int, Named] = field(factory=dict)
    manifests: dict[int, int] = field(factory=dict)

    def expect(self, number: int) -> None:
        """Begin to remember the contents and manifests of a pull, unless they are its already."""
        if self.number != number:
            self.number, self.contents, self.manifests = number, {}, {}

    def names(self, number: int) -> set[int]:
        """Return the tags and manifests of a pull."""
        return {name for other, name, _, _ in self.members if other == number}

    def served(self, number: int) -> set[int]:
        """Return the tags and manifests that a pull is known to have served."""
        return {name for other, name, _, is_served in self.members if is_served and other == number}


@lru_cache(maxsize=4096)
def _hash_tag(name: str) -> int:
    return hash_key(name.encode())


def hash_reference(reference: Reference) -> int:
    """Return 64 bits that stand for a tag, or a digest, which has enough of its own."""
    return _hash_tag(reference.name) if isinstance(reference, Tag) else int(reference.hex[:16], 16) or 1


class PullTable:
    """The running pulls by client and repository, and what their manifests name.

    Processes that write at the same moment may lose one of two updates: then a request is counted alone.

    :param memory: at most ``PULL_TABLE_SIZE`` bytes, zero at first.
    """

    def __init__(self, memory: memoryview) -> None:
        self._clients = memory[:_CLIENT_SIZE]
        self._named = memory[_CLIENT_SIZE:]

    def open(self, name: tuple[object, ...], now: float) -> ClientRecord:
        """Return the record of a client, its user and a repository, as it is now."""
        key = hash_key(repr(name).encode())
        record = ClientRecord(key, key % (_CLIENT_SIZE // _CLIENT_BYTES) * _CLIENT_BYTES, read_at=now)
        if self.head(record) != record.head:
            self.read(record, now)
        return record

    def read(self, record: ClientRecord, now: float) -> None:
        """Read the members of a record, which has none if it is new."""
        record.read_at, record.has_several = now, False
        record.contents, record.manifests = {}, {}
        record.head = key, additions = self.head(record)
        if key not in (record.key, 0):
            record.offset = _find(self._clients, record.key, _CLIENT_BYTES)[0]
            record.head = key, additions = self.head(record)
        if key != record.key:
            record.members = []
            return
        first = record.offset + _HEAD.size
        end = first + min(additions, _MEMBERS) * _MEMBER.size
        record.members = list(_MEMBER.iter_unpack(self._clients[first:end]))
        record.has_several = has_several_pulls(record.members, now)

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
    ) -> None:
        """Note the last byte of a pull, and add manifests and tags to it, in place of the oldest members.

        :param is_served: True if they were served, also those that are members already.
        """
        memory, missing = self._clients, set(names)
        if _HEAD.unpack_from(memory, record.offset) != record.head:
            self.read(record, last)
        position = record.offset + _HEAD.size
        for place, (other, name, _, was_served) in enumerate(record.members):
            if other == number:
                _TIME.pack_into(memory, position + _LAST, last)
                if name in missing:
                    missing.discard(name)
                    memory[position + _SERVED] |= is_served
                    was_served |= is_served
                record.members[place] = other, name, last, was_served
            position += _MEMBER.size
        if not missing:
            return
        if len(record.members) + len(missing) > _MEMBERS:
            self.read(record, last)  # for the times of others' members
        for name in missing:
            self._add(record, (number, name, last, is_served))
        before = record.head[1] if record.head[0] == record.key else 0
        record.head = record.key, before + len(missing)
        _HEAD.pack_into(memory, record.offset, *record.head)
        is_alone = len(record.members) == len(missing)
        record.has_several = not is_alone and has_several_pulls(record.members, last)

    def _add(self, record: ClientRecord, member: Member) -> None:
        members = record.members
        place = len(members)
        if place < _MEMBERS:
            members.append(member)
        else:
            place = min(range(_MEMBERS), key=lambda each: members[each][2])
            members[place] = member
        _MEMBER.pack_into(self._clients, record.offset + _HEAD.size + place * _MEMBER.size, *member)

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
    named = [(each, Named(True, "")) for each in document.layers]
    if document.config is not None:
        named.append((document.config, Named(False, "")))
    for child in document.children:
        platform = str(child.platform) if child.platform and child.platform.is_real else ""
        named.append((child.descriptor, Named(False, platform)))
    return {hash_reference(each.digest): name for each, name in islice(named, _MAX_NAMES) if each.digest}
