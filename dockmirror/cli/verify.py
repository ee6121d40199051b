"""``dockmirror verify``: whether what is held is right."""

from __future__ import annotations

import click

from ..store.eviction import store_files
from ..store.integrity import find_corrupt, remove_corrupt
from .context import Context
from .output import as_json as json_option
from .output import progress, show_json, show_table, size
from .store_access import store_of


@click.command("verify", short_help="Whether all that is held is right.")
@json_option
@click.option(
    "--repair", "mend", is_flag=True, help="Drop what is wrong, so that the next pull fetches it anew."
)
@click.pass_obj
def verify(context: Context, as_json: bool, mend: bool) -> None:
    """Reads all that is held, and tells what is not the content of its digest, and who has it.

    A mirror may run meanwhile: what it evicts is nothing wrong.

    Exit status: 0 when all is right, or was dropped; 1 when something is wrong and there still.
    """
    root = store_of(context.settings)
    sizes = {digest: stored.size for digest, stored in store_files.iter_contents(root)}
    with progress("verifying") as bar:
        task = bar.add_task("", total=sum(sizes.values()))
        wrong = find_corrupt(root, list(sizes), lambda count: bar.advance(task, count))
    dropped = remove_corrupt(root, wrong) if mend else 0
    if as_json:
        found = [{"digest": str(w.digest), "why": w.reason, "repositories": w.repositories} for w in wrong]
        show_json({"contents": len(sizes), "bytes": sum(sizes.values()), "wrong": found, "dropped": dropped})
    else:
        if wrong:
            rows = ((str(each.digest), each.reason, "\n".join(each.repositories)) for each in wrong)
            show_table(("wrong", "why", "in"), rows)
        click.echo(
            f"{len(sizes)} contents of {size(sum(sizes.values()))}: {len(wrong)} wrong, {dropped} dropped"
        )
    if wrong and not mend:
        click.get_current_context().exit(1)
