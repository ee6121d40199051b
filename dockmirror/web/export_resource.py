"""``/export``: an image as an archive, for rooms without a network.

``GET /export?image=docker.io/library/nginx:latest&platform=linux/amd64``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Protocol

from twisted.web.resource import Resource

from ..archive.archive_plan import ArchivePlan, ContentSlice
from ..http.server_request import ServerRequest
from ..interfaces import Answer, IBody
from ..oci.errors import RegistryError, Unsupported
from ..oci.platform import Platform
from ..oci.reference import Reference, Repository
from .query import parse_query, parse_range
from .respond import respond

ParseImage = Callable[[str], tuple[Repository, Reference]]
"""What an image's name means, or ValueError."""


class Archive(Protocol):
    """An image to be sent; see ``exported.Archive``."""

    plan: ArchivePlan

    def content(self, start: int, stop: int) -> IBody:
        """A part of it."""

    def close(self) -> None:
        """Nothing of it is sent."""


class ArchiveSource(Protocol):
    """Makes archives of images; see ``ArchiveExporter``."""

    async def archive(
        self, repository: Repository, reference: Reference, platform: Platform | None
    ) -> Archive:
        """The archive of an image."""


class ExportResource(Resource):
    """Sends archives; a part of one where a range is asked for, so that a download can go on."""

    isLeaf = True

    def __init__(self, archives: ArchiveSource, parse_image: ParseImage) -> None:
        super().__init__()
        self._archives = archives
        self._parse_image = parse_image

    def render(self, request: ServerRequest) -> int:
        """Answers when the manifests are known."""
        return respond(request, self._export(request))

    async def _export(self, request: ServerRequest) -> Answer:
        if request.method not in (b"GET", b"HEAD"):
            raise Unsupported("an archive is asked for by GET")
        query = dict(parse_query(request))
        try:
            repository, reference = self._parse_image(query.get("image", ""))
            platform = Platform.parse(query["platform"]) if "platform" in query else None
        except ValueError as error:
            raise RegistryError(
                f"{error}; try /export?image=docker.io/library/nginx:latest", status=400
            ) from None
        archive = await self._archives.archive(repository, reference, platform)
        try:
            return _answer(request, repository, archive)
        except BaseException:
            archive.close()
            raise


def _answer(request: ServerRequest, repository: Repository, archive: Archive) -> Answer:
    plan = archive.plan
    etag = _etag(plan)
    name = f"{repository.name.rpartition('/')[2]}.tar"
    disposition = f'attachment; filename="{name}"'
    headers = (("Accept-Ranges", "bytes"), ("ETag", etag), ("Content-Disposition", disposition))
    asked = parse_range(request, etag)
    part = asked.resolve(plan.size)[0] if asked and asked.single else None
    if part is None:
        return Answer(archive.content(0, plan.size), headers=headers)
    return Answer(archive.content(part.first, part.last + 1), 206, part, headers=headers)


def _etag(plan: ArchivePlan) -> str:
    """The same archive has the same, since the same pieces make it."""
    hashed = hashlib.sha256()
    for piece in plan.pieces:
        hashed.update(str(piece.digest).encode() if isinstance(piece, ContentSlice) else piece)
    return f'"{hashed.hexdigest()}"'
