"""``dockmirror serve``: its start, where it listens, its settings, and the signals that end it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from threading import Thread

import pytest

from .conftest import MakeChain, MakeDirectory, MakeMachine
from .parts.authority import Authority
from .parts.chain import Chain
from .parts.clients import Dockerd, curl
from .parts.images import Image, image
from .parts.machine import Machine
from .parts.process import BYTECODE, CLEAN_ENVIRONMENT, Process, free_port, wait_until
from .parts.programs import require
from .parts.serve import COMMAND, ServedMirror, answers, has_ended, send_to_group, use_serve
from .parts.stream import begun, digest_of
from .pulls import succeeded

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
LAYER = 48_000_000
"""More than the sockets of both sides take, whose limits are 36 MiB at most."""
COMPLETION = """
eval "$SCRIPT"
COMP_WORDS=(dockmirror "$@")
COMP_CWORD=$#
_dockmirror_completion dockmirror
printf '%s\\n' "${COMPREPLY[@]}"
"""
"""Prints the completions of the last of its arguments."""
NO_OPERATIONS = "--operations=none"


@pytest.fixture
def machine(make_machine: MakeMachine) -> Machine:
    """Return a machine without settings."""
    return make_machine("curl")


def messages(log: Path) -> list[str]:
    """Return the lines of a log without their times."""
    return [line.partition(" ")[2] for line in log.read_text().splitlines()]


def test_the_start_is_told_in_five_lines(machine: Machine) -> None:
    """Nothing else is logged, and no file is left behind."""
    port, operations = free_port(), free_port()
    options = [f"--listen={port}", f"--operations=127.0.0.1:{operations}", "--workers=1", "--min-free=0B"]
    with ServedMirror(machine, f"http://127.0.0.1:{port}", *options) as mirror:
        lines = [line for line in messages(mirror.log) if " GET /v2/ " not in line]
        assert [line.partition(":")[0] for line in lines] == ["page", "clients", "cache", "upstreams", "try"]
        page = f"page: http://127.0.0.1:{port}/, status: http://127.0.0.1:{operations}/status"
        assert lines[0] == page
        assert f"cache: {mirror.cache}, " in lines[2]
        for url in page.replace(",", "").split()[1::2]:
            assert "200" in succeeded(curl(machine, "-sI", "-X", "GET", url)).splitlines()[0]
        assert not [each for each in machine.home.iterdir() if each.name.startswith("twistd")]


def test_each_line_of_a_log_in_json_is_an_object(machine: Machine) -> None:
    """The lines of the start are messages, and so is what a worker says; requests are of another kind."""
    port = free_port()
    options = [f"--listen=127.0.0.1:{port}", NO_OPERATIONS, "--workers=2", "--min-free=0B"]
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    with (
        ServedMirror(machine, f"http://127.0.0.1:{port}", *options, "--log-format=json") as mirror,
        socket.create_connection(("127.0.0.1", port)) as client,
    ):
        client.sendall(hello)
        wait_until(lambda: "TLS" in mirror.log.read_text(), "a worker has logged the client")
    lines = [json.loads(line) for line in mirror.log.read_text().splitlines()]
    assert {line["kind"] for line in lines} == {"message", "request"}
    told = [line for line in lines if line["kind"] == "message"]
    assert all(set(line) == {"kind", "time", "level", "message", "pull"} for line in told)
    first = ["page", "clients", "cache", "upstreams", "try"]
    assert [line["message"].partition(":")[0] for line in told][:5] == first
    assert any("TLS" in line["message"] for line in told)


def test_the_cache_that_keeps_nothing_says_so_and_why(machine: Machine) -> None:
    """The disk cannot have as much free as it is asked for."""
    port = free_port()
    options = [f"--listen=127.0.0.1:{port}", NO_OPERATIONS, "--workers=1", "--min-free=100%"]
    with ServedMirror(machine, f"http://127.0.0.1:{port}", *options) as mirror:
        (line,) = [line for line in messages(mirror.log) if line.startswith("cache: ")]
        assert "keeps nothing new" in line
        assert "min_free" in line


def test_the_command_to_try_works_as_printed(chains: MakeChain, dockerd: Dockerd) -> None:
    with chains(min_free="0B") as chain:
        pushed = image("busybox")
        chain.registry.push("library/busybox", pushed, "latest")
        use_serve(chain.mirror)
        wait_until(lambda: "try: " in chain.mirror.read_log(), "the start is told")
        line = next(line for line in messages(chain.mirror.log) if line.startswith("try: "))
        program, *arguments = line.removeprefix("try: ").split()
        assert program == "docker"
        succeeded(dockerd.docker(*arguments))


def test_short_forms_of_listen_work(machine: Machine, authority: Authority, directory: MakeDirectory) -> None:
    """On the command line and in the settings file; a port alone is served on IPv4 and IPv6."""
    certificates = directory("certificates")
    issued = authority.issue("m.test")
    for file in (issued.certificate, issued.key):
        (certificates / file.name).write_bytes(file.read_bytes())
    a, b, c, d, e, tls = (free_port() for _ in range(6))
    forms = [f"{a}", f":{b}", f"127.0.0.1:{c}", f"[::]:{d}", f"tcp:{e}:interface=127.0.0.1", f"https:{tls}"]
    everywhere = [f"http://{host}:{port}" for host in ("127.0.0.1", "[::1]") for port in (a, b, d)]
    urls = [*everywhere, *(f"http://127.0.0.1:{port}" for port in (c, e))]
    file = machine.etc / "dockmirror.toml"
    listening = json.dumps([a, *forms[1:]])
    file.write_text(
        f'listen = {listening}\noperations = "none"\nworkers = 1\ndomain = "m.test"\n'
        f'certificates = "{certificates}"\n'
    )
    by_options = [NO_OPERATIONS, "--workers=2", *(f"--listen={form}" for form in forms)]
    for options in ((), by_options):
        with ServedMirror(machine, urls[0], *options):
            assert [url for url in urls if not answers(url)] == []
            assert not answers(f"http://[::1]:{c}")
            resolve = ("--resolve", f"m.test:{tls}:127.0.0.1,[::1]")
            for family in ("-4", "-6"):
                options_of_curl = ("--cacert", str(authority.certificate), family, *resolve)
                secured = curl(machine, *options_of_curl, f"https://m.test:{tls}/v2/")
                assert succeeded(secured) == "{}"


def test_a_port_in_use_is_told_in_one_line(machine: Machine) -> None:
    port = free_port()
    options = [f"--listen=127.0.0.1:{port}", NO_OPERATIONS, "--workers=1"]
    with ServedMirror(machine, f"http://127.0.0.1:{port}", *options):
        refused = machine.run(COMMAND, "serve", f"--cache={machine.directory}/other", *options)
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert line.startswith("dockmirror: listen.0: ")
    assert f"127.0.0.1:{port}: [Errno 98] Address already in use; " in line
    assert line.endswith("; stop the program that uses it, or choose another one")


@pytest.fixture
def installed(machine: Machine) -> Machine:
    """Return a machine with /etc/dockmirror.toml and a cache."""
    (machine.etc / "dockmirror.toml").write_text(
        f'cache = "{machine.directory}/own"\nlisten = {free_port()}\noperations = "none"\n'
    )
    return machine


def test_the_settings_in_etc_are_found_and_never_passed_over(installed: Machine) -> None:
    """The file of a variable or an option wins; a file that a user may not read is an error."""
    file = installed.etc / "dockmirror.toml"
    other = installed.directory / "other.toml"
    other.write_text('domain = "other.test"\n')

    def key(name: str, *command: str) -> tuple[str, str]:
        rows = json.loads(succeeded(installed.run(*command, "config", name, "--json")))
        return next((row["value"], row["source"]) for row in rows if row["key"] == name)

    assert key("cache", COMMAND) == (f"{installed.directory}/own", "/etc/dockmirror.toml")
    assert key("domain", COMMAND, "-c", str(other))[0] == "other.test"
    assert key("domain", "env", f"DOCKMIRROR_CONFIG={other}", COMMAND)[0] == "other.test"
    assert key("domain", COMMAND, "-c", "/dev/null")[0] == "localhost"
    file.chmod(0o600)
    for program in (COMMAND, str(Path(COMMAND).with_name("twistd"))):
        arguments = ["gc"] if program == COMMAND else ["-n", "--pidfile=", "dockmirror"]
        refused = installed.run("setpriv", "--reuid=65534", "--clear-groups", program, *arguments)
        assert refused.returncode != 0
        assert "/etc/dockmirror.toml: cannot be read: Permission denied" in refused.stderr


def test_status_and_reload_reach_the_running_mirror(installed: Machine) -> None:
    """A new file is found.  Invalid settings are reported by the command, and the mirror is not told."""
    file, operations = installed.etc / "dockmirror.toml", free_port()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    text = f'listen = {port}\noperations = ":{operations}"\nworkers = 2\n'
    file.unlink()
    options = (f"--listen={port}", f"--operations=:{operations}", "--workers=2")
    with ServedMirror(installed, url, *options) as mirror:
        file.write_text(text)
        assert "docker.io" in succeeded(installed.run(COMMAND, "status"))
        assert json.loads(succeeded(installed.run(COMMAND, "status", "--json")))["processes"] == 2
        assert str(mirror.pid) in succeeded(installed.run(COMMAND, "reload"))
        wait_until(lambda: "settings reloaded" in mirror.log.read_text(), "it has read them")
        file.write_text(text + "grace = -1\n")
        assert installed.run(COMMAND, "reload").returncode == 2
        file.write_text(text)
    for name in ("status", "reload"):
        nobody = installed.run(COMMAND, name)
        assert nobody.returncode == 1
        assert nobody.stderr.startswith("Error: no ")


def test_sighup_during_the_start_reloads_after_it(machine: Machine, tmp_path: Path) -> None:
    """It does not end the mirror; systemd calls a service started before its program has loaded."""
    port, settings = free_port(), tmp_path / "settings.toml"
    options = [f"--listen={port}", NO_OPERATIONS, "--workers=2", "--config", str(settings)]
    mirror = ServedMirror(machine, f"http://127.0.0.1:{port}", *options)
    os.mkfifo(settings)

    def change() -> None:
        with settings.open("w"):  # waits until the mirror reads
            settings.unlink()
            settings.write_text('log_format = "json"')
            os.kill(mirror.pid, signal.SIGHUP)

    Thread(target=change, daemon=True).start()
    with mirror:
        wait_until(lambda: "settings reloaded; changed: log_format" in mirror.log.read_text(), "a reload")


@pytest.fixture(params=[1, 2])
def chain(chains: MakeChain, request: pytest.FixtureRequest) -> Iterator[Chain]:
    """Return a mirror that serve runs, with one worker or two.

    Its grace period is longer than any wait of a test.
    """
    with chains(workers=request.param, grace=3600) as chain:
        use_serve(chain.mirror)
        yield chain


@pytest.fixture(scope="module")
def large() -> Image:
    """An image with a large layer."""
    return image("large", layers=(LAYER,))


def arrives(response: HTTPResponse, digest: str) -> bool:
    """Return whether the rest of a body comes, and is that of the digest."""
    try:
        return digest_of(response) == digest
    except (OSError, HTTPException):
        return False


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_a_transfer_is_finished_after_the_first_signal_and_cut_off_by_the_second(
    chain: Chain, large: Image, number: signal.Signals, name: str
) -> None:
    """The log says so; the signals reach the workers too, as those of a terminal do."""
    chain.registry.push("library/large", large, "latest")
    path = f"/v2/docker.io/library/large/blobs/{large.layers[0].digest}"
    finishing = f"finishing 1 transfer; {name} again stops now"
    with begun(chain.mirror, path) as response:
        send_to_group(chain.mirror, number, finishing)
        assert arrives(response, large.layers[0].digest)
    wait_until(lambda: has_ended(chain.mirror), "it has ended")
    chain.mirror.stop()
    chain.mirror.log.write_text("")
    chain.mirror.start()
    with begun(chain.mirror, path) as response:
        send_to_group(chain.mirror, number, finishing)
        send_to_group(chain.mirror, number, "stopping now")
        wait_until(lambda: has_ended(chain.mirror), "it has ended")
        assert not arrives(response, large.layers[0].digest)


def test_make_runs_it_on_another_port(tmp_path: Path) -> None:
    """The environment exists already."""
    require("make")
    port, venv = free_port(), Path(sys.executable).parents[1]
    options = f"--operations none --cache {tmp_path}/cache --cache-size 1GB"
    command = ["make", "-C", str(ROOT), "-o", f"{venv}/.run", "run", f"VENV={venv}", f"PORT={port}"]
    url = f"http://127.0.0.1:{port}"
    environment = {**CLEAN_ENVIRONMENT, **BYTECODE, "STATE_DIRECTORY": str(tmp_path / "state")}
    log = tmp_path / "make.log"
    with Process([*command, f"ARGS={options}"], log, lambda: answers(url), environment) as running:
        assert f"page: {url}/" in running.log.read_text()


def test_bash_completes_the_names_of_cached_images(chains: MakeChain) -> None:
    """Tags too, although bash splits words at colons."""
    require("bash")
    with chains() as chain:
        pushed = image("completed")
        chain.registry.push("library/completed", pushed, "1.27")
        chain.mirror.client("docker").manifest("library/completed", "1.27")

        environment = {
            **CLEAN_ENVIRONMENT,
            **BYTECODE,
            "PATH": f"{Path(COMMAND).parent}:{CLEAN_ENVIRONMENT['PATH']}",
            "DOCKMIRROR_CONFIG": str(chain.mirror.configuration),
        }

        def printed(*command: str, **variables: str) -> str:
            run = partial(subprocess.run, capture_output=True, text=True, check=True)
            return str(run(command, env={**environment, **variables}).stdout)

        script = printed(COMMAND, _DOCKMIRROR_COMPLETE="bash_source")

        def replies(*words: str) -> list[str]:
            return printed("/bin/bash", "-c", COMPLETION, "bash", *words, SCRIPT=script).split()

        wait_until(lambda: replies("rm", "comp") == ["completed:1.27"], "the image is completed")
        assert replies("rm", "completed", ":") == ["1.27"]
        assert replies("rm", "completed", ":", "1") == ["1.27"]
