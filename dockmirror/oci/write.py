"""What a client may ask a registry to change.

Source: OCI distribution specification, "Push" and "Content Management"; the table of "Endpoints" says which
methods there are.  Paths are parsed as those of ``request.py`` are, and written again from the values.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import ClassVar
from urllib.parse import urlencode

from attrs import evolve, frozen

from .credentials import Credentials
from .digest import ALGORITHMS, Digest
from .errors import (
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    NameUnknown,
    RegistryError,
    Unsupported,
)
from .reference import Repository, Tag
from .request import Blob, Manifest, decode_segments, parse_target
from .scope import Scope, pull_scope


@frozen
class UploadTarget:
    """``blobs/uploads/``: where uploads begin, and blobs are mounted or sent at once."""

    repository: Repository
    unknown: ClassVar[type[RegistryError]] = NameUnknown

    def __str__(self) -> str:
        return f"/v2/{self.repository}/blobs/uploads/"


@frozen
class UploadSession:
    """An upload that has begun, by the name that the mirror has given it."""

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
"""One value of a header.  Whether it is the next part, only the registry knows, and says so with 416."""


@frozen
class Write:
    """One request of a client to change something, or to tell how far an upload is; parsed.

    :ivar query: the parameters that are known, in order.
    :ivar content_range: which part of the blob the body is, as it was written.
    :ivar namespace: see ``Request``.
    """

    method: str
    target: WriteTarget
    query: tuple[tuple[str, str], ...] = ()
    content_range: str | None = None
    credentials: Credentials | None = None
    namespace: str | None = None

    def path_and_query(self) -> str:
        """The target as an upstream is asked for it: nothing but what was parsed."""
        return f"{self.target}?{urlencode(self.query)}" if self.query else str(self.target)

    def parameter(self, name: str) -> str | None:
        """The value of a parameter, if it is there."""
        return dict(self.query).get(name)

    @property
    def digest(self) -> Digest | None:
        """Of the blob that this completes or mounts.

        :raises DigestInvalid: when it is none.
        """
        told = self.parameter("digest")
        told = self.parameter("mount") if told is None else told
        return None if told is None else Digest.parse(told)

    @property
    def source(self) -> Repository | None:
        """The repository from which a blob is to be mounted.

        :raises NameInvalid: when it is none.
        """
        told = self.parameter("from")
        return None if told is None else Repository.parse(told)

    @property
    def tags(self) -> tuple[Tag, ...]:
        """What a manifest is to be called: by its path, and by the parameters beside it.

        :raises TagInvalid: when one is none.
        """
        reference = self.target.reference if isinstance(self.target, Manifest) else None
        named = (reference,) if isinstance(reference, Tag) else ()
        return (*named, *(Tag.parse(value) for name, value in self.query if name == _SEVERAL))

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """What a token must allow for this."""
        repository = str(self.target.repository)
        if self.method == "DELETE" and not isinstance(self.target, UploadSession):
            return (Scope("repository", repository, ("delete",)),)
        pushed = Scope("repository", repository, ("pull", "push"))
        return (pushed,) if self.source is None else (pushed, pull_scope(self.source))

    def renamed(self, name: Callable[[Repository], Repository]) -> Write:
        """The same of repositories by other names."""
        target = evolve(self.target, repository=name(self.target.repository))
        if self.source is None:
            return evolve(self, target=target)
        source = str(name(self.source))
        query = tuple((key, source if key == "from" else value) for key, value in self.query)
        return evolve(self, target=target, query=query)


@frozen
class WriteResult:
    """What has come of a write that the registry has taken.

    :ivar status: 200, 201, 202 or 204; 307 where the client has to send its body once more.
    :ivar location: where it goes on or what there is now, below the repository: ``manifests/latest``.
    :ivar headers: the few of the upstream's headers that travel, as they came.
    :ivar upstream_status: what the upstream answered, for the access log.
    """

    status: int
    location: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    upstream_status: int | None = None


def parse_write(
    method: str, path: bytes, query: tuple[tuple[str, str], ...], content_range: str | None = None
) -> Write:
    """What is to be changed, by a raw path as it stood in the request line, and the parameters beside it.

    :param content_range: which part of a blob the body is; of what is no upload, it says nothing.
    :raises RegistryError: of the row that says which part is wrong; 404 where the path means nothing, 405
        where it means something that is not changed so.
    """
    target = _target(path)
    if target is None or method not in _METHODS[type(target)]:
        raise Unsupported(f"{method} is not for this")
    known = tuple(pair for pair in query if pair[0] in _PARAMETERS[type(target)])
    write = Write(method, target, known, namespace=dict(query).get("ns"))
    _ = write.digest, write.source, write.tags  # all are what they should be, or this is refused
    _check_for_one_meaning([name for name, _ in known])
    if write.parameter("digest-algorithm") not in (None, *ALGORITHMS):
        raise DigestInvalid("'digest-algorithm' is none that is known here")
    if not isinstance(target, UploadSession) or content_range is None:
        return write
    if not _CONTENT_RANGE.fullmatch(content_range):
        raise BlobUploadInvalid("'Content-Range' is not one range of bytes, such as 0-1023")
    return evolve(write, content_range=content_range)


def _check_for_one_meaning(names: list[str]) -> None:
    """Of two values, another server may take the other one.

    :raises RegistryError: when these parameters could be understood in two ways.
    """
    single = [name for name in names if name != _SEVERAL]
    if len(set(single)) < len(single):
        raise RegistryError("a parameter that is there more than once", status=400)
    if {"digest", "mount"} <= set(single):
        raise RegistryError("a blob is sent, 'digest', or mounted, 'mount'", status=400)


def is_upload_path(path: bytes) -> bool:
    """Whether a raw path is for an upload, or for where they begin; then even a GET is about a write."""
    return b"/blobs/uploads/" in path and isinstance(_target_or_none(path), UploadTarget | UploadSession)


def allowed_methods(path: bytes) -> tuple[str, ...]:
    """The methods that a raw path takes where it may be written to; those that read where it means nought."""
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
