"""``/export``: an image as an archive, for machines without a network.

``GET /export?image=docker.io/library/nginx:latest&platform=linux/amd64``.
"""

from __future__ import annotations

import hashlib

from twisted.web.resource import Resource

from ..archive.archive_plan import ArchivePlan, ContentSlice
from ..archive.exporter import ArchiveExporter, ExportedArchive
from ..http.server_request import ServerRequest, parse_query, parse_range
from ..interfaces import Answer
from ..oci.errors import RegistryError, Unsupported
from ..oci.manifest import Platform
from ..oci.request import Repository
from .operator_actions import ParseImage
from .respond import respond


class ExportResource(Resource):
    """Sends archives, and ranges of them, so that a download can be resumed."""

    isLeaf = True

    def __init__(self, archives: ArchiveExporter, parse_image: ParseImage) -> None:
        super().__init__()
        self._archives = archives
        self._parse_image = parse_image

    def render(self, request: ServerRequest) -> int:
        return respond(request, self._export(request))

    async def _export(self, request: ServerRequest) -> Answer:
        if request.method not in (b"GET", b"HEAD"):
            raise Unsupported("request an archive with GET")
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


def _answer(request: ServerRequest, repository: Repository, archive: ExportedArchive) -> Answer:
    plan = archive.plan
    etag = _etag(plan)
    name = f"{repository.name.rpartition('/')[2]}.tar"
    attachment = f'attachment; filename="{name}"'
    headers = (("Accept-Ranges", "bytes"), ("ETag", etag), ("Content-Disposition", attachment))
    requested = parse_range(request, etag)
    part = requested.resolve(plan.size)[0] if requested and requested.single else None
    if part is None:
        return Answer(archive.body(0, plan.size), headers=headers)
    return Answer(archive.body(part.first, part.last + 1), 206, part, headers=headers)


def _etag(plan: ArchivePlan) -> str:
    """Return an entity tag derived from the archive's pieces, the same for the same archive."""
    hashed = hashlib.sha256()
    for piece in plan.pieces:
        hashed.update(str(piece.digest).encode() if isinstance(piece, ContentSlice) else piece)
    return f'"{hashed.hexdigest()}"'
