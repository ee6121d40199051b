"""The policies and recalls that hold for what leaves the cache's directory in an archive."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from attrs import evolve

from ..admission.recall_files import read_recalls
from ..admission.recalls import explain
from ..admission.verdict import Refuse, ServeInstead
from ..config.settings import Settings
from ..oci.digest import Digest
from ..oci.errors import Denied
from ..oci.reference import Reference
from ..store.held_images import StoredImage
from ..store.packed_images import ExportGate
from .local_admission import LocalAdmission
from .local_verdicts import LocalVerdicts
from .naming import ImageName


def check_not_recalled(root: Path, name: object, digests: Iterable[Digest]) -> None:
    """:raises Denied: when one of the contents was recalled."""
    recalls = read_recalls(root)
    for digest in digests:
        if recall := recalls.find(digest):
            raise Denied(f"{name}: {explain(recall, digest)}")


def make_export_gate(
    settings: Settings, root: Path, now: float, name: ImageName, note: Callable[[str], None] = lambda _: None
) -> ExportGate:
    """Return the gate for one image, whose parts raise ``Denied``.

    :param note: is given a sentence when another digest is served in a tag's place.
    """
    verdicts = LocalVerdicts(settings, root, now)

    def check_digests(digests: Iterable[Digest]) -> None:
        check_not_recalled(root, name, digests)

    def choose(digest: Digest) -> Digest:
        verdict = LocalAdmission(settings, root, now).decide(name, digest)
        if isinstance(verdict, Refuse):
            raise Denied(verdict.why)
        if isinstance(verdict, ServeInstead):
            note(f"{name}: {verdict.digest} in its place: {verdict.why}")
            return verdict.digest
        return digest

    def check(reference: Reference, image: StoredImage) -> None:
        verdicts.check(evolve(name, reference=reference), image)

    return ExportGate(check_digests, choose, check)
