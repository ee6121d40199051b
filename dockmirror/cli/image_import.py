"""Images on their way from an archive into the store; all calls block."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from ..app.accounts import AccountChoice
from ..app.naming import ImageName, history_keys
from ..archive.archive_files import ArchiveRefused
from ..archive.image_archive import ImageArchive, NamedImage
from ..config.notation import format_size
from ..config.settings import Settings
from ..interfaces import ContentKind
from ..oci.digest import Descriptor, Digest
from ..oci.request import Repository, Tag
from ..pullthrough.authorization import imported_document
from ..pullthrough.generations import tombstone_document
from ..store import files, layout, store_files
from ..store.eviction.store_budget import Budget, wait_for_usage_counter
from ..store.store_files import is_stored
from ..store.tag_history import TagHistoryFiles, TagRecord
from .command_context import progress_bars, report_progress


@frozen
class PlannedImport:
    """An image in an archive, the name that it gets in the store, and its contents."""

    archive: ImageArchive
    image: NamedImage
    name: ImageName
    parts: Sequence[tuple[Descriptor, bytes | None]]

    @property
    def digests(self) -> list[Digest]:
        return [part.digest for part, _ in self.parts if part.digest]


@define
class AddedContents:
    """The contents that an import has added, and how many were there before."""

    contents: int = 0
    bytes: int = 0
    held: int = 0
    done: set[Digest] = field(factory=set)


def check_assumed(root: Path, planned: PlannedImport) -> None:
    """:raises ArchiveRefused: when the cache lacks a content that the archive leaves to an earlier one."""
    for part, _ in planned.parts:
        if (
            part.digest
            and not planned.archive.has(part)
            and not is_stored(root / layout.data(part.digest), part.digest)
        ):
            raise ArchiveRefused(
                f"{planned.name}: {part.digest} is in an earlier export, which has to be imported first"
            )


def check_room(root: Path, planned: Sequence[PlannedImport], budget: Budget, held: int, free: int) -> None:
    """Refuse images that would be evicted soon after they are stored, although nothing else is left by then.

    :param held: the bytes in the store, which may be evicted.
    :param free: the bytes that are free on the file system.
    :raises ArchiveRefused: when the budget has no room for all of them together.
    """
    sizes = {part.digest: part.size or 0 for each in planned for part, _ in each.parts if part.digest}
    size = sum(sizes.values())
    added = sum(each for digest, each in sizes.items() if not is_stored(root / layout.data(digest), digest))
    most = budget.size if held + added <= budget.size else budget.size_after_eviction
    kept_free = budget.free_bytes if free - added >= budget.free_bytes else budget.free_after_eviction
    room = held + free - kept_free
    if size > most:
        limit = f"keeps {format_size(most)} at most: raise cache_size"
    elif size > room:
        limit = f"has room for {format_size(max(room, 0))}: free space on its disk, or lower min_free"
    else:
        return
    raise ArchiveRefused(f"the images take {format_size(size)}, and the cache {limit}")


def add_contents(root: Path, planned: Sequence[PlannedImport]) -> AddedContents:
    """Store and verify the contents of all images; nothing is linked yet, so no client can pull them.

    A content that is stored and verified is not read again: so an import continues where it stopped.

    :raises ArchiveRefused: when a content does not match its digest.
    """
    added = AddedContents()
    for each in planned:
        with progress_bars(f"importing {each.name}") as bar:
            sizes = [part.size or 0 for part, _ in each.parts]
            task = bar.add_task("", total=sum(sizes))
            for (part, data), size in zip(each.parts, sizes, strict=True):
                if part.digest is None or part.digest in added.done:
                    bar.advance(task, size)
                    continue
                added.done.add(part.digest)
                path = root / layout.data(part.digest)
                if _is_verified(path) or not each.archive.has(part):
                    files.touch_sealed(path, time.time())  # an import is a use
                    added.held += 1
                    bar.advance(task, size)
                    continue
                pieces = each.archive.pieces(part) if data is None else iter([data])
                try:
                    _add_content(
                        root, part.digest, report_progress(pieces, partial(bar.advance, task)), added
                    )
                except ArchiveRefused as error:
                    raise ArchiveRefused(f"{each.name}: {error}: copy its archive again") from None
    return added


def _is_verified(path: Path) -> bool:
    try:
        return files.is_sealed(path.stat())
    except OSError:
        return False


def _add_content(root: Path, digest: Digest, pieces: Iterable[bytes], added: AddedContents) -> None:
    path = root / layout.data(digest)
    grown = store_files.add_content(root, digest, pieces)
    files.seal(path, time.time(), path.stat().st_size)
    with wait_for_usage_counter(root) as usage:
        usage.add(grown)
    added.contents, added.bytes = added.contents + bool(grown), added.bytes + grown
    added.held += not grown


@frozen
class ImportedImage:
    """The outcome for one image.

    :ivar before: the digest that its tag named before; None if there was none.
    """

    image: str
    digest: Digest
    before: Digest | None

    @property
    def kind(self) -> str:
        if self.before is None:
            return "new"
        return "unchanged" if self.before == self.digest else "moved"

    def fields(self) -> dict[str, Any]:
        before = None if self.before is None else str(self.before)
        return {"image": self.image, "digest": str(self.digest), "before": before, "change": self.kind}

    def __str__(self) -> str:
        more = {"new": "", "unchanged": " (unchanged)", "moved": f" (was {self.before})"}
        return f"imported {self.image}{more[self.kind]}"


def read_histories(planned: Sequence[PlannedImport]) -> dict[ImageName, TagRecord]:
    """Return the histories of tags in a signed archive.

    :raises ArchiveRefused: when one is malformed.
    """
    records, now = {}, time.time()
    for each in planned:
        history = each.archive.inventory.tags.get(each.image.name or "")
        try:
            if history is not None:
                records[each.name] = TagRecord.parse(history).until(now)
        except OSError as error:
            raise ArchiveRefused(f"{each.name}: {error}") from None
    return records


def add_histories(root: Path, records: Mapping[ImageName, TagRecord], settings: Settings) -> None:
    """Merge the histories of published images with those of the mirror.

    Before, they would make the cool-down serve a digest that the mirror does not hold.
    """
    for name, record in records.items():
        for key in history_keys(name, settings):
            TagHistoryFiles(root).update(key, record.merge)


def publish_images(root: Path, planned: Sequence[PlannedImport], settings: Settings) -> list[ImportedImage]:
    """Let clients pull the images, whose contents are all stored.

    :raises ArchiveRefused: when a content was evicted meanwhile; then no image is published.
    """
    for each in planned:
        for digest in each.digests:
            if not is_stored(root / layout.data(digest), digest):
                raise ArchiveRefused(f"{each.name}: {digest} was evicted meanwhile: the cache is too small")
    return [_publish_image(root, each, settings) for each in planned]


def _publish_image(root: Path, planned: PlannedImport, settings: Settings) -> ImportedImage:
    """Link the contents of one image; its tag is set last."""
    repository, now = planned.name.repository, time.time()
    top, reference = planned.image.descriptor.digest, planned.name.reference
    assert top is not None
    before = _current(root, planned.name)
    for part, data in planned.parts:
        if part.digest is not None:
            kind = ContentKind.BLOB if data is None else ContentKind.MANIFEST
            files.remove(root / layout.document(tombstone_document(repository, part.digest, kind)))
            store_files.link_content(root, repository, part.digest, kind, now)
    _mark_public(root, repository, planned.digests, settings, now)
    if isinstance(reference, Tag):
        store_files.set_tag(root, repository, reference, top, now)
    return ImportedImage(str(planned.name), top, before)


def _current(root: Path, name: ImageName) -> Digest | None:
    """Return the digest that a name leads to in the cache, or None."""
    if isinstance(name.reference, Tag):
        entry = store_files.read_link(root / layout.tag_link(name.repository, name.reference))
        return entry.digest if entry else None
    link = root / layout.link(name.repository, name.reference, ContentKind.MANIFEST)
    return name.reference if store_files.links_to(link, name.reference) else None


def _mark_public(
    root: Path, repository: Repository, digests: Iterable[Digest], settings: Settings, now: float
) -> None:
    """Mark the imported contents as public, and the repository as one that has such contents.

    The access to other contents of the repository does not change.
    """
    entries = [
        AccountChoice(label, upstream).cache_partition(Repository(repository.rest))
        for label, upstream in settings.upstreams.items()
        if upstream.canonical == repository.first
    ]
    for entry, digest in product(entries, dict.fromkeys([*digests, None])):
        path = layout.document(imported_document(entry, Repository(repository.rest), digest))
        files.replace_file(root / path, str(now).encode(), root / layout.TEMPORARY, now)
