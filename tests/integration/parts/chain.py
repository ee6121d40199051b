"""A mirror with an upstream that belongs to one test alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .authority import Authority
from .cdn import BlobStore
from .front import Front
from .machine import Machine
from .mirror import Mirror
from .registry import Registry, token_registry
from .tokens import Tokens


@dataclass(frozen=True)
class Chain:
    """The mirror, and every part of the upstream, any of which the test may stop or spoil."""

    mirror: Mirror
    front: Front
    blobs: BlobStore
    registry: Registry
    tokens: Tokens

    def stop_upstream(self) -> None:
        """Nobody answers any more but the mirror."""
        for part in (self.front, self.blobs, self.registry, self.tokens):
            part.stop()


@contextmanager
def new_chain(directory: Path, machine: Machine, authority: Authority) -> Iterator[Chain]:
    """A new mirror, on *machine*, of a new registry behind a CDN that stands for Docker Hub."""
    for name in ("registry", "mirror"):
        (directory / name).mkdir()
    with ExitStack() as stack:
        tokens = stack.enter_context(Tokens(authority))
        registry = stack.enter_context(token_registry(directory / "registry", authority, tokens))
        blobs = stack.enter_context(BlobStore(registry))
        front = stack.enter_context(Front(registry, blobs))
        upstreams = {"docker": {"url": front.url, "realms": [tokens.url]}}
        mirror = stack.enter_context(Mirror(directory / "mirror", machine, upstreams))
        yield Chain(mirror, front, blobs, registry, tokens)
