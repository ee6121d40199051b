"""The tags that a recall concerns, and the digests that are served in their place."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from attrs import evolve

from ..admission.recalls import Recalls, fallbacks
from ..admission.verdict import Refuse, ServeInstead
from ..config.settings import Settings
from ..oci.digest import Digest
from ..oci.errors import Denied
from ..oci.reference import Repository, Tag
from ..store.tag_history import TagHistoryFiles
from .local_admission import LocalAdmission, TagUnderPolicy
from .naming import ImageName

_Key = tuple[Repository, Tag]


def find_replacements(
    settings: Settings, root: Path, named: Iterable[_Key], refused: Collection[Digest], now: float
) -> Mapping[_Key, Digest | None]:
    """Return the tags that were served as a refused digest, each with the digest that it falls back to.

    A cool-down serves a tag as an earlier digest than the one that the tag names.

    :param named: the tags that name a refused digest.
    :param refused: the digest of a recall in force, and the manifests that refer to it.
    :returns: None for each tag that is refused.
    """
    admission = LocalAdmission(settings, root, now)
    found = {key: _find_earlier(settings, root, key, refused, admission.recalls) for key in named}
    for key, tag in _iter_cooled(settings, root, admission):
        if key in found or _was_served_as(tag, refused):
            found[key] = _choose(tag, found.get(key) or tag.subject.digest, refused)
    return found


def _iter_cooled(
    settings: Settings, root: Path, admission: LocalAdmission
) -> Iterator[tuple[_Key, TagUnderPolicy]]:
    """Yield the tags of which a cool-down, and no lock file, decides what they are served as."""
    for name, upstream in settings.upstreams.items():
        for rest, tag in TagHistoryFiles(root).iter_tags(name):
            image = ImageName(Repository(f"{upstream.canonical}/{rest}"), tag)
            try:
                found = None if admission.find_locked(image) else admission.find(image)
            except (Denied, OSError):  # then the mirror serves none either
                continue
            if found is not None and found.policy.mode == "enforce":
                yield (image.repository, tag), found


def _was_served_as(tag: TagUnderPolicy, refused: Collection[Digest]) -> bool:
    """Return whether the cool-down would serve the tag as a refused digest if nothing refused that."""
    before = evolve(tag, withheld=tag.withheld - frozenset(refused)).decide(tag.subject.digest)
    return isinstance(before, ServeInstead) and before.digest in refused


def _choose(tag: TagUnderPolicy, digest: Digest | None, refused: Collection[Digest]) -> Digest | None:
    """Return the digest that the cool-down gives a tag that names this one; None if it gives none."""
    match tag.decide(digest):
        case ServeInstead() as instead:
            return instead.digest
        case Refuse():
            return None
    return None if digest in refused else digest


def _find_earlier(
    settings: Settings, root: Path, key: _Key, refused: Collection[Digest], recalls: Recalls
) -> Digest | None:
    """Return the last digest that the tag was seen to name, of those that are not refused."""
    repository, tag = key
    for name, upstream in settings.upstreams.items():
        if upstream.canonical != repository.first:
            continue
        try:
            sightings = TagHistoryFiles(root).read((name, Repository(repository.rest), tag)).sightings
        except OSError:  # then the mirror finds none either
            continue
        named = [each.digest for each in sightings if each.digest not in refused]
        if found := fallbacks(named, recalls.find):
            return found[0]
    return None
