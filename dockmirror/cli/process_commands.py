"""``dockmirror serve``, ``reload``, ``version`` and ``config``: the mirror's process and settings."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel
from twisted.internet.interfaces import IReactorTime

from ..app.cache_settings import disk_size
from ..app.endpoints import HttpsEndpoint, listen_endpoints, listening_ports, operations_endpoint, parse_port
from ..config.consistency import question_settings
from ..config.explain import SettingsSource
from ..config.load import find_origin, load_found
from ..config.options import Options
from ..config.settings import ConfigurationError, Settings
from ..system.garbage_collector import young_collections
from .arguments import json_option
from .command_context import Context, print_json, print_table, run_with_reactor

_OWN = {"config", "version"}
"""Options that the command has by itself."""
_PASSWORD = re.compile(r"^((?:[^:/?#@]+://)?[^:]*):.*@", re.DOTALL)
"""The username and the password in an address; any characters, since the text may be no valid address."""
_COMMANDS = {"serve", "start", "dockmirror"}
"""Words of a command line before the options of a mirror: of this command, or of twistd."""
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_TABLES = {"upstreams", "access", "gate"}


def _make_options() -> Iterator[click.Option]:
    """Yield the options of ``twistd dockmirror``."""
    for long, short, _, text in Options.optParameters:
        if long not in _OWN:
            yield click.Option([f"--{long}", *([f"-{short}"] if short else [])], help=text)
    for long, _, text in Options.optFlags:
        yield click.Option([f"--{long}"], is_flag=True, help=text)
    for name, method in vars(Options).items():
        long = name.removeprefix("opt_")
        if name.startswith("opt_") and long not in _OWN:
            text = " ".join((inspect.getdoc(method) or "").split())
            yield click.Option([f"--{long}"], multiple=True, help=text)


@click.pass_obj
def _serve(context: Context, /, **values: Any) -> None:
    """Run the mirror in the foreground until Ctrl-C or SIGTERM.

    Running transfers finish first; a second Ctrl-C or SIGTERM stops now.  SIGHUP reads the settings again.
    The log and the access log go to standard output.

    Exit status: 0; 1 when the mirror cannot listen, 2 when the settings are invalid.
    """
    # By default SIGHUP ends a process: one that comes before the mirror handles it waits until then.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    with young_collections():
        from ..app.service import run_mirror

    given = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
    options = {**given, "config": context.options.get("config")}
    run_mirror(partial(load_found, options, context.environ), context.environ)


serve = click.version_option(package_name="dockmirror")(
    click.Command(
        "serve",
        callback=_serve,
        params=list(_make_options()),
        help=inspect.getdoc(_serve),
        short_help="Run the mirror in the foreground.",
    )
)


_PROC = Path("/proc")
_LISTENING = "0A"
"""The state of a listening socket in ``/proc/net/tcp``: TCP_LISTEN of the kernel's ``tcp_states.h``."""
_PROGRAMS = (b"dockmirror", b"mirror.tac")
"""Words of the command line of a mirror."""


@click.command("reload", short_help="Let the running mirror read its settings again.")
@click.option("--process", "named", type=click.IntRange(1), help="The mirror's process.")
@json_option
@click.pass_obj
def reload(context: Context, named: int | None, as_json: bool) -> None:
    """Let this machine's running mirror read its settings again, without interrupting transfers.

    The settings are checked first, in the environment of the mirror: what it would reject is reported here,
    and the mirror is left alone.  The mirror is the process that listens on the ports in the settings, unless
    --process names it; its log names the settings that changed, and those that need a restart.

    Exit status: 0; 1 when the mirror would reject the settings, is not found or belongs to another user, 2
    when the settings are invalid.
    """
    if named and (_PROC / str(named)).exists() and _PROC / str(named) not in _mirrors(_PROC):
        raise click.ClickException(f"process {named} is no mirror")
    process = named or find_mirror(_ports(context.settings), _PROC)
    if process is None:
        raise click.ClickException(
            "no process of a mirror that this user may see listens on the ports in the settings"
        )
    _check_reload(context, process)
    try:
        os.kill(process, signal.SIGHUP)
    except ProcessLookupError:
        raise click.ClickException(f"there is no process {process}") from None
    except PermissionError:
        raise click.ClickException(f"process {process} belongs to another user") from None
    if as_json:
        print_json({"process": process})
    else:
        click.echo(f"process {process} reads its settings again; its log names those that changed")


def _check_reload(context: Context, process: int) -> None:
    """:raises click.ClickException: when the mirror would reject the settings."""
    from ..app.start_check import find_reload_problems

    environ = read_environ(process, _PROC) or context.environ
    options = {**read_serve_options(process, _PROC), "config": context.file}
    settings = Context(options, environ).settings

    async def find(reactor: Any) -> list[str]:
        return find_reload_problems(settings, environ, reactor)

    if problems := run_with_reactor(find):
        raise click.ClickException(str(ConfigurationError(*problems)))


def read_environ(process: int, proc: Path) -> dict[str, str] | None:
    """Return the environment in which a process was started; None if this user may not read it.

    :param proc: the directory of the kernel's files about processes.
    """
    try:
        variables = os.fsdecode((proc / str(process) / "environ").read_bytes()).split("\0")
    except OSError:
        return None
    return {name: value for name, equals, value in (each.partition("=") for each in variables) if equals}


def read_serve_options(process: int, proc: Path) -> dict[str, Any]:
    """Return the options with which a mirror was started; none if this user may not read them.

    :param proc: the directory of the kernel's files about processes.
    """
    try:
        words = os.fsdecode((proc / str(process) / "cmdline").read_bytes()).removesuffix("\0").split("\0")
    except OSError:
        return {}
    command = next((number for number, word in enumerate(words) if word in _COMMANDS), len(words))
    given = serve.make_context(
        "serve", words[command + 1 :],
        resilient_parsing=True, ignore_unknown_options=True, allow_extra_args=True,
    ).params  # fmt: skip
    return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}


def _ports(settings: Settings) -> set[int]:
    operations = parse_port(operations_endpoint(settings))
    ports = [*listening_ports(settings), *([operations] if operations else [])]
    return {int(port.number) for port in ports}


def find_mirror(ports: set[int], proc: Path) -> int | None:
    """Return the process of a mirror that listens on one of the TCP ports, or None.

    Workers have their parent's sockets, so the process is that whose parent has none of them.

    :param proc: the directory of the kernel's files about processes.
    """
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(ports, proc)}
    found = {process for process in _mirrors(proc) if sockets & set(_open_files(process))}
    return next((int(each.name) for each in sorted(found) if _parent(each) not in found), None)


def _listening_inodes(ports: set[int], proc: Path) -> Iterator[str]:
    for table in ("net/tcp", "net/tcp6"):
        try:
            lines = (proc / table).read_text("ascii").splitlines()[1:]
        except OSError:
            continue
        for _, local, _, state, *others in map(str.split, lines):
            if state == _LISTENING and int(local.rpartition(":")[2], 16) in ports:
                yield others[5]


def _mirrors(proc: Path) -> Iterator[Path]:
    for process in proc.glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if any(word in command for word in _PROGRAMS):
            yield process


def _open_files(process: Path) -> Iterator[str]:
    try:
        names = os.listdir(process / "fd")
    except OSError:
        return
    for name in names:
        try:
            yield os.readlink(process / "fd" / name)
        except OSError:  # closed meanwhile
            continue


def _parent(process: Path) -> Path:
    """Return the parent, which ``/proc/PID/stat`` names after the state that follows the program's name."""
    try:
        state = (process / "stat").read_text("utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return process
    return process.with_name(state[1])


def _versions() -> Sequence[tuple[str, str]]:
    return [(name, package_version(name)) for name in ("dockmirror", "twisted")]


@click.command("version", short_help="Show the version.")
@json_option
def version(as_json: bool) -> None:
    """Show the version of this program and of Twisted.

    Exit status: 0.
    """
    if as_json:
        print_json(dict(_versions()))
        return
    for name, number in _versions():
        click.echo(f"{name} {number}")


@click.command("config", short_help="Show the settings in force and the source of each value.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: a list of objects; with --check one.")
@click.option("--all", "everything", is_flag=True, help="Include well-known upstreams with default settings.")
@click.option("--check", is_flag=True, help="Find all that would prevent a start, and show no settings.")
@click.argument("prefix", default="")
@click.pass_obj
def config(context: Context, as_json: bool, everything: bool, check: bool, prefix: str) -> None:
    """Show the settings in force and where each comes from: a file, the environment, the command line or a
    default.

    PREFIX shows only the keys that begin with it, such as "upstreams.docker".  Passwords are masked.

    --check tries certificates, keys, ports, directories, accounts, helpers and the files that policies and
    the API read, without starting anything.  It questions values that can hardly be meant and hosts that no
    certificate is for, and says if the mirror would start without its history.

    Exit status: 0; 1 when --check finds what would prevent a start; 2 when the settings are invalid.
    """
    if check:
        _check(context, as_json)
        return
    sources = context.sources
    rows = [row for row in _rows(context.settings, sources) if row[0].startswith(prefix)]
    if not rows:
        raise click.UsageError(f"there is no setting that begins with {prefix!r}")
    if not everything and not prefix:
        built_in = {source.name for source in sources[:2]}
        rows = [row for row in rows if not row[0].startswith("upstreams.") or row[2] not in built_in]
    if as_json:
        print_json([{"key": key, "value": value, "source": source} for key, value, source in rows])
        return
    cells = [(key, _format_toml(value), source) for key, value, source in rows]
    print_table(("key", "value", "from"), cells)


def _check(context: Context, as_json: bool) -> None:
    from ..app.start_check import find_start_losses, find_start_problems

    settings = context.settings
    questions = [*question_settings(settings, disk_size(settings)), *find_start_losses(settings)]

    async def find(reactor: Any) -> list[str]:
        if missing := _find_names_without_certificate(settings, reactor):
            more = f" and {len(missing) - 1} others" if missing[1:] else ""
            questions.append(f"certificates: none is for {missing[0]}{more}; clients refuse another one's")
        return find_start_problems(settings, context.environ, reactor)

    problems = run_with_reactor(find)
    offline = [name for name, each in settings.upstreams.items() if settings.is_offline(each)]
    if as_json:
        print_json({"problems": problems, "questions": questions, "offline": offline})
    else:
        lines = [*(f"✗ {each}" for each in problems), *(f"? {each}" for each in questions)]
        if offline:
            lines.append(f"offline, and not asked: {', '.join(offline)}")
        if not problems:
            lines.append("✓ the mirror can start with these settings")
        click.echo("\n".join(lines))
    if problems:
        raise SystemExit(1)


def _find_names_without_certificate(settings: Settings, clock: IReactorTime) -> Sequence[str]:
    """Return the hosts of the mirror that no certificate is for, if it has TLS and obtains none by itself."""
    from ..tls.certificate_directory import CertificateDirectories, NoUsableCertificate

    endpoints = filter(None, map(HttpsEndpoint.parse, listen_endpoints(settings)))
    directories = CertificateDirectories(settings.certificates, settings.domain, clock)
    try:
        opened = [directories.open(each.certificates) for each in endpoints]
    except NoUsableCertificate:
        return []  # which prevents a start
    names = {name for each in opened for chain in each.chains for name in chain.names}
    hosts = [settings.domain, *map(settings.host, settings.upstreams)] if opened and not settings.acme else []
    return [host for host in hosts if not names & {host, f"*.{host.partition('.')[2]}"}]


def _rows(
    model: BaseModel, sources: Sequence[SettingsSource], path: tuple[str, ...] = ()
) -> Iterator[tuple[str, object, str]]:
    """Yield the key, the value as the file would have it, and the source of each setting."""
    written = model.model_dump(mode="json", by_alias=True)
    for name, field in type(model).model_fields.items():
        key, value = field.alias or name, getattr(model, name)
        where = (*path, key)
        if isinstance(value, BaseModel):
            yield from _rows(value, sources, where)
        elif key in _TABLES and isinstance(value, Mapping):
            for each, inner in value.items():
                yield from _rows(inner, sources, (*where, each))
        else:
            yield ".".join(where), _show(key, value, written[key]), find_origin(sources, where)


def _show(key: str, value: object, written: object) -> object:
    """Return a value as the file would have it: passwords masked, tables in a list without their defaults."""
    if key == "proxy" and isinstance(value, str):
        return _PASSWORD.sub(r"\1:…@", value)
    if isinstance(value, tuple) and any(isinstance(each, BaseModel) for each in value):
        return [each.model_dump(mode="json", by_alias=True, exclude_unset=True) for each in value]
    return written


def _format_toml(value: object) -> str:
    """Format a value as a settings file has it in one line; a setting without a value is null."""
    match value:
        case list():
            return f"[{', '.join(map(_format_toml, value))}]"
        case Mapping():
            pairs = (f"{_format_toml_key(key)} = {_format_toml(each)}" for key, each in value.items())
            return f"{{{', '.join(pairs)}}}"
        case _:
            return json.dumps(value, ensure_ascii=False)


def _format_toml_key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else json.dumps(key, ensure_ascii=False)
