"""``python -m bench.cache``: one blob that is not held yet to many clients at once.

The upstream's connections are slow.  The mirror opens one of them, so the last client should be done little
later than a single one would have been.  Each client is a process of its own, which reads into memory and
verifies the digest when the clock has stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import random
import socket
import statistics
import sys
import time
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier

from attrs import frozen

from demo.mirror import Mirror, mirror

from .blob import LargeBlob
from .capped import Capped, capped_registry
from .results import record

CLIENTS = 20
RATE = 50_000_000
"""Bytes a second that one connection of the upstream sends."""
MEBIBYTES = 128
RUNS = 5
LIMIT = 1.1
"""How much longer the last of all clients may take than a single one."""
_MEBIBYTE = 1024 * 1024


@frozen
class Run:
    """One blob to one client, and another to all of them.

    :ivar single: seconds that one client took.
    :ivar last: seconds until the last of all was done.
    :ivar fetched: bytes that the upstream sent for the blob that all wanted, in blobs.
    """

    single: float
    last: float
    fetched: float

    @property
    def ratio(self) -> float:
        """How much longer the last took."""
        return self.last / self.single


def main() -> int:
    """Prints a table, and keeps the figures of a whole run."""
    parser = argparse.ArgumentParser(description="One cold blob to many clients at once.")
    parser.add_argument("--mebibytes", type=int, default=MEBIBYTES, help="of each blob")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    given = parser.parse_args()
    blobs = [_blob(number, given.mebibytes) for number in range(2 * given.runs)]
    with capped_registry(blobs, RATE) as registry, mirror(registry.url) as running:
        runs = [
            measure(running, registry, first, second, given.clients)
            for first, second in zip(blobs[::2], blobs[1::2], strict=True)
        ]
    text = _text(runs, given.mebibytes, given.clients)
    print(text)
    if vars(given) == {"mebibytes": MEBIBYTES, "runs": RUNS, "clients": CLIENTS}:
        record("A cold blob to many clients at once", text)
    return 0 if statistics.median(run.ratio for run in runs) < LIMIT else 1


def measure(running: Mirror, registry: Capped, first: LargeBlob, second: LargeBlob, clients: int) -> Run:
    """The first blob to one client, then the second to all."""
    single = pull(running, first, 1)
    last = pull(running, second, clients)
    return Run(single, last, registry.sent[second.digest()] / second.size)


def pull(running: Mirror, blob: LargeBlob, clients: int) -> float:
    """Seconds from when all clients are let go until the last has every byte.

    :raises ValueError: when a client got other bytes.
    """
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(clients + 1)
    pipes, processes = [], []
    for _ in range(clients):
        ours, theirs = spawn.Pipe()
        process = spawn.Process(
            target=_client, args=(running.port, blob.digest(), blob.size, barrier, theirs)
        )
        process.start()
        pipes.append(ours)
        processes.append(process)
    barrier.wait()
    started = time.monotonic()
    ended = [pipe.recv() for pipe in pipes]
    for pipe, process in zip(pipes, processes, strict=True):
        right = pipe.recv()
        process.join()
        if not right:
            raise ValueError(f"a client got other bytes than {blob.digest()}")
    return float(max(ended) - started)


def _client(port: int, digest: str, size: int, barrier: Barrier, told: Connection) -> None:
    """Tells when it had every byte, and then whether they are right."""
    body = memoryview(bytearray(size))
    with socket.create_connection(("127.0.0.1", port)) as connection:
        barrier.wait()
        path = f"/v2/docker.io/bench/cold/blobs/{digest}"
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n".encode())
        received = _begin(connection, body)
        while received < size and (count := connection.recv_into(body[received:])):
            received += count
    told.send(time.monotonic())
    told.send(f"sha256:{hashlib.sha256(body[:received]).hexdigest()}" == digest)


def _begin(connection: socket.socket, body: memoryview) -> int:
    """Reads the head, and puts what came of the body where it belongs; how much that is."""
    head = b""
    while b"\r\n\r\n" not in head and (data := connection.recv(4096)):
        head += data
    begun = head.partition(b"\r\n\r\n")[2]
    body[: len(begun)] = begun
    return len(begun)


def _blob(number: int, mebibytes: int) -> LargeBlob:
    return LargeBlob(mebibytes, random.Random(number).randbytes(_MEBIBYTE))


def _text(runs: list[Run], mebibytes: int, clients: int) -> str:
    rows = [_row(f"run {number}", run) for number, run in enumerate(runs, 1)]
    median = Run(
        statistics.median(run.single for run in runs),
        statistics.median(run.last for run in runs),
        statistics.median(run.fetched for run in runs),
    )
    ratio = statistics.median(run.ratio for run in runs)
    return "\n".join(
        [
            f"| | one client, s | the last of {clients}, s | ratio | bytes from upstream, in blobs |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            f"| median | {median.single:.2f} | {median.last:.2f} | {ratio:.2f} | {median.fetched:.2f} |",
            "",
            f"A blob of {mebibytes} MiB that is not held, from an upstream that sends {RATE / 1e6:.0f} MB a"
            f" second on a connection ({mebibytes * _MEBIBYTE / RATE:.2f} s for the blob). Every client's"
            f" bytes were verified. The limit of the ratio is {LIMIT}.",
        ]
    )


def _row(name: str, run: Run) -> str:
    return f"| {name} | {run.single:.2f} | {run.last:.2f} | {run.ratio:.2f} | {run.fetched:.2f} |"


if __name__ == "__main__":
    sys.exit(main())
