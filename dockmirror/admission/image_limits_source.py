"""The sources of the facts that an image is within the operator's limits; each limit is a rule of its own."""

from __future__ import annotations

from typing import Literal

from attrs import evolve, frozen
from zope.interface import implementer

from ..config.settings import PolicySettings
from ..oci.manifest import ManifestDocument
from .fact_source import IClientFactSource
from .image_limits import ImageLimits, ImageVerdict, check_image
from .known_digests import KnownParents
from .repository_reader import RepositoryReader
from .verdict import Subject

LimitKey = Literal["platforms", "max_size", "media_types", "foreign_layers"]
LIMIT_KEYS: tuple[LimitKey, ...] = ("platforms", "max_size", "media_types", "foreign_layers")


@implementer(IClientFactSource)
@frozen
class ImageLimitSource:
    """Checks one limit; ``reader`` is None until it is bound to a client.

    :ivar fact: the limit, which is the name of the fact and of the policy's key alike.
    """

    fact: LimitKey
    parents: KnownParents
    reader: RepositoryReader | None = None
    is_about_tags = False
    needs_manifest = True

    @property
    def setting(self) -> str:
        return self.fact

    def bind(self, reader: RepositoryReader) -> ImageLimitSource:
        return evolve(self, reader=reader)

    async def gather(
        self, subject: Subject, policy: PolicySettings | None, manifest: ManifestDocument | None
    ) -> ImageVerdict | None:
        """:raises RegistryError: when the manifest cannot be read."""
        assert self.reader is not None
        if subject.digest is None or policy is None:
            return None
        manifest = manifest or await self.reader.document(subject.digest)
        platforms = []
        if self.fact == "platforms":
            await self.parents.record(subject, manifest)
            platforms = [each.platform for each in await self.parents.find(subject) if each.platform]
        limits = ImageLimits(**{self.fact: getattr(policy, self.fact)})
        return check_image(limits, manifest, platforms)
