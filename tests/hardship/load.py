"""Many clients that pull at the same time, each trying again as real ones do."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.integration.parts.images import Image
from tests.integration.parts.kept import wrong_blobs
from tests.integration.parts.mirror import Mirror

TRIES = 20
PAUSE = 0.5
"""Seconds between two tries."""


REPOSITORY = "hardship/machine"
"""The repository of the images."""


@dataclass
class Load:
    """The results of clients so far.

    :ivar right: bodies that came whole.
    :ivar again: tries that failed and were followed by another one.
    :ivar cut: how many of these had begun to get a body.
    :ivar lost: what no try has brought.
    :ivar wrong: bodies that ended as they should and were not what was asked for.
    """

    right: int = 0
    again: int = 0
    cut: int = 0
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.right} right, {len(self.wrong)} wrong, {self.again} tried again, {len(self.lost)} lost"


@contextmanager
def load(
    mirror: Mirror, repository: str, images: Sequence[Image], clients: int = 8, tries: int = TRIES
) -> Iterator[Load]:
    """Have so many clients pull the images' layers again and again, until the end of the block."""
    load, over = Load(), threading.Event()

    def pull(number: int) -> None:
        for turn in range(number, 1_000_000):
            if over.is_set():
                return
            fetch(mirror, repository, images[turn % len(images)], load, tries)

    threads = [threading.Thread(target=pull, args=(number,)) for number in range(clients)]
    for each in threads:
        each.start()
    try:
        yield load
    finally:
        over.set()
        for each in threads:
            each.join()


def fetch(mirror: Mirror, repository: str, image: Image, load: Load, tries: int = TRIES) -> None:
    """Fetch one layer of the image, with so many attempts."""
    layer, client = image.layers[0], mirror.client("open")
    for _ in range(tries):
        try:
            response = client.blob(repository, layer.digest)
        except (OSError, http.client.HTTPException) as error:
            response = None
            load.cut += isinstance(error, http.client.IncompleteRead)
        if response is not None and response.status == 200:
            if response.body == layer.data:
                load.right += 1
            else:
                load.wrong.append(layer.digest)
            return
        load.again += 1
        time.sleep(PAUSE)
    load.lost.append(layer.digest)


def survived(mirror: Mirror, clients: Load) -> None:
    """No client got a wrong byte or gave up, and nothing wrong is stored."""
    assert clients.wrong == clients.lost == []
    assert mirror.failures() == ""
    assert wrong_blobs(mirror.cache) == []
