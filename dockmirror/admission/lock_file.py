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

from attrs import evolve, frozen
from twisted.logger import Logger
from zope.interface import implementer

from ..config.image_rules import PolicySettings
from ..oci.digest import Digest
from ..oci.errors import RegistryError
from ..oci.manifest import Platform
from ..oci.media import parse_artifact_tag
from ..oci.request import Repository, Tag
from ..store.files import Version, file_version
from .admit import Subject, Unlisted
from .policies import FactContext, IFactSource, Policies

HEADER = (
    "# The digests that tags are: 'dockmirror lock' adds images, 'dockmirror lock --update' moves them.\n"
)
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_log = Logger()


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


class LockReader:
    """A lock file, read again whenever it has changed; while it is invalid, its last valid state counts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version: Version | None = None
        self._lock: LockFile | None = None

    def current(self) -> LockFile:
        """:raises OSError: when the file could not be read yet."""
        version = file_version(self._path)
        if self._lock is None or version != self._version:
            self._read(version)
        assert self._lock is not None
        return self._lock

    def _read(self, version: Version | None) -> None:
        try:
            self._lock = LockFile.parse(self._path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, LockFileInvalid) as error:
            if self._lock is None:
                raise OSError(f"{self._path}: {error}") from error
            _log.error("{path} is left as it was: {error}", path=str(self._path), error=str(error))
        self._version = version


@implementer(IFactSource)
class LockSource:
    """Gathers the digest that the lock file of a policy gives a tag."""

    fact = "locked"
    setting = "lock"
    is_about_tags = True

    def __init__(self, policies: Policies) -> None:
        self._policies = policies
        self._readers: dict[Path, LockReader] = {}

    async def gather(self, context: FactContext) -> Digest | Unlisted | None:
        subject, policy = context.subject, context.policy
        if policy.lock is None or not isinstance(subject.reference, Tag):
            return None
        lock = self._readers.setdefault(policy.lock, LockReader(policy.lock)).current()
        return find_locked(lock, policy, self._policies.full_name(subject), subject.reference)

    def list_locked(self, subject: Subject) -> frozenset[Digest]:
        """Return the digests that lock files give tags of the subject's repository.

        :raises OSError: when a lock file could not be read yet.
        """
        found, name = set(), self._policies.full_name(subject)
        for path in self._policies.lock_files(subject):
            lock = self._readers.setdefault(path, LockReader(path)).current()
            for each in lock.by_repository.get(name, ()):
                if self._is_locked_by(evolve(subject, reference=each.tag), path):
                    found.add(each.digest)
        return frozenset(found)

    def _is_locked_by(self, subject: Subject, path: Path) -> bool:
        policy = self._policies.find(subject, self.setting)
        return policy is not None and policy.mode != "off" and policy.lock == path


def find_locked(
    lock: LockFile, policy: PolicySettings, repository: Repository, tag: Tag
) -> Digest | Unlisted | None:
    """Return the digest that the policy's lock file gives a tag, or what becomes of a tag that it lacks.

    A tag of the artifacts of a digest that the file lists for the repository, such as ``sha256-….sig``, is
    served without a line.

    :param repository: with its registry in front.
    """
    assert policy.lock is not None
    locked = lock.images.get((repository, tag))
    if locked is not None:
        return locked.digest
    subject = parse_artifact_tag(tag.name)
    is_artifact = any(each.digest == subject for each in lock.by_repository.get(repository, ()))
    return None if is_artifact or policy.unlisted == "serve" else Unlisted(policy.lock)
