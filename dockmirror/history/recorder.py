"""Records the requests of one process as parts of pulls; a writer puts them into the file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import count

from attrs import define, evolve, field
from twisted.internet.interfaces import IReactorTime

from ..body.in_memory import BytesBody
from ..body.wrappers import Tee
from ..http.access import ClientAddress
from ..http.server_request import ServerRequest
from ..interfaces import Answer
from ..oci.digest import Digest
from ..oci.reference import Tag
from ..oci.request import Blob, Manifest, RegistryRequest
from ..system.networks import Region, normalize_host
from ..system.shared_table import hash_key
from .pull_table import ClientRecord, Named, PullTable, hash_text, read_names
from .tracker import (
    CACHED,
    JOIN_SECONDS,
    REPEAT_SECONDS,
    AddressDetail,
    PartReport,
    PartState,
    began,
    find_failed_pull,
    find_pull,
    is_ignored,
    make_number,
    saves_pull,
    stored_client,
)

_RECENT_SECONDS = 5.0
"""Seconds for which a process trusts its own memory of a pull; requests in between leave the table alone."""
_NAMES_SECONDS = 300.0
"""Seconds after which the names in a manifest are put into the table again: others may have evicted them."""
_MAX_MEMORY = 8192
_MAX_NAMES = 1024
_Key = tuple[int | None, str | None, str, str, str]
"""A client's address and user, the registry, the repository, and the tag or digest."""
_MANIFEST_LIMIT = 4 * 1024 * 1024
_REASON_LENGTH = 300
_UNNAMED = Named(False, "")
_CLIENT_LEFT = "the client closed the connection before the end"
_stored_client = lru_cache(maxsize=8192)(stored_client)
_normalize_host = lru_cache(maxsize=1024)(normalize_host)


@define(eq=False)
class _Content:
    """A manifest or blob that a client requests in a pull, as this process has last seen it.

    :ivar record: the client's pulls in the table.
    :ivar positions: those of the pull there.
    :ivar touched: when the pull's time there was last set.
    :ivar is_served: True if the table knows that the pull has served this manifest.
    :ivar digest: of the manifest that was last answered.
    :ivar report: what is not yet reported.
    """

    number: int
    name: int
    client: ClientAddress
    registry: str
    target: Manifest | Blob
    record: ClientRecord
    positions: tuple[int, ...]
    is_first: bool
    named: Named
    touched: float = 0.0
    is_served: bool = False
    digest: str = ""
    report: PartReport | None = None

    @property
    def reference(self) -> str:
        return str(self.target.reference if isinstance(self.target, Manifest) else self.target.digest)


@define(eq=False)
class _Part:
    """A running request for a manifest or blob.

    :ivar is_new: True if it begins its pull.
    :ivar is_recent: True if the table knows all of it already.
    :ivar reported: time of the last report of its bytes.
    """

    request: ServerRequest
    content: _Content
    head: bool
    reported: float
    is_new: bool
    is_recent: bool
    is_manifest: bool
    is_cached: bool = False
    is_answered: bool = False
    is_counted: bool = False
    digest: str = ""
    reported_bytes: int = 0


def _take_nothing(_: Sequence[PartReport]) -> None:
    """Drop the reports: no file was opened."""


def _flush_nothing() -> None:
    """Plan no flush: no file was opened."""


@define
class PullRecorder:
    """Assigns the requests of clients to pulls, and reports them once per second.

    :ivar process: tells the processes of a mirror apart.
    :ivar take: receives the reports.
    :ivar begun: is called when a request begins; ``flush`` must be called some time after it.
    """

    _table: PullTable
    _clock: IReactorTime
    _detail: AddressDetail = "full"
    _regions: tuple[Region, ...] = ()
    process: int = field(factory=os.getpid)
    take: Callable[[Sequence[PartReport]], None] = _take_nothing
    begun: Callable[[], None] = _flush_nothing
    _running: dict[int, _Part] = field(factory=dict)
    _reports: list[PartReport] = field(factory=list)
    _reported: list[_Content] = field(factory=list)
    _recent: dict[_Key, _Content] = field(factory=dict)
    _named: dict[str, float] = field(factory=dict)
    _names: dict[int, Mapping[int, Named]] = field(factory=dict)
    _count: count[int] = field(factory=count)

    def begin(self, request: ServerRequest, registry: str, read: RegistryRequest) -> None:
        """Assign a client's request to a pull, before the registry is asked."""
        target, client = read.target, request.admitted_client
        if client is None or not isinstance(target, Blob | Manifest):
            return
        now = self._clock.seconds()
        is_manifest = isinstance(target, Manifest)
        reference = target.reference if isinstance(target, Manifest) else target.digest
        text = reference.name if isinstance(reference, Tag) else reference.hex
        address = client.address
        key = (int(address) if address else None, client.user, registry, target.repository.name, text)
        content = self._recent.get(key)
        is_recent = (
            content is not None
            and 0 <= now - content.touched < _RECENT_SECONDS
            and self._table.is_current(content.record)
            and (not is_manifest or now - began(content.number) < REPEAT_SECONDS)
        )
        is_new = False
        if content is None or not is_recent:
            content, is_new = self._join(client, key, target, now)
            if content.number:
                _bound(self._recent)
                self._recent[key] = content
        if content.number:
            request.pull_id = str(content.number)
        self._running[id(request)] = _Part(request, content, read.head, now, is_new, is_recent, is_manifest)
        self.begun()

    def _join(
        self, client: ClientAddress, key: _Key, target: Manifest | Blob, now: float
    ) -> tuple[_Content, bool]:
        """Find the pull that a request joins, and return whether it begins a new one."""
        is_manifest = isinstance(target, Manifest)
        name = hash_text(str(target.reference if isinstance(target, Manifest) else target.digest))
        record = self._table.find(_hash_client(*key[:4]))
        named = _UNNAMED

        def is_named_by(manifest: int) -> bool:
            nonlocal named
            names = self._names.get(manifest)
            found = self._table.named(manifest, name) if names is None else names.get(name)
            named = found or named
            return found is not None

        number = find_pull(record.members, name, is_named_by, now)
        member = record.member(number, name) if number else None
        is_first = is_manifest and (number is None or member is not None)
        is_new = number is None and is_manifest
        if is_new:
            number = self._make_number(now)
        content = _Content(
            number or 0, name, client, key[2], target, record, record.positions(number) if number else (),
            is_first, named, is_served=member is not None and member.is_served,
        )  # fmt: skip
        return content, is_new

    def _make_number(self, now: float) -> int:
        return make_number(now, self.process, next(self._count))

    def answered(self, request: ServerRequest, answer: Answer, is_limited: bool) -> Answer:
        """Note the registry's answer, and return it.

        :param is_limited: True if the upstream limits pulls.
        """
        part = self._running.get(id(request))
        if part is None:
            return answer
        part.is_answered = True
        content, result = part.content, answer.cache.result if answer.cache else None
        part.is_cached = result in CACHED
        if result is not None:
            report = content.report or self._report(content)
            report.saved_requests += result.is_hit
            if part.is_manifest and not part.head:
                report.saved_pulls += saves_pull(result, answer.body.descriptor.media_type, is_limited)
        if not part.is_manifest or answer.status in (301, 307):
            return answer
        digest = answer.body.descriptor.digest
        if digest is not None:
            self._add_manifest(part, str(digest))
        if part.head or answer.status != 200 or self._knows_names(part):
            return answer
        if isinstance(answer.body, BytesBody):
            self._add_names(part, answer.body.data)
            return answer
        return evolve(
            answer, body=Tee(answer.body, _MANIFEST_LIMIT, lambda data: self._add_names(part, data))
        )

    def _add_manifest(self, part: _Part, digest: str) -> None:
        """Let a manifest belong to its pull; a HEAD does not prolong the pull that it joins."""
        content, part.digest = part.content, digest
        if part.is_recent and content.digest == digest:
            return
        content.digest, name, number = digest, hash_text(digest), content.number
        last = [each.last for each in content.record.members if each.number == number] if part.head else []
        if last:
            if content.record.member(number, name) is None:
                self._add(content, (name,), max(last))
            return
        content.touched = self._clock.seconds()
        if content.name != name:
            self._remember(content.name, {})
        self._add(content, {content.name, name}, content.touched)

    def _remember(self, manifest: int, names: Mapping[int, Named]) -> None:
        """Remember what a manifest names; a tag names nothing."""
        if len(self._names) >= _MAX_NAMES:
            self._names.clear()
        self._names[manifest] = names

    def _add(self, content: _Content, names: Iterable[int], last: float, is_served: bool = False) -> None:
        """Add names to the content's pull in the table, where others may have changed it meanwhile."""
        record = content.record
        if not self._table.is_current(record):
            record = self._table.find(record.key)
        content.record = self._table.add(record, content.number, names, last, is_served)
        content.positions = content.record.positions(content.number)

    def _knows_names(self, part: _Part) -> bool:
        return part.reported - self._named.get(part.digest, 0.0) < _NAMES_SECONDS

    def _add_names(self, part: _Part, data: bytes) -> None:
        """Let the contents that a manifest names join its pull."""
        if not part.digest:
            self._add_manifest(part, str(Digest.of(data)))
        if not self._knows_names(part):
            _bound(self._named)
            self._named[part.digest] = part.reported
            manifest, names = hash_text(part.digest), read_names(data)
            self._remember(manifest, names)
            self._table.add_named(manifest, names)

    def end(self, request: ServerRequest) -> None:
        """Report a request that has ended; call once for each, before the access log."""
        part = self._running.pop(id(request), None)
        if part is None:
            return
        content, now = part.content, self._clock.seconds()
        if request.code >= 400 and is_ignored(request.code, content.reference) and not request.is_cut_off:
            if part.is_counted:
                self._report(content).gets -= 1
            if part.is_new:
                self._add(content, (content.name,), now)
            return
        reason = ""
        if request.code >= 400 or request.is_cut_off:
            reason = " ".join((request.reason or _CLIENT_LEFT).split())[:_REASON_LENGTH]
            if part.is_manifest and not part.head:
                content = self._leave_served(part, now)
        report = self._progress(part, now)
        if part.head:
            return
        report.state = PartState(now, content.named.is_layer, part.is_cached, reason)
        is_newly_served = part.is_manifest and not reason and not content.is_served
        if not content.number or (part.is_recent and not is_newly_served):
            return
        is_known, content.touched = content.touched > 0, now
        if is_newly_served:
            content.is_served = True
            self._add(content, {content.name, hash_text(part.digest or content.reference)}, now, True)
        elif part.is_manifest and not is_known:
            self._add(content, (content.name,), now)
        else:
            self._table.touch(content.positions, content.record, now)

    def _leave_served(self, part: _Part, now: float) -> _Content:
        """Let a failed request leave a pull that has served its manifest, and return its content.

        The client has the image of that pull; failed requests for the manifest that follow are another pull.
        """
        content = part.content
        record = self._table.find(content.record.key)
        member = record.member(content.number, content.name)
        if member is None or not member.is_served:
            return content
        if part.is_counted:
            self._report(content).gets -= 1
            part.is_counted = False
        number = find_failed_pull(record.members, content.name, now) or self._make_number(now)
        part.content = _Content(
            number, content.name, content.client, content.registry, content.target, record,
            record.positions(number), True, content.named,
        )  # fmt: skip
        part.is_recent = False
        part.request.pull_id = str(number)
        return part.content

    @property
    def is_busy(self) -> bool:
        """Requests run, or their reports wait for a flush."""
        return bool(self._running or self._reports)

    def flush(self) -> None:
        """Report what has happened since the last call, running transfers included."""
        now = self._clock.seconds()
        for part in self._running.values():
            content = part.content
            if not part.head and content.number:
                report = self._progress(part, now)
                if report.state is None and part.is_answered:
                    report.state = PartState(now, content.named.is_layer, part.is_cached)
                self._table.touch(content.positions, content.record, now)
        if self._reports:
            for reported in self._reported:
                reported.report = None
            reports, self._reports, self._reported = self._reports, [], []
            self.take(reports)

    def _progress(self, part: _Part, now: float) -> PartReport:
        """Report the bytes that were sent since the last report."""
        content, request = part.content, part.request
        report = content.report or self._report(content)
        report.last = now
        if part.digest and content.is_first:
            report.digest = part.digest
        if part.head:
            return report
        if not part.is_counted:
            part.is_counted, report.gets = True, report.gets + 1
        if request.code in (200, 206):
            sent, part.reported_bytes = request.sentLength - part.reported_bytes, request.sentLength
            if part.is_cached:
                report.cached_bytes += sent
            else:
                report.upstream_bytes += sent
                report.upstream_seconds += max(0.0, now - part.reported)
        part.reported = now
        return report

    def _report(self, content: _Content) -> PartReport:
        """Return the report of a content, which is begun if there is none."""
        if content.report is None:
            client = content.client
            content.report = PartReport(
                content.number, content.name, _stored_client(client.address, self._detail, self._regions),
                client.user or "",
                _normalize_host(client.host), content.registry, content.target.repository.name,
                content.reference, content.is_first, platform=content.named.platform,
            )  # fmt: skip
            self._reports.append(content.report)
            self._reported.append(content)
        return content.report


@lru_cache(maxsize=_MAX_MEMORY)
def _hash_client(address: int | None, user: str | None, registry: str, repository: str) -> int:
    return hash_key(f"{address} {user} {registry}/{repository}".encode())


def _bound(memory: dict[str, float] | dict[_Key, _Content]) -> None:
    """Forget everything when there is too much: it is found in the table again."""
    if len(memory) >= _MAX_MEMORY:
        memory.clear()


assert _RECENT_SECONDS < JOIN_SECONDS
