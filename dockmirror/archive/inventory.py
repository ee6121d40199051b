"""The list in an archive of the images and contents that it has, and that it leaves to earlier archives.

It is the file ``dockmirror.json`` beside the index of an OCI image layout; other programs pass over it::

    {"version": 1,
     "images": {"docker.io/library/nginx:1.27": "sha256:…"},
     "contents": ["sha256:…"],
     "assumed": ["sha256:…"]}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from attrs import field, frozen

from ..oci.digest import Digest
from ..oci.errors import DigestInvalid
from .archive_plan import ArchivePlan, PackedImage, Piece, plan_layout, plan_tar

INVENTORY = "dockmirror.json"
_VERSION = 1


@frozen
class Inventory:
    """The images and contents of an archive.

    :ivar images: the digests of all images that this archive and those before it have, by their names.
    :ivar contents: the contents that it has.
    :ivar assumed: the contents that those before it have.
    """

    images: Mapping[str, Digest] = field(factory=dict)
    contents: frozenset[Digest] = frozenset()
    assumed: frozenset[Digest] = frozenset()

    @property
    def known(self) -> frozenset[Digest]:
        """All contents of this archive and of those before it."""
        return self.contents | self.assumed

    @classmethod
    def parse(cls, data: bytes) -> Inventory:
        """:raises ValueError: when the text is no such list, or one of a later version."""
        try:
            fields = json.loads(data)
            if fields["version"] != _VERSION:
                raise KeyError(_VERSION)
            return cls(
                {str(name): Digest.parse(digest) for name, digest in fields["images"].items()},
                frozenset(map(Digest.parse, fields["contents"])),
                frozenset(map(Digest.parse, fields["assumed"])),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, DigestInvalid):
            raise ValueError(f"expected the list of an archive, of version {_VERSION}") from None

    def __bytes__(self) -> bytes:
        fields = {
            "version": _VERSION,
            "images": {name: str(digest) for name, digest in sorted(self.images.items())},
            "contents": sorted(map(str, self.contents)),
            "assumed": sorted(map(str, self.assumed)),
        }
        return json.dumps(fields, separators=(",", ":")).encode()


def select_new(images: Sequence[PackedImage], earlier: Inventory) -> Sequence[PackedImage]:
    """Return the images that no earlier archive has by that digest with all of these manifests."""
    known = earlier.known
    return [
        each
        for each in images
        if earlier.images.get(each.name) != each.root or not known.issuperset(each.manifests)
    ]


def make_inventory(images: Sequence[PackedImage], earlier: Inventory) -> Inventory:
    """Return the list of an archive that leaves out the blobs of earlier ones, but no manifest."""
    manifests = {digest for each in images for digest in each.manifests}
    blobs = {digest for each in images for digest in each.blobs}
    named = {**earlier.images, **{each.name: each.root for each in images}}
    return Inventory(named, frozenset(manifests | (blobs - earlier.known)), earlier.known)


def plan_export(images: Sequence[PackedImage], earlier: Inventory) -> dict[str, Piece]:
    """Plan the files of an archive, without the blobs of earlier ones, and with its list."""
    return {
        **plan_layout(images, earlier.known),
        INVENTORY: bytes(make_inventory(images, earlier)),
    }


def plan_archive(images: Sequence[PackedImage]) -> ArchivePlan:
    """Plan one archive of all images; the same images always give the same bytes."""
    return plan_tar(plan_export(images, Inventory()))
