"""Clients of a mirror are sent to a bucket or a CDN near them."""

from __future__ import annotations

import sqlite3
import ssl
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from dockmirror.oci.digest import Digest
from dockmirror.store import layout

from .conftest import MakeDirectory
from .parts.accounts import ALICE
from .parts.authority import Authority
from .parts.images import artifact
from .parts.kept import blob_file, leaks
from .parts.plain import PlainClient, Response
from .parts.process import free_port, wait_until
from .parts.server import Exchange, Server
from .parts.sharing import Sharing

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
PUBLIC, PRIVATE = "library/near", "private/near"
EUROPE, AMERICA, HERE = "10.1.0.7", "203.0.113.9", "10.9.0.1"
"""Addresses of clients, as the load balancer tells them."""


class Cdn(Server):
    """Has one blob, by https."""

    def __init__(self, authority: Authority, path: str, data: bytes) -> None:
        class Fetch(Exchange):
            def do_GET(self) -> None:
                if urlsplit(self.path).path == path:
                    self.answer(200, data)
                else:
                    self.answer(404)

            do_HEAD = do_GET

        super().__init__("127.0.0.1", Fetch, authority.issue("127.0.0.1"))


def test_clients_are_sent_near(sharing: Sharing, authority: Authority, directory: MakeDirectory) -> None:
    """To a bucket by a signed address, to a CDN by a plain one, for public blobs only.

    Metrics and history have the region of a client, and no file has its address but the log of requests.
    """
    pushed = artifact("near", size=MIB)
    blob = pushed.layers[0]
    for repository in (PUBLIC, PRIVATE):
        sharing.registry.push(repository, pushed, "latest")
    key = str(layout.data(Digest.parse(blob.digest)))
    europe, history = uuid.uuid4().hex, directory("near-history")
    sharing.seaweedfs.store(europe).put(key, blob.data)
    operations = free_port()
    with Cdn(authority, f"/america/{key}", blob.data) as cdn:
        base = f"https://127.0.0.1:{cdn.port}/america"
        mirror = sharing.add(
            trust_proxy=["127.0.0.1"],
            networks=["10.0.0.0/8", "127.0.0.0/8", "203.0.113.0/24"],
            history=str(history),
            history_addresses="region",
            operations=f"tcp:{operations}:interface=127.0.0.1",
            redirect=[
                {
                    "region": "europe",
                    "networks": ["10.1.0.0/16"],
                    "store": sharing.seaweedfs.url(europe),
                    "store_endpoint": sharing.seaweedfs.endpoint,
                },
                {"region": "america", "networks": ["203.0.113.0/24"], "url": base},
            ],
        )

        def ask(method: str, client: str, repository: str = PUBLIC, who: Any = None) -> Response:
            headers = {"X-Forwarded-For": client}
            path = f"/v2/{repository}/blobs/{blob.digest}"
            return mirror.client("docker", who).request(method, path, headers=headers)

        for repository, who in ((PUBLIC, None), (PRIVATE, ALICE)):
            client = mirror.client("docker", who)
            manifest = client.request(
                "GET", f"/v2/{repository}/manifests/latest", headers={"X-Forwarded-For": HERE}
            )
            assert manifest.body == pushed.manifest.data
            assert ask("GET", HERE, repository, who).body == blob.data
        wait_until(blob_file(mirror.cache, blob.digest).exists, "it is held")
        trusting = ssl.create_default_context(cafile=authority.certificate)
        for near, start in ((EUROPE, f"{sharing.seaweedfs.endpoint}/"), (AMERICA, f"{base}/{key}")):
            assert ask("HEAD", near).status == 200
            sent = ask("GET", near)
            location = sent.headers["Location"]
            assert (sent.status, sent.body, location.startswith(start)) == (307, b"", True)
            with urlopen(location, timeout=10, context=trusting) as body:  # noqa: S310
                assert body.read() == blob.data
            private = ask("GET", near, PRIVATE, ALICE)
            assert (private.status, private.body) == (200, blob.data)
        assert ask("GET", HERE).body == blob.data
        metrics = (
            PlainClient(f"http://127.0.0.1:{operations}").bare("GET", "/metrics", None, {}).body.decode()
        )
        for region, network in (("europe", "private"), ("america", "public")):
            assert f'dockmirror_near_redirects_total{{network="{network}",region="{region}"}} 1.0' in metrics
        wait_until(lambda: clients(history / "pulls.db") >= {"private", "europe", "america"}, "they are kept")
    assert clients(history / "pulls.db") == {"private", "europe", "america"}
    assert leaks(mirror.cache, {EUROPE, AMERICA}) == leaks(history, {EUROPE, AMERICA}) == []


def clients(file: Path) -> set[str]:
    """The clients that the history knows."""
    with closing(sqlite3.connect(file)) as connection:
        return {text for (text,) in connection.execute("SELECT text FROM word WHERE kind = 1")}
