"""Limits of the settings, on images that are pulled through the gate."""

from __future__ import annotations

from typing import Any

import pytest

from dockmirror.config.settings import ConfigurationError
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import Denied

from ..shelf import ATTESTED, FOR_AMD, FOR_ARM, image
from .verdict_gate import Gated, served


@pytest.mark.parametrize(
    ("policies", "rule"),
    [
        ([{"platforms": ["linux/amd64"]}], None),
        ([{"platforms": "linux/s390x linux/ppc64le"}], "platforms"),
        ([{"images": "docker.io/**", "platforms": ["linux/amd64"]}, {"platforms": ["linux/s390x"]}], None),
        ([{"images": "ghcr.io/**", "platforms": "linux/amd64"}, {"platforms": "linux/s390x"}], "platforms"),
        ([{"media_types": ["application/vnd.oci.*"]}], None),
        ([{"media_types": ["application/vnd.docker.*"]}], "media_types"),
        ([{"foreign_layers": False, "max_size": "1GB"}], None),
        ([{"media_types": ["x/*"], "mode": "off"}], None),
    ],
)  # fmt: skip
def test_limits_of_an_index(policies: list[dict[str, Any]], rule: str | None) -> None:
    """For GET and HEAD alike."""
    gated = Gated(*policies)
    for head in (False, True):
        outcome = gated.pull(head=head)
        assert (outcome.get().status == 200) if rule is None else isinstance(outcome.error, Denied)
    assert gated.counted == ([] if rule is None else [(rule, "refused")] * 2)


@pytest.mark.parametrize(
    ("child", "is_served"), [(FOR_AMD, True), (FOR_ARM, False), (ATTESTED, True)]
)  # fmt: skip
def test_images_of_an_index_are_for_the_platform_that_it_states(child: bytes, is_served: bool) -> None:
    gated = Gated({"platforms": ["linux/amd64"]})
    served(gated.pull())
    gated.restart()
    outcome = gated.pull(Digest.of(child))
    assert served(outcome) if is_served else isinstance(outcome.error, Denied)


def test_the_size_of_an_image() -> None:
    gated = Gated({"max_size": 8})
    assert served(gated.pull(Digest.of(FOR_AMD)))
    tight = Gated({"max_size": 7})
    assert "is not allowed by the rule max_size: its 8 B are more than the allowed 7 B" in str(
        tight.pull(Digest.of(FOR_AMD)).error
    )
    assert served(tight.pull())


@pytest.mark.parametrize(
    "policy",
    [
        {"max_size": "1GB"},
        {"media_types": ["**"]},
        {"platforms": ["linux/amd64"]},
        {"foreign_layers": False},
        {"signed_by": [{"issuer": "https://issuer.example", "subject": "*"}]},
    ],
)
def test_a_manifest_that_can_be_read_in_different_ways_is_refused(policy: dict[str, Any]) -> None:
    """With a signature's layer for one program, and an image's for another."""
    gated = Gated(policy)
    layers = b'"Layers":[],"layers":[{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json",'
    data = image(b"amd", b"{}").replace(b'"layers": [{"mediaType": "",', layers)
    assert layers in data
    gated.shelf.put(data)
    assert isinstance(gated.pull().error, Denied)
    open_for_all = Gated()
    open_for_all.shelf.put(data)
    assert served(open_for_all.pull()) == data


def test_a_platform_that_is_none() -> None:
    with pytest.raises(ConfigurationError, match="expected a platform such as linux/amd64"):
        Gated({"platforms": ["amd64"]})
