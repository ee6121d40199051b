"""``dockmirror ls``: the images that are held."""

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
from .context import Context
from .output import ago, short, show_json, show_table, size, timestamp
from .output import as_json as json_option
from .store_access import store_of


@frozen
class ListedImage:
    """An image by one of its tags, or by its digest where it has none."""

    repository: Repository
    tag: Tag | None
    image: StoredImage

    @property
    def is_whole(self) -> bool:
        """Of an index only if all its images are."""
        return not self.image.find_missing()

    @property
    def platforms(self) -> dict[str, bool]:
        """Which of an index's platforms are whole."""
        real = (
            (str(c.platform), not c.find_missing())
            for c in self.image.children
            if c.platform and c.platform.is_real
        )
        return dict(real)

    def row(self) -> tuple[str, ...]:
        """For people."""
        total = sum(self.image.content_sizes().values())
        reference = str(self.tag) if self.tag else short(self.image.digest)
        return (
            str(self.repository),
            reference,
            size(total),
            self._complete(),
            ago(time.time() - self.image.last_used()),
        )

    def fields(self) -> dict[str, Any]:
        """For programs."""
        return {
            "repository": str(self.repository),
            "tag": str(self.tag) if self.tag else None,
            "digest": str(self.image.digest),
            "size": sum(self.image.content_sizes().values()),
            "complete": self.is_whole,
            "platforms": self.platforms,
            "used": timestamp(self.image.last_used()),
        }

    def _complete(self) -> str:
        if self.is_whole:
            return "yes"
        whole = [name.removeprefix("linux/") for name, held in self.platforms.items() if held]
        return f"{', '.join(whole)} of {len(self.platforms)}" if whole else "no"


@click.command("ls", short_help="The images that are held.")
@json_option
@click.argument("pattern", default="*")
@click.pass_obj
def ls(context: Context, as_json: bool, pattern: str) -> None:
    """The images that are held, by tag, or by digest where no tag names them.

    PATTERN shows only repositories that match it, such as "docker.io/library/*"; a pattern without a slash
    is looked for anywhere in the name.

    "complete" tells whether all that the image needs is held, or which platforms of it are; "size" what of it
    is, in which layers count once.

    Exit status: 0, also where nothing is held; 1 where there is no cache.
    """
    holdings = HeldImages(store_of(context.settings))
    wanted = pattern if "/" in pattern or "*" in pattern else f"*{pattern}*"
    found = [
        listed
        for repository in holdings.list_repositories()
        if fnmatchcase(repository.name, wanted)
        for listed in list_images(holdings, repository)
    ]
    if as_json:
        show_json([listed.fields() for listed in found])
    else:
        columns = ("repository", "tag", "size", "complete", "last used")
        show_table(columns, (listed.row() for listed in found), right=("size", "last used"))


def list_images(holdings: HeldImages, repository: Repository) -> Iterator[ListedImage]:
    """Each tag, and each manifest that no tag and no index names."""
    named: set[Digest] = set()
    for tag, tagged in holdings.list_tags(repository).items():
        image = holdings.read_image(repository, tagged.digest)
        if image.data is None:
            continue
        named.update(each.digest for each in image.walk())
        yield ListedImage(repository, tag, image)
    others = [
        holdings.read_image(repository, each)
        for each in holdings.list_manifests(repository)
        if each not in named
    ]
    below = {child.digest for image in others for each in image.children for child in each.walk()}
    for image in others:
        if image.data is not None and image.digest not in below:
            yield ListedImage(repository, None, image)
