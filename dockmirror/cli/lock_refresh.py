"""Asks registries, through the running mirror, what tags name, so that the mirror's cache knows it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click
from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults

from ..config.settings import ConfigurationError, Settings
from ..oci.errors import RegistryError
from ..oci.media import EVERYTHING
from ..oci.reference import Repository, Tag
from ..oci.request import Manifest, RegistryRequest
from .command_context import run_with_reactor
from .output import print_note

if TYPE_CHECKING:
    from ..config.settings import UpstreamSettings
    from ..interfaces import IRegistry

_AT_ONCE = 8


def refresh(settings: Settings, tags: Sequence[tuple[Repository, Tag]]) -> None:
    """Have the running mirror of these settings ask about tags by HEAD; note those that it cannot answer.

    :param tags: with their registries in front.
    :raises click.ClickException: when none is answered.
    """
    from .running_mirror import local_mirror

    try:
        mirror = local_mirror(settings)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from None
    problems = [each for each in run_with_reactor(partial(_ask_all, mirror, tags)) if each is not None]
    for problem in problems:
        print_note(problem)
    if tags and len(problems) == len(tags):
        raise click.ClickException("the running mirror answers for none of the listed tags")


async def _ask_all(
    mirror: UpstreamSettings, tags: Sequence[tuple[Repository, Tag]], reactor: Any
) -> list[str | None]:
    from ..app.upstream_stack import make_agent
    from ..upstream.checked_endpoint import threaded_resolver
    from .running_mirror import connect_to_mirror

    agent = make_agent(mirror, threaded_resolver(reactor), {}, lambda *_: None, reactor)
    registry = connect_to_mirror(mirror, agent, reactor, None)
    places = DeferredSemaphore(_AT_ONCE)
    return await gatherResults([places.run(_start, registry, *each) for each in tags])


def _start(registry: IRegistry, repository: Repository, tag: Tag) -> Deferred[str | None]:
    return Deferred.fromCoroutine(_ask(registry, repository, tag))


async def _ask(registry: IRegistry, repository: Repository, tag: Tag) -> str | None:
    """Ask about a tag; return the problem, or None."""
    request = RegistryRequest(Manifest(repository, tag), head=True, accept=EVERYTHING)
    try:
        (await registry.fetch(request)).body.discard()
    except RegistryError as error:
        return f"{repository}:{tag} is left as it was seen before: {error.summary}"
    return None
