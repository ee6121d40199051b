"""``dockmirror recall``, ``recall list`` and ``recall lift``: withdraw digests from service at once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from attrs import frozen

from ..admission.recall_enforcement import BucketNotReached, NotRecallable, RecallOrder, remove_recalled
from ..admission.recalls import Recall, RecallScope, read_recalls
from ..app.cache_settings import bucket_address
from ..app.local_admission import find_replacements
from ..config.notation import format_size
from ..config.settings import Settings
from ..history.database import FILE_NAME
from ..history.pulls import HistoryError, Pull, PullFilter
from ..history.reader import SqliteHistory
from ..oci.digest import Digest
from ..oci.errors import DigestInvalid
from ..oci.request import Repository, Tag
from ..system.times import format_timestamp
from .arguments import ParsedType, json_option
from .command_context import Context, open_for_change, open_store, print_json, print_note, print_table
from .main import CommandGroup

_SHOWN, _MOST = 20, 10_000
"""The most lines of a list that are printed, and the most pulls that are read."""


def _parse_digest(text: str) -> Digest:
    """Parse a digest, also after ``NAME@``."""
    try:
        return Digest.parse(text.rpartition("@")[2])
    except DigestInvalid:
        raise ValueError(f"expected a digest such as sha256:6b6b383ea407…, not {text}") from None


def _check_reason(text: str) -> str:
    if not text.strip():
        raise ValueError("expected a reason: refused clients see it")
    return text


_DIGEST = ParsedType("digest", _parse_digest)
_REASON = ParsedType("text", _check_reason)


class _RecallGroup(CommandGroup):
    """Recalls a digest if no subcommand is given."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        is_help = not args or set(args) & {"-h", "--help"}
        if not is_help and self._find_word(ctx, args) not in self.commands:
            args = ["digest", *args]
        return super().parse_args(ctx, args)

    def _find_word(self, ctx: click.Context, args: Sequence[str]) -> str | None:
        """Return the first argument that is neither an option nor an option's value."""
        commands = [self, *filter(None, (self.get_command(ctx, name) for name in self.commands))]
        options = (each for command in commands for each in command.params if isinstance(each, click.Option))
        with_values = {name for each in options if not each.is_flag for name in each.opts}
        rest = iter(args)
        for each in rest:
            if each in with_values:
                next(rest, None)
            elif not each.startswith("-"):
                return each
        return None


_digest_argument = click.argument("digest", type=_DIGEST, metavar="DIGEST")


@click.group("recall", cls=_RecallGroup, short_help="Withdraw a malicious digest from service at once.")
def recall() -> None:
    """Withdraw a digest from service at once, list the recalls, or lift one.

    'dockmirror recall DIGEST --reason "CVE-…"' recalls a digest: no worker of this machine gives it out any
    more, nor, within a minute, any mirror of the same bucket.
    """


@recall.command("digest", short_help="Recall a digest; 'digest' may be left out.")
@json_option
@click.option("--reason", type=_REASON, required=True, help="The reason, which refused clients see.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation before a layer is recalled.")
@_digest_argument
@click.pass_obj
def recall_digest(context: Context, as_json: bool, reason: str, yes: bool, digest: Digest) -> None:
    """Refuse DIGEST, and everything that refers to it, to every client from now on.

    DIGEST is that of an index, of a manifest, or of a layer.  Tags that name it are served as what they named
    before.  Running transfers are cut off, and the bytes are deleted.  Before a layer is recalled, you see
    how many images share it.

    Exit status: 0; 1 when the digest is never recalled, when you answer no, or when the bucket cannot be
    written: then the running mirror brings the recall there.
    """
    settings, root = open_for_change(context)
    order = _make_order(settings, root)
    with _errors():
        scope = order.begin(digest, reason)
    _confirm(digest, scope, yes, as_json)
    made = order.complete(digest, reason, scope)
    is_in_bucket, problem = _publish(order, made)
    freed = remove_recalled(root, [digest])
    refused = {digest}.union(*scope.users.values())
    pulls = _find_pulls(settings, refused)
    tags = find_replacements(settings, root, scope.tags, refused, time.time())
    report = _Report(made, scope, tags, freed, is_in_bucket, problem, pulls)
    if as_json:
        print_json(report.fields())
    else:
        report.print()
    click.get_current_context().exit(1 if report.problem else 0)


def _make_order(settings: Settings, root: Path) -> RecallOrder:
    return RecallOrder(root, bucket_address(settings), time.time)


def _fields(statement: Recall) -> dict[str, Any]:
    """Return a recall as JSON has it."""
    return {
        **statement.fields(),
        "lifted": statement.is_lifted,
        "layers": list(map(str, statement.layers)),
    }


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except NotRecallable as error:
        raise click.ClickException(str(error)) from None


def _confirm(digest: Digest, scope: RecallScope, yes: bool, as_json: bool) -> None:
    """Ask before a layer is recalled that images share."""
    if scope.is_manifest or not scope.sharing:
        return
    click.echo(f"{digest} is a part of {scope.sharing} images, which will all be refused:", err=as_json)
    users = scope.users.items()
    names = [f"{repository}@{each}" for repository, found in users for each in sorted(found, key=str)]
    for name in names[:_SHOWN]:
        click.echo(f"  {name}", err=as_json)
    if len(names) > _SHOWN:
        click.echo(f"  and {len(names) - _SHOWN} others", err=as_json)
    if not yes:
        click.confirm("Recall it?", abort=True, err=as_json)


def _publish(order: RecallOrder, made: Recall) -> tuple[bool, str]:
    """Put a statement into the bucket; return whether it is there, and the problem if it is not."""
    try:
        return order.publish(made), ""
    except BucketNotReached as error:
        return False, str(error)


@frozen
class _Report:
    """The effects of a recall, for people and as JSON."""

    made: Recall
    scope: RecallScope
    fallbacks: Mapping[tuple[Repository, Tag], Digest | None]
    freed: int
    is_in_bucket: bool
    problem: str
    pulls: Sequence[Pull] | None

    @property
    def _tags(self) -> dict[str, str | None]:
        """The tags that were served as the digest, each with the digest that it falls back to."""
        return {
            f"{repository}:{tag}": str(digest) if digest else None
            for (repository, tag), digest in self.fallbacks.items()
        }

    @property
    def _kind(self) -> str:
        if self.scope.is_manifest:
            return "manifest"
        return "layer" if self.scope.sharing else "unknown"

    def fields(self) -> dict[str, Any]:
        return {
            **_fields(self.made),
            "kind": self._kind,
            "tags": self._tags,
            "referring": sorted({str(each) for users in self.scope.users.values() for each in users}),
            "freed": self.freed,
            "in_bucket": self.is_in_bucket,
            "pulls": None if self.pulls is None else [_pull_fields(each) for each in self.pulls],
        }

    def print(self) -> None:
        click.echo(f"{self.made.digest} is recalled: {self.made.reason}")
        if self._kind == "unknown":
            click.echo("this cache has no image with it; it is refused all the same")
        _print_list(
            "tags, and the earlier digests that are served in their place if they can be had:",
            (f"{tag} -> {digest or 'refused'}" for tag, digest in self._tags.items()),
        )
        if self.scope.sharing:
            _print_list("refused with it:", self.fields()["referring"])
        if self.made.layers:
            _print_list(
                "layers that no other image here needs; they are refused for ten minutes. Recall those with"
                " malicious files:",
                map(str, self.made.layers),
            )
        click.echo(f"freed {format_size(self.freed)}; running transfers end within two seconds")
        if self.is_in_bucket:
            click.echo("the recall is in the bucket; its other mirrors follow within a minute")
        self._print_pulls()
        if self.problem:
            click.echo(f"{self.problem}; the running mirror tries again until it can", err=True)

    def _print_pulls(self) -> None:
        if self.pulls is None:
            return
        click.echo("pulled by, newest first:" if self.pulls else "the history has no pull of it")
        if self.pulls:
            rows = [tuple(_pull_fields(each).values()) for each in self.pulls[:_SHOWN]]
            print_table(("when", "client", "user", "image", "platform", "outcome"), rows)
        if len(self.pulls) > _SHOWN:
            command = f"dockmirror history --digest {self.made.digest}"
            click.echo(f"and {len(self.pulls) - _SHOWN} others: {command}")


def _print_list(title: str, lines: Iterable[str]) -> None:
    rows = list(lines)
    if rows:
        click.echo(title)
    for line in rows[:_SHOWN]:
        click.echo(f"  {line}")
    if len(rows) > _SHOWN:
        click.echo(f"  and {len(rows) - _SHOWN} others")


@recall.command("list", short_help="List the recalls in force.")
@json_option
@click.pass_obj
def list_recalls(context: Context, as_json: bool) -> None:
    """List the recalls in force, with the pulls that each has refused, as the history knows them.

    Exit status: 0, or 1 when there is no cache.
    """
    settings = context.settings
    in_force = read_recalls(open_store(settings)).by_digest.values()
    recalls = sorted(in_force, key=lambda each: -each.since)
    refused = _find_refused_pulls(settings, recalls)
    if as_json:
        print_json(
            [
                {**_fields(each), "refused": [_pull_fields(pull) for pull in refused.get(each.digest, ())]}
                for each in recalls
            ]
        )
    elif recalls:
        rows = [(str(each.digest), each.reason, format_timestamp(each.since)) for each in recalls]
        pulls = [refused.get(each.digest, ()) for each in recalls]
        asked = [(str(len(found)), found[0].client if found else "") for found in pulls]
        columns = ("digest", "reason", "since", "refused pulls", "last by")
        print_table(columns, [(*row, *each) for row, each in zip(rows, asked, strict=True)])
    else:
        print_note("nothing is recalled")


@recall.command("lift", short_help="Lift a recall.")
@json_option
@_digest_argument
@click.pass_obj
def lift(context: Context, as_json: bool, digest: Digest) -> None:
    """Lift the recall of DIGEST, so that it is fetched again when a client requests it.

    Exit status: 0; 1 when it is not recalled, or when the bucket cannot be written.
    """
    settings, root = open_for_change(context)
    order = _make_order(settings, root)
    with _errors():
        lifted = order.lift(digest)
    is_in_bucket, problem = _publish(order, lifted)
    if as_json:
        print_json({**_fields(lifted), "in_bucket": is_in_bucket})
    else:
        click.echo(f"the recall of {digest} is lifted")
    if problem:
        raise click.ClickException(f"{problem}; the running mirror tries again until it can")


def _find_pulls(settings: Settings, digests: Iterable[Digest]) -> Sequence[Pull] | None:
    """Return the pulls that began with one of these manifests, newest first.

    :returns: None if there is no history, or it cannot be read, which is said.
    """
    found: list[Pull] = []
    for digest in digests:
        pulls = _read_pulls(settings, PullFilter(digest=str(digest)))
        if pulls is None:
            return None
        found += pulls
    return sorted(found, key=lambda each: -each.number)


def _find_refused_pulls(settings: Settings, recalls: Sequence[Recall]) -> Mapping[Digest, Sequence[Pull]]:
    """Return the pulls that each recall has refused, newest first; empty without a history."""
    found = dict[Digest, Sequence[Pull]]()
    for each in recalls:
        pulls = _read_pulls(settings, PullFilter(reason=str(each.digest)))
        if pulls is None:
            break
        found[each.digest] = [pull for pull in pulls if pull.began + pull.seconds >= each.since]
    return found


def _pull_fields(pull: Pull) -> dict[str, str]:
    """Return a pull as JSON has it, and as a row of a table."""
    return {
        "when": format_timestamp(pull.began),
        "client": pull.client,
        "user": pull.user,
        "image": pull.image,
        "platform": pull.platform,
        "outcome": pull.outcome,
    }


def _read_pulls(settings: Settings, filter: PullFilter) -> Sequence[Pull] | None:
    if settings.history is None:
        return None
    try:
        return SqliteHistory(settings.history / FILE_NAME, time.time).pulls(filter, _MOST)
    except HistoryError as error:
        print_note(str(error))
        return None
