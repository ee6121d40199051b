"""``dockmirror usage``, ``gc`` and ``verify``: measure, clean up and check the store."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping

import click

from ..app.cache_settings import make_budget, make_retention
from ..config.notation import format_size
from ..oci.digest import Digest
from ..store import layout, store_files
from ..store.eviction.eviction import Sweep, SweepResult, format_shortfall
from ..store.eviction.removal import find_corrupt, remove_corrupt
from ..store.eviction.store_budget import Budget
from ..store.held_images import HeldImages
from .arguments import json_option
from .command_context import (
    Context,
    open_for_change,
    open_store,
    print_json,
    print_note,
    print_table,
    progress_bars,
)


@click.command("usage", short_help="Show how much space each registry and repository uses.")
@json_option
@click.pass_obj
def usage(context: Context, as_json: bool) -> None:
    """Show how many bytes each registry and repository uses, and the limits.

    Contents of several repositories are stored once: "shared" is the part of the size that other repositories
    use too.  It counts once for a registry, and once in the totals.

    Exit status: 0, or 1 when there is no cache.
    """
    settings = context.settings
    root = open_store(settings)
    sizes = {digest: stored.size for digest, stored in store_files.iter_contents(root)}
    images = HeldImages(root)
    contents_by_name = {
        str(each): {*images.list_manifests(each), *images.list_blobs(each)} & sizes.keys()
        for each in images.list_repositories()
    }
    by_registry: dict[str, set[Digest]] = {}
    for name, contents in contents_by_name.items():
        by_registry.setdefault(name.partition("/")[0], set()).update(contents)
    registries, repositories = _usage_by_name(by_registry, sizes), _usage_by_name(contents_by_name, sizes)
    status, limit = os.statvfs(root), make_budget(root, settings)
    used = set[Digest]().union(*contents_by_name.values())
    totals = {
        "contents": sum(sizes.values()),
        "of no repository": sum(sizes[each] for each in sizes.keys() - used),
        "being downloaded": sum(
            stored.size for path, stored in store_files.iter_downloads(root) if path.suffix != layout.SIZE
        ),
        "metadata": sum(stored.size for _, stored in store_files.iter_documents(root)),
        "budget (cache_size)": limit.size,
        "free on the disk": status.f_bavail * status.f_frsize,
        "to be kept free (min_free)": limit.free_bytes,
    }
    if as_json:
        print_json({"registries": registries, "repositories": repositories, "totals": totals})
        return
    if not repositories:
        print_note(f"no image is in the cache {settings.cache} yet")
    for title, usages in (("registry", registries), ("repository", repositories)) if repositories else ():
        rows = sorted(usages.items(), key=lambda item: -item[1]["size"])
        cells = (
            (name, format_size(c["size"]), format_size(c["shared"]), str(c["contents"])) for name, c in rows
        )
        print_table((title, "size", "shared", "contents"), cells, right=("size", "shared", "contents"))
        click.echo()
    print_table(
        ("total", "size"), ((name, format_size(count)) for name, count in totals.items()), right=("size",)
    )


def _usage_by_name(
    contents_by_name: Mapping[str, set[Digest]], sizes: Mapping[Digest, int]
) -> dict[str, dict[str, int]]:
    references = Counter(digest for contents in contents_by_name.values() for digest in contents)
    return {
        name: {
            "size": sum(sizes[each] for each in contents),
            "shared": sum(sizes[each] for each in contents if references[each] > 1),
            "contents": len(contents),
        }
        for name, contents in contents_by_name.items()
    }


@click.command("gc", short_help="Delete unneeded contents, and contents over the budget, now.")
@json_option
@click.option("-n", "--dry-run", is_flag=True, help="Only show what would be deleted.")
@click.pass_obj
def gc(context: Context, as_json: bool, dry_run: bool) -> None:
    """Delete now what a running mirror deletes by itself, and contents that no repository refers to.

    A mirror deletes parts of blobs that no client requested for a day, images that the rules for retention no
    longer keep, and, while the cache exceeds cache_size or min_free, the least recently used contents.
    Contents used in the last two minutes stay.

    Exit status: 0; 1 when there is no cache, or when another process is deleting already.
    """
    settings, root = open_for_change(context)
    budget = make_budget(root, settings)
    sweep = Sweep(root, budget, make_retention(settings))
    swept = sweep.dry_run(time.time()) if dry_run else sweep.collect(time.time())
    if swept is None:
        raise click.ClickException("another process is deleting already; try again later")
    if as_json:
        expired = [each.fields() for each in swept.expired]
        staying = swept.staying if _describe_excess(swept, budget) else {}
        held = {"held": swept.size, "leftovers": swept.abandoned, "expired": expired}
        print_json({**held, **_counts(swept), "staying": staying})
        return
    if swept.expired:
        print_table(("image", "reason"), [(str(each.image), each.reason) for each in swept.expired])
        click.echo()
    rows = [
        (name, str(each["contents"]), format_size(each["bytes"])) for name, each in _counts(swept).items()
    ]
    title = "would be deleted" if dry_run else "deleted"
    table = [
        ("unfinished parts of blobs", str(swept.abandoned), ""),
        *([("images of retention rules", str(len(swept.expired)), "")] if swept.expired else []),
        *rows,
    ]
    print_table((title, "number", "size"), table, right=("number", "size"))
    click.echo(f"{format_size(swept.size)} {'would remain' if dry_run else 'remain'} in the cache")
    for line in _describe_excess(swept, budget):
        click.echo(line)


def _describe_excess(swept: SweepResult, budget: Budget) -> list[str]:
    """Return a line for each limit that is exceeded although everything evictable is gone."""
    excess, reasons = swept.size - budget.size, swept.describe_staying()
    lines = [f"{format_size(excess)} over the budget stay: {reasons}"] if excess > 0 else []
    if swept.shortfall is not None:
        missing = format_shortfall(swept.shortfall)
        lines.append(f"the disk has {missing} less free than 'min_free'; what stays in the cache: {reasons}")
    return lines


def _counts(swept: SweepResult) -> dict[str, dict[str, int]]:
    found = {"of no repository": swept.unreferenced, "over the budget": swept.evicted}
    return {
        name: {"contents": len(each.contents), "bytes": each.bytes} for name, each in found.items() if each
    }


@click.command("verify", short_help="Check every content in the cache against its digest.")
@json_option
@click.option(
    "--repair", is_flag=True, help="Delete corrupt contents, so that the next pull fetches them again."
)
@click.pass_obj
def verify(context: Context, as_json: bool, repair: bool) -> None:
    """Read everything in the cache, and report contents that do not match their digest, with their
    repositories.

    A mirror may run meanwhile: evicted contents are not reported.

    Exit status: 0 when everything is right or was repaired; 1 when corrupt contents remain.
    """
    root = open_for_change(context)[1] if repair else open_store(context.settings)
    sizes = {digest: stored.size for digest, stored in store_files.iter_contents(root)}
    total = sum(sizes.values())
    with progress_bars("verifying") as bar:
        task = bar.add_task("", total=total)
        corrupt = find_corrupt(root, list(sizes), lambda count: bar.advance(task, count))
    deleted = remove_corrupt(root, corrupt) if repair else 0
    if as_json:
        found = [{"digest": str(w.digest), "why": w.reason, "repositories": w.repositories} for w in corrupt]
        print_json({"contents": len(sizes), "bytes": total, "corrupt": found, "deleted": deleted})
    else:
        if corrupt:
            rows = ((str(each.digest), each.reason, "\n".join(each.repositories)) for each in corrupt)
            print_table(("corrupt", "why", "in"), rows)
        click.echo(f"{len(sizes)} contents, {format_size(total)}: {len(corrupt)} corrupt, {deleted} deleted")
    if corrupt and not repair:
        click.get_current_context().exit(1)
