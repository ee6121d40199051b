"""Descriptors of contents."""

from __future__ import annotations

from dockmirror.oci.descriptor import Descriptor


def test_what_was_not_told_is_none() -> None:
    """An unknown size is no size of 0, an unknown type no octet stream."""
    assert Descriptor() == Descriptor(media_type=None, digest=None, size=None)
    assert Descriptor(size=0) != Descriptor()
