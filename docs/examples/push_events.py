#!/usr/bin/env python3
"""Receives the webhooks of registries, and has a dockmirror ask about each tag that was pushed.

    API=http://127.0.0.1:9464 TOKEN=hooks.secret SECRET=… python3 push_events.py 8090

``TOKEN`` is a token of the mirror with the scope "write", as NAME.SECRET.  The webhook's address is
http://HOST:8090/SECRET; behind a proxy with TLS, if it is not on the mirror's own machine.
"""

import json
import os
import sys
from collections.abc import Iterator
from hmac import compare_digest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import Request, urlopen

_LIMIT = 1024 * 1024


def pushed_images(event: dict) -> Iterator[str]:
    """Yield the images that an event of a registry says were pushed."""
    for each in event.get("events", ()):  # distribution, also GitLab's and Zot's
        target = each.get("target", {})
        host = each.get("request", {}).get("host")
        if each.get("action") == "push" and host and target.get("tag"):
            yield f"{host}/{target['repository']}:{target['tag']}"
    if event.get("type") == "PUSH_ARTIFACT":  # Harbor
        yield from (each["resource_url"] for each in event["event_data"]["resources"] if each.get("tag"))
    if "docker_url" in event:  # Quay
        yield from (f"{event['docker_url']}:{tag}" for tag in event.get("updated_tags", ()))
    if "push_data" in event:  # Docker Hub
        yield f"docker.io/{event['repository']['repo_name']}:{event['push_data']['tag']}"


def refresh(image: str) -> None:
    """Have the mirror ask about a tag."""
    headers = {"Authorization": f"Bearer {os.environ['TOKEN']}", "Content-Type": "application/json"}
    body = json.dumps({"image": image}).encode()
    with urlopen(Request(f"{os.environ['API']}/api/v1/refresh", body, headers), timeout=10) as answer:  # noqa: S310
        print(f"{image}: {answer.status}", flush=True)


class Webhook(BaseHTTPRequestHandler):
    """Answers 204 once the mirror has taken all tags of an event."""

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        if not compare_digest(self.path.encode(), f"/{os.environ['SECRET']}".encode()) or size > _LIMIT:
            self.send_error(404)
            return
        try:
            images = list(pushed_images(json.loads(self.rfile.read(size))))
        except (ValueError, KeyError, TypeError, AttributeError):
            self.send_error(400)
            return
        try:
            for image in images:
                refresh(image)
        except OSError as error:
            print(f"the mirror did not take it: {error}", flush=True)
            self.send_error(502)
            return
        self.send_response(204)
        self.end_headers()

    def log_request(self, *_: object) -> None:
        """The path is a secret."""


if __name__ == "__main__":
    ThreadingHTTPServer(("", int(sys.argv[1])), Webhook).serve_forever()
