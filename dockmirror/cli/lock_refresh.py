"""Asks registries, through the running mirror, what tags name, so that the mirror's cache knows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click
from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults

from ..interfaces import IRegistry
from ..oci.errors import RegistryError
from ..oci.media import EVERYTHING
from ..oci.reference import Repository, Tag
from ..oci.request import Manifest, RegistryRequest
from .command_context import run_with_reactor
from .output import print_note

_AT_ONCE = 8


def refresh(connect: Callable[[Any], IRegistry], tags: Sequence[tuple[Repository, Tag]]) -> None:
    """Have a running mirror ask the registries about tags by HEAD; note those that they do not answer.

    :param connect: connects to the mirror with a reactor.
    :param tags: with their registries in front.
    :raises click.ClickException: when none is answered.
    """
    problems = run_with_reactor(lambda reactor: ask_all(connect(reactor), tags))
    for problem in problems:
        print_note(problem)
    if tags and len(problems) == len(tags):
        raise click.ClickException("the running mirror answers for none of the listed tags")


async def ask_all(registry: IRegistry, tags: Sequence[tuple[Repository, Tag]]) -> list[str]:
    """Ask a mirror about tags, however fresh its copies are; return the problems."""
    places = DeferredSemaphore(_AT_ONCE)
    asked = await gatherResults([places.run(_start, registry, *each) for each in tags])
    return [problem for problem in asked if problem]


def _start(registry: IRegistry, repository: Repository, tag: Tag) -> Deferred[str]:
    return Deferred.fromCoroutine(_ask(registry, repository, tag))


async def _ask(registry: IRegistry, repository: Repository, tag: Tag) -> str:
    """Ask about a tag; return the problem, or nothing."""
    request = RegistryRequest(Manifest(repository, tag), head=True, accept=EVERYTHING, revalidate=True)
    try:
        answer = await registry.fetch(request)
        answer.body.discard()
        problem = answer.cache.unconfirmed if answer.cache else ""
    except RegistryError as error:
        problem = error.summary
    return f"{repository}:{tag} is left as it was seen before: {problem}" if problem else ""
