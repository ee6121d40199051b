"""``python -m bench.memory``: one large blob to many slow clients; how much memory the mirror takes.

Each client reads at its own steady pace and checks the digest of what it got.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from demo.mirror import Mirror, mirror

from .blob import LargeBlob, blob_registry
from .process import memory, peak_memory, processor_time
from .results import record

CLIENTS = 50
RATE = 4_000_000
"""Bytes per second that a client reads."""
MEBIBYTES = 1024
LIMIT = 100_000_000
"""Bytes of memory that the mirror may take."""
_READ = 128 * 1024


def main() -> int:
    """Prints one line, and keeps the figures of a whole run."""
    parser = argparse.ArgumentParser(description="One large blob to many slow clients.")
    parser.add_argument("--seconds", type=int, help="a smaller blob, for a look that takes so long")
    parser.add_argument("--relay", action="store_true", help="without the cache")
    given = parser.parse_args()
    blob = LargeBlob(MEBIBYTES if given.seconds is None else max(1, given.seconds * RATE // 2**20))
    options = ["--cache-size=0"] if given.relay else []
    with blob_registry(blob) as url, mirror(url, *options) as running:
        line, peak = measure(running, blob)
    print(line)
    if given.seconds is None:
        title = f"Memory, {'without' if given.relay else 'with'} the cache"
        record(title, f"{line}  The limit is {LIMIT / 1e6:.0f} MB.")
    return 0 if peak < LIMIT else 1


def measure(running: Mirror, blob: LargeBlob) -> tuple[str, int]:
    """The sentence that tells it, and the peak in bytes.

    :raises ValueError: when a client got other bytes.
    """
    digest, idle, started = blob.digest(), memory(running.pid), time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as pool:
        took = list(pool.map(partial(read, running.port), [digest] * CLIENTS))
    elapsed, peak = time.monotonic() - started, peak_memory(running.pid)
    return (
        f"A blob of {blob.size / 2**20:.0f} MiB to {CLIENTS} clients that read {RATE / 1e6:.0f} MB/s each:"
        f" the mirror took {peak / 1e6:.1f} MB at most ({idle / 1e6:.1f} MB when idle),"
        f" used {processor_time(running.pid) / elapsed:.0%} of one core,"
        f" and the slowest client was done after {max(took):.0f} s ({blob.size / RATE:.0f} s at its pace).",
        peak,
    )


def read(port: int, digest: str) -> float:
    """Reads the blob at the pace; returns how many seconds it took."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    started, count, hashed = time.monotonic(), 0, hashlib.sha256()
    connection.request("GET", f"/v2/docker.io/bench/large/blobs/{digest}")
    response = connection.getresponse()
    while data := response.read(_READ):
        hashed.update(data)
        count += len(data)
        time.sleep(max(0.0, started + count / RATE - time.monotonic()))
    connection.close()
    if response.status != 200 or f"sha256:{hashed.hexdigest()}" != digest:
        raise ValueError(f"status {response.status}, {count} bytes, which are not {digest}")
    return time.monotonic() - started


if __name__ == "__main__":
    sys.exit(main())
