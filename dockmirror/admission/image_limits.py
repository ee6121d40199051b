"""Limits on images that are read from the manifest alone: platforms, size, media types, foreign layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Literal

from attrs import frozen
from zope.interface import implementer

from ..config.notation import format_size
from ..oci.digest import Digest
from ..oci.manifest import ManifestDocument, Platform
from ..oci.media import FOREIGN_LAYERS
from .admit import ImageVerdict
from .policies import FactContext, IFactSource
from .tag_facts import KnownParents

LimitKey = Literal["platforms", "max_size", "media_types", "foreign_layers"]
LIMIT_KEYS: tuple[LimitKey, ...] = ("platforms", "max_size", "media_types", "foreign_layers")


@frozen
class ImageLimits:
    """The operator's limits on images; a limit that is not set allows everything.

    :ivar platforms: an index must have an image for one of them; its images for others are refused.
    :ivar max_size: bytes of the configuration and all layers, compressed, as the manifest states them;
        see ``stated_size``.
    :ivar media_types: patterns for the types of the manifest, its configuration and its layers, foreign ones
        included.
    :ivar foreign_layers: False refuses a content that clients would fetch from an address in the manifest.
    """

    platforms: Sequence[Platform] = ()
    max_size: int | None = None
    media_types: Sequence[str] = ()
    foreign_layers: bool = True


def check_image(
    limits: ImageLimits, document: ManifestDocument | None, platforms: Sequence[Platform] = ()
) -> ImageVerdict:
    """Return whether a manifest or an index is within the limits.

    An index has no size of its own: each of its images is checked when it is pulled.

    :param document: None for a manifest that cannot be read, or in different ways.
    :param platforms: those for which indexes list this manifest; a manifest does not state its own.
    """
    if document is None:
        if limits == ImageLimits():
            return ImageVerdict()
        return ImageVerdict(
            "its manifest is of an unknown type, or can be read in different ways, so its limits cannot be"
            " checked"
        )
    return ImageVerdict(next(_problems(limits, document, platforms), ""))


def _problems(limits: ImageLimits, document: ManifestDocument, stated: Sequence[Platform]) -> Iterator[str]:
    """Yield each limit that the image exceeds."""
    platforms = stated or [each.platform for each in document.children if each.platform]
    real = [each for each in platforms if each.is_real]
    allowed = ", ".join(map(str, limits.platforms))
    if limits.platforms and real and not _any_matches(limits.platforms, real):
        yield f"it is for {', '.join(map(str, real))}, and the allowed platforms are {allowed}"
    if limits.max_size is not None and not document.is_index:
        size = stated_size(document)
        if size is None:
            yield "its manifest does not state the size of each layer"
        elif size > limits.max_size:
            yield f"its {format_size(size)} are more than the allowed {format_size(limits.max_size)}"
    for media_type in _media_types(document):
        if limits.media_types and not any(fnmatchcase(media_type, each) for each in limits.media_types):
            kind = f"of type {media_type}" if media_type else "without a type"
            yield f"it has a content {kind}, which is not allowed"
    if document.foreign and not limits.foreign_layers:
        yield "it has contents that are stored outside of the registry"


def _any_matches(allowed: Sequence[Platform], platforms: Sequence[Platform]) -> bool:
    return any(each.matches(platform) for each in allowed for platform in platforms)


def stated_size(document: ManifestDocument) -> int | None:
    """Return the size of an image's configuration and layers, or None if one is not stated or is negative.

    Layers of a foreign type that have addresses outside of the registry are not counted.  Of several sizes
    of one content the largest counts.
    """
    sizes: dict[Digest | None, int] = {}
    foreign = (each for each in document.foreign if each.media_type not in FOREIGN_LAYERS)
    for each in (*document.blobs, *document.layers, *foreign):
        if each.size is None or each.size < 0:
            return None
        sizes[each.digest] = max(each.size, sizes.get(each.digest, 0))
    return sum(sizes.values())


def _media_types(document: ManifestDocument) -> Iterator[str]:
    children = (each.descriptor for each in document.children)
    yield document.media_type
    for each in (*document.blobs, *document.layers, *children, *document.foreign):
        yield each.media_type or ""


@implementer(IFactSource)
@frozen
class ImageLimitSource:
    """Checks one limit.

    :ivar fact: the limit, which is the name of the fact and of the policy's key alike.
    """

    fact: LimitKey
    parents: KnownParents
    is_about_tags = False

    @property
    def setting(self) -> str:
        return self.fact

    async def gather(self, context: FactContext) -> ImageVerdict | None:
        """:raises RegistryError: when the manifest cannot be read."""
        subject = context.subject
        if subject.digest is None:
            return None
        manifest = await context.read_manifest()
        platforms = []
        if self.fact == "platforms":
            await self.parents.record(subject, manifest)
            platforms = [each.platform for each in await self.parents.find(subject) if each.platform]
        limits = ImageLimits(**{self.fact: getattr(context.policy, self.fact)})
        return check_image(limits, manifest, platforms)
