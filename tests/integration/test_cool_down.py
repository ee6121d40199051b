"""A tag that moves to a young digest, by every route through which a mirror gives an image out."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from .conftest import MakeChain
from .parts.chain import Chain
from .parts.clients import skopeo
from .parts.command import dockmirror
from .parts.images import Image, image
from .parts.kept import blob_file, holds
from .parts.machine import Machine
from .parts.plain import PlainClient, Response
from .parts.process import wait_until
from .pulls import refused, skopeo_pulls, skopeo_reads, succeeded

pytestmark = pytest.mark.integration

NAME, TAG = "library/cooled", "latest"
PATH = f"/v2/{NAME}/manifests/{TAG}"


def routes(chain: Chain) -> dict[str, Response]:
    """Return the answer of each route by which a client may ask for the tag's manifest."""
    mirror = chain.mirror
    virtual, own = mirror.client("docker"), mirror.client()
    by_path = f"/v2/docker.io/{NAME}/manifests/{TAG}"
    asked: list[tuple[str, PlainClient, str, str]] = [
        ("virtual host", virtual, "GET", PATH),
        ("virtual host, HEAD", virtual, "HEAD", PATH),
        ("own host", own, "GET", by_path),
        ("own host, HEAD", own, "HEAD", by_path),
        ("namespace", own, "GET", f"{PATH}?ns=docker.io"),
        ("registry-mirrors", own, "GET", PATH),
        ("archive", own, "HEAD", f"/export?image=docker.io/{NAME}:{TAG}"),
    ]
    return {name: client.request(method, path) for name, client, method, path in asked}


def digests(chain: Chain) -> set[str | None]:
    """Return the digests that the routes for manifests name."""
    answers = routes(chain)
    assert {each.status for each in answers.values()} == {200}
    return {each.headers["Docker-Content-Digest"] for name, each in answers.items() if name != "archive"}


def test_the_young_digest_stays_out(chains: MakeChain, skopeo_machine: Machine, tmp_path: Path) -> None:
    """Two workers serve the last admitted one, offline as well, until an exception lets the other in."""
    policy = {"images": "docker.io/library/*", "min_age": "7d"}
    with chains(policy=[policy], export=True, tag_ttl=0, workers=2) as chain:
        first, second = image("first"), image("second")
        chain.registry.push(NAME, first, TAG)
        skopeo_pulls(skopeo_machine, f"{chain.mirror.host('docker')}/cooled:latest", first)
        chain.registry.push(NAME, second, TAG)
        for _ in range(3):  # of two workers both answer sooner or later
            assert digests(chain) == {first.digest}
        answer = chain.mirror.client("docker").request("GET", PATH)
        assert answer.body == first.manifest.data
        assert answer.headers["Dockmirror-Newer-Digest"] == second.digest
        skopeo_reads(skopeo_machine, f"{chain.mirror.host()}/docker.io/{NAME}:{TAG}", first)
        pull_by_commands(chain, first, second, tmp_path)
        with chain.upstream_stopped():
            assert digests(chain) == {first.digest}
        exception = {"image": second.digest, "until": "9999-12-31", "reason": "it is needed"}
        chain.mirror.configure(policy=[{**policy, "exceptions": [exception]}])
        succeeded(dockmirror(chain.mirror, "policy", "test", "cooled"))
        chain.mirror.stop()
        chain.mirror.start()
        assert digests(chain) == {second.digest}


def pull_by_commands(chain: Chain, first: Image, second: Image, directory: Path) -> None:
    """Commands agree with the mirror: ``warm``, ``pin``, ``export`` and ``policy``."""
    [warmed] = json.loads(succeeded(dockmirror(chain.mirror, "warm", "--json", "cooled")))
    assert warmed["error"] is None
    succeeded(dockmirror(chain.mirror, "pin", "cooled"))
    wait_until(lambda: "refreshed the pinned image" in chain.mirror.read_log(), "the pin is refreshed")
    assert holds(chain.mirror.cache, f"docker.io/{NAME}", first)
    assert not any(blob_file(chain.mirror.cache, blob.digest).exists() for blob in second.layers)
    file = directory / "cooled.tar"
    succeeded(dockmirror(chain.mirror, "export", "cooled", "-o", str(file)))
    with tarfile.open(file) as archive:
        index = archive.extractfile("index.json")
        assert index is not None
        assert [each["digest"] for each in json.load(index)["manifests"]] == [first.digest]
    [decision] = json.loads(succeeded(dockmirror(chain.mirror, "policy", "test", "--json", "cooled")))
    assert (decision["verdict"], decision["digest"]) == ("replaced", first.digest)
    state = {"STATE_DIRECTORY": str(chain.mirror.state)}

    def read_report() -> Any:
        done = dockmirror(chain.mirror, "policy", "report", "--json", environ=state)
        return json.loads(succeeded(done))

    wait_until(lambda: (read_report()["pulls"] or {"replaced": 0})["replaced"] > 0, "the pulls are written")
    report = read_report()
    assert {(row["rule"], row["outcome"]) for row in report["rules"]} == {("min_age", "replaced")}
    [row] = report["tags"]
    assert (row["image"], row["withheld"], row["state"]) == (f"docker.io/{NAME}:{TAG}", 1, "behind")


def test_a_tag_without_an_admitted_digest_is_refused(chains: MakeChain, skopeo_machine: Machine) -> None:
    """By every route, with a sentence that clients show."""
    policy = {"images": "docker.io/**", "min_age": "7d", "first_pull": "refuse"}
    with chains(policy=[policy], export=True, tag_ttl=0) as chain:
        chain.registry.push(NAME, image("young"), TAG)
        answers = routes(chain)
        assert {name: each.status for name, each in answers.items()} == dict.fromkeys(answers, 403)
        [error] = json.loads(answers["own host"].body)["errors"]
        assert error["code"] == "DENIED"
        assert "is too new for the cool-down of 7 d" in error["message"]
        inspected = skopeo(
            skopeo_machine,
            "inspect",
            "--tls-verify=false",
            f"docker://{chain.mirror.host()}/docker.io/{NAME}",
        )
        refused(inspected, "too new for the cool-down of 7 d")
        refused(dockmirror(chain.mirror, "warm", "cooled"), "too new")
