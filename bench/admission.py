"""``python -m bench.admission``: cached manifests under policies, beside a mirror without any."""

from __future__ import annotations

import http.client
import json
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from demo.mirror import Mirror, mirror

from .command import run
from .images import push_image
from .peers import distribution
from .peers.mirror import NAME
from .peers.peer import repository
from .requests import Case, measure
from .rounds import in_turn
from .table import Row, at_least

_OPEN, _COOLED, _LOCKED, _JUDGED, _EVERYTHING = "no policy", "a cool-down", "a lock", "a kept verdict", "all"
_POLICIES = {
    _COOLED: 'min_age = "7d"',
    _LOCKED: "lock = {lock}",
    _JUDGED: "hook = true",
    _EVERYTHING: 'min_age = "7d", digests = "known", lock = {lock}, hook = true, max_size = "10GB",'
    " foreign_layers = false",
}
_SETTINGS = """tag_ttl = 10
gate = {{ url = "{hook}" }}
policy = [{policies}]
"""
_REQUESTS = 1000
_PARTS = 3
"""Measurements of each mirror in a round: short ones in turn share the other load of the machine."""
_PATH = f"/v2/docker.io/{repository(NAME)}/manifests/latest"


def rows(rounds: int) -> Iterator[Row]:
    """Measure a tag whose digest is admitted, and one that is served as the digest before.

    The rate is that of a processor: requests by the seconds of processor time that they take.
    """
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = stack.enter_context(distribution.registry(directory))
        url = upstream.url.partition("/v2/")[0]
        hook, lock = stack.enter_context(_policy_server()), directory / "dockmirror.lock"
        lock.touch()
        mirrors = {_OPEN: stack.enter_context(mirror(url, own="tag_ttl = 10\n"))}
        for name, rules in _POLICIES.items():
            policy = f'{{ images = "docker.io/**", {rules.format(lock=json.dumps(str(lock)))} }}'
            mirrors[name] = stack.enter_context(mirror(url, own=_SETTINGS.format(hook=hook, policies=policy)))
        push_image(upstream, [repository(NAME)], 40, 1024, directory / "first")
        digest = _head(mirrors[_OPEN])["Docker-Content-Digest"]
        lock.write_text(f"docker.io/{repository(NAME)}:latest {digest} - 2026-11-30T00:00:00Z\n")
        yield from _rows("admitted", rounds, mirrors)
        push_image(upstream, [repository(NAME)], 41, 1024, directory / "second")
        replacing = {name: mirrors[name] for name in (_OPEN, _COOLED, _LOCKED, _EVERYTHING)}
        for each in (_COOLED, _LOCKED, _EVERYTHING):
            while "Dockmirror-Newer-Digest" not in _head(mirrors[each]):
                time.sleep(1)
        yield from _rows("replaced", rounds, replacing)


def _rows(case: str, rounds: int, mirrors: dict[str, Mirror]) -> Iterator[Row]:
    rates = in_turn(_PARTS * rounds, {name: partial(_rate, each) for name, each in mirrors.items()})
    for name in mirrors:
        if name != _OPEN:
            what = f"manifest by tag, {case}: {name}"
            yield Row(what, "requests/s of a processor", rates[name], _OPEN, rates[_OPEN], at_least(0.9))


def _head(running: Mirror) -> http.client.HTTPMessage:
    """Return the headers of the tag."""
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=60)
    connection.request("HEAD", _PATH)
    response = connection.getresponse()
    connection.close()
    return response.headers


def _rate(running: Mirror, _: int) -> float:
    return 1 / measure(running, Case("manifest", "GET", _PATH, {}), _REQUESTS)


class _Allow(BaseHTTPRequestHandler):
    """Allows everything for an hour."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        verdict = b'{"allow": true, "valid_for": 3600}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(verdict)))
        self.end_headers()
        self.wfile.write(verdict)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def _policy_server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Allow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


if __name__ == "__main__":
    run(rows)
