"""A model of a fleet: which bytes pass which line, when, and what the registry and the bucket are asked.

Each line serves whole blobs one after another.  Lines that share their rate among all transfers move the same
bytes in the same time; only the order in which machines finish differs, so the model tells when the last one
finishes, and not a median.  A blob that arrives at a mirror is sent on at the same time.
"""

from __future__ import annotations

import random
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from hashlib import sha256
from heapq import heappop, heappush
from math import ceil, inf

from attrs import Factory, define, field, frozen

from .workload import Image, Layer, Pull

PARALLEL = 3
"""Layers that a machine fetches at once, as docker and containerd do by default."""
_WINDOW = 6 * 3600.0


@frozen
class Outage:
    """A time in which a mirror, by its number, or ``"upstream"`` or ``"bucket"`` does not answer."""

    part: int | str
    begin: float
    end: float


@frozen
class Design:
    """A fleet; all rates are in bytes a second.

    :ivar balancer: the rate of the load balancer, or infinity where clients reach mirrors without one.
    :ivar hashes: all requests for a digest go to the same mirror; otherwise to any.
    :ivar bound: the most requests of a mirror at once, in relation to the mean, before its requests go to the
        next one; None for no bound.
    :ivar peers: a mirror fetches what is not in the bucket from the mirror that a hash of its own chooses.
    :ivar disk: the bytes that a mirror keeps.
    :ivar connection: the upstream's rate for a blob.
    :ivar limit: pulls that the upstream allows the fleet within six hours; None for any number.
    :ivar confirmed: seconds between two questions about a tag in use.
    :ivar delay: seconds until the upstream answers.
    :ivar hash: another number gives each digest to another mirror.
    """

    mirrors: int
    mirror: float
    node: float
    upstream: float
    balancer: float = inf
    bucket: float | None = None
    hashes: bool = True
    bound: float | None = None
    peers: bool = False
    disk: float = inf
    connection: float = inf
    limit: int | None = None
    confirmed: float = 60.0
    delay: float = 0.1
    outages: Sequence[Outage] = ()
    hash: int = 0


@define
class Line:
    """A line that serves one blob after another.

    :ivar busy: seconds in which it has served.
    """

    rate: float
    free: float = 0.0
    busy: float = 0.0

    def send(self, now: float, size: int) -> float:
        """Return the time at which a blob has passed that is to be sent now."""
        took = size / self.rate
        self.free = max(now, self.free) + took
        self.busy += took
        return self.free


@define
class Result:
    """The outcome of all pulls.

    :ivar ended: when each pull ended, in seconds since the beginning.
    :ivar counts: of requests, by what is asked and its method, and of bytes.
    :ivar lines: by name; the mirrors' are ``mirror 0`` and so on.
    :ivar sent: the bytes that each mirror has sent to clients, by its number.
    """

    failed: int = 0
    ended: dict[Pull, float] = Factory(dict)
    counts: Counter[str] = Factory(Counter)
    lines: dict[str, Line] = Factory(dict)
    sent: list[int] = Factory(list)

    def seconds(self, pulls: Iterable[Pull]) -> float:
        """Return the time from the first of these pulls' beginning to the last one's end."""
        chosen = [pull for pull in pulls if pull in self.ended]
        return max(self.ended[pull] for pull in chosen) - min(pull.time for pull in chosen)

    @property
    def busiest(self) -> str:
        """The name of the line that served for the longest time."""
        return max(self.lines, key=lambda name: self.lines[name].busy)


@define
class _Mirror:
    """A mirror's disk, in the order of use, and the times at which blobs that it fetches are complete."""

    kept: OrderedDict[str, int] = Factory(OrderedDict)
    size: int = 0
    fetching: dict[str, float] = Factory(dict)
    running: int = 0

    def keep(self, layer: Layer, limit: float) -> None:
        """Add a blob, and evict those that were used longest ago."""
        del self.fetching[layer.name]
        self.kept[layer.name] = layer.size
        self.size += layer.size
        while self.size > limit and len(self.kept) > 1:
            _, size = self.kept.popitem(last=False)
            self.size -= size


@define
class _Tag:
    """A tag as the mirrors know it; they share this by the bucket, or by the hash of the repository."""

    version: int = 0
    confirmed: float = -inf


@define
class _Running:
    """A pull under way: the layers that are to be fetched yet, and the number that are being fetched."""

    pull: Pull
    left: deque[Layer]
    fetching: int = 0
    has_failed: bool = False


@define
class Fleet:
    """Runs pulls through a design."""

    design: Design
    result: Result = Factory(Result)
    _mirrors: list[_Mirror] = field(init=False)
    _uploaded: dict[str, float] = Factory(dict)
    _tags: dict[tuple[int, str], _Tag] = Factory(dict)
    _manifests: dict[tuple[str, int], float] = Factory(dict)
    _current: dict[str, int] = Factory(dict)
    _limited: deque[float] = Factory(deque)
    _events: list[tuple[float, int, Callable[[float], None]]] = Factory(list)
    _number: int = 0
    _ranked: dict[str, Sequence[int]] = Factory(dict)
    _nodes: dict[int, Line] = Factory(dict)
    _source: random.Random = Factory(partial(random.Random, 1))

    def __attrs_post_init__(self) -> None:
        design = self.design
        self._mirrors = [_Mirror() for _ in range(design.mirrors)]
        lines = {"upstream": design.upstream, "balancer": design.balancer}
        if design.bucket is not None:
            lines["bucket"] = design.bucket
        lines |= {f"mirror {number}": design.mirror for number in range(design.mirrors)}
        self.result.lines = {name: Line(rate) for name, rate in lines.items()}
        self.result.sent = [0] * design.mirrors

    def run(self, pulls: Iterable[Pull]) -> Result:
        """Return the outcome of pulls, which may be in any order."""
        for pull in pulls:
            self._at(pull.time, lambda now, pull=pull: self._begin(pull, now))
        while self._events:
            now, _, event = heappop(self._events)
            event(now)
        return self.result

    def _at(self, time: float, event: Callable[..., None]) -> None:
        self._number += 1
        heappush(self._events, (time, self._number, event))

    def _begin(self, pull: Pull, now: float) -> None:
        answered = self._ask_tag(pull.image, now)
        if answered is None:
            self.result.failed += 1
            return
        running = _Running(pull, deque(pull.layers))
        self._at(answered, lambda time: self._go_on(running, time))

    def _ask_tag(self, image: Image, now: float) -> float | None:
        """Return when the manifest of a tag is answered; None if it cannot be."""
        number = self._choose(image.repository, now)
        if number is None:
            return None
        self._current[image.repository] = max(image.version, self._current.get(image.repository, 0))
        version = self._current[image.repository]
        # With a bucket or a hash one answer serves all; otherwise each mirror asks for itself.
        key = (0 if self.design.hashes or self.design.bucket else number, image.repository)
        tag = self._tags.setdefault(key, _Tag())
        if now - tag.confirmed < self.design.confirmed:
            return now
        if self._is_out("upstream", now):
            return now if tag.version else None
        if tag.version:
            self.result.counts["upstream HEAD tag"] += 1
        if tag.version != version:
            if not self._may_pull(now):
                self.result.counts["upstream 429"] += 1
                return now if tag.version else None
            self.result.counts["upstream GET manifest"] += 1
            self.result.counts["bucket PUT content"] += self.design.bucket is not None
        tag.version, tag.confirmed = version, now
        return now + self.design.delay

    def _may_pull(self, now: float) -> bool:
        while self._limited and now - self._limited[0] > _WINDOW:
            self._limited.popleft()
        if self.design.limit is not None and len(self._limited) >= self.design.limit:
            return False
        self._limited.append(now)
        return True

    def _go_on(self, running: _Running, now: float) -> None:
        """Begin to fetch further layers; note the pull's end when there are none."""
        while running.left and running.fetching < PARALLEL:
            running.fetching += 1
            self._fetch(running, running.left.popleft(), now)
        if not running.fetching:
            self._end(running, now)

    def _end(self, running: _Running, now: float) -> None:
        self.result.failed += running.has_failed
        self.result.ended[running.pull] = now

    def _fetch(self, running: _Running, layer: Layer, now: float) -> None:
        number = self._choose(layer.name, now)
        complete = None if number is None else self._hold(number, layer, now)
        if number is None or complete is None:
            self._fetched(running, now, has_failed=True)
            return
        mirror = self._mirrors[number]
        node = self._nodes.setdefault(running.pull.node, Line(self.design.node))
        lines = (self.result.lines[f"mirror {number}"], self.result.lines["balancer"], node)
        end = max(complete, *(line.send(now, layer.size) for line in lines))
        mirror.running += 1
        self.result.sent[number] += layer.size
        outage = next(
            (each for each in self.design.outages if each.part == number and now < each.begin < end), None
        )

        def finish(time: float) -> None:
            mirror.running -= 1
            self._fetched(running, time)

        def repeat(time: float) -> None:
            mirror.running -= 1
            self._fetch(running, layer, time)

        self._at(outage.begin if outage else end, repeat if outage else finish)

    def _fetched(self, running: _Running, now: float, has_failed: bool = False) -> None:
        running.fetching -= 1
        running.has_failed |= has_failed
        self._go_on(running, now)

    def _hold(self, number: int, layer: Layer, now: float) -> float | None:
        """Return when the mirror has the whole layer, which it fetches if need be; None if it cannot."""
        mirror = self._mirrors[number]
        if layer.name in mirror.kept:
            mirror.kept.move_to_end(layer.name)
            return now
        if layer.name in mirror.fetching:
            return mirror.fetching[layer.name]
        counts, lines = self.result.counts, self.result.lines
        in_bucket = self._uploaded.get(layer.name, inf) <= now and not self._is_out("bucket", now)
        if in_bucket:
            counts["bucket GET blob"] += 1
            complete = lines["bucket"].send(now, layer.size)
        elif self.design.peers and (owner := self._choose_peer(layer.name, now)) != number:
            held = self._hold(owner, layer, now)
            if held is None:
                return None
            counts["peer GET blob"] += 1
            complete = max(held, lines[f"mirror {owner}"].send(now, layer.size))
        elif self._is_out("upstream", now):
            return None
        else:
            counts["upstream GET blob"] += 1
            counts["upstream bytes"] += layer.size
            sent = lines["upstream"].send(now, layer.size)
            complete = max(sent, now + layer.size / self.design.connection) + self.design.delay
            if self.design.bucket is not None and layer.name not in self._uploaded:
                counts["bucket PUT content"] += 1
                self._uploaded[layer.name] = complete + layer.size / self.design.bucket
        mirror.fetching[layer.name] = complete
        self._at(complete, lambda _: mirror.keep(layer, self.design.disk))
        return complete

    def _choose(self, key: str, now: float) -> int | None:
        """Return the mirror that a load balancer sends a request to; None if there is none."""
        up = [number for number in range(self.design.mirrors) if not self._is_out(number, now)]
        if not up:
            return None
        if not self.design.hashes:
            return self._source.choice(up)
        ranked = [number for number in self._rank(key) if number in up]
        if self.design.bound is None:
            return ranked[0]
        total = sum(each.running for each in self._mirrors)
        most = ceil(self.design.bound * (total + 1) / len(up))
        return next((number for number in ranked if self._mirrors[number].running < most), ranked[0])

    def _choose_peer(self, key: str, now: float) -> int:
        """Return the mirror that fetches a blob for all; at least the mirror that asks is up."""
        return next(number for number in self._rank(f"peer {key}") if not self._is_out(number, now))

    def _rank(self, key: str) -> Sequence[int]:
        """Return the mirrors in the order in which they get the requests for a digest."""
        if key not in self._ranked:
            self._ranked[key] = sorted(
                range(self.design.mirrors),
                key=lambda number: sha256(f"{self.design.hash} {number} {key}".encode()).digest(),
            )
        return self._ranked[key]

    def _is_out(self, part: int | str, now: float) -> bool:
        return any(each.part == part and each.begin <= now < each.end for each in self.design.outages)


def run(design: Design, pulls: Iterable[Pull]) -> Result:
    """Return the outcome of pulls through a design."""
    return Fleet(design).run(pulls)
