"""The mirror's own log, and the lines in it at start."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, Literal

import pytest
from twisted.logger import Logger, LogLevel, LogPublisher
from twisted.python.failure import Failure

from dockmirror.app.message_log import CacheFacts, MessageLog, describe_start, find_client
from dockmirror.config.load import load
from dockmirror.store.eviction.store_budget import Budget
from dockmirror.system.request_context import current_pull

GB, MB = 10**9, 10**6
FACTS = CacheFacts(3_100_000_000, 80 * GB, Budget(50 * GB, 10 * GB))


def logged(
    namespace: str,
    level: LogLevel,
    text: str,
    failure: Failure | None = None,
    form: Literal["text", "json"] = "text",
) -> list[str]:
    """Return the lines for one message."""
    lines = list[str]()
    messages = MessageLog(lines.append)
    messages.form = form
    log = Logger(namespace, observer=LogPublisher(messages))
    if failure is None:
        log.emit(level, "{text}", text=text)
    else:
        log.failure(text, failure)
    return lines


def test_a_message_is_one_line_with_its_time_in_utc_and_its_level() -> None:
    (line,) = logged("dockmirror.app.service", LogLevel.info, "settings reloaded")
    time, _, text = line.partition(" ")
    assert (time[4], time[10], time[-6:], text) == ("-", "T", "+00:00", "settings reloaded")
    (line,) = logged("dockmirror.app.service", LogLevel.warn, "restart")
    assert line.endswith(" warning: restart")
    (line,) = logged("dockmirror.app.service", LogLevel.error, "failed")
    assert line.endswith(" error: failed")


def test_libraries_are_heard_only_when_something_is_wrong() -> None:
    assert logged("twisted.internet.tcp.Port", LogLevel.info, "Site starting on 8080") == []
    assert logged("dockmirror.app.service", LogLevel.debug, "detail") == []
    assert len(logged("twisted.internet.tcp.Port", LogLevel.warn, "odd")) == 1


def test_an_exception_is_logged_with_its_traceback() -> None:
    try:
        raise KeyError("nothing")
    except KeyError:
        (text,) = logged("dockmirror.web", LogLevel.critical, "cannot answer", Failure())
    assert " error: cannot answer\nTraceback (most recent call last):\n" in text
    assert "KeyError" in text


def test_a_message_in_json_is_an_object_on_one_line() -> None:
    """Tracebacks are within it; the kind tells it from the line of a request."""
    (line,) = logged("dockmirror.app.service", LogLevel.warn, "restart", form="json")
    fields = json.loads(line)
    assert fields.pop("time").endswith("+00:00")
    assert fields == {"kind": "message", "level": "warning", "message": "restart", "pull": None}
    failure = Failure(KeyError("nothing"))
    (line,) = logged("dockmirror.web", LogLevel.critical, "cannot answer", failure, form="json")
    assert "\n" not in line
    assert (json.loads(line)["level"], "KeyError" in json.loads(line)["message"]) == ("error", True)
    current_pull.set("17")
    (line,) = logged("dockmirror.web", LogLevel.info, "joined", form="json")
    current_pull.set("")
    assert json.loads(line)["pull"] == "17"


@pytest.mark.parametrize(("output", "printed"), [(subprocess.PIPE, "a line\n"), (subprocess.DEVNULL, None)])
def test_a_line_is_printed_past_twistds_replacement_unless_that_is_all_there_is(
    output: int, printed: str | None
) -> None:
    """In the background twistd's standard output is the null device."""
    code = (
        "import sys; from dockmirror.app.message_log import print_line;"
        " sys.stdout = sys.stderr; print_line('a line')"
    )
    ended = subprocess.run([sys.executable, "-c", code], stdout=output, stderr=subprocess.PIPE, text=True)  # noqa: S603
    assert ended.stdout == printed
    assert ended.stderr == ("" if printed else "a line\n")


def lines(
    settings: dict[str, Any] | None = None, cache: CacheFacts | None = FACTS, client: str = "docker"
) -> list[str]:
    """Return the lines for these settings."""
    return describe_start(load({"cache": "/cache", **(settings or {})}, {}), cache, client)


def test_five_lines_say_what_a_person_needs() -> None:
    assert lines() == [
        "page: http://127.0.0.1:8080/, status: http://127.0.0.1:9464/status",
        "clients: private networks only (the setting 'networks')",
        "cache: /cache, holds 3.1 GB of at most 50.0 GB, 80.0 GB free on the disk",
        "upstreams: docker.io, quay.io, gcr.io and 9 others",
        "try: docker pull 127.0.0.1:8080/docker.io/library/busybox",
    ]


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"listen": [":5000"]}, "page: http://127.0.0.1:5000/, status: http://127.0.0.1:9464/status"),
        ({"listen": ["10.1.2.3:80"], "operations": "none"}, "page: http://10.1.2.3/, status: off"),
        ({"listen": ["[::1]:81"], "operations": ":9000"},
         "page: http://[::1]:81/, status: http://127.0.0.1:9000/status"),
        ({"domain": "m.example"},
         "page: http://127.0.0.1:8080/ (from other machines http://m.example:8080/),"
         " status: http://127.0.0.1:9464/status"),
        ({"domain": "m.example", "listen": ["https:443"], "operations": "none"},
         "page: https://m.example/, status: off"),
        ({"listen": ["unix:/run/m.sock"], "operations": "unix:/run/o.sock"},
         "page: on unix:/run/m.sock, status: on unix:/run/o.sock"),
    ],
)  # fmt: skip
def test_the_first_line_has_the_addresses_of_the_page_and_the_status(
    settings: dict[str, Any], line: str
) -> None:
    assert lines(settings)[0] == line


@pytest.mark.parametrize(
    ("networks", "who"),
    [
        (["private"], "private networks only"),
        (["10.0.0.0/8", "private"], "10.0.0.0/8, private networks only"),
        (["public"], "every address"),
    ],
)
def test_the_second_line_says_who_may_connect(networks: list[str], who: str) -> None:
    assert lines({"networks": networks})[1] == f"clients: {who} (the setting 'networks')"


def test_the_third_line_says_when_the_cache_keeps_nothing_and_why() -> None:
    full = CacheFacts(0, 3 * GB, Budget(50 * GB, 10 * GB))
    assert lines(cache=full)[2] == (
        "cache: /cache keeps nothing new: 3.0 GB free on the disk, and 10.0 GB have to stay free (the setting"
        " 'min_free'); free some space, or start with --min-free 1GB"
    )
    for free, advice in ((500 * MB, ", or start with --min-free 250MB"), (MB, "")):
        line = lines(cache=CacheFacts(0, free, Budget(50 * GB, 10 * GB)))[2]
        assert line.partition("; ")[2] == f"free some space{advice}"
    no_inodes = CacheFacts(0, 80 * GB, Budget(50 * GB, 10 * GB), lacks_inodes=True)
    assert "too few inodes" in lines(cache=no_inodes)[2]
    assert lines(cache=None)[2] == "cache: off, since cache_size is 0; the mirror only relays"


@pytest.mark.parametrize(
    ("settings", "client", "command"),
    [
        ({}, "docker", "docker pull 127.0.0.1:8080/docker.io/library/busybox"),
        ({}, "podman", "podman pull --tls-verify=false 127.0.0.1:8080/docker.io/library/busybox"),
        ({}, "curl", "curl http://127.0.0.1:8080/"),
        ({"listen": ["10.0.0.1:80"]}, "docker", "curl http://10.0.0.1/"),
        ({"networks": ["10.0.0.0/8"]}, "docker", "curl http://127.0.0.1:8080/healthz"),
        ({"networks": ["10.0.0.0/8"], "listen": ["10.0.0.1:80"]}, "curl", "curl http://10.0.0.1/"),
        ({"listen": ["unix:/run/m.sock"]}, "docker", "curl --unix-socket /run/m.sock http://localhost/"),
        ({"domain": "m.example", "listen": ["https:443"]}, "docker",
         "docker pull m.example/docker.io/library/busybox"),
        ({"domain": "m.example", "listen": ["https:443", "8080"]}, "docker",
         "docker pull 127.0.0.1:8080/docker.io/library/busybox"),
        ({"access_htpasswd": __file__}, "docker", "docker login 127.0.0.1:8080"),
        ({"access_htpasswd": __file__}, "curl", "curl http://127.0.0.1:8080/healthz"),
    ],
)  # fmt: skip
def test_the_last_line_is_a_command_that_works_as_printed(
    settings: dict[str, Any], client: str, command: str
) -> None:
    """dockerd uses plain HTTP for addresses of this machine only; others may not be admitted."""
    assert lines(settings, client=client)[4] == f"try: {command}"


@pytest.mark.parametrize(
    ("programs", "is_container", "client"),
    [({"docker", "podman"}, False, "docker"), ({"podman"}, False, "podman"), (set(), False, "curl"),
     (set(), True, "docker")],
)  # fmt: skip
def test_the_command_uses_a_program_that_is_there(
    programs: set[str], is_container: bool, client: str
) -> None:
    """A container has none; the machine around it has docker or an alias of that name."""

    def find(name: str) -> str | None:
        return name if name in programs else None

    assert find_client(find, is_container) == client


def test_the_operators_own_upstreams_are_named_first() -> None:
    """A registry that every mirror knows is none of them, even if it has another address."""
    upstreams = {"quay": {"url": "https://quay.lan"}, "reg": {"url": "http://127.0.0.1:18501"}}
    line = lines({"upstreams": upstreams})[3]
    assert line == "upstreams: 127.0.0.1_18501, docker.io, quay.io and 10 others"


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"offline": True},
         "upstreams: docker.io, quay.io, gcr.io and 9 others; offline: no registry is asked, and clients get"
         " what the cache holds (the setting 'offline')"),
        ({"upstreams": {"quay": {"offline": True}}},
         "upstreams: docker.io, quay.io, gcr.io and 9 others; offline: quay.io"),
    ],
)  # fmt: skip
def test_the_upstreams_that_are_not_asked_are_named(settings: dict[str, Any], line: str) -> None:
    assert lines(settings)[3] == line
