"""``python -m bench.fleet``: a model of fleets beside three real mirrors, and for up to 10,000 machines."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from math import inf
from statistics import median

from attrs import evolve, frozen

from ..peers.haproxy import BOUND
from .model import Design, Outage, run
from .real import Phase, Setup, measure
from .workload import Pull, leave_out_known, make_images, next_version, rollout, steady

NODES = 16
CONNECTION = 2_000_000
CONFIRMED = 2.0
_COUNTED = (
    "upstream GET blob",
    "upstream bytes",
    "upstream GET manifest",
    "upstream HEAD tag",
    "bucket PUT content",
    "bucket GET blob",
)
_PHASES = ("cold rollout", "mixed pulls", "rollout of a moved tag", "new machines, a mirror dead")
_COMPARED = (
    ("Each blob at one mirror:", False, False),
    ("With bounded load:", True, False),
    ("With bounded load and peers:", True, True),
)
HASHES = 21
GIGABIT = 125e6
"""Bytes a second."""
_MINUTE, _DAY = 60.0, 86_400.0
_GROUP = 100.0
"""Seconds of the plan between the beginnings of two phases."""


def main() -> None:
    """Print five tables; ``--model`` leaves out the first three, so that no program is needed."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--model", action="store_true", help="leave out the real mirrors")
    if not arguments.parse_args().model:
        for title, bounded, peers in _COMPARED:
            print(title)
            _print("measured, three mirrors, the model, with other hashes, error", compare(bounded, peers))
    _print("machines, mirrors, case, until the last has it, from the upstream, busiest line", designs())
    _print("machines, pulls, refused, manifests, questions about tags, GB fetched, GB sent", days())


def _print(head: str, rows: Iterable[Sequence[str]]) -> None:
    """Print a table in Markdown."""
    names = head.split(", ")
    print(f"| {' | '.join(names)} |\n|{' --- |' * len(names)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print()


def make_phases() -> list[Phase]:
    """Return a cold rollout, mixed pulls, a tag that moves, and new machines after a mirror's death."""
    images = make_images(8, 8, 4_000_000)
    groups = [
        rollout(images[0], range(NODES), 0, 1),
        steady(images, NODES, 60, _GROUP, 8),
        rollout(next_version(images[0]), range(NODES), 2 * _GROUP, 1),
        [pull for image in images[1:] for pull in rollout(image, range(NODES, NODES + 4), 3 * _GROUP, 2)],
    ]
    known = leave_out_known(chain(*groups))
    phases = [
        Phase([each for each in known if begin <= each.time < begin + _GROUP])
        for begin in (number * _GROUP for number in range(len(groups)))
    ]
    return [*phases[:-1], evolve(phases[-1], kill=2)]


def compare(bounded: bool, peers: bool) -> Iterator[Sequence[str]]:
    """Yield the rows of the comparison: what three mirrors did, and what the model says of the same pulls.

    :param bounded: True if HAProxy hashes with bounded load.
    :param peers: True if the mirrors are peers.

    Which mirror a digest belongs to differs, so the model runs with several hashes.
    """
    measured = measure(make_phases(), Setup(CONNECTION, CONFIRMED, bounded, peers))
    assert measured.killed is not None
    outage = Outage(*measured.killed, inf)
    # On one machine the lines are as fast as its memory; what limits a pull is the registry's rate.
    design = Design(
        3,
        1e9,
        1e9,
        1e9,
        bucket=1e8,
        bound=BOUND if bounded else None,
        peers=peers,
        connection=CONNECTION,
        confirmed=CONFIRMED,
    )
    design = evolve(design, delay=0.02, outages=[outage])
    results = [run(evolve(design, hash=number), chain(*measured.pulls)) for number in range(HASHES)]
    for name in _COUNTED:
        yield _compared(name, measured.counts[name], [each.counts[name] for each in results])
    yield _compared("bytes to the machines", sum(measured.sent), [sum(each.sent) for each in results])
    peaks = [_peak(each.sent) for each in results]
    yield _compared("share of the busiest mirror", _peak(measured.sent), peaks)
    for name, pulls, seconds in zip(_PHASES, measured.pulls, measured.seconds, strict=True):
        yield _compared(f"{name}, s", seconds, [each.seconds(pulls) for each in results])


def _peak(sent: Sequence[int]) -> float:
    """Return the bytes of the busiest mirror in relation to the mean."""
    return max(sent) * len(sent) / sum(sent)


def _compared(name: str, measured: float, predicted: Sequence[float]) -> Sequence[str]:
    middle = median(predicted)
    least, most = _figure(min(predicted)), _figure(max(predicted))
    error = f"{middle / measured - 1:+.0%}" if measured else ""
    return name, _figure(measured), _figure(middle), "" if least == most else f"{least} to {most}", error


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"


@frozen
class _Case:
    """One row: machines that pull through a design."""

    nodes: int
    name: str
    design: Design
    pulls: Sequence[Pull]


def designs() -> Iterator[Sequence[str]]:
    """Yield the rows for ten, a thousand and 10,000 machines, each of which has a line of 1 Gbit/s.

    The upstream is reached by 1 Gbit/s, 20 MB/s for each connection, and the image has 12 layers, 400 MB.
    """
    for case in _cases():
        result = run(case.design, case.pulls)
        copies = result.counts["upstream bytes"] / sum(_sizes(case.pulls).values())
        line = result.lines[result.busiest]
        seconds = result.seconds(case.pulls)
        yield (
            f"{case.nodes:,}", str(case.design.mirrors), case.name, _time(seconds),
            f"{copies:.2f} copies, {result.counts['upstream GET manifest']} pulls",
            f"{result.busiest.rstrip('0123456789 ')}, {line.busy / seconds:.0%}",
        )  # fmt: skip


def _cases() -> Iterator[_Case]:
    image = make_images(1, 12, 400_000_000)[0]
    one = Design(1, 10 * GIGABIT, GIGABIT, GIGABIT, connection=20e6)
    several = evolve(one, mirrors=3, bucket=10 * GIGABIT, balancer=10 * GIGABIT)
    for nodes in (10, 1000, 10_000):
        pulls = leave_out_known(rollout(image, range(nodes), 0, _MINUTE))
        yield _Case(nodes, "one mirror", one, pulls)
        yield _Case(nodes, "three behind one balancer", several, pulls)
        yield _Case(nodes, "… with 100 Gbit/s", evolve(several, balancer=100 * GIGABIT), pulls)
        bounded = evolve(several, balancer=100 * GIGABIT, bound=1.25)
        yield _Case(nodes, "… and bounded load", bounded, pulls)
        yield _Case(nodes, "… and peers", evolve(bounded, peers=True), pulls)
        if nodes >= 1000:
            many = evolve(several, mirrors=20, balancer=inf, bound=1.25)
            yield _Case(nodes, "twenty, without one balancer for all", many, pulls)
            yield _Case(nodes, "… and peers", evolve(many, peers=True), pulls)
            yield _Case(nodes, "… each blob at one mirror", evolve(many, bound=None), pulls)
            loose = evolve(many, hashes=False, bound=None)
            yield _Case(nodes, "… not hashed", loose, pulls)
            yield _Case(nodes, "… not hashed, and peers", evolve(loose, peers=True), pulls)
            broken = evolve(many, outages=[Outage(0, 30, inf), Outage("upstream", 45, inf)])
            yield _Case(nodes, "… a mirror and the upstream down after 30 and 45 s", broken, pulls)


def days() -> Iterator[Sequence[str]]:
    """Yield the rows of a day: ten pulls by each machine, of 50 images whose tags move four times.

    The registry allows 100 pulls within six hours, as Docker Hub allows clients without an account.
    """
    versions = make_images(50, 12, 400_000_000)
    design = Design(
        3, 10 * GIGABIT, GIGABIT, GIGABIT, balancer=10 * GIGABIT, bucket=10 * GIGABIT, connection=20e6,
        limit=100,
    )  # fmt: skip
    for nodes in (10, 1000, 10_000):
        images, pulls = versions, list[Pull]()
        for quarter in range(4):
            begin = quarter * _DAY / 4
            pulls += steady(images, nodes, nodes * 10 // 4, begin, _DAY / 4, seed=quarter)
            images = [next_version(each) for each in images]
        known = leave_out_known(pulls)
        result = run(design, known)
        counts = result.counts
        yield (
            f"{nodes:,}", f"{len(known):,}", f"{result.failed:,}", f"{counts['upstream GET manifest']:,}",
            f"{counts['upstream HEAD tag']:,}", f"{counts['upstream bytes'] / 1e9:.0f}",
            f"{sum(result.sent) / 1e9:,.0f}",
        )  # fmt: skip


def _sizes(pulls: Iterable[Pull]) -> dict[str, int]:
    return {layer.name: layer.size for pull in pulls for layer in pull.image.layers}


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 10 * _MINUTE else f"{seconds / _MINUTE:.0f} min"


if __name__ == "__main__":
    main()
