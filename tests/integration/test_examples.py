"""Examples that their own programs have to understand."""

from __future__ import annotations

import json
import sys
from http.client import HTTPConnection
from pathlib import Path

import pytest

from .conftest import MakeMachine
from .parts.process import CLEAN_ENVIRONMENT, Process, free_port, listens
from .parts.server import Exchange, Server
from .pulls import succeeded

pytestmark = pytest.mark.integration

EXAMPLES = Path(__file__).parents[2] / "docs/examples"


def test_caddyfile(make_machine: MakeMachine) -> None:
    """Caddy finds nothing wrong with it."""
    machine = make_machine("caddy")
    options = ["--adapter", "caddyfile", "--config", str(EXAMPLES / "Caddyfile")]
    succeeded(machine.run("caddy", "validate", *options))


DISTRIBUTION = {
    "events": [
        {
            "action": "push",
            "target": {"repository": "team/app", "tag": "1", "digest": "sha256:00"},
            "request": {"host": "registry.example:5000"},
        },
        {
            "action": "push",
            "target": {"repository": "team/app"},
            "request": {"host": "registry.example:5000"},
        },
        {
            "action": "pull",
            "target": {"repository": "team/app", "tag": "2"},
            "request": {"host": "r.example"},
        },
    ]
}
HARBOR = {
    "type": "PUSH_ARTIFACT",
    "event_data": {"resources": [{"tag": "v1", "resource_url": "harbor.example/team/app:v1"}]},
}
QUAY = {"docker_url": "quay.io/team/app", "updated_tags": ["a", "b"]}
HUB = {"push_data": {"tag": "latest"}, "repository": {"repo_name": "team/app"}}


class RefreshApi(Server):
    """Takes the requests that a mirror would be sent."""

    def __init__(self) -> None:
        class Answer(RefreshRequest):
            api = self

        super().__init__("127.0.0.1", Answer)
        self.asked: list[tuple[str, str | None, str]] = []


class RefreshRequest(Exchange):
    api: RefreshApi

    def do_POST(self) -> None:
        image = json.loads(self.body())["image"]
        self.api.asked.append((self.path, self.headers["Authorization"], image))
        self.answer(202)


def test_push_events(tmp_path: Path) -> None:
    """Each pushed tag is asked about; what has the wrong secret or is no event is refused."""
    port, api = free_port(), RefreshApi()
    program = Process(
        [sys.executable, str(EXAMPLES / "push_events.py"), str(port)],
        log=tmp_path / "log",
        ready=lambda: listens("127.0.0.1", port),
        environment={
            **CLEAN_ENVIRONMENT, "API": api.url, "TOKEN": "t.s", "SECRET": "x"
        },
    )  # fmt: skip
    with api, program:
        events: list[object] = [DISTRIBUTION, HARBOR, QUAY, HUB, {}, []]
        statuses = [post(port, "/x", event) for event in events]
        assert statuses == [204, 204, 204, 204, 204, 400]
        assert post(port, "/y", HUB) == 404
    images = ("registry.example:5000/team/app:1", "harbor.example/team/app:v1", "quay.io/team/app:a",
              "quay.io/team/app:b", "docker.io/team/app:latest")  # fmt: skip
    assert api.asked == [("/api/v1/refresh", "Bearer t.s", image) for image in images]


def post(port: int, path: str, event: object) -> int:
    connection = HTTPConnection("127.0.0.1", port)
    try:
        connection.request("POST", path, json.dumps(event))
        return connection.getresponse().status
    finally:
        connection.close()
