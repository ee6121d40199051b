"""Write requests to a registry: uploads, manifests, deletions.

Source: OCI distribution specification, "Push" and "Content Management"; the table of "Endpoints" lists the
methods.  Paths are parsed as in ``request.py``, and written again from the values.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import ClassVar
from urllib.parse import urlencode

from attrs import evolve, frozen

from .digest import ALGORITHMS, Digest
from .errors import (
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    NameUnknown,
    RegistryError,
    Unsupported,
)
from .request import Blob, Manifest, Repository, Tag, decode_segments, parse_target
from .token import Credentials, Scope, pull_scope


@frozen
class UploadTarget:
    """``blobs/uploads/``: starts uploads, mounts blobs, or takes a blob in one request."""

    repository: Repository
    unknown: ClassVar[type[RegistryError]] = NameUnknown

    def __str__(self) -> str:
        return f"/v2/{self.repository}/blobs/uploads/"


@frozen
class UploadSession:
    """A running upload, by the name that the mirror gave it."""

    repository: Repository
    name: str
    unknown: ClassVar[type[RegistryError]] = BlobUploadUnknown

    def __str__(self) -> str:
        return f"/v2/{self.repository}/blobs/uploads/{self.name}"


WriteTarget = UploadTarget | UploadSession | Manifest | Blob

_METHODS: dict[type, tuple[str, ...]] = {
    UploadTarget: ("POST",),
    UploadSession: ("GET", "HEAD", "PATCH", "PUT", "DELETE"),
    Manifest: ("PUT", "DELETE"),
    Blob: ("DELETE",),
}
_PARAMETERS: dict[type, tuple[str, ...]] = {
    UploadTarget: ("digest", "mount", "from", "digest-algorithm"),
    UploadSession: ("digest",),
    Manifest: ("tag",),
    Blob: (),
}
_SEVERAL = "tag"
_READ = ("GET", "HEAD")
_CONTENT_RANGE = re.compile(r"[!-+.-~-]+(?: [!-+.-~-]+)*")
"""One value of a header.  Only the registry knows whether it is the next part, and answers 416 if not."""


@frozen
class Write:
    """One request to change something, or for the progress of an upload.

    :ivar query: the known parameters, in order.
    :ivar content_range: the part of the blob in the body, verbatim.
    :ivar namespace: as in ``RegistryRequest``.
    """

    method: str
    target: WriteTarget
    query: tuple[tuple[str, str], ...] = ()
    content_range: str | None = None
    credentials: Credentials | None = None
    namespace: str | None = None

    def path_and_query(self) -> str:
        """Return the target of the upstream request, made only of parsed values."""
        return f"{self.target}?{urlencode(self.query)}" if self.query else str(self.target)

    def parameter(self, name: str) -> str | None:
        return dict(self.query).get(name)

    @property
    def digest(self) -> Digest | None:
        """The digest of the blob that this completes or mounts.

        :raises DigestInvalid: when it is malformed.
        """
        value = self.parameter("digest")
        value = self.parameter("mount") if value is None else value
        return None if value is None else Digest.parse(value)

    @property
    def source(self) -> Repository | None:
        """The repository to mount a blob from.

        :raises NameInvalid: when it is malformed.
        """
        value = self.parameter("from")
        return None if value is None else Repository.parse(value)

    @property
    def tags(self) -> tuple[Tag, ...]:
        """The tags for a manifest, from its path and from the parameters.

        :raises TagInvalid: when one is malformed.
        """
        reference = self.target.reference if isinstance(self.target, Manifest) else None
        path_tags = (reference,) if isinstance(reference, Tag) else ()
        return (*path_tags, *(Tag.parse(value) for name, value in self.query if name == _SEVERAL))

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """The scopes that a token needs."""
        repository = str(self.target.repository)
        if self.method == "DELETE" and not isinstance(self.target, UploadSession):
            return (Scope("repository", repository, ("delete",)),)
        pushed = Scope("repository", repository, ("pull", "push"))
        return (pushed,) if self.source is None else (pushed, pull_scope(self.source))

    def renamed(self, name: Callable[[Repository], Repository]) -> Write:
        """Return the same write with its repositories renamed."""
        target = evolve(self.target, repository=name(self.target.repository))
        if self.source is None:
            return evolve(self, target=target)
        source = str(name(self.source))
        query = tuple((key, source if key == "from" else value) for key, value in self.query)
        return evolve(self, target=target, query=query)


@frozen
class WriteResult:
    """The response to a write that the registry has accepted.

    :ivar status: 200, 201, 202 or 204; 307 if the client has to send its body once more.
    :ivar location: the path below the repository where it continues, or of the result: ``manifests/latest``.
    :ivar headers: the few upstream headers that are passed on, verbatim.
    :ivar upstream_status: the status of the upstream's response, for the access log.
    """

    status: int
    location: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    upstream_status: int | None = None


def parse_write(
    method: str, path: bytes, query: tuple[tuple[str, str], ...], content_range: str | None = None
) -> Write:
    """Parse a write from its method, raw path and query.

    :param content_range: the part of a blob in the body; ignored unless it is an upload.
    :raises RegistryError: of the class that names the wrong part; 404 for an unknown endpoint, 405 for a
        method that it does not have.
    """
    target = _target(path)
    if target is None or method not in _METHODS[type(target)]:
        raise Unsupported(f"{method} is not supported here")
    known = tuple(pair for pair in query if pair[0] in _PARAMETERS[type(target)])
    write = Write(method, target, known, namespace=dict(query).get("ns"))
    _ = write.digest, write.source, write.tags  # all are what they should be, or this is refused
    _check_for_one_meaning([name for name, _ in known])
    if write.parameter("digest-algorithm") not in (None, *ALGORITHMS):
        raise DigestInvalid("unknown 'digest-algorithm': expected sha256, sha384 or sha512")
    if not isinstance(target, UploadSession) or content_range is None:
        return write
    if not _CONTENT_RANGE.fullmatch(content_range):
        raise BlobUploadInvalid("'Content-Range' is not one range of bytes, such as 0-1023")
    return evolve(write, content_range=content_range)


def _check_for_one_meaning(names: list[str]) -> None:
    """Reject repeated parameters: another server may read the other value.

    :raises RegistryError: when the parameters are ambiguous.
    """
    single = [name for name in names if name != _SEVERAL]
    if len(set(single)) < len(single):
        raise RegistryError("a parameter is given more than once", status=400)
    if {"digest", "mount"} <= set(single):
        raise RegistryError("expected 'digest' or 'mount', not both", status=400)


def is_upload_path(path: bytes) -> bool:
    """Return whether a raw path belongs to uploads; then even a GET is handled as a write."""
    return b"/blobs/uploads/" in path and isinstance(_target_or_none(path), UploadTarget | UploadSession)


def allowed_methods(path: bytes) -> tuple[str, ...]:
    """Return the methods of a raw path where writes are allowed; only reads for an unknown endpoint."""
    target = _target_or_none(path)
    if target is None:
        return _READ
    methods = _METHODS[type(target)]
    return methods if isinstance(target, UploadTarget | UploadSession) else (*_READ, *methods)


def _target_or_none(path: bytes) -> WriteTarget | None:
    try:
        return _target(path)
    except RegistryError:
        return None


def _target(path: bytes) -> WriteTarget | None:
    segments = decode_segments(path)
    if segments[:2] == ["", "v2"] and len(segments) > 5 and segments[-3:-1] == ["blobs", "uploads"]:
        repository = Repository.parse("/".join(segments[2:-3]))
        return UploadSession(repository, segments[-1]) if segments[-1] else UploadTarget(repository)
    if segments[:2] == ["", "v2"] and len(segments) > 4 and segments[-2:] == ["blobs", "uploads"]:
        return UploadTarget(Repository.parse("/".join(segments[2:-2])))
    target = parse_target(path)
    return target if isinstance(target, Manifest | Blob) else None
