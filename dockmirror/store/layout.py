"""The paths of everything that is stored, relative to the root of a directory or a bucket.

::

    docker/registry/v2/                           the layout of distribution, whose registry can serve it
      blobs/sha256/ab/<ab…>/data                  the verified bytes, never changed
      repositories/docker.io/library/busybox/
        _layers/sha256/<hex>/link                 this repository has this blob
        _manifests/revisions/sha256/<hex>/link    this repository has this manifest
        _manifests/tags/latest/current/link       the tag's manifest; modified when it was last confirmed
        _manifests/tags/latest/index/sha256/<hex>/link
    dockmirror/                                   our own files, outside that tree
      format                                      the number of the format, if it is not 1; in a bucket, too
      growing/docker.io/sha256-<hex>              a partial download; locked by its writer
      growing/docker.io/sha256-<hex>.size         its expected size
      growing/docker.io/sha256-<hex>.blocks       blocks of it that were fetched in any order, and their map
      documents/<name>                            small documents: lists, challenges, public repositories
      tmp/<anything>                              a file being written; locked by its writer
      tmp/push-<name>                             a staged copy of a blob that a client pushes
      usage_counter                               the number of stored bytes; locked during a sweep
      clock_history                               by how much the clock was set, and when
      pins/<name>                                 a pinned image; modified when it was last refreshed
      pin_refresh.lock                            locked while pins are refreshed
      recalls/sha256-<hex>                        a recall, or that it was lifted; in a bucket, too
      recalls.lock                                locked by the process that carries recalls out
      recalls.generation                          in a bucket: differs after each change of a recall
      tag_history/docker/library/busybox/_tags/latest
                                                  the digests that a tag of an upstream has named over time
      tag_history.lock                            locked while one of them is written
      tag_poll.lock                               locked while tags are polled
      tag_refresh/<00 to 63>.lock                 locked while a tag is refreshed
      tag_polls/<hour>                            in a bucket: made by the mirror that polls in that hour
      tag_holds/<name>                            a manifest that a tag is served as; modified at its last use
      admission_generation                        a number that changes with each new rule or recall
      warm_ups/<id>                               a request to pull an image, and its outcome
      warm_ups.lock                               locked by the process that pulls
      tag_refreshes/<id>                          a request to ask what a tag names, and its outcome
      tag_refreshes.lock                          locked by the process that asks
      sync/<key>                                  the state of a rule that keeps images in sync
      sync.lock                                   locked while rules are run
      sync.request                                asks for all rules to be run
      sync.owner                                  identifies this cache among those that share a bucket
      sync_turns/<key>-<period>-<attempt>         in a bucket: states which mirror runs a rule, or has run it
      usage_report                                the space each registry takes; locked while it is measured
      write_behind/<anything>                     a pending write to the bucket
      write_behind.lock                           locked by the process that uploads
      last_used/<anything>                        in a bucket: contents and when they were last used
      fleet/<day>/<history>                       in a bucket: the sums of a mirror's pulls in that day
      acme/<token>                                in a bucket: the proof for an open challenge of a mirror
      expiry/<day>                                in a bucket: made by the mirror that runs that day's expiry

A link holds ``sha256:<hex>`` without a line end, which an ordinary registry would not accept.
No component of a repository's name begins with ``_``, so repositories may be nested safely.

Source: distribution, registry/storage/paths.go.
"""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import PurePosixPath
from urllib.parse import quote, unquote

from ..interfaces import ContentKind
from ..oci.digest import Digest
from ..oci.errors import DigestInvalid
from ..oci.request import Repository, Tag

_REGISTRY = PurePosixPath("docker/registry/v2")
_OURS = PurePosixPath("dockmirror")

BLOBS = _REGISTRY / "blobs"
REPOSITORIES = _REGISTRY / "repositories"
FORMAT = _OURS / "format"
GROWING = _OURS / "growing"
DOCUMENTS = _OURS / "documents"
TEMPORARY = _OURS / "tmp"
USAGE_COUNTER = _OURS / "usage_counter"
CLOCK_HISTORY = _OURS / "clock_history"
PINS = _OURS / "pins"
PIN_REFRESH_LOCK = _OURS / "pin_refresh.lock"
RECALLS = _OURS / "recalls"
RECALLS_LOCK = _OURS / "recalls.lock"
RECALLS_GENERATION = _OURS / "recalls.generation"
WARM_UPS = _OURS / "warm_ups"
WARM_UPS_LOCK = _OURS / "warm_ups.lock"
TAG_REFRESHES = _OURS / "tag_refreshes"
TAG_REFRESHES_LOCK = _OURS / "tag_refreshes.lock"
SYNC = _OURS / "sync"
SYNC_LOCK = _OURS / "sync.lock"
SYNC_REQUEST = _OURS / "sync.request"
SYNC_OWNER = _OURS / "sync.owner"
SYNC_TURNS = _OURS / "sync_turns"
USAGE_REPORT = _OURS / "usage_report"
WRITE_BEHIND = _OURS / "write_behind"
WRITE_BEHIND_LOCK = _OURS / "write_behind.lock"
LAST_USED = _OURS / "last_used"
EXPIRY_RUNS = _OURS / "expiry"
FLEET = _OURS / "fleet"
ACME_PROOFS = _OURS / "acme"
TAG_HISTORIES = _OURS / "tag_history"
TAG_HISTORY_LOCK = _OURS / "tag_history.lock"
TAG_POLL_LOCK = _OURS / "tag_poll.lock"
TAG_POLLS = _OURS / "tag_polls"
TAG_REFRESH_LOCKS = _OURS / "tag_refresh"
TAG_HOLDS = _OURS / "tag_holds"
ADMISSION_GENERATION = _OURS / "admission_generation"

LAYERS = PurePosixPath("_layers")
REVISIONS = PurePosixPath("_manifests/revisions")
TAGS_DIRECTORY = PurePosixPath("_manifests/tags")
TAG_LINK = PurePosixPath("current/link")
TAG_HISTORY = PurePosixPath("index")
SIZE = ".size"
BLOCKS = ".blocks"
TAGS_OF_HISTORY = "_tags"

_LINKS = {ContentKind.BLOB: LAYERS, ContentKind.MANIFEST: REVISIONS}
_MAX_NAME = 200
_SHORTENED = "!"
"""The character, which is escaped in names, that comes before the hash of a long one."""
_CUT_ESCAPE = re.compile("%.?$")


def data(digest: Digest) -> PurePosixPath:
    """Return the path of the content's bytes."""
    return BLOBS / digest.algorithm / digest.hex[:2] / digest.hex / "data"


def link(repository: Repository, digest: Digest, kind: ContentKind) -> PurePosixPath:
    """Return the path of the link that says that the repository has the content as that kind."""
    return REPOSITORIES / repository.name / _LINKS[kind] / link_name(digest)


def tags_directory(repository: Repository) -> PurePosixPath:
    return REPOSITORIES / repository.name / TAGS_DIRECTORY


def tag_directory(repository: Repository, tag: Tag) -> PurePosixPath:
    return tags_directory(repository) / tag.name


def tag_link(repository: Repository, name: Tag) -> PurePosixPath:
    """Return the path of the link to the tag's current manifest."""
    return tag_directory(repository, name) / TAG_LINK


def tag_history(repository: Repository, name: Tag, digest: Digest) -> PurePosixPath:
    """Return the path of the link that says that the tag has named this manifest."""
    return tag_directory(repository, name) / TAG_HISTORY / link_name(digest)


def growing(registry: str, digest: Digest) -> PurePosixPath:
    """Return the path of the partial download of a blob from that registry."""
    return GROWING / registry / f"{digest.algorithm}-{digest.hex}"


def growing_size(registry: str, digest: Digest) -> PurePosixPath:
    """Return the path of the file that holds the partial download's expected size."""
    part = growing(registry, digest)
    return part.with_name(part.name + SIZE)


def growing_blocks(registry: str, digest: Digest) -> PurePosixPath:
    """Return the path of the file of the blocks of a blob from that registry."""
    part = growing(registry, digest)
    return part.with_name(part.name + BLOCKS)


def tag_sightings(upstream: str, repository: Repository, tag: Tag) -> PurePosixPath:
    """Return the path of the history of an upstream's tag."""
    return TAG_HISTORIES / upstream / repository.name / TAGS_OF_HISTORY / tag.name


def tag_hold(name: str) -> PurePosixPath:
    return TAG_HOLDS / _escape(name)


def document(name: str) -> PurePosixPath:
    return DOCUMENTS / _escape(name)


def parse_document(file_name: str) -> tuple[str, bool]:
    """Return the name of the document in a file, and whether that is the whole name and not its beginning."""
    escaped, shortened, _ = file_name.partition(_SHORTENED)
    return unquote(_CUT_ESCAPE.sub("", escaped)), not shortened


def fleet_day(day: int, history: str) -> PurePosixPath:
    """Return the path of a mirror's sums of a day, which is counted since the epoch."""
    return FLEET / str(day) / history


def parse_fleet_day(key: str) -> int | None:
    """Return the day of such a path; None if it is none."""
    path = PurePosixPath(key)
    day = path.parent.name
    return int(day) if path.parent.parent == FLEET and day.isdecimal() else None


def acme_proof(token: str) -> PurePosixPath:
    """Return the path of the proof for a challenge, whose token has been checked."""
    return ACME_PROOFS / token


def recall(digest: Digest) -> PurePosixPath:
    return RECALLS / f"{digest.algorithm}-{digest.hex}"


def pin(name: str) -> PurePosixPath:
    return PINS / _escape(name)


def warm_up(directory: PurePosixPath, identifier: str) -> PurePosixPath:
    return directory / _escape(identifier)


def sync_state(key: str) -> PurePosixPath:
    return SYNC / _escape(key)


def _escape(name: str) -> str:
    """Escape a name for use as a file name; long names are shortened with a hash, so that none collide."""
    escaped = quote(name, safe="@+,=")
    if escaped.startswith("."):
        escaped = "%2E" + escaped[1:]
    if not 0 < len(escaped) <= _MAX_NAME:
        escaped = f"{escaped[: _MAX_NAME // 2]}{_SHORTENED}{sha256(name.encode()).hexdigest()}"
    return escaped


def link_name(digest: Digest) -> PurePosixPath:
    """Return the path of the link to a digest within a directory of links."""
    return PurePosixPath(digest.algorithm, digest.hex, "link")


def parse_digest(algorithm: str, hexadecimal: str) -> Digest | None:
    """Parse the components of a path that name a digest; None if they are no digest."""
    try:
        return Digest.parse(f"{algorithm}:{hexadecimal}")
    except DigestInvalid:
        return None


def tag_refresh_lock(number: int) -> PurePosixPath:
    return TAG_REFRESH_LOCKS / f"{number:02}.lock"
