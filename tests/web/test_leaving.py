"""Clients that leave, and clients that are slow."""

# mypy: allow-untyped-calls

from __future__ import annotations

import pytest

from tests.fake_registry import digest
from tests.fakes import SILENT, Reply
from tests.house import House
from tests.internet import AUTH, BUSYBOX, HUB, HUB_CDN, LAYER, Internet
from tests.stacks import logged

DOCKER, OWN, K8S = "docker.mirror.example", "mirror.example", "k8s.mirror.example"
MANIFEST = "/v2/library/busybox/manifests/latest"
BEARER = "Authorization: Bearer x"


@pytest.fixture
def internet() -> Internet:
    """Docker Hub and all others."""
    return Internet()


@pytest.fixture
def house(internet: Internet) -> House:
    """The mirror in front."""
    return House(internet)


class TestLeaves:
    """A client that leaves."""

    @pytest.mark.parametrize(
        ("server", "path", "asked"),
        [
            (HUB, MANIFEST, MANIFEST),
            (HUB, "/v2/library/busybox/tags/list", "/v2/busybox/tags/list"),
            (HUB, "/v2/", "/v2/"),
            (AUTH, "/token", "/v2/auth?scope=repository:busybox:pull"),
        ],
    )
    def test_before_the_upstream_answers(
        self, internet: Internet, house: House, server: str, path: str, asked: str
    ) -> None:
        """A client that leaves early cancels the upstream request, which is not retried."""
        internet.reply(server, path, SILENT)
        client = house.connect().ask("GET", DOCKER, asked, BEARER)
        count = len(internet.seen)
        client.leave()
        assert [seen.path for seen in internet.abandoned] == [path]
        house.pass_time(100)
        assert len(internet.seen) == count
        assert client.answers == []

    @pytest.mark.parametrize("host", [K8S, OWN])
    def test_in_the_middle_of_a_layer(self, internet: Internet, house: House, host: str) -> None:
        """A client that leaves during a layer ends the transfer, which is not resumed."""
        path = f"/v2/a/blobs/{digest(LAYER)}"
        internet.reply("registry.k8s.io", path, Reply(200, LAYER).cut(100_000, end="stalled"))
        client = house.connect().ask("GET", host, f"{path}?ns=registry.k8s.io")
        assert len(client.transport.value()) > 90_000
        client.leave()
        assert len(internet.abandoned) == 1
        house.pass_time(0, 100)
        assert len(internet.seen) == 1

    def test_while_the_rest_is_waited_for(self, internet: Internet, house: House) -> None:
        """It is not asked for any more."""
        path = f"/v2/a/blobs/{digest(LAYER)}"
        internet.reply("registry.k8s.io", path, Reply(200, LAYER).cut(1000), Reply(200, LAYER).cut(0))
        client = house.connect().ask("GET", K8S, path)
        house.pass_time(0)
        client.leave()
        count = len(internet.seen)
        house.pass_time(100)
        assert len(internet.seen) == count

    def test_others_keep_the_token_that_they_wait_for(self, internet: Internet, house: House) -> None:
        """On the own host, clients that wait for the same token still get it."""
        internet.reply(AUTH, "/token", SILENT)
        demand = Reply(401, b"", (("WWW-Authenticate", f'Bearer realm="https://{AUTH}/token"'),))
        internet.reply(HUB, MANIFEST, demand, demand, Reply(200, BUSYBOX))
        first, second = house.connect(), house.connect()
        for client in (first, second):
            client.ask("GET", OWN, "/v2/busybox/manifests/latest")
        assert len(internet.asked(AUTH)) == 1
        first.leave()
        assert internet.abandoned == []
        internet.go_on(b'{"token":"late"}')
        assert second.answer.body == BUSYBOX
        assert first.answers == []

    def test_others_keep_the_handshake_that_they_wait_for(self, internet: Internet, house: House) -> None:
        """On a virtual host, clients that wait for the same ping still get it."""
        internet.reply(HUB, "/v2/", SILENT)
        clients = [house.connect().ask("GET", DOCKER, "/v2/") for _ in range(3)]
        clients[0].leave()
        assert internet.abandoned == []
        internet.go_on(b"{}")
        assert [client.answer.status for client in clients[1:]] == [200, 200]
        assert len(internet.seen) == 1

    def test_nobody_complains(self, internet: Internet, house: House) -> None:
        """It is no error: containerd closes early after its part."""
        internet.reply(HUB, MANIFEST, SILENT)
        with logged() as log:
            house.connect().ask("GET", DOCKER, MANIFEST, BEARER).leave()
        assert log == []
        assert house.lines[-1].endswith(" cut off")


class TestSlow:
    """A client that reads slowly."""

    def test_sets_the_pace(self, internet: Internet, house: House) -> None:
        """The upstream waits for it as long as it takes something, and is not taken for one that stalls."""
        path = f"/v2/a/blobs/{digest(LAYER)}"
        internet.reply("registry.k8s.io", path, Reply(200, LAYER).cut(100_000, end="stalled"))
        client = house.connect().ask("GET", K8S, path)
        client.producer.pauseProducing()
        for _ in range(3):
            house.pass_time(599)
            assert not client.aborted
            client.producer.resumeProducing()
            client.producer.pauseProducing()
        client.producer.resumeProducing()
        internet.go_on(LAYER[100_000:])
        assert client.answer.body == LAYER

    def test_is_left_when_it_takes_nothing(self, internet: Internet, house: House) -> None:
        """After ten minutes; the upstream is left, too."""
        path = f"/v2/a/blobs/{digest(LAYER)}"
        internet.reply("registry.k8s.io", path, Reply(200, LAYER).cut(100_000, end="stalled"))
        client = house.connect().ask("GET", K8S, path)
        client.producer.pauseProducing()
        house.pass_time(600)
        assert client.aborted

    def test_an_upstream_that_stalls_is_not(self, internet: Internet, house: House) -> None:
        """It is asked for the rest after a minute without a byte."""
        path = f"/v2/a/blobs/{digest(LAYER)}"
        rest = Reply(
            206, LAYER[100_000:], (("Content-Range", f"bytes 100000-{len(LAYER) - 1}/{len(LAYER)}"),)
        )
        internet.reply("registry.k8s.io", path, Reply(200, LAYER).cut(100_000, end="stalled"), rest)
        client = house.connect().ask("GET", K8S, path)
        house.pass_time(59.9)
        assert len(internet.seen) == 1
        house.pass_time(0.1, 0)
        assert internet.seen[1].header("Range") == "bytes=100000-"
        assert client.answer.body == LAYER


class TestKeptAlive:
    """Connections that are used again."""

    def test_a_whole_pull(self, internet: Internet, house: House) -> None:
        """A whole pull uses one connection."""
        client = house.connect().ask("GET", OWN, "/v2/")
        client.ask("HEAD", OWN, "/v2/busybox/manifests/latest").ask(
            "GET", OWN, "/v2/busybox/manifests/latest"
        )
        client.ask("GET", OWN, f"/v2/busybox/blobs/{internet.layer}").ask("GET", OWN, "/nothing")
        client.ask("GET", OWN, f"/v2/busybox/blobs/{internet.layer}", "Range: bytes=0-9")
        assert [(a.status, len(a.body)) for a in client.answers if a.status != 404] == [
            (200, 2), (200, 0), (200, len(BUSYBOX)), (200, len(LAYER)), (206, 10),
        ]  # fmt: skip
        assert len(internet.asked(HUB_CDN)) == 2
