"""Images forgotten because somebody says so; calls that block."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from attrs import frozen

from ...interfaces import ContentKind
from ...oci.digest import Digest
from ...oci.reference import Repository, Tag
from .. import layout, links
from . import store_files
from .store_files import remove_content


@frozen
class DeletionPlan:
    """What goes from one repository.

    :ivar contents: what refers to others before these.
    """

    repository: Repository
    tags: tuple[Tag, ...]
    contents: tuple[Digest, ...]


def plan_tag_deletion(root: Path, repository: Repository, tag: Tag) -> DeletionPlan | None:
    """The tag, and all that is named and needed by nothing else there; None where there is no such tag."""
    tags = _tags(root, repository)
    if tag not in tags:
        return None
    others = [digest for name, digest in tags.items() if name != tag]
    return DeletionPlan(repository, (tag,), _needless(root, repository, tags[tag], others))


def plan_manifest_deletion(root: Path, repository: Repository, digest: Digest) -> DeletionPlan | None:
    """The manifest with its tags, and all that only it needs there; None where it is no manifest there."""
    if not links.links_to(root / layout.link(repository, digest, ContentKind.MANIFEST), digest):
        return None
    tags = _tags(root, repository)
    named = tuple(tag for tag, what in tags.items() if what == digest)
    others = [what for what in tags.values() if what != digest]
    contents = _needless(root, repository, digest, others)
    return DeletionPlan(repository, named, tuple(dict.fromkeys((digest, *contents))))


def delete_image(root: Path, going: DeletionPlan) -> int:
    """Forgets it, and deletes the bytes that no repository has any more; how many bytes those were.

    Whoever reads them meanwhile reads them to their end.
    """
    for tag in going.tags:
        links.forget_tag(root / layout.tag(going.repository, tag), root)
    for digest in going.contents:
        for tag in _tags(root, going.repository):
            links.remove_link(root / layout.indexed(going.repository, tag, digest), root)
        for kind in ContentKind:
            links.remove_link(root / layout.link(going.repository, digest, kind), root)
    return _delete(root, set(going.contents) - _had(root, going.contents))


def _delete(root: Path, unwanted: Iterable[Digest]) -> int:
    size = 0
    for digest in unwanted:
        stored = store_files.stat_file(root / layout.data(digest))
        remove_content(root, digest, ())
        size += stored.size if stored else 0
    return size


def _had(root: Path, contents: Sequence[Digest]) -> set[Digest]:
    """Those that some repository has."""
    found: set[Digest] = set()
    for repository in store_files.iter_repositories(root):
        for directory in (layout.LAYERS, layout.REVISIONS):
            found.update(store_files.iter_links(repository / directory))
    return found.intersection(contents)


def _tags(root: Path, repository: Repository) -> Mapping[Tag, Digest]:
    paths = store_files.iter_tags(root / layout.REPOSITORIES / repository.name)
    read = ((Tag(path.name), links.read_link(path / layout.CURRENT)) for path in paths)
    return {tag: named.digest for tag, named in read if named}


def _needless(
    root: Path, repository: Repository, top: Digest, others: Iterable[Digest]
) -> tuple[Digest, ...]:
    """What ``top`` needs, itself included, and neither these others nor further manifests there do."""
    referred = partial(store_files.read_references, root)
    below = _closure([top], referred)
    further = store_files.iter_links(root / layout.REPOSITORIES / repository.name / layout.REVISIONS)
    kept = _closure([*others, *(each for each in further if each not in below)], referred)
    return tuple(digest for digest in below if digest not in kept)


def _closure(tops: Iterable[Digest], referred: partial[tuple[Digest, ...]]) -> dict[Digest, None]:
    """All that these refer to, by whatever way, and they: each after what refers to it first."""
    found: dict[Digest, None] = {}
    waiting = list(tops)
    for digest in waiting:
        if digest not in found:
            found[digest] = None
            waiting += referred(digest)
    return found
