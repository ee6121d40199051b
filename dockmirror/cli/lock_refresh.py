"""Asks registries, through the running mirror, what tags name, so that the mirror's cache knows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click
from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults

from ..app.naming import find_upstream
from ..config.settings import Settings
from ..interfaces import IRegistry
from ..oci.errors import RegistryError
from ..oci.media import EVERYTHING
from ..oci.reference import Repository, Tag
from ..oci.request import Manifest, RegistryRequest
from .command_context import run_with_reactor
from .output import print_note

_AT_ONCE = 8


def refresh(
    connect: Callable[[Any], IRegistry], tags: Sequence[tuple[Repository, Tag]], settings: Settings
) -> None:
    """Have a running mirror ask the registries about tags by HEAD; note those that they do not answer.

    Tags of upstreams that are offline are not asked about.

    :param connect: connects to the mirror with a reactor.
    :param tags: with their registries in front.
    :raises click.ClickException: when none is answered.
    """
    offline = {each: why for each in tags if (why := _explain_offline(each[0].first, settings))}
    asked = [each for each in tags if each not in offline]
    problems = [_describe(*tag, why) for tag, why in offline.items()]
    if asked:
        problems += run_with_reactor(lambda reactor: ask_all(connect(reactor), asked))
    for problem in problems:
        print_note(problem)
    if offline and not asked:
        reasons = ", and ".join(dict.fromkeys(offline.values()))
        raise click.ClickException(f"{reasons}, so no registry was asked")
    if tags and len(problems) == len(tags):
        raise click.ClickException("the running mirror answers for none of the listed tags")


def _explain_offline(registry: str, settings: Settings) -> str:
    """Return the reason for which a registry is not asked; nothing if it is."""
    if settings.offline:
        return "the mirror is offline"
    upstream = find_upstream(registry, settings)
    names = [name for name, each in settings.upstreams.items() if each is upstream and each.offline]
    return f"the upstream {names[0]} is offline" if names else ""


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
    return _describe(repository, tag, problem) if problem else ""


def _describe(repository: Repository, tag: Tag, problem: str) -> str:
    return f"{repository}:{tag} is left as it was seen before: {problem}"
