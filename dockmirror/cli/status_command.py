"""``dockmirror status`` and ``version``: ask the running mirror, and this program."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version as package_version
from ipaddress import ip_address
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

import click

from ..app.endpoints import Port, operations_endpoint, parse_port
from ..config.settings import Settings
from .context import Context
from .options import json_option
from .output import print_json

_TIMEOUT = 10.0


@click.command("status", short_help="Show the status of the running mirror.")
@json_option
@click.pass_obj
def status(context: Context, as_json: bool) -> None:
    """Show the status of this machine's running mirror: downloads, registries, cache and popular images.

    The mirror is asked at the endpoint in the setting "operations".

    Exit status: 0; 1 when no mirror answers, or its status is off.
    """
    url = _status_url(context.settings)
    text = _fetch(url, "application/json" if as_json else "text/plain")
    if as_json:
        print_json(json.loads(text))
    else:
        click.echo(text, nl=False)


def _status_url(settings: Settings) -> str:
    endpoint = operations_endpoint(settings)
    port = parse_port(endpoint)
    if port is None:
        where = f"is {endpoint!r}, which has no TCP port" if endpoint else "is 'none'"
        raise click.ClickException(f"the setting 'operations' {where}: the status cannot be read")
    return f"{port.scheme}://{_host(port)}:{port.number}/status"


def _host(port: Port) -> str:
    if port.is_on_all_addresses:
        return "127.0.0.1"
    return f"[{port.interface}]" if ip_address(port.interface).version == 6 else port.interface


def _fetch(url: str, media_type: str) -> str:
    request = Request(url, headers={"Accept": media_type})  # noqa: S310
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=_TIMEOUT) as response:
            return str(response.read().decode())
    except HTTPError as error:
        raise click.ClickException(f"{url} answers {error.code} {error.reason}") from None
    except URLError as error:
        reason = getattr(error.reason, "strerror", None) or error.reason
        raise click.ClickException(f"no mirror answers at {url}: {reason}") from None
    except OSError as error:
        raise click.ClickException(f"no mirror answers at {url}: {error}") from None


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
