"""``dockmirror gc``: what nobody needs, and what is too much, deleted now."""

from __future__ import annotations

import time

import click

from ..app.cache import make_budget
from ..store.eviction.sweep import Sweep, SweepResult
from .context import Context
from .output import as_json as json_option
from .output import show_json, show_table, size
from .store_access import store_of


@click.command("gc", short_help="What nobody needs, or is too much, deleted now.")
@json_option
@click.option("-n", "--dry-run", is_flag=True, help="Tell only what would go.")
@click.pass_obj
def gc(context: Context, as_json: bool, dry_run: bool) -> None:
    """Does at once what a mirror does by itself when its budget is spent, and a little more.

    Deleted are parts of blobs that nobody has asked for since a day, what no repository has, and, where there
    is more than cache_size and min_free allow, what was used least recently.  What was used in the last two
    minutes stays.

    Exit status: 0, or 1 where another process is at it.
    """
    settings = context.settings
    root = store_of(settings)
    sweep = Sweep(root, make_budget(root, settings))
    swept = sweep.dry_run(time.time()) if dry_run else sweep.collect(time.time())
    if swept is None:
        raise click.ClickException("a mirror is at it already")
    if as_json:
        show_json({"held": swept.size, "leftovers": swept.abandoned, **_fields(swept)})
        return
    rows = [(name, str(each["contents"]), size(each["bytes"])) for name, each in _fields(swept).items()]
    title = "would go" if dry_run else "gone"
    table = [("unfinished parts of blobs", str(swept.abandoned), ""), *rows]
    show_table((title, "number", "size"), table, right=("number", "size"))
    click.echo(f"{size(swept.size)} {'would be' if dry_run else 'are'} held")


def _fields(swept: SweepResult) -> dict[str, dict[str, int]]:
    found = {"of no repository": swept.unreferenced, "over the budget": swept.evicted}
    return {
        name: {"contents": len(each.contents), "bytes": each.bytes} for name, each in found.items() if each
    }
