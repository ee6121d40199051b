"""``python -m bench.history``: the cost of the history, and its size and queries when full.

``--pulls 10000000`` measures the size and the queries alone, with so many pulls.
"""

from __future__ import annotations

import gc
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from ipaddress import ip_address
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.web.resource import Resource
from twisted.web.template import flattenString

from dockmirror.body.bodies import BytesBody
from dockmirror.history.database import FILE_NAME, Sums, Word, open_for_writing, transaction
from dockmirror.history.part_requests import PartRequest, add_up
from dockmirror.history.pull_table import PULL_TABLE_SIZE, PullTable
from dockmirror.history.pulls import PullFilter
from dockmirror.history.reader import SqliteHistory
from dockmirror.history.recorder import PullRecorder
from dockmirror.history.rollup import CHUNK, advance_rollup
from dockmirror.history.tracker import make_number
from dockmirror.http.server import HttpSite
from dockmirror.http.server_request import ServerRequest
from dockmirror.interfaces import Answer
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.header_fields import CacheStatus
from dockmirror.oci.media import OCI_MANIFEST
from dockmirror.oci.request import Blob, Manifest, Repository, Tag
from dockmirror.system.networks import Address, ClientAddress
from dockmirror.web.pages.history_form import HistoryForm, begin_of
from dockmirror.web.pages.history_page import SHOWN_PULLS, HistoryAnswer, HistoryView, render_history
from dockmirror.web.pages.page import ENGLISH, LANGUAGES

from .blobs import verify
from .clients.wrk import wrk
from .command import parser
from .images import push_image
from .peers import distribution
from .peers.mirror import NAME, mirrored
from .peers.peer import Peer, repository
from .process import processor_time
from .rounds import in_turn
from .table import Row, at_least, at_most, table

PULLS = 1_000_000
CONNECTIONS = 64
SECONDS = 2
_DAYS = 30
_CLIENTS, _IMAGES, _USERS = 2000, 500, 100
_REQUESTS, _ROUNDS = 500, 12
_WITH, _WITHOUT = NAME, "without a history"


def rows(rounds: int) -> Iterator[Row]:
    """Measure requests with and without the history, the reactor's time, and a full history."""
    yield from _requests(rounds)
    yield from _reactor()
    yield from _full(PULLS)


def _requests(rounds: int) -> Iterator[Row]:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        registry = stack.enter_context(distribution.registry(directory))
        digest = push_image(registry, [repository(NAME)], 40, 1024, directory)
        url = registry.url.partition("/v2/")[0]
        peers = {
            _WITH: stack.enter_context(mirrored(url)),
            _WITHOUT: stack.enter_context(mirrored(url, own="history = false")),
        }
        for way, reference in (("digest", digest), ("tag", "latest")):
            for peer in peers.values():
                verify(peer.manifest(reference), digest)
            got = in_turn(rounds, {name: partial(_ask, peer, reference) for name, peer in peers.items()})
            case = f"manifest by {way}, {CONNECTIONS} connections, history"
            (rates, costs), (other_rates, other_costs) = (zip(*got[name], strict=True) for name in peers)
            yield Row(case, "requests/s", rates, _WITHOUT, other_rates, at_least(0.95))
            yield Row(case, "processor ms a request", costs, _WITHOUT, other_costs)


def _ask(peer: Peer, reference: str, number: int) -> tuple[float, float]:
    """Return the requests a second, and the processor time of one in milliseconds."""
    used, started = processor_time(peer.pid), time.monotonic()
    rate = wrk(peer.manifest(reference), CONNECTIONS, SECONDS).rate
    seconds = min(SECONDS, time.monotonic() - started)
    return rate, (processor_time(peer.pid) - used) / (rate * seconds) * 1000


def _reactor() -> Iterator[Row]:
    """Measure what the recorder does on the reactor for a request, without the thread that writes."""
    clock = Clock()
    clock.advance(1_800_000_000)
    layer = Digest.of(b"layer")
    fields = f'{{"mediaType": "application/x", "digest": "{layer}", "size": 5}}'
    parts = f'"mediaType": "{OCI_MANIFEST}", "config": {fields}, "layers": [{fields}]'
    data = f'{{"schemaVersion": 2, {parts}}}'.encode()
    of_manifest = Descriptor(OCI_MANIFEST, Digest.of(data), len(data))
    place = Repository("library/nginx")
    cases: Sequence[tuple[str, Manifest | Blob, BytesBody]] = (
        ("manifest by tag", Manifest(place, Tag("latest")), BytesBody(data, of_manifest)),
        ("manifest by digest", Manifest(place, Digest.of(data)), BytesBody(data, of_manifest)),
        ("blob", Blob(place, layer), BytesBody(b"layer", Descriptor("", layer, 5))),
    )
    for kind, clients in (("repeated", 8), ("first", _REQUESTS * _ROUNDS)):
        recorder = PullRecorder(PullTable(memoryview(bytearray(PULL_TABLE_SIZE))), clock)
        addresses = [ip_address(f"10.{count // 250}.{count % 250}.1") for count in range(clients)]
        for name, target, body in cases:
            answer, asking, best = Answer(body, cache=CacheStatus()), cycle(addresses), float("inf")
            for _ in range(_ROUNDS):
                requests = [_request(clock, address) for address in islice(asking, _REQUESTS)]
                gc.freeze()  # the requests are not the recorder's
                started = time.thread_time()
                for request in requests:
                    recorder.begin(request, "docker.io", target, False)
                    recorder.answered(request, answer, lambda: True)
                    recorder.end(request)
                recorder.flush()
                best = min(best, (time.thread_time() - started) / _REQUESTS)
            yield Row(f"history, {name}, {kind}", "reactor's µs a request", [best * 1e6], aim=at_most(12))
    recorder = PullRecorder(PullTable(memoryview(bytearray(PULL_TABLE_SIZE))), clock)
    images = [_image(recorder, clock, number) for number in range(_ROUNDS)]
    reactor, thread = (min(each) for each in zip(*images, strict=True))
    case = "history, an image's requests"
    yield Row(case, "reactor's µs a request", [reactor], aim=at_most(12))
    yield Row(f"{case}, added up", "thread's µs a request", [thread])


def _image(recorder: PullRecorder, clock: Clock, network: int) -> tuple[float, float]:
    """Return the microseconds of each request of an image with seven blobs, by the clients of a network.

    They are those of the reactor, and those of the thread that adds up.
    """
    place, blobs = Repository("library/nginx"), [b"%d" % number for number in range(7)]
    config, *layers = (
        f'{{"mediaType": "application/x", "digest": "{Digest.of(each)}", "size": 1}}' for each in blobs
    )
    manifest = (
        f'{{"schemaVersion": 2, "mediaType": "{OCI_MANIFEST}", "config": {config},'
        f' "layers": [{", ".join(layers)}]}}'
    ).encode()
    of_manifest = Descriptor(OCI_MANIFEST, Digest.of(manifest), len(manifest))
    answer = Answer(BytesBody(manifest, of_manifest), cache=CacheStatus())
    targets: list[tuple[Manifest | Blob, Answer]] = [
        (Manifest(place, Tag("latest")), answer),
        (Manifest(place, Digest.of(manifest)), answer),
        *(
            (Blob(place, Digest.of(each)), Answer(BytesBody(each, Descriptor()), cache=CacheStatus()))
            for each in blobs
        ),
    ]
    spent, clients = 0.0, _REQUESTS // len(targets)
    ended: list[PartRequest] = []
    recorder.take = ended.extend
    for number in range(clients):
        clock.advance(0.001)
        address = ip_address(f"10.{network}.{number}.2")
        requests = [_request(clock, address) for _ in targets]
        gc.freeze()
        started = time.thread_time()
        for request, (target, answer) in zip(requests, targets, strict=True):
            recorder.begin(request, "docker.io", target, False)
            recorder.answered(request, answer, lambda: True)
            recorder.end(request)
        spent += time.thread_time() - started
    started = time.thread_time()
    recorder.flush()
    flushed = time.thread_time()
    add_up(ended, "full", ())
    added_up = time.thread_time()
    return (spent + flushed - started) / len(ended) * 1e6, (added_up - flushed) / len(ended) * 1e6


def _request(clock: Clock, address: Address) -> ServerRequest:
    channel: Any = HttpSite(Resource(), clock).buildProtocol(None)
    channel.transport = StringTransport()
    request = ServerRequest(channel)
    request.admitted_client = ClientAddress(address, "http", "mirror.example")
    return request


def _full(pulls: int) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as name:
        path, now = Path(name) / FILE_NAME, time.time()
        with closing(open_for_writing(path)) as connection:
            connection.execute("PRAGMA cache_size = -500000")
            with transaction(connection):
                _fill(connection, now, pulls)
            while advance_rollup(connection, now, 20 * CHUNK) or advance_rollup(connection, now):
                pass
        case = f"history of {pulls:,} pulls"
        yield Row(case, "MB", [path.stat().st_size / 1e6], aim=at_most(max(200, pulls / 5000)))
        reader = SqliteHistory(path, time.time)
        week, month = (PullFilter(since=begin_of(days * 86_400, now)) for days in (7, 30))
        day = PullFilter(since=now - 86_400)
        of_network = evolve(week, client="10.0.1.0/24")
        of_all, of_registry = evolve(month, client="10.0.0.0/8"), evolve(week, image="docker.io/*")
        of_client, of_image = evolve(week, client="10.0.0.7"), PullFilter(image="docker.io/library/image-7")
        queries: dict[str, Callable[[], object]] = {
            "a client's pulls": lambda: reader.pulls(PullFilter(client="10.0.0.7", user="user-7"), 20),
            "the newest": lambda: reader.pulls(PullFilter()),
            "a second page": lambda: reader.pulls(PullFilter(), 100, make_number(now - 15 * 86_400, 0, 0)),
            "an image's": lambda: reader.pulls(of_image, 20),
            "an image's by tag": lambda: reader.pulls(PullFilter(image="docker.io/library/image-7:1.3"), 20),
            "a digest's": lambda: reader.pulls(PullFilter(digest=f"sha256:{7:064}"), 20),
            "failed ones": lambda: reader.pulls(PullFilter(outcome="failed"), 20),
            "running ones": lambda: reader.pulls(PullFilter(outcome="running"), 20),
            "a pattern's": lambda: reader.pulls(PullFilter(image="docker.io/*"), 100),
            "hours of a week": lambda: reader.sums("hour", week),
            "days of 400": lambda: reader.sums("day", PullFilter()),
            "a week by registry": lambda: reader.sums("registry", week),
            "a week by repository": lambda: reader.sums("repository", week, 20),
            "a week by client": lambda: reader.sums("client", week, 20),
            "a network's pulls": lambda: reader.pulls(of_network, 101),
            "a network's week by repository": lambda: reader.sums("repository", of_network),
            "a network's week by client": lambda: reader.sums("client", of_network),
            "a large network's month by repository": lambda: reader.sums("repository", of_all),
            "a large network's month by client": lambda: reader.sums("client", of_all),
            "failed ones of a week by client": lambda: reader.sums("client", evolve(week, outcome="failed")),
            "a registry's week by repository": lambda: reader.sums("repository", of_registry),
            "a registry's week by client": lambda: reader.sums("client", of_registry),
            "a day by repository": lambda: reader.sums("repository", day),
            "a day by client": lambda: reader.sums("client", day),
            "a network's day by client": lambda: reader.sums("client", evolve(of_network, since=day.since)),
            "a client's week": lambda: reader.sums("repository", of_client),
            "an image's month": lambda: reader.sums("day", of_image),
            "a full page of a week": lambda: _render(reader, week),
        }
        for query, ask in queries.items():
            milliseconds = min(_seconds(ask) for _ in range(3)) * 1e3
            yield Row(f"{case}: {query}", "ms", [milliseconds], aim=at_most(100))


def _render(reader: SqliteHistory, filter: PullFilter) -> None:
    """Read and render a page; the mirror reads both sums at once, in threads."""
    by_image, by_client = reader.sums("repository", filter), reader.sums("client", filter)
    answer = HistoryAnswer(filter, by_image, by_client, reader.pulls(filter, SHOWN_PULLS), 0, {})
    page = render_history(HistoryView(HistoryForm(), {}, answer), LANGUAGES[ENGLISH])
    body: Any = flattenString(None, page).result
    assert body.count(b"<time") == SHOWN_PULLS


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _fill(connection: Any, now: float, pulls: int) -> None:
    """Insert pulls of the last days, and sums of 400 days with as many keys."""
    chance = random.Random(16)
    words = [
        *((Word.CLIENT, f"10.0.{number // 250}.{number % 250}") for number in range(_CLIENTS)),
        *((Word.IMAGE, f"docker.io/library/image-{number}") for number in range(_IMAGES)),
        *((Word.USER, f"user-{number}") for number in range(_USERS)),
        *((Word.DIGEST, f"sha256:{number:064}") for number in range(_IMAGES * 10)),
        (Word.HOST, "mirror.example.com"), (Word.PLATFORM, "linux/amd64"), (Word.REGISTRY, "docker.io"),
    ]  # fmt: skip
    connection.executemany("INSERT INTO word (kind, text) VALUES (?, ?)", words)
    ids = {word: number for number, word in enumerate(words, 1)}
    host, platform = ids[Word.HOST, "mirror.example.com"], ids[Word.PLATFORM, "linux/amd64"]
    first = now - _DAYS * 86_400

    def pull(count: int) -> tuple[object, ...]:
        client, image, user = chance.randrange(_CLIENTS), chance.randrange(_IMAGES), chance.randrange(_USERS)
        digest = ids[Word.DIGEST, f"sha256:{image * 10 + chance.randrange(10):064}"]
        size, cached = chance.randrange(10**9), chance.randrange(10**9)
        return (
            make_number(first + _DAYS * 86_400 * count / pulls, 1, count), chance.randrange(60_000),
            1 + client, ids[Word.USER, f"user-{user}"] if user % 2 else 0, host, 1 + _CLIENTS + image,
            f"1.{chance.randrange(30)}", digest, platform, 10, 8, chance.randrange(9), cached, size, 9, 1,
            chance.randrange(60_000), "the registry does not answer" if chance.random() < 0.01 else "",
        )  # fmt: skip

    connection.executemany(
        f"INSERT INTO pull VALUES ({', '.join('?' * 18)})", (pull(count) for count in range(pulls))  # noqa: S608
    )  # fmt: skip
    amounts = (1000, 10, 10**12, 10**11, 8000, 900, 10**7, 10**6)
    hour, day = int(now // 3600), int(now // 86_400)
    keys = {
        Sums.REGISTRY: [ids[Word.REGISTRY, "docker.io"]],
        Sums.REPOSITORY: [1 + _CLIENTS + number for number in range(_IMAGES)],
        Sums.CLIENT: [1 + number for number in range(_CLIENTS // 4)],
    }
    sums = [(Sums.HOUR, hour - number, 0, *amounts) for number in range(400 * 24)]
    for kind, numbers in keys.items():
        sums += [(kind, day - age, key, *amounts) for age in range(400) for key in numbers]
    connection.executemany(f"INSERT INTO sums VALUES ({', '.join('?' * 11)})", sums)  # noqa: S608


if __name__ == "__main__":
    arguments = parser("One case; see the module.")
    arguments.add_argument("--pulls", type=int, help="measure the size and the queries with so many pulls")
    given = arguments.parse_args()
    print(table(_full(given.pulls) if given.pulls else rows(given.rounds)))
