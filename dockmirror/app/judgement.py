"""The judgement of a digest by the rules, as far as the cache's directory tells, without I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from attrs import evolve, frozen


@frozen
class RuleFinding:
    """A rule that refuses a digest, or that cannot be checked here.

    :ivar key: the key of the rule in a policy, or "recall".
    :ivar is_enforced: False if the policy only warns.
    """

    key: str
    why: str
    is_enforced: bool = True


@frozen
class ImageFinding:
    """A rule that refuses one image of an index, or that cannot be checked for it.

    :ivar platform: the platform that the index states, or the image's digest if it states none.
    """

    platform: str
    outcome: Literal["refused", "unknown"]
    finding: RuleFinding

    @property
    def is_served(self) -> bool:
        """True if the image is served all the same, with a warning."""
        return self.outcome == "refused" and not self.finding.is_enforced


@frozen
class Judgement:
    """The outcome of the rules for a digest.

    :ivar refusal: the refusal of a rule, of one that is enforced if there is any.
    :ivar unknown: the first rule that could not be checked, with the reason.
    :ivar images: the images of an index for which this differs from the index itself.
    """

    refusal: RuleFinding | None = None
    unknown: RuleFinding | None = None
    images: tuple[ImageFinding, ...] = ()

    @property
    def is_refused(self) -> bool:
        """True if an enforced rule refuses the digest."""
        return self.refusal is not None and self.refusal.is_enforced


def judge_index(index: Judgement, images: Mapping[str, Judgement]) -> Judgement:
    """Return the judgement of an index, of which a client pulls one of these images.

    The index is refused if each image is, and unknown if none is known to be served.
    """
    if index.is_refused or not images:
        return index
    found = tuple(
        finding for platform, each in images.items() if (finding := _find_rule(platform, each)) is not None
    )
    if len(found) < len(images):
        return evolve(index, images=found)
    if all(each.outcome == "refused" for each in found):
        weakest = min(found, key=lambda each: each.finding.is_enforced)
        refusal = evolve(weakest.finding, why=f"no image of it is served; {_explain(weakest)}")
        if refusal.is_enforced:
            return evolve(index, refusal=refusal)
        rest = tuple(each for each in found if not each.is_served)
        return evolve(index, refusal=index.refusal or weakest.finding, images=rest)
    if not any(each.is_served for each in found):
        first = next(each for each in found if each.outcome == "unknown")
        index = evolve(index, unknown=index.unknown or evolve(first.finding, why=_explain(first)))
    return evolve(index, images=found)


def _find_rule(platform: str, image: Judgement) -> ImageFinding | None:
    """Return the rule that decides about an image; None if it is served without a warning."""
    if image.refusal is not None and (image.is_refused or image.unknown is None):
        return ImageFinding(platform, "refused", image.refusal)
    return None if image.unknown is None else ImageFinding(platform, "unknown", image.unknown)


def _explain(image: ImageFinding) -> str:
    return f"{image.platform}: {image.finding.why}"
