"""Read requests to a registry, and the names in them, parsed once from a path and written to one again.

Sources: OCI distribution specification, "Endpoints", and "Pulling manifests" for the grammar of ``<name>``
and ``<reference>``; ``_catalog`` is the distribution registry's. Paths are split before they are decoded, so
that ``%2F`` and ``%2e%2e`` stay within a segment, where the grammar of names rejects them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import ClassVar, Protocol
from urllib.parse import unquote_to_bytes, urlencode

from attrs import evolve, field, frozen

from .consent import HeldBlob
from .digest import Digest
from .errors import (
    BlobUnknown,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    RegistryError,
    TagInvalid,
    Unsupported,
)
from .header_fields import Range
from .token import CATALOG, Credentials, Scope, pull_scope

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_NAME_LIMIT = 255
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")


@frozen(order=True)
class Repository:
    """A repository's name within its registry."""

    name: str

    @classmethod
    def parse(cls, text: str) -> Repository:
        """:raises NameInvalid: when the text is no repository name, or longer than 255 characters."""
        if len(text) > _NAME_LIMIT:
            raise NameInvalid(f"invalid repository name: longer than {_NAME_LIMIT} characters")
        if not _NAME.fullmatch(text):
            raise NameInvalid("invalid repository name: expected lower-case components separated by slashes")
        return cls(text)

    def __str__(self) -> str:
        return self.name

    @property
    def first(self) -> str:
        """The first component; on the mirror's own host, it names the registry."""
        return self.name.partition("/")[0]

    @property
    def rest(self) -> str:
        """The name without its first component; empty if there is just one."""
        return self.name.partition("/")[2]


@frozen(order=True)
class Tag:
    """A name for a manifest that may be moved to another one."""

    name: str

    @classmethod
    def parse(cls, text: str) -> Tag:
        """:raises TagInvalid: when the text is no tag."""
        if not _TAG.fullmatch(text):
            raise TagInvalid("invalid tag: expected up to 128 of letters, digits, '_', '.' and '-'")
        return cls(text)

    def __str__(self) -> str:
        return self.name


Reference = Tag | Digest


def parse_reference(text: str) -> Reference:
    """Parse a tag or a digest; only a digest contains a colon.

    :raises TagInvalid: when it is neither.
    :raises DigestInvalid: when it contains a colon and is no digest.
    """
    return Digest.parse(text) if ":" in text else Tag.parse(text)


def image_name(repository: Repository, reference: Reference) -> str:
    """Return ``repository:tag`` or ``repository@digest``."""
    return f"{repository}{'@' if isinstance(reference, Digest) else ':'}{reference}"


def complete_short_name(repository: Repository) -> Repository:
    """Return Docker Hub's name of a repository: a single component is an official image."""
    return repository if "/" in repository.name else Repository(f"library/{repository}")


def rewrite_prefix(repository: Repository, prefixes: Mapping[str, str]) -> Repository:
    """Return the name with its longest matching prefix replaced."""
    for prefix, other in sorted(prefixes.items(), key=lambda pair: -len(pair[0])):
        if f"{repository}/".startswith(f"{prefix}/"):
            return Repository(other + repository.name.removeprefix(prefix))
    return repository


@frozen
class Ping:
    """``/v2/``: shows that this is a registry, and how to authenticate."""

    unknown: ClassVar[type[RegistryError]] = NameUnknown
    scope: ClassVar[Scope | None] = None

    def __str__(self) -> str:
        return "/v2/"


@frozen
class Catalog:
    """``/v2/_catalog``: the names of all repositories."""

    unknown: ClassVar[type[RegistryError]] = NameUnknown
    scope: ClassVar[Scope | None] = CATALOG

    def __str__(self) -> str:
        return "/v2/_catalog"


@frozen
class _InRepository:
    """A target within one repository."""

    repository: Repository
    unknown: ClassVar[type[RegistryError]] = NameUnknown

    @property
    def scope(self) -> Scope | None:
        """The scope that a token needs."""
        return pull_scope(self.repository.name)


@frozen
class Manifest(_InRepository):
    """A manifest or index, by tag or by digest."""

    reference: Reference
    unknown: ClassVar[type[RegistryError]] = ManifestUnknown

    def __str__(self) -> str:
        return f"/v2/{self.repository}/manifests/{self.reference}"

    @property
    def digest(self) -> Digest | None:
        """The reference, if it is a digest."""
        return self.reference if isinstance(self.reference, Digest) else None


@frozen
class Blob(_InRepository):
    """A blob: a layer, a configuration, or any other content."""

    digest: Digest
    unknown: ClassVar[type[RegistryError]] = BlobUnknown

    def __str__(self) -> str:
        return f"/v2/{self.repository}/blobs/{self.digest}"


@frozen
class Tags(_InRepository):
    """The list of a repository's tags."""

    def __str__(self) -> str:
        return f"/v2/{self.repository}/tags/list"


@frozen
class Referrers(_InRepository):
    """The manifests whose subject has that digest."""

    digest: Digest

    def __str__(self) -> str:
        return f"/v2/{self.repository}/referrers/{self.digest}"


InRepository = Manifest | Blob | Tags | Referrers

Target = Ping | Catalog | InRepository


@frozen
class Requester:
    """The client behind a request: its address, and its user name if the mirror requires a login."""

    address: str = ""
    user: str = ""


class ReceivedRequest(Protocol):
    """A request as it was received from a client."""

    @property
    def requester(self) -> Requester:
        """The client; empty until it is let in."""

    @property
    def requested_host(self) -> str:
        """The host that the client used, with its port if any."""

    @property
    def is_from_peer(self) -> bool:
        """True if the client is another mirror of the fleet; see ``middleware/peers.py``."""


@frozen(slots=False)
class RegistryRequest:
    """One read request of a client.

    :ivar head: True if only the headers are wanted.
    :ivar query: a list's own parameters (``n``, ``last``, ``artifactType``…), in order; without ``ns``.
    :ivar accept: the media types that the client accepts, verbatim.
    :ivar held: with a HEAD of a blob, the cached blob to compare if the registry does not answer HEADs with
        the digest and the size; then the mirror only asks for consent.  See ``oci/consent.py``.
    :ivar namespace: ``ns``, the registry that a client means when it asks a mirror
        (specification, "Registry Proxying").
    :ivar revalidate: True if a cache asks the upstream first, however fresh its copy is.
    :ivar no_cache: True if caches behind the upstream must do so, too: the client has said ``no-cache``.
    :ivar received: the client's HTTP request, for observers, policy servers and redirects to copies near the
        client; None for a request of the mirror itself.  It decides nothing about what the client may have.
    """

    target: Target
    head: bool = False
    query: tuple[tuple[str, str], ...] = ()
    accept: tuple[str, ...] = ()
    range: Range | None = None
    if_none_match: str | None = None
    credentials: Credentials | None = None
    held: HeldBlob | None = None
    namespace: str | None = None
    revalidate: bool = False
    no_cache: bool = False
    received: ReceivedRequest | None = field(default=None, eq=False, repr=False)

    def path_and_query(self) -> str:
        """Return the target of the upstream request, made only of parsed values."""
        return f"{self.target}?{urlencode(self.query)}" if self.query else str(self.target)

    def for_repository(self, repository: Repository) -> RegistryRequest:
        """Return the request for another repository; unchanged if it has none."""
        if isinstance(self.target, Ping | Catalog):
            return self
        if repository == self.target.repository:
            return self
        request = object.__new__(RegistryRequest)  # faster than ``evolve``: many requests need one
        request.__dict__.update(self.__dict__, target=evolve(self.target, repository=repository))
        return request


def repository_of(target: Target) -> Repository | None:
    return None if isinstance(target, Ping | Catalog) else target.repository


@lru_cache(maxsize=4096)
def parse_target(path: bytes) -> Target:
    """Parse a raw path, as sent in the request line and without its query.

    Results are cached, since clients repeat the same few paths.  Rejected paths are not, so that cached ones
    are as short as the grammar requires.

    :raises RegistryError: of the class that names the wrong part; 404 for an unknown endpoint.
    """
    segments = decode_segments(path)
    if segments in (["", "v2"], ["", "v2", ""]):
        return Ping()
    if segments == ["", "v2", "_catalog"]:
        return Catalog()
    if len(segments) < 5 or segments[:2] != ["", "v2"]:
        raise Unsupported("no such endpoint", status=404)
    return _in_repository(segments[2:-2], segments[-2], segments[-1])


def _in_repository(name: list[str], endpoint: str, last: str) -> InRepository:
    if endpoint == "tags" and last == "list":
        return Tags(Repository.parse("/".join(name)))
    parse = _BY_ENDPOINT.get(endpoint)
    if parse is None:
        raise Unsupported("no such endpoint", status=404)
    return parse(Repository.parse("/".join(name)), last)


_BY_ENDPOINT: dict[str, Callable[[Repository, str], InRepository]] = {
    "manifests": lambda repository, last: Manifest(repository, parse_reference(last)),
    "blobs": lambda repository, last: Blob(repository, Digest.parse(last)),
    "referrers": lambda repository, last: Referrers(repository, Digest.parse(last)),
}


def find_repository(path: bytes) -> str | None:
    """Return the repository that a raw path is below, which may be no valid name; None if there is none."""
    segments = decode_segments(path)
    is_below = segments[:2] == ["", "v2"] and len(segments) >= 5 and segments[-2] in (*_BY_ENDPOINT, "tags")
    return "/".join(segments[2:-2]) if is_below else None


def decode_segments(path: bytes) -> list[str]:
    """Return the segments of a raw path, each decoded separately."""
    return [_decoded(segment) for segment in path.split(b"/")]


def _decoded(segment: bytes) -> str:
    """Decode a segment; forbidden characters become one that no grammar here accepts."""
    return unquote_to_bytes(segment).decode("ascii", "replace").replace("/", "\N{REPLACEMENT CHARACTER}")
