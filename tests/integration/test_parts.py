"""The servers and helpers of the integration tests, without a mirror between them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from .parts.accounts import ALICE
from .parts.cdn import BlobStore
from .parts.clients import curl
from .parts.front import Front
from .parts.images import image
from .parts.machine import Machine
from .parts.mirror import Mirror
from .parts.plain import PlainClient
from .parts.process import CLEAN_ENVIRONMENT, interpreter, wait_until
from .parts.programs import require
from .parts.registry import Registry
from .pulls import succeeded

pytestmark = pytest.mark.integration


def test_missing_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that is missing skips a test, or fails it where all of them are required."""
    monkeypatch.delenv("REQUIRE_INTEGRATION", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-program"):
        require("no-such-program")
    monkeypatch.setenv("REQUIRE_INTEGRATION", "1")
    with pytest.raises(pytest.fail.Exception, match="no-such-program"):
        require("no-such-program")


def test_fork_of_a_command() -> None:
    """A forked command has the output and the status of one that is started."""
    command = str(Path(sys.executable).with_name("dockmirror"))
    printed = interpreter().run([command, "--version"], CLEAN_ENVIRONMENT)
    assert (printed.returncode, printed.stderr) == (0, "")
    assert printed.stdout.startswith("dockmirror, version ")
    refused = interpreter().run([command, "nothing"], CLEAN_ENVIRONMENT)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "No such command 'nothing'" in refused.stderr


def test_fork_of_a_mirror(mirror: Mirror) -> None:
    """A forked mirror has a session of its own, and the names of its machine."""
    assert os.getsid(mirror.pid) == mirror.pid
    assert "mirror.test" in Path(f"/proc/{mirror.pid}/root/etc/hosts").read_text()
    assert "mirror.test" not in Path("/etc/hosts").read_text()
    assert Path(f"/proc/{mirror.pid}/cwd").resolve().name == "home"


def test_cdn_refuses_authorization(
    front: Front, token_registry: Registry, blob_store: BlobStore, skopeo_machine: Machine
) -> None:
    """The CDN takes no credentials besides the signature in its URLs, and gives parts."""
    pushed = image("cdn", layers=(300_000,))
    layer = pushed.layers[0]
    token_registry.push("public/cdn", pushed, "latest")
    redirect = PlainClient(front.url).blob("public/cdn", layer.digest)
    assert redirect.status == 307
    location = redirect.headers["Location"]
    status = ["--output", "/dev/null", "--write-out", "%{http_code}"]
    assert succeeded(curl(skopeo_machine, *status, "-H", "Authorization: Bearer x", location)) == "400"
    assert succeeded(curl(skopeo_machine, *status, "--head", location)) == "403"
    assert succeeded(curl(skopeo_machine, *status, "-r", "400000-", location)) == "416"
    part = skopeo_machine.home / "part"
    spans = {"100-199": layer.data[100:200], "299000-": layer.data[299000:], "-7": layer.data[-7:]}
    for span, data in spans.items():
        wrote = succeeded(curl(skopeo_machine, *status[2:], "-o", str(part), "-r", span, location))
        assert (wrote, part.read_bytes()) == ("206", data)
    assert [each.range for each in blob_store.requests[-3:]] == [f"bytes={span}" for span in spans]


def test_cdn_keeps_private_blobs(front: Front, token_registry: Registry) -> None:
    """The front redirects to a private blob only whom the registry would give it to."""
    pushed = image("private cdn")
    token_registry.push("private/cdn", pushed, "latest")
    digest = pushed.layers[0].digest
    assert PlainClient(front.url).blob("private/cdn", digest).status == 401
    assert PlainClient(front.url, ALICE).blob("private/cdn", digest).status == 307


def test_push_through_the_front(front: Front) -> None:
    """Uploads pass through the front."""
    pushed = image("through")
    publisher = PlainClient(front.url, front.registry.plain.account)
    publisher.push("public/through", pushed, "latest")
    assert publisher.manifest("public/through", "latest").body == pushed.manifest.data


def test_access_log(open_registry: Registry) -> None:
    """A registry's log has a line for each request."""
    pushed = image("counted")
    open_registry.push("public/counted", pushed, "latest")
    for _ in range(3):
        open_registry.plain.blob("public/counted", pushed.layers[0].digest)
    path = f"/v2/public/counted/blobs/{pushed.layers[0].digest}"
    wait_until(lambda: len(open_registry.accesses("GET", path)) >= 3, "the log has three requests")
    assert len(open_registry.accesses("GET", path)) == 3
