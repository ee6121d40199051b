"""Writes through the stack of an upstream, with a cache on the disk."""

# mypy: allow-untyped-calls

from __future__ import annotations

from pathlib import Path

from twisted.internet.defer import Deferred

from dockmirror.body.bodies import BytesBody
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.request import Repository, Tag
from dockmirror.oci.write import parse_write
from dockmirror.store.tag_history import TagHistoryFiles

from ..fakes import Reply
from ..internet import Internet
from .cached_house import StoringHouse

PATH = "/v2/team/image/manifests/latest"
MANIFEST = b'{"schemaVersion": 2}'


def test_a_push_whose_client_leaves_is_a_sighting_of_its_tag(tmp_path: Path) -> None:
    """The cache serves the tag as pushed, and a cool-down must know when it was first seen."""
    internet = Internet()
    internet.reply(
        "registry.k8s.io", PATH, Reply(201, b"", (("Docker-Content-Digest", str(Digest.of(MANIFEST))),))
    )
    settings = {"upstreams": {"k8s": {"writes": True}}, "access": {"keys": str(tmp_path / "keys")}}
    house = StoringHouse(internet, tmp_path / "cache", {}, **settings)
    writes = house.serving.stacks["k8s"].writes
    assert writes is not None
    body = BytesBody(MANIFEST, Descriptor("a/b", None, len(MANIFEST)))
    writing = Deferred.fromCoroutine(writes.write(parse_write("PUT", PATH.encode(), (), None), body))
    writing.addErrback(lambda _: None).cancel()
    for _ in range(3):
        house.settle()
    house.close()
    key = "k8s", Repository("team/image"), Tag("latest")
    assert TagHistoryFiles(tmp_path / "cache").read(key).sightings[0].digest == Digest.of(MANIFEST)
