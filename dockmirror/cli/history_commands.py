"""``dockmirror history`` and ``report``: what was pulled, by whom, and what the cache saved."""

from __future__ import annotations

import csv
import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import click
from attrs import asdict, evolve, frozen

from ..app.naming import complete_image_pattern
from ..config.notation import format_size, parse_duration
from ..config.settings import Settings
from ..history.database import FILE_NAME
from ..history.fleet import FleetMirror, FleetSumKey, FleetSums
from ..history.pulls import HistoryError, HistoryReader, Outcome, Pull, PullFilter, PullSums, SumKey, add_sums
from ..history.reader import SqliteHistory
from ..system.times import format_timestamp, parse_timestamp
from .arguments import ParsedType, json_option
from .command_context import Context, print_json, print_note, print_table

_DAY = 86_400.0
_POLL = 1.0
_LONGEST_PULL = 3600.0
"""Seconds for which ``--follow`` waits for the end of a pull."""
_MOST = 10_000
_COLUMNS = ("time", "client", "image", "size", "layers", "cached", "seconds", "outcome")
_SECTIONS: Sequence[SumKey] = ("registry", "repository", "client")


def _parse_moment(text: str) -> float:
    """Return a date, a time or a duration before now in seconds since 1970; see ``parse_timestamp``."""
    try:
        return time.time() - parse_duration(text)
    except ValueError:
        pass
    try:
        return parse_timestamp(text)
    except ValueError:
        raise ValueError("expected an age such as 2h or 7d, or a time such as 2026-11-30T14:00") from None


def _parse_days(text: str) -> int:
    """Parse a number of whole days, such as ``30d``."""
    try:
        days = parse_duration(f"{text}d" if text.isdecimal() else text) / _DAY
    except ValueError:
        days = 0
    if days < 1 or days % 1:
        raise ValueError("expected a number of days, such as 30d")
    return int(days)


_MOMENT = ParsedType("time", _parse_moment)


@click.command("history", short_help="Show what was pulled, by whom, and from where it came.")
@click.argument("image", default="")
@click.option("--digest", default="", help="Only pulls of the manifest with this digest.")
@click.option("--client", default="", help="Only pulls of this address, or of clients in this network.")
@click.option("--user", default="", help="Only pulls of this user.")
@click.option("--since", type=_MOMENT, default=None, help="Only later pulls: 2h, 7d, 2026-11-30T14:00.")
@click.option("--until", type=_MOMENT, default=None, help="Only earlier pulls.")
@click.option("--outcome", type=click.Choice(["running", "served", "failed"]), help="Only such pulls.")
@click.option("-n", "--limit", type=click.IntRange(1, 100_000), default=20, show_default=True,
              help="The number of pulls to show at most.")  # fmt: skip
@click.option("-f", "--follow", is_flag=True, help="Go on, and print each pull when it has ended.")
@json_option
@click.pass_obj
def history(context: Context, /, image: str, limit: int, follow: bool, as_json: bool, **given: Any) -> None:
    """Show the last pulls, or those of an image: a name, with or without a tag, or a pattern such as
    'ghcr.io/team/*'.

    Exit status: 0, or 1 when there is no history.
    """
    settings = context.settings
    conditions = {key: value for key, value in given.items() if value not in (None, "")}
    filter = PullFilter(image=_complete_pattern(image, settings), **conditions)
    reader = open_reader(settings)
    with _errors():
        pulls = reader.pulls(filter, limit)[::-1]
        if follow:
            followed = chain(pulls, _follow(reader, filter, pulls))
            for line in (
                (json.dumps(asdict(each)) for each in followed) if as_json else format_lines(followed)
            ):
                click.echo(line)
                sys.stdout.flush()
        elif as_json:
            print_json([asdict(each) for each in pulls])
        elif pulls:
            print_table(_COLUMNS, map(_cells, pulls), right=("size", "layers", "cached", "seconds"))
        else:
            print_note("no such pull")


def _complete_pattern(text: str, settings: Settings) -> str:
    """:raises click.UsageError: when it is no name of an image."""
    try:
        return complete_image_pattern(text, settings)
    except ValueError as error:
        hint = "; --digest finds digests" if "@" in text else ""
        raise click.UsageError(f"{error}{hint}") from None


def open_reader(settings: Settings) -> HistoryReader:
    """Return the reader of the history.

    Root keeps its rights: SQLite opens the file by its whole path, and the owner may lack access to a parent.
    The files that SQLite makes for a reader belong to the owner of the history even so.

    :raises click.ClickException: when there is no history.
    """
    if settings.history is None:
        raise click.ClickException("the mirror keeps no history: 'history' is false")
    directory = settings.history
    try:
        exists = (directory / FILE_NAME).exists()
    except PermissionError:
        raise click.ClickException(
            f"permission denied: only its owner may read the history in {directory}; run the command as that"
            " user"
        ) from None
    if not exists:
        raise click.ClickException(f"there is no history in {directory}: the mirror begins it when it starts")
    return SqliteHistory(directory / FILE_NAME, time.time, settings.history_addresses)


def _follow(reader: HistoryReader, filter: PullFilter, shown: Sequence[Pull]) -> Iterator[Pull]:
    """Yield each pull when it has ended, and again if its outcome changes."""
    began = time.time()
    outcomes = {each.number: each.outcome for each in shown}
    recent = evolve(filter, since=max(filter.since, began - _LONGEST_PULL))
    while True:
        time.sleep(_POLL)
        yield from newly_ended(reader.pulls(recent, _MOST)[::-1], outcomes, began)


def newly_ended(pulls: Sequence[Pull], outcomes: dict[int, Outcome], began: float) -> list[Pull]:
    """Return the pulls that have ended since, or whose outcome has changed.

    :param outcomes: the outcomes that were shown, by the numbers of the pulls; it is brought up to date.
    :param began: pulls that ended before then and were not shown are left out.
    """
    found = [
        each
        for each in pulls
        if each.outcome != "running"
        and outcomes.get(each.number) != each.outcome
        and (each.number in outcomes or each.began + each.seconds >= began)
    ]
    outcomes.update({each.number: each.outcome for each in found})
    return found


def format_lines(pulls: Iterable[Pull]) -> Iterator[str]:
    """Yield a line with the names of the columns, and one for each pull."""
    yield "  ".join(_COLUMNS)
    for each in pulls:
        yield "  ".join(cell or "-" for cell in _cells(each))


def _cells(pull: Pull) -> tuple[str, ...]:
    return (
        format_timestamp(pull.began),
        pull.requester,
        pull.image,
        format_size(pull.cached_bytes + pull.upstream_bytes),
        str(pull.layers),
        str(pull.cached_layers),
        f"{pull.seconds:.1f}",
        f"{pull.outcome}: {pull.reason}" if pull.reason else pull.outcome,
    )


@click.command("report", short_help="Sum up what was served, fetched and saved.")
@click.argument("image", default="")
@click.option("--client", default="", help="Only pulls of this address, or of clients in this network.")
@click.option("--user", default="", help="Only pulls of this user.")
@click.option("--last", "days", type=ParsedType("days", _parse_days), default="30d", show_default=True,
              help="The number of days, today included; days end at midnight UTC.")  # fmt: skip
@click.option("--by", "sections", type=click.Choice(["registry", "repository", "client", "day", "mirror"]),
              multiple=True, help="Sums by this only; repeatable.  [default: all but day]")  # fmt: skip
@click.option("--fleet", "of_fleet", is_flag=True, help="Sum up all mirrors that share the bucket.")
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values.")
@json_option
@click.pass_obj
def report(context: Context, /, days: int, as_csv: bool, as_json: bool, **given: Any) -> None:
    """Sum up the last days: what was served, what of it was fetched from upstreams, and what the cache saved
    in bytes, requests, limited pulls and time.  The saved time is an estimate, by the upstreams' speed.

    For an image, a client or a user, it counts the pulls that the history still has: by default those of the
    last 30 days.

    Exit status: 0; 1 when there is no history, or with --fleet when the bucket cannot be read.
    """
    sections: tuple[FleetSumKey, ...] = given["sections"]
    since = max((time.time() // _DAY - days + 1) * _DAY, 0.0)
    image = _complete_pattern(given["image"], context.settings)
    filter = PullFilter(image=image, client=given["client"], user=given["user"], since=since)
    with _errors():
        report = _read_report(context.settings, filter, sections, given["of_fleet"])
    if filter != PullFilter(since=since) and days > context.settings.history_days:
        print_note(f"pulls are kept for {context.settings.history_days} days: earlier ones are not counted")
    if as_json:
        rows = {by: [_fields(each) for each in sums] for by, sums in report.found.items()}
        fleet = {
            "mirrors": [{**asdict(each), "seen": format_timestamp(each.seen)} for each in report.mirrors]
        }
        print_json(
            {
                "since": format_timestamp(since),
                "total": _fields(report.total),
                **rows,
                **(fleet if given["of_fleet"] else {}),
            }
        )
    elif as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(("by", *_fields(report.total)))
        writer.writerows((by, *_fields(each).values()) for by, sums in report.found.items() for each in sums)
    else:
        _print_report(since, report)


@frozen
class _Report:
    """The sums of a mirror, or of the mirrors of a fleet."""

    total: PullSums
    found: Mapping[FleetSumKey, Sequence[PullSums]]
    mirrors: Sequence[FleetMirror] = ()


def _read_report(
    settings: Settings, filter: PullFilter, sections: Sequence[FleetSumKey], of_fleet: bool
) -> _Report:
    """:raises HistoryError: when the history, or the bucket, cannot be read."""
    if of_fleet:
        if filter != PullFilter(since=filter.since):
            raise click.UsageError("--fleet has sums only: it cannot tell images, clients or users apart")
        fleet = _read_fleet(settings, filter.since)
        keys: Sequence[FleetSumKey] = sections or ("mirror", *_SECTIONS)
        found = {by: fleet.sums(by, filter, _MOST) for by in keys}
        return _Report(add_sums("total", fleet.sums("day", filter, _MOST)), found, fleet.mirrors())
    if "mirror" in sections:
        raise click.UsageError("--by mirror needs --fleet")
    reader = open_reader(settings)
    own: dict[FleetSumKey, Sequence[PullSums]] = {
        by: reader.sums(by, filter, _MOST) for by in sections or _SECTIONS if by != "mirror"
    }
    return _Report(add_sums("total", reader.sums("day", filter, _MOST)), own)


def _read_fleet(settings: Settings, since: float) -> FleetSums:
    from ..app.cache_settings import bucket_address, check_bucket_settings
    from ..app.fleet_bucket import FleetReader

    address = bucket_address(settings)
    if address is None:
        raise click.UsageError("--fleet needs mirrors that share a bucket: there is no 'store'")
    check_bucket_settings(settings)
    return FleetReader(address).read(since)


def _fields(sums: PullSums) -> dict[str, Any]:
    served = sums.cached_bytes + sums.upstream_bytes
    return {
        "key": sums.key, "pulls": sums.pulls, "failed": sums.failed, "served_bytes": served,
        "fetched_bytes": sums.upstream_bytes, "saved_bytes": sums.cached_bytes,
        "saved_requests": sums.saved_requests, "saved_pulls": sums.saved_pulls,
        "seconds": round(sums.seconds, 1), "saved_seconds": round(sums.saved_seconds, 1),
    }  # fmt: skip


def _print_report(since: float, report: _Report) -> None:
    day, total = datetime.fromtimestamp(since, UTC).date(), report.total
    served = format_size(total.cached_bytes + total.upstream_bytes)
    click.echo(
        f"Since {day} (UTC): {total.pulls:,} pulls, {total.failed:,} failed; {served} served,"
        f" {format_size(total.upstream_bytes)} fetched, {format_size(total.cached_bytes)} saved;"
        f" {total.saved_pulls:,} limited pulls and about {_hours(total.saved_seconds)} of waiting saved"
    )
    if report.mirrors:
        now = time.time()
        click.echo()
        print_table(
            ("mirror", "version", "state", "last seen"),
            (
                (each.name, each.version, "up" if each.is_up(now) else "down?", format_timestamp(each.seen))
                for each in report.mirrors
            ),
        )
    columns = ("pulls", "failed", "served", "fetched", "saved", "limited pulls saved", "time saved")
    for by, sums in report.found.items():
        if sums:
            click.echo()
            print_table((by, *columns), map(_report_cells, sums), right=columns)


def _report_cells(sums: PullSums) -> tuple[str, ...]:
    sizes = (sums.cached_bytes + sums.upstream_bytes, sums.upstream_bytes, sums.cached_bytes)
    return (
        sums.key or "(unknown)", str(sums.pulls), str(sums.failed), *map(format_size, sizes),
        str(sums.saved_pulls), _hours(sums.saved_seconds),
    )  # fmt: skip


def _hours(seconds: float) -> str:
    for length, unit in ((3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except HistoryError as error:
        raise click.ClickException(str(error)) from None
