"""Remove images on request, contents that the disk has corrupted, and abandoned files; all calls block."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from ...interfaces import ContentKind
from ...oci.digest import Digest
from ...oci.request import Reference, Repository, Tag
from .. import files, layout, store_files
from ..held_images import HeldImages
from ..pins import Pin, iter_pins
from ..store_files import StoredFile, iter_removals, open_file, remove_content
from .store_budget import wait_for_usage_counter

_DAY = 24 * 3600.0
_HOUR = 3600.0


@frozen
class DeletionPlan:
    """The tags and contents to be deleted from a repository.

    :ivar contents: sorted so that each comes before what it refers to.
    """

    repository: Repository
    tags: tuple[Tag, ...]
    contents: tuple[Digest, ...]

    def fields(self) -> dict[str, Any]:
        """Return the deletion as JSON has it."""
        return {
            "repository": str(self.repository),
            "tags": list(map(str, self.tags)),
            "contents": list(map(str, self.contents)),
        }


@frozen
class DeletableImage:
    """An image to be deleted; without a repository, a digest in every repository that has it."""

    repository: Repository | None
    reference: Reference


def plan_deletions(root: Path, image: DeletableImage) -> list[DeletionPlan]:
    """Plan to delete an image by the current state of the store; an empty list if it is not held."""
    repository, reference = image.repository, image.reference
    if isinstance(reference, Tag):
        found = [plan_tag_deletion(root, repository, reference)] if repository else []
    else:
        repositories = [repository] if repository else HeldImages(root).list_repositories()
        found = [plan_manifest_deletion(root, each, reference) for each in repositories]
    return [each for each in found if each]


def delete_images(root: Path, images: Iterable[DeletableImage]) -> int:
    """Delete images, and return the bytes freed; an image may have been deleted with one before it."""
    with wait_for_usage_counter(root) as usage:
        freed = delete_planned(root, (plan for image in images for plan in plan_deletions(root, image)))
        usage.add(-freed)
    return freed


def count_freed(root: Path, plans: Sequence[DeletionPlan]) -> int:
    """Return the bytes that deleting what the plans name would free now."""
    planned = {each.repository.name: set(each.contents) for each in plans}
    gone = set[Digest]().union(*planned.values())
    for name, contents in store_files.iter_repository_contents(root):
        gone -= contents - planned.get(name, set())
    stored = (store_files.stat_file(root / layout.data(digest)) for digest in gone)
    return sum(each.size for each in stored if each is not None)


def find_pinned(root: Path, plans: Iterable[DeletionPlan]) -> list[Pin]:
    """Return the pins of what would be deleted, which the mirror fetches again."""
    named = {(each.repository, reference) for each in plans for reference in (*each.tags, *each.contents)}
    return [pin for pin, _ in iter_pins(root) if (pin.repository, pin.reference) in named]


def plan_tag_deletion(root: Path, repository: Repository, tag: Tag) -> DeletionPlan | None:
    """Plan to delete a tag with what nothing else there needs; None if there is no such tag."""
    tags = _read_tags(root, repository)
    if tag not in tags:
        return None
    others = [digest for name, digest in tags.items() if name != tag]
    return DeletionPlan(repository, (tag,), _find_deletable(root, repository, tags[tag], others))


def plan_manifest_deletion(root: Path, repository: Repository, digest: Digest) -> DeletionPlan | None:
    """Plan to delete a manifest, its tags and what nothing else there needs; None if there is none."""
    if not store_files.links_to(root / layout.link(repository, digest, ContentKind.MANIFEST), digest):
        return None
    tags = _read_tags(root, repository)
    names = tuple(tag for tag, target in tags.items() if target == digest)
    others = [target for target in tags.values() if target != digest]
    contents = _find_deletable(root, repository, digest, others)
    return DeletionPlan(repository, names, tuple(dict.fromkeys((digest, *contents))))


def delete_planned(root: Path, plans: Iterable[DeletionPlan | None]) -> int:
    """Delete links and tags, and the bytes that no repository has any more; return the number of bytes freed.

    Each plan may be made after the deletion before it. Deliveries that are under way are completed.
    """
    gone: set[Digest] = set()
    for plan in plans:
        if plan is not None:
            _unlink(root, plan)
            gone.update(plan.contents)
    for _, contents in store_files.iter_repository_contents(root) if gone else ():
        gone -= contents
    return sum(_delete_content(root, digest) for digest in gone)


def _unlink(root: Path, plan: DeletionPlan) -> None:
    for tag in plan.tags:
        store_files.remove_tag(root / layout.tag_directory(plan.repository, tag), root)
    for digest in plan.contents:
        for tag in _read_tags(root, plan.repository):
            store_files.remove_link(root / layout.tag_history(plan.repository, tag, digest), root)
        for kind in ContentKind:
            store_files.remove_link(root / layout.link(plan.repository, digest, kind), root)


def _delete_content(root: Path, digest: Digest) -> int:
    stored = store_files.stat_file(root / layout.data(digest))
    remove_content(root, digest, ())
    return stored.size if stored else 0


def _read_tags(root: Path, repository: Repository) -> Mapping[Tag, Digest]:
    paths = store_files.iter_tags(root / layout.REPOSITORIES / repository.name)
    read = ((Tag(path.name), store_files.read_link(path / layout.TAG_LINK)) for path in paths)
    return {tag: entry.digest for tag, entry in read if entry}


def _find_deletable(
    root: Path, repository: Repository, top: Digest, others: Iterable[Digest]
) -> tuple[Digest, ...]:
    """Return ``top`` and what it refers to, except what the others and further manifests need."""
    references = partial(store_files.read_references, root)
    referenced = store_files.find_descendants([top], references)
    manifests = store_files.iter_links(root / layout.REPOSITORIES / repository.name / layout.REVISIONS)
    further = (each for each in manifests if each not in referenced)
    needed = store_files.find_descendants([*others, *further], references)
    return tuple(digest for digest in referenced if digest not in needed)


_PIECE = 1024 * 1024


@frozen
class CorruptFile:
    """A stored content that does not match its digest.

    :ivar repositories: paths of the repositories that have it.
    """

    digest: Digest
    inode: int
    reason: str
    repositories: tuple[str, ...] = ()


def find_corrupt(
    root: Path, digests: Iterator[Digest] | list[Digest], on_read: Callable[[int], None]
) -> list[CorruptFile]:
    """Return the corrupt contents; one that is deleted meanwhile is not corrupt.

    :param on_read: called with the number of bytes read since the last call.
    """
    found = [corrupt for digest in digests if (corrupt := _check_content(root, digest, on_read)) is not None]
    repositories = _find_repositories(root, {corrupt.digest for corrupt in found}) if found else {}
    return [evolve(each, repositories=tuple(sorted(repositories.get(each.digest, ())))) for each in found]


def remove_corrupt(root: Path, corrupt: list[CorruptFile]) -> int:
    """Delete corrupt contents with their links, so that the next pull fetches them again.

    Contents that were fetched again meanwhile stay. Returns how many were deleted.
    """
    with wait_for_usage_counter(root) as counter:
        sizes = {each.digest: stored.size for each in corrupt if (stored := _stat_corrupt(root, each))}
        removals = list(iter_removals(root, sizes.__contains__))
        for digest in sizes:
            remove_content(root, digest, [removal for linked, removal in removals if linked == digest])
        counter.add(-sum(sizes.values()))
    return len(sizes)


def _check_content(root: Path, digest: Digest, on_read: Callable[[int], None]) -> CorruptFile | None:
    verifier, file = digest.verifier(), -1
    path = root / layout.data(digest)
    try:
        file = open_file(path)
        while data := os.read(file, _PIECE):
            verifier.update(data)
            on_read(len(data))
        return None if verifier.matches() else CorruptFile(digest, os.fstat(file).st_ino, "digest mismatch")
    except FileNotFoundError:
        return None
    except OSError as error:
        stored = store_files.stat_file(path)
        return CorruptFile(digest, stored.inode, f"{error.strerror}") if stored else None
    finally:
        if file >= 0:
            os.close(file)


def _stat_corrupt(root: Path, corrupt: CorruptFile) -> StoredFile | None:
    stored = store_files.stat_file(root / layout.data(corrupt.digest))
    return stored if stored is not None and stored.inode == corrupt.inode else None


def _find_repositories(root: Path, corrupt: set[Digest]) -> dict[Digest, set[str]]:
    found: dict[Digest, set[str]] = {digest: set() for digest in corrupt}
    for name, contents in store_files.iter_repository_contents(root):
        for digest in corrupt & contents:
            found[digest].add(name)
    return found


def count_abandoned(root: Path, now: float) -> int:
    """Count the partial downloads that ``delete_abandoned`` would delete."""
    parts = (path for path, _ in store_files.iter_downloads(root) if path.suffix != layout.SIZE)
    return sum(_if_abandoned(path, now - _DAY, lambda: True) for path in parts)


def delete_abandoned(root: Path, now: float) -> int:
    """Delete temporary files unused for an hour and partial downloads unused for a day; count the latter.

    Locked files stay, and so do new ones, which may be about to be locked.
    """
    for path in store_files.iter_temporary_files(root):
        if path.is_dir():
            _delete_trial_directory(path, now - _HOUR)
        else:
            _delete_if_abandoned(path, now - _HOUR)
    return sum(_delete_partial(path, now - _DAY) for path, _ in store_files.iter_downloads(root))


def _delete_partial(path: Path, limit: float) -> bool:
    if path.suffix != layout.SIZE:
        return _delete_if_abandoned(path, limit)
    if not path.with_suffix("").exists():
        _delete_if_abandoned(path, limit)
    return False


def _delete_if_abandoned(path: Path, limit: float) -> bool:
    """Delete a file with its size file, if it is old and unlocked; report whether it was deleted."""

    def remove() -> bool:
        files.remove(path.with_name(path.name + layout.SIZE))
        return files.remove(path)

    return _if_abandoned(path, limit, remove)


def _if_abandoned(path: Path, limit: float, then: Callable[[], bool]) -> bool:
    """Call ``then`` if the file was last modified before that time and is unlocked."""
    stored = store_files.stat_file(path)
    if stored is None or stored.used >= limit:
        return False
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return store_files.stat_file(path) == stored and then()
    except BlockingIOError:
        return False
    finally:
        os.close(file)


def _delete_trial_directory(path: Path, limit: float) -> None:
    """Delete the directory of a check at start that was killed."""
    with suppress(FileNotFoundError):
        if path.stat().st_mtime < limit:
            shutil.rmtree(path, ignore_errors=True)
