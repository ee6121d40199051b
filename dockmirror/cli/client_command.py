"""``dockmirror client``: what a client has to be told, printed or written where it reads it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
from attrs import evolve
from click.shell_completion import CompletionItem

from ..app.naming import mirror_address
from ..client_config.clients import CLIENTS
from ..client_config.docker import DOCKER, merged
from ..client_config.mirror_address import MirrorAddress
from ..client_config.snippet import ClientConfig, Snippet
from ..config.load import load
from ..config.settings import Settings
from .config_files import back_up, replace_text
from .context import Context
from .ports import ports

_ADDRESS = re.compile(r"(https?)://([A-Za-z0-9.-]+(?::\d+)?|\[[0-9A-Fa-f:.]+\](?::\d+)?)/?")
_MARK = "# Written by 'dockmirror client'; it writes over this file as long as this line stands here.\n"


@click.command("client", short_help="What a client has to be told, printed or written.")
@click.option("--mirror", "address", metavar="URL", help="How the client reaches the mirror's own host.")
@click.option("--write", is_flag=True, help="Write it where the client reads it, keeping what is there.")
@click.option(
    "--root", type=click.Path(path_type=Path), default=Path("/"), show_default=True,
    help="Write below this directory instead, such as that of an image or a chroot.",
)  # fmt: skip
@click.argument("client", type=click.Choice(list(CLIENTS)))
@click.argument(
    "part", default="", shell_complete=lambda context, _, word: _parts(context.params["client"], word)
)
@click.pass_obj
def client(context: Context, address: str | None, write: bool, root: Path, client: str, part: str) -> None:
    """What CLIENT has to be told so that it pulls through this mirror.

    PART prints a part of it that is no file by itself, such as "runner" of gitlab, or the file of a registry.

    Without --mirror the address is made of the mirror's own settings, which know of no proxy in front of it.

    Exit status: 0; 1 where a file cannot be written, or is there already and somebody else's; 2 where there
    is none to be written.
    """
    chosen, mirror = CLIENTS[client], _mirror(context.settings, address)
    files = chosen.files(mirror)
    if part:
        if write:
            raise click.UsageError("what is written is all of it: PART is for printing")
        _print(chosen, [_part(chosen, mirror, part)])
    elif not write:
        _print(chosen, files or list(chosen.snippets(mirror))[:1])
    elif files:
        _write(chosen, files, mirror, root)
        _tell_more(chosen, mirror)
    else:
        raise click.UsageError(f"{chosen.title} reads no file that could be written: copy what is printed.")


def _names(chosen: ClientConfig, mirror: MirrorAddress) -> list[str]:
    """Of the parts, those of which there is one for each registry last."""
    named = (each.name for each in (*chosen.snippets(mirror), *chosen.more(mirror)))
    return list(dict.fromkeys(filter(None, named)))


def _parts(client: str, begun: str) -> list[CompletionItem]:
    """As a shell completes them, which has read no settings: those of the well-known registries."""
    names = _names(CLIENTS[client], mirror_address(load({}, {}), "http", "localhost"))
    return [CompletionItem(name) for name in names if name.startswith(begun)]


def _part(chosen: ClientConfig, mirror: MirrorAddress, name: str) -> Snippet:
    snippet = chosen.snippet(mirror, name)
    if snippet is None:
        names = ", ".join(_names(chosen, mirror)) or "none"
        raise click.UsageError(f"{chosen.title} has no part {name}: expected one of {names}")
    return snippet


def _tell_more(chosen: ClientConfig, mirror: MirrorAddress) -> None:
    """Of what cannot be written for the user: the tables of a file that has others, too."""
    for each in chosen.snippets(mirror):
        if each.path and not each.whole:
            click.echo(f"{each.path} has to say so as well: dockmirror client {chosen.name} {each.name}")


def _mirror(settings: Settings, address: str | None) -> MirrorAddress:
    if address is None:
        return mirror_address(settings, *_own(settings))
    found = _ADDRESS.fullmatch(address)
    if not found:
        raise click.BadParameter("expected an address such as http://192.168.1.5:8080", param_hint="--mirror")
    return evolve(mirror_address(settings, found[1], found[2]), host=found[2])


def _own(settings: Settings) -> tuple[str, str]:
    """Scheme and host of the first port that the mirror listens on, one with TLS if there is one."""
    found = [(each.scheme, each.number) for each in ports(settings)] or [("http", "8080")]
    scheme, port = next((each for each in found if each[0] == "https"), found[0])
    return scheme, settings.domain + ("" if (scheme, port) in _USUAL else f":{port}")


_USUAL = {("http", "80"), ("https", "443")}


def _print(chosen: ClientConfig, snippets: list[Snippet]) -> None:
    """On standard output nothing but what may stand in the file."""
    click.echo("\n".join(each.commented(chosen.after) for each in snippets), nl=False)
    for each in snippets:
        if each.path and not each.comment:
            click.echo(f"{each.path}, then: {chosen.after}", err=True)


def _write(chosen: ClientConfig, files: list[Snippet], mirror: MirrorAddress, root: Path) -> None:
    """All of them, or none where one may not be written over."""
    texts = {root / each.path.lstrip("/"): each.text for each in files}
    try:
        if chosen is DOCKER:
            changed = [path for path in texts if _merge(path, mirror)]
        else:
            changed = [path for path in _ours(texts) if replace_text(path, _MARK + texts[path])]
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from None
    for path in texts:
        click.echo(f"{path}: {'written' if path in changed else 'is so already'}")
    if changed and chosen.after:
        click.echo(f"Now: {chosen.after}")


def _merge(path: Path, mirror: MirrorAddress) -> bool:
    try:
        there = json.loads(path.read_text("utf-8")) if path.exists() else {}
        if not isinstance(there, dict):
            raise ValueError("expected an object")
        result = merged(there, mirror)
    except ValueError as error:
        raise click.ClickException(f"{path}: is left as it is: {error}") from None
    if result == there:
        return False
    back_up(path)
    return replace_text(path, json.dumps(result, indent=2, ensure_ascii=False) + "\n")


def _ours(texts: dict[Path, str]) -> list[Path]:
    """Those to be written: what is there already is ours, or says the same."""
    others = [path for path, text in texts.items() if path.exists() and not _is_ours(path, text)]
    if others:
        raise click.ClickException(
            f"{', '.join(map(str, others))}: there already, and not by this command: nothing was written"
        )
    return [path for path, text in texts.items() if not (path.exists() and path.read_text("utf-8") == text)]


def _is_ours(path: Path, text: str) -> bool:
    there = path.read_text("utf-8", errors="replace")
    return there.startswith(_MARK) or there == text
