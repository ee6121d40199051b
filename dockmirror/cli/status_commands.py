"""``dockmirror status`` and ``top``: what the running mirror does, once or live in the terminal."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..app.endpoints import operations_endpoint, parse_port
from ..config.notation import format_size
from ..config.settings import Settings
from .arguments import json_option
from .command_context import Context, print_json

Status = Mapping[str, Any]
"""The JSON of ``/status.json``, which docs/how-to/monitor.md describes."""
_BAR = 16
_TIMEOUT = 10.0
_CUT = ("image", "repository", "last failure", "images")
_NUMBERS = ("cached", "fetched", "time", "networks", "used up", "refused")
_COLOURS = {"reachable": "green", "failing": "red", "resting": "yellow", "offline": "cyan", "unasked": "dim"}
_ORDER = ("failing", "resting", "offline", "reachable")


@click.command("status", short_help="Show the status of the running mirror.")
@json_option
@click.pass_obj
def status(context: Context, as_json: bool) -> None:
    """Show the status of this machine's running mirror: this week, transfers, registries, cache and clients.

    The mirror is asked at the endpoint in the setting "operations".

    Exit status: 0; 1 when no mirror answers, or its status is off.
    """
    url = _status_url(context.settings)
    text = _fetch_status(url, "application/json" if as_json else "text/plain")
    if as_json:
        print_json(json.loads(text))
    else:
        click.echo(text, nl=False)


def _status_url(settings: Settings) -> str:
    """Return the address of the status page.

    :raises click.ClickException: when the endpoint cannot be connected to.
    """
    endpoint = operations_endpoint(settings)
    port = parse_port(endpoint)
    if port is None:
        where = f"is {endpoint!r}, which has no TCP port" if endpoint else "is 'none'"
        raise click.ClickException(f"the setting 'operations' {where}: the status cannot be read")
    return f"{port.scheme}://{port.local_host}:{port.number}/status"


def _fetch_status(url: str, media_type: str) -> str:
    """Return the status in a form.

    :raises click.ClickException: when no mirror answers.
    """
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


@click.command("top", short_help="Show what the running mirror does, live.")
@click.option(
    "--interval", type=click.FloatRange(min=0.2), default=1.0, show_default=True,
    help="Seconds between two looks.",
)  # fmt: skip
@click.option("--once", is_flag=True, help="Print once and end, as into a pipe.")
@json_option
@click.pass_obj
def top(context: Context, interval: float, once: bool, as_json: bool) -> None:
    """Show pulls and downloads under way, hits, the upstreams' states and limits, and budgets, until Ctrl-C.

    The mirror is asked at the endpoint in the setting "operations".

    Exit status: 0; 1 when no mirror answers, or its status is off.
    """
    url, console = _status_url(context.settings), Console(highlight=False, markup=False)

    def fetch() -> Status:
        status: Status = json.loads(_fetch_status(url, "application/json"))
        return status

    if as_json:
        print_json(fetch())
    elif once or not console.is_terminal:
        console.print(render_top(fetch()))
    else:
        watch(fetch, console, partial(time.sleep, interval))


def watch(fetch: Callable[[], Status], console: Console, wait: Callable[[], None]) -> None:
    """Show the status again and again, until the user interrupts; a mirror that stops answering may return.

    :raises click.ClickException: when the mirror does not answer the first time.
    """
    shown = render_top(fetch())
    with Live(shown, console=console, screen=True, auto_refresh=False) as live:
        try:
            while True:
                wait()
                try:
                    shown = render_top(fetch())
                    live.update(shown, refresh=True)
                except click.ClickException as error:
                    live.update(Group(Text(error.message, style="red"), shown), refresh=True)
        except KeyboardInterrupt:
            return


def render_top(status: Status) -> Group:
    """Return what is shown of a status."""
    history = status["history"]
    parts: list[RenderableType] = [_headline(status), *_sums(history), Text()]
    pulls = history["running"] if history else []
    parts += _section("Pulls", _pulls(pulls, status["fetches"], status["time"]))
    parts += _section("Downloads", _downloads(status["fetches"]))
    parts += _section("Upstreams", _upstreams(status["registries"], status["time"]))
    if budgets := status.get("budgets"):  # an older mirror has none
        parts += _section("Budgets", _budgets(budgets))
    return Group(*parts)


def _headline(status: Status) -> Text:
    processes = status["processes"]
    words = [f"dockmirror {status['version']}", f"{processes} process{'es' * (processes != 1)}"]
    if status["cache"]:
        words.append(
            f"cache {format_size(status['cache']['bytes'])} of {format_size(status['cache']['limit'])}"
        )
    is_well = status["status"] == "ready"
    state = status["status"] if is_well else f"{status['status']}: {status['store']}"
    return Text.assemble((state, "bold green" if is_well else "bold red"), " · ", " · ".join(words))


def _sums(history: Status | None) -> Iterator[RenderableType]:
    if history is None or history["error"]:
        yield Text(history["error"] if history else "no history: the setting 'history' is off", style="dim")
        return
    for name, sums in (("hour", history["hours"][-1:]), ("week", history["week"])):
        cached, fetched, pulls, failed, saved = (
            sum(each[key] for each in sums)
            for key in ("cached_bytes", "upstream_bytes", "pulls", "failed", "saved_pulls")
        )
        sent = cached + fetched
        share = f"{100 * cached / sent:.0f} % cached" if sent else "nothing sent"
        yield Text(
            f"{name}: {pulls:,} pulls, {failed:,} failed, {format_size(sent)}, {share},"
            f" {saved:,} limited pulls saved"
        )


def _section(title: str, table: Table) -> list[RenderableType]:
    if not table.row_count:
        return [Text(f"{title}: none", style="dim"), Text()]
    return [Text(title, style="bold"), table, Text()]


def _table(*columns: str) -> Table:
    """Return a table whose longest column is cut where the terminal is too narrow."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", expand=True)
    for name in columns:
        table.add_column(
            name,
            justify="right" if name in _NUMBERS else "left",
            overflow="ellipsis",
            no_wrap=True,
            ratio=1 if name in _CUT else None,
            width=None if name else _BAR,
        )
    return table


def _pulls(pulls: Sequence[Status], downloads: Sequence[Status], now: str) -> Table:
    table = _table("image", "client", "cached", "fetched", "time", "")
    for pull in pulls:
        repository = f"{pull['registry']}/{pull['repository']}"
        joined = [each for each in downloads if repository in each["repositories"]]
        reference = pull["reference"]
        image = f"{repository}@{reference[:15]}" if ":" in reference else f"{repository}:{reference}"
        sizes = format_size(pull["cached_bytes"]), format_size(pull["upstream_bytes"])
        requester = "@".join(filter(None, (pull["user"], pull["client"])))
        table.add_row(Text(image), Text(requester), *sizes, _age(now, pull["began"]), _bar(joined))
    return table


def _downloads(downloads: Iterable[Status]) -> Table:
    table = _table("repository", "", "fetched", "pace")
    for each in downloads:
        size = "" if each["size"] is None else f" of {format_size(each['size'])}"
        pace = f"{format_size(each['pace'])}/s" if each["pace"] else ""
        name = ", ".join(each["repositories"]) or each["registry"]
        table.add_row(Text(name), _bar([each]), format_size(each["held"]) + size, pace)
    return table


def _bar(downloads: Sequence[Status]) -> RenderableType:
    """Return the bar of downloads together; an empty one if nothing is fetched or a size is unknown."""
    sizes = [each["size"] for each in downloads]
    if not sizes or None in sizes:
        return Text("")
    return ProgressBar(
        total=max(1, sum(sizes)), completed=sum(each["held"] for each in downloads), width=_BAR
    )


def _upstreams(upstreams: Iterable[Status], now: str) -> Table:
    table = _table("registry", "state", "limit", "last failure")
    asked = [each for each in upstreams if each["state"] in _ORDER]
    for each in sorted(asked, key=lambda upstream: _ORDER.index(upstream["state"])):
        state = Text("paused" if each["state"] == "resting" else each["state"], style=_COLOURS[each["state"]])
        table.add_row(
            Text(each["registry"]), state, Text("\n".join(_quotas(each))), _failure(each["addresses"], now)
        )
    return table


def _quotas(upstream: Status) -> Iterator[str]:
    if own := _quota(upstream["quota"]):
        yield own
    for account in upstream.get("accounts", ()):  # an older mirror has none
        if left := _quota(account["quota"]):
            yield f"{account['name']}: {left}"


def _quota(quota: Status | None) -> str:
    if quota is None or quota["remaining"] is None:
        return ""
    return str(quota["remaining"]) if quota["limit"] is None else f"{quota['remaining']} of {quota['limit']}"


def _budgets(budgets: Iterable[Status]) -> Table:
    """Return the table of budgets, with the largest share that a client network has used."""
    table = _table("images", "networks", "used up", "refused", "most")
    for each in budgets:
        counts = (f"{each[key]:,}" for key in ("networks", "used_up", "refused"))
        table.add_row(Text(each["images"]), *counts, *(_share(most) for most in each["most"][:1]))
    return table


def _share(network: Status) -> Text:
    return Text(f"{100 * network['share']:.0f} % {network['client']}".rstrip())


def _failure(addresses: Iterable[Status], now: str) -> Text:
    failures = [(each["failed"], each["failure"]) for each in addresses if each["failed"]]
    if not failures:
        return Text()
    last, reason = max(failures)
    return Text(f"{_age(now, last)} ago: {reason}")


def _age(now: str, then: str) -> str:
    seconds = max(0.0, (datetime.fromisoformat(now) - datetime.fromisoformat(then)).total_seconds())
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.0f} h"
