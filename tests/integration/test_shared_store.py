"""Mirrors that share a bucket: what one has fetched all have, and no client notices when the bucket fails."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from socket import gethostname
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from dockmirror.store import layout

from ..bucket_table import row
from .conftest import MakeDirectory
from .parts.accounts import ALICE
from .parts.clients import Containerd
from .parts.command import dockmirror
from .parts.faults import Fault, Stall
from .parts.images import artifact, image
from .parts.kept import blob_file, growing_file, holds, length, tag_link
from .parts.machine import Machine
from .parts.process import wait_until
from .parts.registry import Registry
from .parts.seaweed import CREDENTIALS
from .parts.server import Exchange
from .parts.sharing import Sharing, metric, pulled, state, status
from .pulls import ctr_pulls, skopeo_pulls, succeeded

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
NAME = "library/shared"
UPLOADS_OFTEN = """
from dockmirror.app import fleet_bucket
from dockmirror.history import fleet
fleet_bucket.CHECK_PERIOD, fleet.UPLOAD_PERIOD = 0.3, 0
"""


def reads(sharing: Sharing) -> Counter[str]:
    """The number of reads of the bucket, by method."""
    return Counter(each.method for each in sharing.front.requests if each.method in ("GET", "HEAD"))


def test_outage(sharing: Sharing, directory: MakeDirectory) -> None:
    """A mirror with an empty disk serves in an outage all that another has fetched; so does distribution."""
    pushed = image("shared", layers=(9 * MIB, 3_000))
    sharing.registry.push(NAME, pushed, "latest")
    one = sharing.add()
    pulled(one.client("docker"), NAME, pushed)
    pulled(one.client(), f"docker.io/{NAME}", pushed)
    sharing.uploaded(one, {NAME: pushed})
    sharing.stop_upstream()
    two = sharing.add()
    pulled(two.client("docker"), NAME, pushed)
    pulled(two.client(), f"docker.io/{NAME}", pushed)
    with Registry(
        directory("distribution"), bucket=sharing.seaweedfs.distribution(sharing.prefix)
    ) as registry:
        answer = registry.plain.manifest(f"docker.io/{NAME}", "latest")
        assert answer.body == pushed.manifest.data
        for blob in pushed.blobs:
            sent = registry.plain.blob(f"docker.io/{NAME}", blob.digest)
            with urlopen(sent.headers["Location"], timeout=10) as body:  # noqa: S310
                assert body.read() == blob.data


def test_few_requests(sharing: Sharing) -> None:
    """A local blob costs the bucket no request, any other one HEAD and one GET for all clients."""
    pushed, another = artifact("counted", size=8 * MIB), artifact("at once", size=32 * MIB)
    sharing.registry.push(NAME, pushed, "latest")
    sharing.registry.push("library/another", another, "latest")
    one, two = sharing.add(), sharing.add()
    pulled(one.client("docker"), NAME, pushed)
    pulled(one.client("docker"), "library/another", another)
    sharing.uploaded(one, {NAME: pushed, "library/another": another})
    sharing.front.requests.clear()
    pulled(one.client("docker"), NAME, pushed)
    assert sharing.front.requests == []

    client, before = two.client("docker"), list(sharing.blobs.requests)
    client.manifest(NAME, "latest")
    sharing.front.requests.clear()
    digest, data = pushed.layers[0].digest, pushed.layers[0].data
    for _ in range(3):
        assert client.blob(NAME, digest).body == data
        assert reads(sharing) == {"HEAD": 1, "GET": 1}
    wait_until(lambda: blob_file(two.cache, digest).exists(), "the blob has its name")

    client.manifest("library/another", "latest")
    sharing.front.requests.clear()
    blob = another.layers[0]
    with ThreadPoolExecutor(20) as pool:
        bodies = [pool.submit(client.blob, "library/another", blob.digest) for _ in range(20)]
    assert all(each.result().body == blob.data for each in bodies)
    assert reads(sharing) == {"HEAD": 1, "GET": 1}
    assert sharing.blobs.requests == before

    sharing.front.requests.clear()
    with ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(client.blob, NAME, image("never pushed").layers[0].digest) for _ in range(20)]
    assert {each.result().status for each in answers} == {404}
    assert reads(sharing) == {"HEAD": 1}


def test_looked_up(sharing: Sharing) -> None:
    """HEAD of a blob or a tag reads no content from the bucket."""
    pushed = image("looked up", layers=(300_000, 200_000))
    sharing.registry.push(NAME, pushed, "latest")
    one, two = sharing.add(), sharing.add(tag_ttl=0)
    pulled(one.client("docker"), NAME, pushed)
    sharing.uploaded(one, {NAME: pushed})
    sharing.front.requests.clear()
    client = two.client("docker")
    assert client.request("HEAD", f"/v2/{NAME}/manifests/latest").status == 200
    for blob in pushed.blobs:
        assert client.request("HEAD", f"/v2/{NAME}/blobs/{blob.digest}").status == 200
    keys = [blob.digest.partition(":")[2] for blob in pushed.blobs]
    blobs = [each for each in sharing.front.requests if any(key in each.path for key in keys)]
    assert {each.method for each in blobs} - {"PUT"} == {"HEAD"}  # the other one may still link what it has
    sharing.front.requests.clear()
    part = client.blob(NAME, pushed.layers[0].digest, {"Range": "bytes=5-9"})
    assert part.body == pushed.layers[0].data[5:10]
    assert [each.range for each in sharing.front.requests if each.method == "GET"] == ["bytes=5-9"]


def test_fleet(sharing: Sharing, directory: MakeDirectory) -> None:
    """The command and the page of one mirror have the sums of all; a failing bucket costs no pull."""
    pushed = image("fleet", layers=(3_000,))
    sharing.registry.push(NAME, pushed, "latest")
    sharing.patch = UPLOADS_OFTEN
    for number in range(2):
        mirror = sharing.add(history=str(directory(f"history-{number}")))
        pulled(mirror.client("docker"), NAME, pushed)
    mirror = sharing.mirrors[0]
    size = sum(len(each.data) for each in [pushed.manifest, *pushed.blobs])

    def has_sums_of_both() -> bool:
        command = ["report", "--fleet", "--json"]
        sums = json.loads(succeeded(dockmirror(mirror, *command, environ=CREDENTIALS)))
        pulls = [(each["key"], each["pulls"]) for each in sums["mirror"]]
        return pulls == [(gethostname(), 2)] and sums["total"]["served_bytes"] == 2 * size

    wait_until(has_sums_of_both, "the report has the pulls of both")
    wait_until(lambda: status(mirror)["history"]["fleet"]["mirrors"] != [], "the page has the fleet")
    sharing.front.stop()
    failed = dockmirror(mirror, "report", "--fleet", environ=CREDENTIALS)
    assert (failed.returncode, "cannot be read" in failed.stderr) == (1, True)
    pulled(mirror.client("docker"), NAME, pushed)


@row(
    "a blob that was fetched",
    "one PUT up to 8 MiB, else one HEAD and one PUT for each 8 MiB and two POST; one PUT for the link",
)
@row("a tag", "two PUT")
def test_uploads(sharing: Sharing) -> None:
    """A small blob is put at once, a large one in parts, and each has a link."""
    pushed = image("uploaded", layers=(20 * MIB, 3_000))
    sharing.registry.push(NAME, pushed, "latest")
    one = sharing.add()
    pulled(one.client("docker"), NAME, pushed)
    sharing.uploaded(one, {NAME: pushed})
    large, small = (
        Counter(
            (each.method, "link" in each.path)
            for each in sharing.front.requests
            if layer.digest.partition(":")[2] in each.path and each.method != "GET"
        )
        for layer in pushed.layers
    )
    assert large == {("HEAD", False): 2, ("PUT", False): 3, ("POST", False): 2, ("PUT", True): 1}
    assert small == {("HEAD", False): 1, ("PUT", False): 1, ("PUT", True): 1}
    tags = [each.method for each in sharing.front.requests if "/tags/latest/" in each.path]
    assert Counter(tags)["PUT"] == 2


def test_redirect(sharing: Sharing) -> None:
    """Clients are sent to the bucket for public blobs that are not near; HEAD is answered here."""
    pushed = artifact("redirected", size=MIB)
    sharing.registry.push(NAME, pushed, "latest")
    sharing.registry.push("private/redirected", pushed, "latest")
    one, two = sharing.add(redirect=True), sharing.add(redirect=True)
    for repository, account in ((NAME, None), ("private/redirected", ALICE)):
        pulled(one.client("docker", account), repository, pushed)
    sharing.uploaded(one, {NAME: pushed, "private/redirected": pushed})
    blob = pushed.layers[0]
    client = two.client("docker")
    client.manifest(NAME, "latest")
    head = client.request("HEAD", f"/v2/{NAME}/blobs/{blob.digest}")
    assert (head.status, head.headers["Content-Length"]) == (200, str(MIB))
    sent = client.blob(NAME, blob.digest)
    assert (sent.status, sent.body) == (307, b"")
    assert sent.headers["Cache-Control"] == "no-store"
    with urlopen(sent.headers["Location"], timeout=10) as body:  # noqa: S310
        assert body.read() == blob.data
    alice = two.client("docker", ALICE)
    assert alice.manifest("private/redirected", "latest").status == 200
    private = alice.blob("private/redirected", blob.digest)
    assert (private.status, private.body) == (200, blob.data)
    wait_until(blob_file(two.cache, blob.digest).exists, "it is near")
    near = client.blob(NAME, blob.digest)
    assert (near.status, near.body) == (200, blob.data)
    assert one.client("docker").blob(NAME, blob.digest).status == 200


def test_clients_are_sent(sharing: Sharing, skopeo_machine: Machine, containerd: Containerd) -> None:
    """skopeo and containerd follow to the bucket, and have what they should; nothing comes to the disk."""
    pushed = image("followed", layers=(300_000, 200_000))
    sharing.registry.push("library/followed", pushed, "latest")
    one = sharing.add()
    pulled(one.client(), "docker.io/library/followed", pushed)
    sharing.uploaded(one, {"library/followed": pushed})
    two = sharing.add(redirect=True)
    reference = f"{two.host()}/docker.io/library/followed:latest"
    skopeo_pulls(skopeo_machine, reference, pushed)
    ctr_pulls(containerd, reference, pushed, "--plain-http")
    assert " 307 " in two.read_log()
    assert not any(blob_file(two.cache, layer.digest).exists() for layer in pushed.layers)


@pytest.mark.parametrize("fault", [Fault(503), Stall()], ids=["down", "slow"])
def test_bucket_fails(sharing: Sharing, fault: Fault | Stall) -> None:
    """Reads go upstream, uploads are kept over a restart and made later; log and readiness say so."""
    before, after = image("before", layers=(300_000,)), image("after", layers=(300_000,))
    sharing.registry.push("library/before", before, "latest")
    sharing.registry.push("library/after", after, "latest")
    one = sharing.add()
    pulled(one.client("docker"), "library/before", before)
    sharing.uploaded(one, {"library/before": before})
    two = sharing.add()
    sharing.front.fault = fault
    pulled(two.client("docker"), "library/before", before)
    pulled(two.client("docker"), "library/after", after)
    assert [each for each in sharing.blobs.requests if each.status == 200]
    told = state(two)
    assert told["status"] == "degraded"
    assert "s3://" in told["store"]
    assert metric(two, "dockmirror_bucket_failing") == 1
    wait_until(lambda: metric(two, "dockmirror_uploads_waiting") > 0, "uploads wait")
    assert "fails; missing contents are fetched from upstream" in two.read_log()
    wait_until(lambda: holds(two.cache, "docker.io/library/after", after), "all is kept")
    two.kill()
    sharing.front.fault = None
    if isinstance(fault, Stall):
        fault.over.set()
    two.start()
    sharing.uploaded(two, {"library/after": after})
    sharing.stop_upstream()
    pulled(sharing.add().client("docker"), "library/after", after)


def test_a_content_that_the_bucket_refuses(sharing: Sharing) -> None:
    """It holds up no other upload; such as one that a virus scanner takes for a virus."""
    refused, other = image("refused", layers=(3_000,)), image("other", layers=(3_000,))
    for name, pushed in (("library/refused", refused), (NAME, other)):
        sharing.registry.push(name, pushed, "latest")
    mirror, key = sharing.add(), refused.layers[0].digest.partition(":")[2]

    def refuse(request: Exchange) -> bool:
        is_refused = request.command == "PUT" and f"/{key}/data" in request.path
        if is_refused:
            request.body()
            request.answer(403)
        return is_refused

    with sharing.front.meddled_with(refuse):
        pulled(mirror.client("docker"), "library/refused", refused)
        pulled(mirror.client("docker"), NAME, other)
        wait_until(lambda: sharing.has(tag_link(f"docker.io/{NAME}", "latest")), "the other one is uploaded")
        assert metric(mirror, "dockmirror_uploads_waiting") > 0
    sharing.uploaded(mirror, {NAME: other, "library/refused": refused})


def test_two_registries_of_one_name(sharing: Sharing, open_registry: Registry) -> None:
    """A repository that is public in one of them stays private in the other."""
    name, public, private = "private/app", image("public"), image("private")
    open_registry.push(name, public, "latest")
    sharing.registry.push(name, private, "latest")
    one = sharing.add({"work": {"url": open_registry.url}})
    pulled(one.client("work"), name, public)
    registry = urlsplit(open_registry.url).netloc.replace(":", "_")
    known = str(layout.document(f"public/work@{registry}/{name}"))
    wait_until(lambda: sharing.has(known), "the bucket knows that")
    two = sharing.add({"work": {"url": sharing.upstream.url, "realms": [sharing.tokens.url]}})
    alice, path = two.client("work", ALICE), f"/v2/{name}/manifests/{private.digest}"
    token = sharing.tokens.token(ALICE, [f"repository:{name}:pull"])
    given = alice.bare("GET", path, None, {"Host": two.host("work"), "Authorization": f"Bearer {token}"})
    assert given.body == private.manifest.data
    wait_until(blob_file(two.cache, private.digest).exists, "it is held")
    anonymous = two.client("work").bare("GET", path, None, {"Host": two.host("work")})
    assert (anonymous.status, private.manifest.data in anonymous.body) == (401, False)


def test_killed(sharing: Sharing) -> None:
    """SeaweedFS is killed while a blob is read from it, and started again: the clients get all of it."""
    pushed = artifact("killed in the middle", size=32 * MIB)
    sharing.registry.push(NAME, pushed, "latest")
    one, two = sharing.add(), sharing.add()
    pulled(one.client("docker"), NAME, pushed)
    sharing.uploaded(one, {NAME: pushed})
    blob, client = pushed.layers[0], two.client("docker")
    client.manifest(NAME, "latest")
    part = growing_file(two.cache, blob.digest)
    with ThreadPoolExecutor(4) as pool, sharing.front.valve.shut(12 * MIB):
        bodies = [pool.submit(client.blob, NAME, blob.digest) for _ in range(4)]
        wait_until(lambda: length(part) >= MIB, "it has begun")
        with sharing.seaweedfs.killed():
            sharing.front.valve.open()
            assert all(each.result().body == blob.data for each in bodies)
    assert [each.range for each in sharing.blobs.requests[-1:]] != [None]
    wait_until(lambda: state(two)["status"] == "ready", "the bucket answers again", 90)
    blob_file(two.cache, blob.digest).unlink()
    before = list(sharing.blobs.requests)
    assert client.blob(NAME, blob.digest).body == blob.data
    assert sharing.blobs.requests == before
