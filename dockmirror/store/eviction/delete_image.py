"""Delete images on request; all calls block."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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
    """The tags and contents to be deleted from a repository.

    :ivar contents: sorted so that each comes before what it refers to.
    """

    repository: Repository
    tags: tuple[Tag, ...]
    contents: tuple[Digest, ...]


def plan_tag_deletion(root: Path, repository: Repository, tag: Tag) -> DeletionPlan | None:
    """Plan to delete a tag with what nothing else there needs; None if there is no such tag."""
    tags = _read_tags(root, repository)
    if tag not in tags:
        return None
    others = [digest for name, digest in tags.items() if name != tag]
    return DeletionPlan(repository, (tag,), _find_deletable(root, repository, tags[tag], others))


def plan_manifest_deletion(root: Path, repository: Repository, digest: Digest) -> DeletionPlan | None:
    """Plan to delete a manifest, its tags and what nothing else there needs; None if there is none."""
    if not links.links_to(root / layout.link(repository, digest, ContentKind.MANIFEST), digest):
        return None
    tags = _read_tags(root, repository)
    names = tuple(tag for tag, target in tags.items() if target == digest)
    others = [target for target in tags.values() if target != digest]
    contents = _find_deletable(root, repository, digest, others)
    return DeletionPlan(repository, names, tuple(dict.fromkeys((digest, *contents))))


def delete_image(root: Path, plan: DeletionPlan) -> int:
    """Delete links and tags, and the bytes that no repository has any more.

    Deliveries that are under way are completed. Returns the number of bytes freed.
    """
    for tag in plan.tags:
        links.remove_tag(root / layout.tag_directory(plan.repository, tag), root)
    for digest in plan.contents:
        for tag in _read_tags(root, plan.repository):
            links.remove_link(root / layout.tag_history(plan.repository, tag, digest), root)
        for kind in ContentKind:
            links.remove_link(root / layout.link(plan.repository, digest, kind), root)
    return _delete_contents(root, set(plan.contents) - _still_linked(root, plan.contents))


def _delete_contents(root: Path, digests: Iterable[Digest]) -> int:
    size = 0
    for digest in digests:
        stored = store_files.stat_file(root / layout.data(digest))
        remove_content(root, digest, ())
        size += stored.size if stored else 0
    return size


def _still_linked(root: Path, contents: Sequence[Digest]) -> set[Digest]:
    """Return the contents that some repository still has."""
    found: set[Digest] = set()
    for repository in store_files.iter_repositories(root):
        for directory in (layout.LAYERS, layout.REVISIONS):
            found.update(store_files.iter_links(repository / directory))
    return found.intersection(contents)


def _read_tags(root: Path, repository: Repository) -> Mapping[Tag, Digest]:
    paths = store_files.iter_tags(root / layout.REPOSITORIES / repository.name)
    read = ((Tag(path.name), links.read_link(path / layout.TAG_LINK)) for path in paths)
    return {tag: entry.digest for tag, entry in read if entry}


def _find_deletable(
    root: Path, repository: Repository, top: Digest, others: Iterable[Digest]
) -> tuple[Digest, ...]:
    """Return ``top`` and what it refers to, except what the others and further manifests need."""
    references = partial(store_files.read_references, root)
    referenced = _find_referenced([top], references)
    manifests = store_files.iter_links(root / layout.REPOSITORIES / repository.name / layout.REVISIONS)
    needed = _find_referenced([*others, *(each for each in manifests if each not in referenced)], references)
    return tuple(digest for digest in referenced if digest not in needed)


def _find_referenced(
    roots: Iterable[Digest], references: Callable[[Digest], Iterable[Digest]]
) -> dict[Digest, None]:
    """Return these and everything they refer to, each after the first that refers to it."""
    found: dict[Digest, None] = {}
    queue = list(roots)
    for digest in queue:
        if digest not in found:
            found[digest] = None
            queue += references(digest)
    return found
