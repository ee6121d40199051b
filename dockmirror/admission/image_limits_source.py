"""The sources of the facts that an image is within the operator's limits; each limit is a rule of its own."""

from __future__ import annotations

from typing import Literal

from attrs import frozen
from zope.interface import implementer

from ..config.image_rules import PolicySettings
from ..oci.manifest import ManifestDocument
from .fact_source import IFactSource
from .image_limits import ImageLimits, ImageVerdict, check_image
from .known_digests import KnownParents
from .repository_reader import RepositoryReader
from .verdict import Subject

LimitKey = Literal["platforms", "max_size", "media_types", "foreign_layers"]
LIMIT_KEYS: tuple[LimitKey, ...] = ("platforms", "max_size", "media_types", "foreign_layers")


@implementer(IFactSource)
@frozen
class ImageLimitSource:
    """Checks one limit.

    :ivar fact: the limit, which is the name of the fact and of the policy's key alike.
    """

    fact: LimitKey
    parents: KnownParents
    is_about_tags = False
    needs_manifest = True

    @property
    def setting(self) -> str:
        return self.fact

    async def gather(
        self,
        subject: Subject,
        policy: PolicySettings,
        manifest: ManifestDocument | None,
        reader: RepositoryReader,
    ) -> ImageVerdict | None:
        """:raises RegistryError: when the manifest cannot be read."""
        if subject.digest is None:
            return None
        manifest = manifest or await reader.document(subject.digest)
        platforms = []
        if self.fact == "platforms":
            await self.parents.record(subject, manifest)
            platforms = [each.platform for each in await self.parents.find(subject) if each.platform]
        limits = ImageLimits(**{self.fact: getattr(policy, self.fact)})
        return check_image(limits, manifest, platforms)
