"""The fact that a lock file gives: which digest a tag is."""

from __future__ import annotations

from pathlib import Path

from attrs import evolve
from twisted.logger import Logger
from zope.interface import implementer

from ..config.image_rules import PolicySettings
from ..oci.artifacts import parse_artifact_tag
from ..oci.digest import Digest
from ..oci.manifest import ManifestDocument
from ..oci.reference import Repository, Tag
from ..store.files import Version, file_version
from .fact_source import IFactSource
from .lock_file import LockFile, LockFileInvalid, Unlisted
from .policies import Policies
from .repository_reader import RepositoryReader
from .verdict import Subject

_log = Logger()


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
    needs_manifest = False

    def __init__(self, policies: Policies) -> None:
        self._policies = policies
        self._readers: dict[Path, LockReader] = {}

    async def gather(
        self,
        subject: Subject,
        policy: PolicySettings,
        manifest: ManifestDocument | None,
        reader: RepositoryReader,
    ) -> Digest | Unlisted | None:
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
