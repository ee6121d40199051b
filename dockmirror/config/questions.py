"""Values that are valid and can hardly be meant, such as a cache of 200 bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..oci.pull_rule import has_wildcards
from .field_types import suggest
from .image_rules import BudgetSettings, PolicySettings, RetentionSettings
from .notation import format_duration, format_size
from .settings import Settings

_SMALLEST_SIZE = 1_000_000
"""Bytes below which hardly any image fits."""
_UNIT = "a number without a unit is in seconds"
_LONGEST_GRACE = 86_400.0
_LONGEST_TTL = 30 * 86_400.0
_SHORTEST_AGE = 60.0


def question_settings(settings: Settings, disk: int | None) -> Iterator[str]:
    """Yield a sentence with the key for each value that can hardly be meant.

    :param disk: the size in bytes of the file system that the cache lies on, or None if it is unknown.
    """
    yield from _question_sizes(settings)
    if disk:
        yield from _question_disk(settings, disk)
    if settings.grace > _LONGEST_GRACE:
        yield f"grace: a stop may take {format_duration(settings.grace)}; {_UNIT}"
    ttls = {"tag_ttl": settings.tag_ttl}
    for name, upstream in settings.upstreams.items():
        ttls |= {f"upstreams.{name}.tag_ttl.{rule}": seconds for rule, seconds in upstream.tag_ttl.items()}
    for key, ttl in ttls.items():
        if ttl > _LONGEST_TTL:
            yield f"{key}: tags may be {format_duration(ttl)} old; {_UNIT}"
    yield from _question_staleness(settings)
    yield from _question_registries(settings)
    yield from _question_ages(settings)


def _question_registries(settings: Settings) -> Iterator[str]:
    """Question patterns for a registry that no upstream has; it may be added later."""
    known = [upstream.canonical for upstream in settings.upstreams.values()]
    listed: Mapping[str, Sequence[PolicySettings | BudgetSettings | RetentionSettings]] = {
        "policy": settings.policy, "budget": settings.budget, "retention": settings.retention
    }  # fmt: skip
    patterns = {
        f"{kind}.{number}.images": each.images
        for kind, tables in listed.items()
        for number, each in enumerate(tables)
    }
    for key, pattern in patterns.items():
        registry, slash, _ = pattern.partition("/")
        if slash and not has_wildcards(registry) and registry.replace(":", "_") not in known:
            yield (
                f"{key}: no upstream has the registry {registry!r}, so the pattern matches"
                f" nothing{suggest(registry, known)}"
            )


def _question_ages(settings: Settings) -> Iterator[str]:
    """Question a cool-down that ends before anybody could have looked at an image."""
    for number, policy in enumerate(settings.policy):
        if policy.min_age is not None and policy.min_age < _SHORTEST_AGE:
            yield f"policy.{number}.min_age: a tag waits for {format_duration(policy.min_age)} only; {_UNIT}"


def _question_staleness(settings: Settings) -> Iterator[str]:
    """Question times for which stale tags are served that are longer than those for which they are fresh."""
    seconds = {"stale_while_revalidate": (settings.stale_while_revalidate, settings.tag_ttl)}
    for name, upstream in settings.upstreams.items():
        own = upstream.stale_while_revalidate
        if own is not None:
            ttl = max(upstream.tag_ttl.values(), default=settings.tag_ttl)
            seconds[f"upstreams.{name}.stale_while_revalidate"] = own, ttl
    for key, (stale, ttl) in seconds.items():
        if stale > ttl:
            yield (
                f"{key}: {format_duration(stale)} are more than tag_ttl, {format_duration(ttl)}: tags are"
                " stale for longer than they are fresh"
            )


def _question_sizes(settings: Settings) -> Iterator[str]:
    sizes = {
        "cache_size": settings.cache_size.bytes if settings.cache_size else 0,
        "min_free": settings.min_free.bytes if settings.min_free else 0,
        "access.bytes": settings.access.bytes or 0,
    }
    for key, size in sizes.items():
        if 0 < size < _SMALLEST_SIZE:
            yield f'{key}: {size} bytes are less than any image has; is "{size}GB" meant?'


def _question_disk(settings: Settings, disk: int) -> Iterator[str]:
    size, free = settings.cache_size, settings.min_free.of(disk) if settings.min_free else 0
    if size and size.bytes > disk:
        yield f"cache_size: {format_size(size.bytes)} are more than the disk has, {format_size(disk)}"
    if free >= disk:
        yield (
            f"min_free: {format_size(free)} are all that the disk has, {format_size(disk)}: the cache keeps"
            " nothing"
        )
