"""Examples that their own programs have to understand."""

from __future__ import annotations

import json
import socket
import sys
import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from .conftest import MakeMachine
from .parts.process import CLEAN_ENVIRONMENT, Process, free_port
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


class Api(ThreadingHTTPServer):
    """Takes the requests that a mirror would be sent."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None, str]] = []
        super().__init__(("127.0.0.1", 0), ApiRequest)


class ApiRequest(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        api = self.server
        assert isinstance(api, Api)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        api.asked.append((self.path, self.headers["Authorization"], body["image"]))
        self.send_response(202)
        self.end_headers()

    def log_request(self, *_: object) -> None:
        """Nothing is printed."""


def test_push_events(tmp_path: Path) -> None:
    """Each pushed tag is asked about; what has the wrong secret or is no event is refused."""
    port, api = free_port(), Api()
    threading.Thread(target=api.serve_forever, daemon=True).start()
    program = Process(
        [sys.executable, str(EXAMPLES / "push_events.py"), str(port)],
        log=tmp_path / "log",
        ready=lambda: accepts(port),
        environment={
            **CLEAN_ENVIRONMENT, "API": f"http://127.0.0.1:{api.server_port}", "TOKEN": "t.s", "SECRET": "x"
        },
    )  # fmt: skip
    with program:
        events: list[object] = [DISTRIBUTION, HARBOR, QUAY, HUB, {}, []]
        statuses = [post(port, "/x", event) for event in events]
        assert statuses == [204, 204, 204, 204, 204, 400]
        assert post(port, "/y", HUB) == 404
    api.shutdown()
    api.server_close()
    images = ("registry.example:5000/team/app:1", "harbor.example/team/app:v1", "quay.io/team/app:a",
              "quay.io/team/app:b", "docker.io/team/app:latest")  # fmt: skip
    assert api.asked == [("/api/v1/refresh", "Bearer t.s", image) for image in images]


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def post(port: int, path: str, event: object) -> int:
    connection = HTTPConnection("127.0.0.1", port)
    try:
        connection.request("POST", path, json.dumps(event))
        return connection.getresponse().status
    finally:
        connection.close()
