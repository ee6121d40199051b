"""SeaweedFS, an S3 server, with one bucket."""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from attrs import frozen

from demo.program import free_port, running

BUCKET, REGION = "bench", "us-east-1"
KEY, SECRET = "key-of-the-bench", "secret-of-the-bench"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": REGION,
}  # fmt: skip
"""In which a mirror finds what it needs."""


@frozen
class Bucket:
    """The server, and the settings with which others use it."""

    endpoint: str
    pid: int

    @property
    def settings(self) -> str:
        """Return the settings of a mirror."""
        return f'store = "s3://{BUCKET}/mirrors"\nstore_endpoint = "{self.endpoint}"\n'

    @property
    def driver(self) -> str:
        """Return the settings of distribution's s3 driver, which sends the bytes itself."""
        return (
            f"{{s3: {{regionendpoint: {self.endpoint}, region: {REGION}, bucket: {BUCKET},"
            f" rootdirectory: /mirrors, accesskey: {KEY}, secretkey: {SECRET}, secure: false}},"
            " redirect: {disable: true}, maintenance: {readonly: {enabled: true}}}"
        )


@contextmanager
def seaweedfs(directory: Path) -> Iterator[Bucket]:
    """Run a server with an empty bucket."""
    data, settings = directory / "weed", directory / "weed.json"
    data.mkdir()
    credentials = {"accessKey": KEY, "secretKey": SECRET}
    identity = {"name": "bench", "credentials": [credentials], "actions": ["Admin", "Read", "Write", "List"]}
    settings.write_text(json.dumps({"identities": [identity]}))
    ports = {name: _free_pair() for name in ("master", "volume", "filer", "s3")}
    command = [
        str(Path(sys.executable).with_name("weed")), "-logtostderr=true", "server", f"-dir={data}",
        "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.volumeSizeLimitMB=256", "-master.electionTimeout=1s",
        "-master.telemetry=false", "-volume.max=40", "-volume.preStopSeconds=0", "-filer", "-s3",
        "-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={settings}",
        *(f"-{name}.port={port}" for name, port in ports.items()),
    ]  # fmt: skip
    endpoint = f"http://127.0.0.1:{ports['s3']}"
    answers = partial(_knows_who_may, endpoint)
    with running(command, answers, settings.with_suffix(".log"), os.environ) as pid:
        yield Bucket(endpoint, pid)


def _knows_who_may(endpoint: str) -> bool:
    """Return True when the server refuses unsigned requests, as it does once it has read its accounts."""
    try:
        urllib.request.urlopen(endpoint, timeout=2)  # noqa: S310
    except urllib.error.HTTPError as error:
        return error.code == 403
    except OSError:
        return False
    return False


def _free_pair() -> int:
    """Return a free port with another free port 10,000 above it, which gRPC uses."""
    while (port := free_port()) > 55_000:
        pass
    return port
