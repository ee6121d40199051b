"""The images and the pulls that a model and real mirrors are given alike."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence

from attrs import evolve, frozen


@frozen
class Layer:
    """A blob; images share those of the same name."""

    name: str
    size: int


@frozen
class Image:
    """One version of an image; a tag that moves names another one of the same repository."""

    repository: str
    version: int
    layers: tuple[Layer, ...]

    @property
    def size(self) -> int:
        """The bytes of all layers."""
        return sum(each.size for each in self.layers)


@frozen
class Pull:
    """A pull by a machine, which fetches the layers that it does not have.

    :ivar time: when it begins, in seconds since the beginning.
    :ivar layers: all of the image, until ``leave_out_known``.
    """

    time: float
    node: int
    image: Image
    layers: tuple[Layer, ...]


def make_images(count: int, layers: int, size: int, seed: int = 1) -> list[Image]:
    """Return images of about this size each, whose first third is one of a few bases that they share.

    A few layers of an image have most of its bytes, as real ones have.
    """
    source = random.Random(seed)
    bases = [_layers(f"base-{number}", layers // 3, size // 3, source) for number in range(1 + count // 10)]
    return [
        Image(
            f"library/image-{number}",
            1,
            (*source.choice(bases), *_layers(f"image-{number}", layers - layers // 3, size * 2 // 3, source)),
        )
        for number in range(count)
    ]


def _layers(name: str, count: int, size: int, source: random.Random) -> tuple[Layer, ...]:
    weights = [source.paretovariate(1.2) for _ in range(count)]
    return tuple(
        Layer(f"{name}-{number}", max(1000, int(size * weight / sum(weights))))
        for number, weight in enumerate(weights)
    )


def next_version(image: Image, changed: int = 2) -> Image:
    """Return the version after this one, whose last layers are new."""
    version = image.version + 1
    new = tuple(
        evolve(each, name=f"{each.name.partition('@')[0]}@{version}") for each in image.layers[-changed:]
    )
    return evolve(image, version=version, layers=(*image.layers[:-changed], *new))


def rollout(image: Image, nodes: Iterable[int], begin: float, spread: float, seed: int = 2) -> list[Pull]:
    """Return a pull by each machine, begun within ``spread`` seconds."""
    source = random.Random(seed)
    return [Pull(begin + source.random() * spread, node, image, image.layers) for node in nodes]


def steady(
    images: Sequence[Image], nodes: int, count: int, begin: float, period: float, seed: int = 3
) -> list[Pull]:
    """Return pulls of images by any machine; the n-th most popular image is pulled 1/n times as often."""
    source = random.Random(seed)
    weights = [1 / (rank + 1) for rank in range(len(images))]
    chosen = source.choices(images, weights, k=count)
    return [
        Pull(begin + source.random() * period, source.randrange(nodes), image, image.layers)
        for image in chosen
    ]


def leave_out_known(pulls: Iterable[Pull]) -> list[Pull]:
    """Return the pulls in their order, each without the layers that its machine pulled before."""
    known: defaultdict[int, set[str]] = defaultdict(set)
    left: list[Pull] = []
    for pull in sorted(pulls, key=lambda each: each.time):
        layers = tuple(each for each in pull.layers if each.name not in known[pull.node])
        known[pull.node].update(each.name for each in layers)
        left.append(evolve(pull, layers=layers))
    return left
