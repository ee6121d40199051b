"""``dockmirror ls``: list the images in the cache."""

from __future__ import annotations

import time
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

import click
from attrs import frozen

from ..oci.digest import Digest
from ..oci.reference import Repository, Tag
from ..store.held_images import HeldImages, StoredImage
from .context import Context, open_store
from .image_completion import complete_repository
from .options import json_option
from .output import (
    format_age,
    format_size,
    format_time,
    print_json,
    print_note,
    print_table,
    shorten_digest,
)


@frozen
class ListedImage:
    """An image by one of its tags, or by its digest when it has no tag."""

    repository: Repository
    tag: Tag | None
    image: StoredImage

    @property
    def is_complete(self) -> bool:
        """The store holds everything; for an index, all of its images."""
        return not self.image.find_missing()

    @property
    def platforms(self) -> dict[str, bool]:
        """The platforms of an index, with True for those that the store holds completely."""
        real = (
            (str(c.platform), not c.find_missing())
            for c in self.image.children
            if c.platform and c.platform.is_real
        )
        return dict(real)

    def row(self) -> tuple[str, ...]:
        """Return the cells of the image's row in the table."""
        total = sum(self.image.content_sizes().values())
        reference = str(self.tag) if self.tag else shorten_digest(self.image.digest)
        return (
            str(self.repository),
            reference,
            format_size(total),
            self._completeness(),
            format_age(time.time() - self.image.last_used()),
        )

    def fields(self) -> dict[str, Any]:
        """Return the image as JSON has it."""
        return {
            "repository": str(self.repository),
            "tag": str(self.tag) if self.tag else None,
            "digest": str(self.image.digest),
            "size": sum(self.image.content_sizes().values()),
            "complete": self.is_complete,
            "platforms": self.platforms,
            "used": format_time(self.image.last_used()),
        }

    def _completeness(self) -> str:
        if self.is_complete:
            return "yes"
        complete = [name.removeprefix("linux/") for name, is_held in self.platforms.items() if is_held]
        return f"{', '.join(complete)} of {len(self.platforms)}" if complete else "no"


@click.command("ls", short_help="List the images in the cache.")
@json_option
@click.argument("pattern", default="*", shell_complete=complete_repository)
@click.pass_obj
def ls(context: Context, as_json: bool, pattern: str) -> None:
    """List the images in the cache by tag, or by digest when they have no tag.

    PATTERN selects repositories, such as "docker.io/library/*"; a pattern without a slash matches any part of
    the name.

    The column "complete" says whether the cache holds the whole image, or which platforms of it; "size" adds
    up what it holds, with each layer counted once.

    Exit status: 0, even when no image matches; 1 when there is no cache.
    """
    settings = context.settings
    images = HeldImages(open_store(settings))
    glob = pattern if "/" in pattern or "*" in pattern else f"*{pattern}*"
    rows = [
        listed
        for repository in images.list_repositories()
        if fnmatchcase(repository.name, glob)
        for listed in list_images(images, repository)
    ]
    if as_json:
        print_json([listed.fields() for listed in rows])
    elif rows:
        columns = ("repository", "tag", "size", "complete", "last used")
        print_table(columns, (listed.row() for listed in rows), right=("size", "last used"))
    elif pattern == "*":
        print_note(f"no image is in the cache {settings.cache} yet")
    else:
        print_note(f"no image in the cache {settings.cache} matches {pattern}")


def list_images(images: HeldImages, repository: Repository) -> Iterator[ListedImage]:
    """Yield each tag, and each manifest that no tag and no index refers to."""
    named: set[Digest] = set()
    for tag, tagged in images.list_tags(repository).items():
        image = images.read_image(repository, tagged.digest)
        if image.data is None:
            continue
        named.update(each.digest for each in image.walk())
        yield ListedImage(repository, tag, image)
    others = [
        images.read_image(repository, each) for each in images.list_manifests(repository) if each not in named
    ]
    below = {child.digest for image in others for each in image.children for child in each.walk()}
    for image in others:
        if image.data is not None and image.digest not in below:
            yield ListedImage(repository, None, image)
