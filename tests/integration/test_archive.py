"""Images taken out of a mirror's cache as archives and put into another's, by the programs people use."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from .conftest import MakeChain, MakeDirectory, MakeMachine
from .parts.chain import Chain
from .parts.clients import Containerd, Dockerd, curl, podman, skopeo
from .parts.command import dockmirror
from .parts.images import Image, image, index
from .parts.kept import blob_file, holds, wrong_blobs
from .parts.machine import Machine
from .parts.media import DOCKER, OCI, sha256
from .parts.mirror import Mirror
from .parts.process import wait_until
from .pulls import refused, skopeo_pulls, skopeo_reads, succeeded

pytestmark = pytest.mark.integration

PLACE = "docker.io/library/packed"
IMAGES = {"image": image("packed", DOCKER), "oci": image("packed", OCI), "index": index("packed")}
SINGLE = ("image", "oci")


@pytest.fixture(scope="module")
def pulled(chains: MakeChain, make_machine: MakeMachine) -> Iterator[Chain]:
    """A mirror through which all the images were pulled, and that still runs."""
    machine = make_machine("skopeo")
    with chains(export=True) as chain:
        for tag, pushed in IMAGES.items():
            chain.registry.push("library/packed", pushed, tag)
            skopeo_pulls(machine, f"{chain.mirror.host('docker')}/packed:{tag}", pushed)
            for each in pushed.children or (pushed,):
                wait_until(lambda each=each: holds(chain.mirror.cache, PLACE, each), "all of it is held")  # type: ignore[misc]
        yield chain


@pytest.fixture(scope="module")
def archives(pulled: Chain, directory: MakeDirectory) -> dict[str, Path]:
    """An archive of each."""
    files = {tag: directory("archives") / "packed.tar" for tag in IMAGES}
    for tag, file in files.items():
        succeeded(dockmirror(pulled.mirror, "export", f"packed:{tag}", "-o", str(file)))
    return files


@pytest.fixture
def offline(directory: MakeDirectory, make_machine: MakeMachine) -> Iterator[Mirror]:
    """A mirror with an empty store and an upstream that does not exist."""
    upstreams = {"docker": {"url": "http://127.0.0.1:9"}}
    with Mirror(directory("offline"), make_machine(), upstreams) as mirror:
        yield mirror
    assert mirror.failures() == ""
    assert wrong_blobs(mirror.cache) == []


def test_listed(pulled: Chain) -> None:
    """``dockmirror ls`` lists every tag with its digest."""
    listed = json.loads(succeeded(dockmirror(pulled.mirror, "ls", "packed", "--json")))
    assert {(each["tag"], each["digest"]) for each in listed} == {(t, i.digest) for t, i in IMAGES.items()}
    assert all(each["complete"] and each["repository"] == PLACE for each in listed)


def test_the_same_bytes(pulled: Chain, archives: dict[str, Path], directory: MakeDirectory) -> None:
    """Two exports of an image are the same bytes."""
    again = directory("again") / "again.tar"
    succeeded(dockmirror(pulled.mirror, "export", "docker.io/library/packed:index", "-o", str(again)))
    assert again.read_bytes() == archives["index"].read_bytes()


@pytest.mark.parametrize("tag", IMAGES)
def test_over_http(pulled: Chain, archives: dict[str, Path], make_machine: MakeMachine, tag: str) -> None:
    """curl downloads the same bytes, and resumes a download."""
    machine = make_machine("curl")
    target = machine.home / "archive.tar"
    whole = archives[tag].read_bytes()
    target.write_bytes(whole[: len(whole) // 3])
    url = f"{pulled.mirror.url}/export?image=packed:{tag}"
    succeeded(
        curl(
            machine, "--fail", "--silent", "--show-error", "--continue-at", "-", "--output", str(target), url
        )
    )
    assert target.read_bytes() == whole


def test_as_the_page_says(pulled: Chain, make_machine: MakeMachine, directory: MakeDirectory) -> None:
    """The command of the page, given again after it broke off."""
    machine = make_machine("curl")
    lines = succeeded(curl(machine, f"{pulled.mirror.url}/")).splitlines()
    [command] = [line.strip() for line in lines if "/export?" in line]
    command = command.replace("busybox:latest", "packed:index")
    target, again = machine.home / "busybox.tar", directory("again") / "again.tar"
    succeeded(
        dockmirror(pulled.mirror, "export", "packed:index", "--platform", "linux/amd64", "-o", str(again))
    )
    for size in (0, 5000):
        target.write_bytes(again.read_bytes()[:size])
        succeeded(machine.run("sh", "-euc", command))
        assert target.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("tag", IMAGES)
def test_skopeo_copies(archives: dict[str, Path], skopeo_machine: Machine, tag: str) -> None:
    """skopeo copies the archive's contents, byte for byte."""
    target = skopeo_machine.home / "copied"
    named = "" if tag == "image" else f":{tag}"  # skopeo finds no name of another type than OCI's
    succeeded(skopeo(skopeo_machine, "copy", "--all", f"oci-archive:{archives[tag]}{named}", f"dir:{target}"))
    assert (target / "manifest.json").read_bytes() == IMAGES[tag].manifest.data
    for each in (IMAGES[tag], *IMAGES[tag].children):
        for blob in each.blobs:
            assert (target / blob.digest.removeprefix("sha256:")).read_bytes() == blob.data


@pytest.mark.parametrize("tag", IMAGES)
def test_loads(archives: dict[str, Path], dockerd: Dockerd, podman_machine: Machine, tag: str) -> None:
    """docker and podman load the image under its name."""
    for run, name in ((dockerd.docker, f"packed:{tag}"), (partial(podman, podman_machine), f"{PLACE}:{tag}")):
        succeeded(run("load", "--input", str(archives[tag])))
        [inspected] = json.loads(succeeded(run("image", "inspect", name)))
        assert inspected["Id"].removeprefix("sha256:") == _config(IMAGES[tag]).removeprefix("sha256:")
        assert inspected["RootFS"]["Layers"] == _diff_ids(IMAGES[tag])
        succeeded(run("image", "rm", name) if run == dockerd.docker else run("rmi", name))


def test_imported(archives: dict[str, Path], offline: Mirror, skopeo_machine: Machine) -> None:
    """An imported image can be pulled, on both kinds of host, while there is no upstream at all."""
    for tag, packed in IMAGES.items():
        succeeded(dockmirror(offline, "import", str(archives[tag])))
        skopeo_reads(skopeo_machine, f"{offline.host('docker')}/packed:{tag}", packed)
        skopeo_pulls(skopeo_machine, f"{offline.host()}/{PLACE}@{packed.digest}", packed)


def test_archives_of_other_programs(
    archives: dict[str, Path], offline: Mirror, podman_machine: Machine, skopeo_machine: Machine
) -> None:
    """Archives of skopeo and of podman are imported, too; one without a name is given one."""
    copied, saved = skopeo_machine.home / "copied.tar", podman_machine.home / "saved.tar"
    source = f"oci-archive:{archives['oci']}"
    succeeded(skopeo(skopeo_machine, "copy", source, f"oci-archive:{copied}"))
    refused(dockmirror(offline, "import", str(copied)), "has no name in the archive")
    succeeded(dockmirror(offline, "import", str(copied), "--as", "copied:1"))
    skopeo_pulls(skopeo_machine, f"{offline.host()}/copied:1", IMAGES["oci"])
    succeeded(podman(podman_machine, "load", "--input", str(archives["oci"])))
    save = ("save", "--format", "oci-archive", "--output", str(saved), f"{PLACE}:oci")
    succeeded(podman(podman_machine, *save))
    succeeded(dockmirror(offline, "import", str(saved)))
    reference = f"docker://{offline.host()}/packed:oci"
    inspected = succeeded(skopeo(skopeo_machine, "inspect", "--config", "--tls-verify=false", reference))
    assert json.loads(inspected)["rootfs"]["diff_ids"] == _diff_ids(IMAGES["oci"])


@pytest.mark.parametrize("program", ["docker", "podman"])
def test_saved_by_other_programs(
    archives: dict[str, Path],
    offline: Mirror,
    dockerd: Dockerd,
    podman_machine: Machine,
    skopeo_machine: Machine,
    program: str,
) -> None:
    """Archives without manifests are imported under the names in them, layer by layer."""
    saved, again = podman_machine.home / "saved.tar", "docker.io/library/again:1"
    if program == "docker":
        succeeded(dockerd.docker("load", "--input", str(archives["index"])))
        succeeded(dockerd.docker("tag", "packed:index", "again:1"))
        succeeded(dockerd.docker("save", "--output", str(saved), "packed:index", "again:1"))
    else:
        succeeded(podman(podman_machine, "load", "--input", str(archives["index"])))
        succeeded(podman(podman_machine, "tag", f"{PLACE}:index", again))
        succeeded(podman(podman_machine, "save", "--output", str(saved), f"{PLACE}:index", again))
    printed = succeeded(dockmirror(offline, "import", str(saved)))
    assert set(printed.splitlines()) == {f"imported {PLACE}:index", f"imported {again}"}
    for name in ("packed:index", "again:1"):
        target = skopeo_machine.home / name
        options = ("--src-tls-verify=false", f"docker://{offline.host()}/{name}", f"dir:{target}")
        succeeded(skopeo(skopeo_machine, "copy", *options))
        config = _config(IMAGES["index"]).removeprefix("sha256:")
        assert sha256((target / config).read_bytes()) == _config(IMAGES["index"])
        for digest in _diff_ids(IMAGES["index"]):
            assert (target / digest.removeprefix("sha256:")).exists()


def test_containerd_imports(archives: dict[str, Path], containerd: Containerd) -> None:
    """containerd imports the archive under its name, byte for byte."""
    for tag, packed in IMAGES.items():
        options = ("--all-platforms",) if packed.children else ()
        succeeded(containerd.ctr("images", "import", *options, str(archives[tag])))
        assert f"{PLACE}:{tag} " in succeeded(containerd.ctr("images", "ls"))
        for each in (packed, *packed.children):
            for content in (each.manifest, *each.blobs):
                assert containerd.content(content.digest) == content.data


def test_verified(chain: Chain, skopeo_machine: Machine) -> None:
    """A flipped byte is found while the mirror runs, and mended by the next pull after it was dropped."""
    pushed = image("flipped", layers=(200_000,))
    chain.registry.push("library/flipped", pushed, "latest")
    name = f"{chain.mirror.host('docker')}/flipped:latest"
    skopeo_pulls(skopeo_machine, name, pushed)
    place = "docker.io/library/flipped"
    wait_until(lambda: holds(chain.mirror.cache, place, pushed), "all of it is held")
    assert dockmirror(chain.mirror, "verify").returncode == 0
    file = blob_file(chain.mirror.cache, pushed.layers[0].digest)
    data = bytearray(file.read_bytes())
    data[100_000] ^= 1
    file.write_bytes(data)
    found = dockmirror(chain.mirror, "verify", "--json")
    assert found.returncode == 1
    [wrong] = json.loads(found.stdout)["corrupt"]
    assert (wrong["digest"], wrong["repositories"]) == (pushed.layers[0].digest, [place])
    succeeded(dockmirror(chain.mirror, "verify", "--repair"))
    skopeo_pulls(skopeo_machine, name, pushed)
    wait_until(lambda: holds(chain.mirror.cache, place, pushed), "it was fetched anew")
    assert dockmirror(chain.mirror, "verify").returncode == 0


def test_as_the_owner(offline: Mirror, archives: dict[str, Path]) -> None:
    """Root leaves nothing of its own in a store that is another user's."""
    offline.stop()
    for path in (offline.cache, *offline.cache.rglob("*")):
        shutil.chown(path, 65534, 65534)
    offline.directory.chmod(0o700)
    succeeded(dockmirror(offline, "import", str(archives["image"])))
    pins = (["pin", "packed:image"], ["pins"], ["unpin", "packed:image"])
    for command in (["ls"], ["usage"], ["verify"], ["gc"], *pins, ["rm", "--yes", "packed:image"]):
        succeeded(dockmirror(offline, *command))
    assert {path.stat().st_uid for path in offline.cache.rglob("*")} == {65534}


def _native(packed: Image) -> Image:
    return packed.children[0] if packed.children else packed


def _config(packed: Image) -> str:
    config = _native(packed).config
    assert config is not None
    return config.digest


def _diff_ids(packed: Image) -> list[str]:
    config = _native(packed).config
    assert config is not None
    ids: list[str] = json.loads(config.data)["rootfs"]["diff_ids"]
    return ids
