"""Records the requests of one process as parts of pulls; a writer puts them into the file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from itertools import count
from math import inf

from attrs import define, evolve, field
from twisted.internet.interfaces import IReactorTime

from ..body.bodies import BytesBody, Tee
from ..http.server_request import ServerRequest
from ..interfaces import Answer
from ..oci.digest import Digest
from ..oci.request import Blob, Manifest, Reference, Tag
from ..system.networks import ClientAddress, Region, normalize_host
from .pull_table import ClientRecord, Named, PullTable, hash_text, read_names
from .tracker import (
    CACHED,
    JOIN_SECONDS,
    REPEAT_SECONDS,
    AddressDetail,
    PartState,
    PullReport,
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
assert _RECENT_SECONDS < JOIN_SECONDS
_NAMES_SECONDS = 300.0
"""Seconds after which the names in a manifest are put into the table again: others may have evicted them."""
_MAX_MEMORY = 4096
_ClientKey = tuple[int | None, str | None, str, str]
"""A client's address and user, the registry, and the repository."""
_MANIFEST_LIMIT = 4 * 1024 * 1024
_REASON_LENGTH = 300
_UNNAMED = Named(False, "")
_CLIENT_LEFT = "the client closed the connection before the end"
_stored_client = lru_cache(maxsize=_MAX_MEMORY)(stored_client)
_normalize_host = lru_cache(maxsize=1024)(normalize_host)


@define(eq=False)
class _Pull:
    """A pull as this process has last seen it; requests without a pull have one with the number 0.

    :ivar record: the client's pulls in the table.
    :ivar touched: when the pull's time there was last set.
    :ivar reference: of the manifest that it begins with, as ``digest``; empty if it is not known here.
    :ivar report: what is not yet reported.
    """

    number: int
    id: str
    record: ClientRecord
    client: str
    user: str
    host: str
    registry: str
    repository: str
    touched: float = 0.0
    reference: str = ""
    digest: str = ""
    platform: str = ""
    report: PullReport | None = None


@define(eq=False)
class _Content:
    """A manifest or blob that a client requests in a pull, as this process has last seen it.

    :ivar is_first: True if the pull begins with it.
    :ivar named: what the pull's manifests say of it.
    :ivar is_served: True if the table knows that the pull has served this manifest.
    :ivar head: that of the client's record, as far as it is taken into account.
    :ivar digest: the hexadecimal one of the manifest that was last answered; its hash is ``manifest``.
    """

    pull: _Pull
    reference: Reference
    name: int
    is_manifest: bool
    is_first: bool
    named: Named
    is_served: bool
    head: tuple[int, int]
    digest: str = ""
    manifest: int = 0


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
    is_new: bool
    is_recent: bool
    reported: float
    is_cached: bool = False
    is_answered: bool = False
    is_counted: bool = False
    reported_bytes: int = 0


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
    take: Callable[[Sequence[PullReport]], None] = lambda _: None
    begun: Callable[[], None] = lambda: None
    _running: dict[int, _Part] = field(factory=dict)
    _reported: list[_Pull] = field(factory=list)
    _clients: dict[_ClientKey, ClientRecord] = field(factory=dict)
    _pulls: dict[int, _Pull] = field(factory=dict)
    _recent: dict[tuple[int, bool, str], _Content] = field(factory=dict)
    _names: dict[int, tuple[float, Mapping[int, Named]]] = field(factory=dict)
    _count: count[int] = field(factory=count)

    def begin(self, request: ServerRequest, registry: str, target: Manifest | Blob, head: bool) -> None:
        """Assign a client's request to a pull, before the registry is asked."""
        client = request.admitted_client
        if client is None:
            return
        now, address = self._clock.seconds(), client.address
        is_manifest = isinstance(target, Manifest)
        reference = target.reference if isinstance(target, Manifest) else target.digest
        key = (int(address) if address else None, client.user, registry, target.repository.name)
        record = self._clients.get(key)
        if record is None:
            record = self._clients[key] = self._table.open(key)
        memory = record.key, is_manifest, reference.name if isinstance(reference, Tag) else reference.hex
        content, is_new = self._recent.get(memory), False
        is_recent = (
            content is not None
            and 0 <= now - content.pull.touched < _RECENT_SECONDS
            and content.head == self._table.head(record)
            and (not is_manifest or now - began(content.pull.number) < REPEAT_SECONDS)
        )
        if content is None or not is_recent:
            name = hash_text(str(reference))
            number, named = self._find(record, name, now)
            is_new = is_manifest and not number
            if is_new:
                number = make_number(now, self.process, next(self._count))
            pull = self._pulls.get(number) or self._add_pull(number, record, client, key)
            member = record.member(number, name) if is_manifest else None
            content = _Content(
                pull, reference, name, is_manifest, is_new or member is not None, named,
                member is not None and member[3], record.head,
            )  # fmt: skip
            if len(self._recent) + len(self._pulls) >= _MAX_MEMORY:
                for each in (self._recent, self._pulls, self._clients):
                    each.clear()  # all is found in the table again
            self._recent[memory] = content
            pull.platform = pull.platform or named.platform
            if content.is_first and (not pull.reference or isinstance(reference, Tag)):
                pull.reference = str(reference)
        if content.pull.number:
            request.pull_id = content.pull.id
        self._running[id(request)] = _Part(request, content, head, is_new, is_recent, now)
        self.begun()

    def _add_pull(self, number: int, record: ClientRecord, client: ClientAddress, key: _ClientKey) -> _Pull:
        address = _stored_client(client.address, self._detail, self._regions)
        host = _normalize_host(client.host)
        pull = _Pull(number, str(number), record, address, client.user or "", host, key[2], key[3])
        if number:
            self._pulls[number] = pull
        return pull

    def _find(self, record: ClientRecord, name: int, now: float) -> tuple[int, Named]:
        """Return the number of the pull that a request joins, or 0, and what manifests say of the content."""
        named = _UNNAMED

        def is_named_by(manifest: int) -> bool:
            nonlocal named
            known = self._names.get(manifest)
            found = self._table.named(manifest, name) if known is None else known[1].get(name)
            named = found or named
            return found is not None

        self._table.read(record)
        return find_pull(record.members, name, is_named_by, now) or 0, named

    def answered(self, request: ServerRequest, answer: Answer, is_limited: bool) -> Answer:
        """Note the registry's answer, and return it.

        :param is_limited: True if the upstream limits pulls.
        """
        part = self._running.get(id(request))
        if part is None:
            return answer
        part.is_answered = True
        content = part.content
        if answer.cache is not None:
            result = answer.cache.result
            part.is_cached = result in CACHED
            report = content.pull.report or self._report(content.pull)
            report.saved_requests += result.is_hit
            if content.is_manifest and not part.head:
                report.saved_pulls += saves_pull(result, answer.body.descriptor.media_type, is_limited)
        if not content.is_manifest or answer.status in (301, 307):
            return answer
        digest = answer.body.descriptor.digest
        if digest is not None:
            self._add_manifest(part, digest)
        if part.head or answer.status != 200 or (digest and self._knows_names(part)):
            return answer
        add = partial(self._add_names, part, digest)
        if not isinstance(answer.body, BytesBody):
            return evolve(answer, body=Tee(answer.body, _MANIFEST_LIMIT, add))
        add(answer.body.data)
        return answer

    def _add_manifest(self, part: _Part, digest: Digest) -> None:
        """Let a manifest belong to its pull; a HEAD does not prolong the pull that it joins."""
        content, pull = part.content, part.content.pull
        if content.digest != digest.hex:
            content.digest, text = digest.hex, str(digest)
            content.manifest = hash_text(text)
            if content.is_first:
                pull.digest = text
            if content.manifest == content.name:
                if content.is_first and not part.is_new:
                    return  # it is in the table
            elif content.name not in self._names:
                self._remember(content.name, inf, {})  # a tag names nothing
        elif part.is_recent:
            return
        if part.head:
            self._table.read(pull.record)
        last = [each[2] for each in pull.record.members if part.head and each[0] == pull.number]
        if last:
            names: tuple[int, ...] = (content.manifest,)
        else:
            names = content.name, content.manifest
            last = [self._clock.seconds()]
            pull.touched = last[0]
        content.head = self._table.update(pull.record, pull.number, max(last), names)

    def _remember(self, manifest: int, now: float, names: Mapping[int, Named]) -> None:
        if len(self._names) >= _MAX_MEMORY:
            self._names.clear()
        self._names[manifest] = now, names

    def _knows_names(self, part: _Part) -> bool:
        known = self._names.get(part.content.manifest)
        return known is not None and part.reported - known[0] < _NAMES_SECONDS

    def _add_names(self, part: _Part, digest: Digest | None, data: bytes) -> None:
        """Let the contents that a manifest names join its pull."""
        if digest is None:
            self._add_manifest(part, Digest.of(data))
        if not self._knows_names(part):
            manifest, names = part.content.manifest, read_names(data)
            self._remember(manifest, part.reported, names)
            self._table.add_named(manifest, names)

    def end(self, request: ServerRequest) -> None:
        """Report a request that has ended; call once for each, before the access log."""
        part = self._running.pop(id(request), None)
        if part is None:
            return
        content, pull, now, reason = part.content, part.content.pull, self._clock.seconds(), ""
        if request.code >= 400 or request.is_cut_off:
            if not request.is_cut_off and is_ignored(request.code, str(content.reference)):
                self._uncount(part)
                if part.is_new:
                    content.head = self._table.update(pull.record, pull.number, now, (content.name,))
                return
            reason = " ".join((request.reason or _CLIENT_LEFT).split())[:_REASON_LENGTH]
            if content.is_manifest and not part.head:
                content = self._leave_served(part, now)
                pull = content.pull
        report = self._progress(part, now)
        if part.head:
            return
        report.parts[content.name] = PartState(now, content.named.is_layer, part.is_cached, reason)
        is_known = reason or content.is_served or not content.is_manifest
        if not pull.number or (part.is_recent and is_known):
            return
        pull.touched = now
        if content.is_manifest:
            content.is_served |= not reason
            names = content.name, content.manifest or content.name
            content.head = self._table.update(pull.record, pull.number, now, names, not reason)
        else:
            self._table.update(pull.record, pull.number, now)

    def _uncount(self, part: _Part) -> None:
        if part.is_counted:
            part.is_counted = False
            self._report(part.content.pull).gets -= 1

    def _leave_served(self, part: _Part, now: float) -> _Content:
        """Let a failed request leave a pull that has served its manifest, and return its content.

        The client has the image of that pull; failed requests for the manifest that follow are another pull.
        """
        content, pull = part.content, part.content.pull
        self._table.read(pull.record)
        member = pull.record.member(pull.number, content.name)
        if member is None or not member[3]:
            return content
        self._uncount(part)
        number = find_failed_pull(pull.record.members, content.name, now)
        number = number or make_number(now, self.process, next(self._count))
        reference = str(content.reference)
        self._pulls[number] = left = self._pulls.get(number) or evolve(
            pull, number=number, id=str(number), reference=reference, digest="", report=None
        )
        part.content = evolve(content, pull=left, is_first=True, is_served=False, digest="", manifest=0)
        part.is_recent = False
        part.request.pull_id = left.id
        return part.content

    @property
    def is_busy(self) -> bool:
        """Requests run, or their reports wait for a flush."""
        return bool(self._running or self._reported)

    def flush(self) -> None:
        """Report what has happened since the last call, running transfers included."""
        now = self._clock.seconds()
        for part in self._running.values():
            content, pull = part.content, part.content.pull
            if not part.head and pull.number:
                report = self._progress(part, now)
                if part.is_answered:
                    state = PartState(now, content.named.is_layer, part.is_cached)
                    report.parts.setdefault(content.name, state)
                self._table.update(pull.record, pull.number, now)
        if self._reported:
            reported, self._reported = self._reported, []
            self.take([_take_report(pull) for pull in reported])

    def _progress(self, part: _Part, now: float) -> PullReport:
        """Report the bytes that were sent since the last report."""
        content, request = part.content, part.request
        report = content.pull.report or self._report(content.pull)
        report.last = now
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

    def _report(self, pull: _Pull) -> PullReport:
        """Return the report of a pull, which is begun if there is none."""
        if pull.report is None:
            pull.report = PullReport(
                pull.number, pull.client, pull.user, pull.host, pull.registry, pull.repository, {}
            )
            self._reported.append(pull)
        return pull.report


def _take_report(pull: _Pull) -> PullReport:
    report, pull.report = pull.report, None
    assert report is not None
    report.reference, report.digest, report.platform = pull.reference, pull.digest, pull.platform
    return report
