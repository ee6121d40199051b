"""SeaweedFS, a real S3 server; killed and started again it has what it had."""

from __future__ import annotations

import json
import random
import sys
import urllib.error
import urllib.request
import uuid
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from obstore.store import S3Store

from .process import Process, is_free, own_share

WEED = str(Path(sys.executable).parent / "weed")
"""The program, which ``tests/seaweedfs.txt`` installs."""
BUCKET, REGION = "mirrors", "us-east-1"
KEY, SECRET = "key-of-the-tests", "secret-of-the-tests-0123456789"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": REGION}
_ACTIONS = ["Admin", "Read", "Write", "List", "Tagging"]
_ABOVE = 10_000
"""Beside each HTTP port one for gRPC, so much above it."""
_PORTS = range(12_000, 14_000)
"""All of them lie below those from which systems give some to whoever asks for any."""


class SeaweedFS(Process):
    """One process with one bucket in a directory."""

    def __init__(self, directory: Path) -> None:
        ports = dict(zip(("master", "volume", "filer", "s3"), _pairs(4), strict=True))
        self.endpoint = f"http://127.0.0.1:{ports['s3']}"
        data, settings = directory / "data", directory / "s3.json"
        data.mkdir()
        identity = {
            "name": "tests",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": _ACTIONS,
        }
        settings.write_text(json.dumps({"identities": [identity]}))
        options = [
            f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            "-master.volumeSizeLimitMB=64", "-master.electionTimeout=1s", "-master.telemetry=false",
            "-volume.max=40", "-volume.preStopSeconds=0", "-filer",
            "-s3", "-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={settings}",
            *(f"-{name}.port={port}" for name, port in ports.items()),
        ]  # fmt: skip
        super().__init__(
            [WEED, "-logtostderr=true", "server", *options],
            log=directory / "seaweedfs.log",
            ready=self._answers,
        )

    def url(self, prefix: str) -> str:
        """The address of a store in the bucket, as a mirror is given it."""
        return f"s3://{BUCKET}/{prefix}"

    def store(self, prefix: str | None = None, **settings: Any) -> S3Store:
        """The objects below a prefix, by default a new one."""
        return S3Store(
            BUCKET,
            prefix=prefix or uuid.uuid4().hex,
            endpoint=self.endpoint,
            region=REGION,
            access_key_id=KEY,
            secret_access_key=SECRET,
            client_options={"allow_http": True},
            retry_config={"max_retries": 1, "retry_timeout": timedelta(seconds=5)},
            **settings,
        )

    def distribution(self, prefix: str) -> dict[str, Any]:
        """The settings by which the s3 driver of distribution reads a prefix."""
        return {
            "regionendpoint": self.endpoint,
            "region": REGION,
            "bucket": BUCKET,
            "rootdirectory": f"/{prefix}",
            "accesskey": KEY,
            "secretkey": SECRET,
            "secure": False,
            "v4auth": True,
        }

    def stop(self, seconds: float = 0) -> None:
        """Kill it: a clean end takes a quarter of a minute."""
        self.kill()

    def _answers(self) -> bool:
        """Return True once it refuses an unsigned request."""
        try:
            urllib.request.urlopen(self.endpoint, timeout=2)  # noqa: S310
        except urllib.error.HTTPError as error:
            return error.code == 403
        except OSError:
            return False
        return False


def _pairs(number: int) -> list[int]:
    """Free ports of which the ones that lie so much above are free as well."""
    own = own_share(_PORTS)
    pairs = ((port, port + _ABOVE) for port in random.sample(own, len(own)))
    free = (pair[0] for pair in pairs if all(is_free("127.0.0.1", port) for port in pair))
    return list(islice(free, number))
