"""An index is judged by the judgements of its images."""

from __future__ import annotations

from dockmirror.app.local_verdicts import Judgement, RuleFinding, judge_index

SERVED = Judgement()
REFUSED = Judgement(RuleFinding("max_size", "too large"))
WARNED = Judgement(RuleFinding("hook", "flaws", is_enforced=False))
UNKNOWN = Judgement(unknown=RuleFinding("hook", "not held"))


def test_an_index_is_refused_if_all_of_its_images_are() -> None:
    refusal = judge_index(SERVED, {"linux/amd64": REFUSED, "linux/arm64": REFUSED}).refusal
    assert refusal == RuleFinding("max_size", "no image of it is served; linux/amd64: too large")


def test_an_index_is_unknown_if_no_image_is_known_to_be_served() -> None:
    found = judge_index(SERVED, {"linux/amd64": REFUSED, "linux/arm64": UNKNOWN})
    assert found.refusal is None
    assert found.unknown == RuleFinding("hook", "linux/arm64: not held")


def test_images_that_differ_from_their_index_are_named() -> None:
    images = {"linux/amd64": SERVED, "linux/arm64": REFUSED, "linux/s390x": UNKNOWN}
    found = judge_index(SERVED, images)
    assert (found.refusal, found.unknown) == (None, None)
    assert [(each.platform, each.outcome) for each in found.images] == [
        ("linux/arm64", "refused"), ("linux/s390x", "unknown"),
    ]  # fmt: skip


def test_a_warning_refuses_nothing() -> None:
    found = judge_index(SERVED, {"linux/amd64": WARNED, "linux/arm64": REFUSED})
    assert (found.is_refused, found.refusal) == (False, WARNED.refusal)
    assert [each.platform for each in found.images] == ["linux/arm64"]
    assert judge_index(SERVED, {"linux/amd64": WARNED, "linux/arm64": UNKNOWN}).unknown is None


def test_an_index_that_is_refused_itself_stays_so() -> None:
    assert judge_index(REFUSED, {"linux/amd64": SERVED}) == REFUSED
