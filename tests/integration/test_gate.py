"""The gate with real clients and real servers: refusals as developers see them, and the example servers."""

from __future__ import annotations

import base64
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dockmirror.admission.hook import Question, parse_verdict
from dockmirror.admission.signatures import SIGNATURE_ANNOTATION, SIMPLE_SIGNING
from dockmirror.oci.request import Requester

from .conftest import MakeChain
from .parts.clients import Completed, Containerd, Dockerd, podman, skopeo
from .parts.command import dockmirror
from .parts.images import EMPTY, Image, image, index
from .parts.machine import Machine
from .parts.media import OCI, Content
from .parts.mirror import Mirror
from .parts.process import Process, free_port, listens, wait_until
from .pulls import docker_pulls, podman_pulls, skopeo_pulls, succeeded
from .test_sync import SYNCS_OFTEN

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
TUTORIAL = (ROOT / "docs/tutorials/gate.md").read_text("utf-8")
KEY = ec.generate_private_key(ec.SECP256R1())
DIGEST = f"sha256:{'a' * 64}"
INDEX = f"sha256:{'b' * 64}"


def signature_of(signed: Image) -> tuple[str, Image]:
    """The tag and the manifest of a signature, as skopeo pushes them; see ``admission/data``."""
    critical = {
        "identity": {"docker-reference": "docker.io/library/signed"},
        "image": {"docker-manifest-digest": signed.digest},
        "type": "cosign container image signature",
    }
    payload = Content(SIMPLE_SIGNING, json.dumps({"critical": critical, "optional": None}).encode())
    signature = base64.b64encode(KEY.sign(payload.data, ec.ECDSA(SHA256()))).decode()
    config = Content(EMPTY, b"{}")
    document = {
        "schemaVersion": 2,
        "mediaType": OCI.manifest,
        "config": config.descriptor(),
        "layers": [payload.descriptor(annotations={SIGNATURE_ANNOTATION: signature})],
    }
    manifest = Content(OCI.manifest, json.dumps(document).encode())
    return f"{signed.digest.replace(':', '-')}.sig", Image(manifest, config, (payload,))


def test_signed_only(
    chains: MakeChain,
    tmp_path: Path,
    dockerd: Dockerd,
    containerd: Containerd,
    podman_machine: Machine,
    skopeo_machine: Machine,
) -> None:
    """Clients pull what is signed, also while the registry is down, and show why the rest is refused.

    So do the history and the state of a sync rule, which pulls no unsigned image either.
    """
    key = tmp_path / "team.pub"
    key.write_bytes(KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    policy = {"images": "docker.io/library/**", "signed_by": [str(key)]}
    signed, unsigned = index("signed"), image("unsigned", OCI)
    rule = {"upstream": "docker", "repositories": ["library/unsigned"]}
    with chains(policy=[policy], sync=[rule], patched=SYNCS_OFTEN) as chain:
        chain.registry.push("library/signed", signed, "latest")
        tag, signature = signature_of(signed)
        chain.registry.push("library/signed", signature, tag)
        chain.registry.push("library/unsigned", unsigned, "latest")
        host = chain.mirror.host("docker")
        skopeo_pulls(skopeo_machine, f"{host}/library/signed:latest", signed)
        docker_pulls(dockerd, f"{host}/library/signed:latest", signed)
        name = f"{host}/library/unsigned:latest"
        refusals: dict[str, Completed] = {
            "docker": dockerd.docker("pull", name),
            "containerd": containerd.ctr("images", "pull", "--plain-http", name),
            "podman": podman(podman_machine, "pull", "--tls-verify=false", name),
            "skopeo": skopeo(skopeo_machine, "inspect", "--tls-verify=false", f"docker://{name}"),
        }
        for client, done in refusals.items():
            assert done.returncode != 0
            assert quoted(client, name) in done.stdout + done.stderr, client
        succeeded(dockmirror(chain.mirror, "sync", "--now"))
        wait_until(lambda: is_refused(chain.mirror), "the rule is refused")
        clients = [pull for pull in told(chain.mirror, "history") if pull["repository"] == "library/unsigned"]
        assert clients
        assert all(
            pull["outcome"] == "failed" and "not signed" in pull["reason"] and pull["cached_bytes"] == 0
            for pull in clients
        )
        chain.stop_upstream()
        podman_pulls(podman_machine, f"{host}/library/signed:latest", signed)


def told(mirror: Mirror, command: str) -> list[Any]:
    output = succeeded(dockmirror(mirror, command, "--json", environ={"STATE_DIRECTORY": str(mirror.state)}))
    rows: list[Any] = json.loads(output)
    return rows


def is_refused(mirror: Mirror) -> bool:
    """Return whether the sync rule says that its image is not signed; an earlier run has another reason."""
    [synced] = told(mirror, "sync")
    assert synced["pinned"] == []
    return "not signed" in (synced["message"] or "")


def quoted(client: str, name: str) -> str:
    """The message that the tutorial quotes of a client, for this image."""
    (row,) = (line for line in TUTORIAL.splitlines() if line.startswith(f"| {client} |"))
    return row.split("`")[1].replace("library/app:latest", name.partition("/")[2])


@contextmanager
def example(tmp_path: Path, script: str, *arguments: str) -> Iterator[int]:
    """An example server, run as its documents say, with a secret."""
    secret, port = tmp_path / "secret", free_port()
    secret.write_text("s3cret\n")
    command = [sys.executable, str(ROOT / "docs/examples" / script), str(port), *arguments, str(secret)]
    with Process(command, tmp_path / f"{script}.log", lambda: listens("127.0.0.1", port)):
        yield port


def ask(port: int, authorization: str = "Bearer s3cret", **changed: Any) -> tuple[bool, str]:
    fields: dict[str, Any] = {
        "registry": "docker.io", "repository": "library/nginx", "tag": None, "digest": DIGEST, "indexes": (),
        "media_type": OCI.manifest, "labels": {}, "size": 5, "requester": Requester("192.0.2.1"),
    }  # fmt: skip
    body = Question(**(fields | changed)).as_json()
    request = Request(f"http://127.0.0.1:{port}/", body, {"Authorization": authorization})
    with build_opener(ProxyHandler({})).open(request, timeout=60) as response:
        verdict, _ = parse_verdict(response.read())
    return verdict.allow, verdict.reason


def test_the_example_for_trivy(tmp_path: Path) -> None:
    """An image, or its index, needs a report in the format of Trivy, without critical vulnerabilities."""
    reports = tmp_path / "reports"
    reports.mkdir()
    with example(tmp_path, "trivy_gate.py", str(reports)) as port:
        assert ask(port) == (False, "it is not scanned yet; try again later")
        assert ask(port, digest="../../etc/passwd") == (False, "it is not scanned yet; try again later")
        for severity, verdict in (("CRITICAL", (False, "it has CVE-2026-33634")), ("HIGH", (True, ""))):
            flaw = {"VulnerabilityID": "CVE-2026-33634", "PkgName": "openssl", "Severity": severity}
            results = [{"Target": "etc/os-release", "Vulnerabilities": [flaw]}, {"Target": "app"}]
            (reports / f"{INDEX}.json").write_text(json.dumps({"SchemaVersion": 2, "Results": results}))
            assert ask(port, indexes=(INDEX,)) == verdict
        with pytest.raises(HTTPError, match="401"):
            ask(port, authorization="Bearer wrong")


class Opa(BaseHTTPRequestHandler):
    """A stand-in for the agent: its data API, with the decision that the example policy makes."""

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["input"]
        reasons = ["it is larger than 2 GB"] if question["size"] > 2_000_000_000 else []
        found = {"result": {"deny": reasons}} if self.path == "/v1/data/dockmirror" else {}
        answer = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def test_the_example_for_opa(tmp_path: Path) -> None:
    """It asks by OPA's documented REST API; without the policy it gives no verdict."""
    with HTTPServer(("127.0.0.1", 0), Opa) as agent:
        thread = threading.Thread(target=agent.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{agent.server_port}/v1/data"
        try:
            with example(tmp_path, "opa_gate.py", f"{url}/dockmirror") as port:
                assert ask(port) == (True, "")
                assert ask(port, size=3_000_000_000) == (False, "it is larger than 2 GB")
                with pytest.raises(HTTPError, match="401"):
                    ask(port, authorization="Bearer wrong")
            with (
                example(tmp_path, "opa_gate.py", f"{url}/absent") as port,
                pytest.raises(HTTPError, match="502"),
            ):
                ask(port)
        finally:
            agent.shutdown()
            thread.join()
