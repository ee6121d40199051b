"""A mirror with an upstream that belongs to one test alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .accounts import ACCOUNTS
from .authority import Authority
from .cdn import BlobStore
from .front import Front
from .kept import leaks, wrong_blobs
from .machine import Machine
from .mirror import Mirror
from .process import wait_until
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
        """Stop every server of the upstream."""
        for part in (self.front, self.blobs, self.registry, self.tokens):
            part.stop()

    @contextmanager
    def upstream_stopped(self) -> Iterator[None]:
        """Stop every server of the upstream until the end of the block."""
        self.stop_upstream()
        try:
            yield
        finally:
            for part in (self.tokens, self.registry, self.blobs, self.front):
                part.start()

    def wait_for_upstream(self) -> None:
        """Wait until the mirror asks its restarted upstream again."""
        client = self.mirror.client("docker")

        def ask() -> bool:
            """A dozen answers in a row: each worker has a circuit breaker of its own."""
            return all(client.manifest("library/absent", "latest").status < 500 for _ in range(12))

        wait_until(ask, "the mirror asks its upstream")

    def asked(self) -> list[object]:
        """All requests so far for the registry, its CDN and its token service."""
        return [*self.front.requests, *self.blobs.requests, *self.tokens.requests]

    def secrets(self) -> set[str]:
        """The passwords, in each form that they travel in, and the tokens."""
        passwords = {each.password for each in ACCOUNTS}
        return passwords | {each.basic.removeprefix("Basic ") for each in ACCOUNTS} | set(self.tokens.issued)

    def check(self) -> None:
        """Nothing failed that nothing expected, nothing wrong is kept, and no secret lies anywhere."""
        assert self.mirror.failures() == ""
        assert wrong_blobs(self.mirror.cache) == []
        assert leaks(self.mirror.directory, self.secrets()) == []


@contextmanager
def new_chain(
    directory: Path,
    machine: Machine,
    authority: Authority,
    upstream: Mapping[str, Any] | None = None,
    others: Mapping[str, Mapping[str, Any]] | None = None,
    **settings: Any,
) -> Iterator[Chain]:
    """A new mirror, on *machine*, of a new registry behind a CDN that stands for Docker Hub, and of *others*.

    What the mirror has done is checked at the end.
    """
    for name in ("registry", "mirror"):
        (directory / name).mkdir()
    with ExitStack() as stack:
        tokens = stack.enter_context(Tokens(authority))
        registry = stack.enter_context(token_registry(directory / "registry", authority, tokens))
        blobs = stack.enter_context(BlobStore(registry))
        front = stack.enter_context(Front(registry, blobs))
        upstreams = {
            "docker": {"url": front.url, "realms": [tokens.url], **(upstream or {})},
            **(others or {}),
        }
        mirror = stack.enter_context(Mirror(directory / "mirror", machine, upstreams, **settings))
        chain = Chain(mirror, front, blobs, registry, tokens)
        yield chain
        chain.check()
