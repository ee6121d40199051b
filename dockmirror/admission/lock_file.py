"""Lock files, which say which digest is served for each tag; one line for each image, sorted.

::

    docker.io/library/nginx:1.27 sha256:6b6b… linux/amd64,linux/arm64 2026-11-30T01:12:45Z

A line has the image, its digest, its platforms (``-`` if they are not known), and when the tag first named
the digest.  Empty lines and lines that begin with ``#`` are left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from attrs import frozen

from ..oci.digest import Digest
from ..oci.errors import RegistryError
from ..oci.manifest import Platform
from ..oci.reference import Repository, Tag
from .verdict import Refuse, Subject

HEADER = (
    "# The digests that tags are: 'dockmirror lock' adds images, 'dockmirror lock --update' moves them.\n"
)
_TIME = "%Y-%m-%dT%H:%M:%SZ"


class LockFileInvalid(Exception):
    """The text is no lock file; the message names the line."""


@frozen(order=True)
class LockedImage:
    """A tag and the digest that it is.

    :ivar repository: with its registry in front.
    :ivar first_seen: when the tag first named the digest, in whole seconds since the epoch.
    """

    repository: Repository
    tag: Tag
    digest: Digest
    platforms: tuple[Platform, ...] = ()
    first_seen: int = 0

    @property
    def name(self) -> str:
        return f"{self.repository}:{self.tag}"

    @classmethod
    def parse(cls, line: str) -> LockedImage:
        """:raises ValueError: when the line is malformed; ``RegistryError`` for a malformed name."""
        name, digest, platforms, seen = line.split()
        repository, _, tag = name.rpartition(":")
        return cls(
            Repository.parse(repository),
            Tag.parse(tag),
            Digest.parse(digest),
            () if platforms == "-" else tuple(map(Platform.parse, platforms.split(","))),
            int(datetime.strptime(seen, _TIME).replace(tzinfo=UTC).timestamp()),
        )

    def __str__(self) -> str:
        platforms = ",".join(map(str, self.platforms)) or "-"
        return f"{self.name} {self.digest} {platforms} {format_seen(self.first_seen)}"


def format_seen(seconds: float) -> str:
    """Write a time as lock files have it."""
    return datetime.fromtimestamp(seconds, UTC).strftime(_TIME)


@frozen
class LockFile:
    """The images of a lock file, by repository and tag."""

    images: Mapping[tuple[Repository, Tag], LockedImage]

    @cached_property
    def by_repository(self) -> Mapping[Repository, Sequence[LockedImage]]:
        found: defaultdict[Repository, list[LockedImage]] = defaultdict(list)
        for each in self.images.values():
            found[each.repository].append(each)
        return found

    @classmethod
    def of(cls, images: Iterable[LockedImage]) -> LockFile:
        return cls({(each.repository, each.tag): each for each in images})

    @classmethod
    def parse(cls, text: str) -> LockFile:
        """:raises LockFileInvalid: when a line is malformed, or an image is listed twice."""
        images: dict[tuple[Repository, Tag], LockedImage] = {}
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            try:
                image = LockedImage.parse(line)
            except (ValueError, RegistryError) as error:
                raise LockFileInvalid(
                    f"line {number}: expected an image, its digest, platforms and a time: {error}"
                ) from None
            key = image.repository, image.tag
            if key in images:
                raise LockFileInvalid(f"line {number}: {image.name} is listed twice")
            images[key] = image
        return cls(images)

    def __str__(self) -> str:
        return HEADER + "".join(f"{each}\n" for each in sorted(self.images.values()))


@frozen
class Unlisted:
    """The fact that a lock file does not list a tag, and that the policy refuses such tags."""

    file: Path


def check_listed(subject: Subject, fact: Unlisted) -> Refuse:
    """Return the refusal of a tag that the lock file does not list."""
    return Refuse(
        f"{subject} is not in the lock file {fact.file.name} of this mirror; use a tag that is, pull by"
        " digest, or ask the operator to add it with 'dockmirror lock'",
        "locked",
    )
