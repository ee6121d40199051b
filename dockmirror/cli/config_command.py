"""``dockmirror config``: show the settings in force and the source of each value."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click
from pydantic import BaseModel
from twisted.internet.interfaces import IReactorTime

from ..app.cache_settings import disk_size
from ..app.endpoints import HttpsEndpoint, listen_endpoints
from ..config.consistency import question_settings
from ..config.explain import SettingsSource
from ..config.load import find_origin
from ..config.settings import Settings
from .command_context import Context, print_json, print_table, run_with_reactor

_PASSWORD = re.compile(r"^((?:[^:/?#@]+://)?[^:]*):.*@", re.DOTALL)
"""The username and the password in an address; any characters, since the text may be no valid address."""
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_TABLES = {"upstreams", "access", "gate"}


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
