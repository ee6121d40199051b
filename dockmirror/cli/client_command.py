"""``dockmirror client``: print or write the configuration that a client needs to use the mirror."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
import tomllib
from itertools import chain, count
from pathlib import Path
from typing import Any

import click
from attrs import evolve
from click.shell_completion import CompletionItem

from ..app.endpoints import listening_ports
from ..app.naming import mirror_address
from ..client_config.clients import CLIENTS, DOCKER, PODMAN, PODMAN_PATTERNS, merge_daemon_json, podman_tables
from ..client_config.snippet import FILE_MARK, ClientConfig, MirrorAddress, Snippet
from ..config.load import load
from ..config.settings import Settings
from .arguments import json_option
from .command_context import Context, print_json

_ADDRESS = re.compile(r"(https?)://([A-Za-z0-9.-]+(?::\d+)?|\[[0-9A-Fa-f:.]+\](?::\d+)?)/?")


@click.command("client", short_help="Print or write the configuration of a client.")
@json_option
@click.option("--mirror", "address", metavar="URL", help="Address by which the client reaches the mirror.")
@click.option("--write", is_flag=True, help="Write the client's own files, and keep their other settings.")
@click.option(
    "--root", type=click.Path(path_type=Path), default=Path("/"), show_default=True,
    help="Write below this directory, such as that of an image or a chroot.",
)  # fmt: skip
@click.argument("client", type=click.Choice(list(CLIENTS)))
@click.argument(
    "part", default="", shell_complete=lambda context, _, word: _complete_part(context.params["client"], word)
)
@click.pass_obj
def client(context: Context, /, as_json: bool, client: str, part: str, **options: Any) -> None:
    """Print or write the configuration with which CLIENT pulls through this mirror.

    PART selects one part of the configuration, such as "runner" of gitlab, or the file for one registry.

    Without --mirror the address comes from the mirror's own settings, which do not know a proxy in front of
    it.

    Exit status: 0; 1 when a file cannot be written, or exists and was written by someone else, or when
    another file of podman's has a table for the same registry; 2 when the client has no file to write.
    """
    config, mirror = CLIENTS[client], parse_mirror_address(context.settings, options["address"])
    files = config.files(mirror)
    if not options["write"]:
        snippets = [_find_part(config, mirror, part)] if part else files or list(config.snippets(mirror))[:1]
        (_print_snippets_json if as_json else _print_snippets)(config, snippets)
        return
    if part:
        raise click.UsageError("--write writes the whole configuration: leave out PART")
    if not files:
        raise click.UsageError(f"{config.title} has no configuration file to write: copy the printed lines.")
    paths, changed = _write_files(config, files, mirror, options["root"])
    if as_json:
        print_json({"files": list(map(str, paths)), "changed": list(map(str, changed)), "then": config.after})
        return
    for path in paths:
        click.echo(f"{path}: {'written' if path in changed else 'unchanged'}")
    if changed and config.after:
        click.echo(f"Now: {config.after}")
    _name_other_files(config, mirror)


def _part_names(config: ClientConfig, mirror: MirrorAddress) -> list[str]:
    """Return the names of all parts, the parts for single registries last."""
    names = (each.name for each in (*config.snippets(mirror), *config.more(mirror)))
    return list(dict.fromkeys(filter(None, names)))


def _complete_part(client: str, prefix: str) -> list[CompletionItem]:
    """Complete the name of a part in a shell, which has read no settings: for the well-known registries."""
    names = _part_names(CLIENTS[client], mirror_address(load({}, {}), "http", "localhost"))
    return [CompletionItem(name) for name in names if name.startswith(prefix)]


def _find_part(config: ClientConfig, mirror: MirrorAddress, name: str) -> Snippet:
    snippet = config.snippet(mirror, name)
    if snippet is None:
        names = ", ".join(_part_names(config, mirror)) or "none"
        raise click.UsageError(f"{config.title} has no part {name}: expected one of {names}")
    return snippet


def _name_other_files(config: ClientConfig, mirror: MirrorAddress) -> None:
    """Name the files that the user has to edit, because they may hold other settings too."""
    for each in config.snippets(mirror):
        if each.path and not each.is_file:
            click.echo(f"{each.path} needs these lines too: dockmirror client {config.name} {each.name}")


def parse_mirror_address(settings: Settings, address: str | None) -> MirrorAddress:
    """Describe the mirror at an address that a client was given, by default the one in the settings.

    :raises click.BadParameter: when the address is invalid.
    """
    if address is None:
        return mirror_address(settings, *_own_address(settings))
    match = _ADDRESS.fullmatch(address)
    if not match:
        raise click.BadParameter("expected an address such as http://192.168.1.5:8080", param_hint="--mirror")
    return evolve(mirror_address(settings, match[1], match[2]), host=match[2])


def _own_address(settings: Settings) -> tuple[str, str]:
    """Return scheme and host of the first port that the mirror listens on, preferably with TLS.

    :raises click.UsageError: when the settings have no port: systemd or a proxy in front has it.
    """
    ports = list(listening_ports(settings))
    if not ports:
        raise click.UsageError("listen: names no TCP port; give the mirror's address with --mirror")
    port = next((each for each in ports if each.scheme == "https"), ports[0])
    return port.scheme, port.netloc(settings.domain)


def _print_snippets(config: ClientConfig, snippets: list[Snippet]) -> None:
    """Print the snippets on standard output, and what may not stand in the file on standard error."""
    click.echo("\n".join(each.with_comment(config.after) for each in snippets), nl=False)
    for each in snippets:
        if each.path and not each.comment:
            click.echo(f"{each.path}, then: {config.after}", err=True)


def _print_snippets_json(config: ClientConfig, snippets: list[Snippet]) -> None:
    print_json([{"path": each.path, "text": each.text, "then": config.after} for each in snippets])


def _write_files(
    config: ClientConfig, files: list[Snippet], mirror: MirrorAddress, root: Path
) -> tuple[list[Path], list[Path]]:
    """Write all files, or none when one of them must not be overwritten.

    :returns: the paths of all files, and of those that were changed.
    """
    texts = {root / each.path.lstrip("/"): each.text for each in files}
    try:
        for path in texts:
            require_below(root, path)
        if config is DOCKER:
            changed = [path for path in texts if _merge_into(path, mirror)]
        else:
            if config is PODMAN:
                _check_tables(texts, {each.name for each in mirror.registries}, root)
            changed = [path for path in _files_to_write(texts) if replace_text(path, FILE_MARK + texts[path])]
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from None
    return list(texts), changed


def _merge_into(path: Path, mirror: MirrorAddress) -> bool:
    try:
        existing = json.loads(path.read_text("utf-8")) if path.exists() else {}
        if not isinstance(existing, dict):
            raise ValueError("expected a JSON object")
        result = merge_daemon_json(existing, mirror)
    except ValueError as error:
        raise click.ClickException(f"{path}: not changed: {error}") from None
    if result == existing:
        return False
    _back_up(path)
    return replace_text(path, json.dumps(result, indent=2, ensure_ascii=False) + "\n")


def _check_tables(texts: dict[Path, str], registries: set[str], root: Path) -> None:
    """Read the other files of podman.

    :raises click.ClickException: when one has a table that would be replaced, or replace one of ours.
    """
    others = [path for pattern in PODMAN_PATTERNS for path in sorted(root.glob(pattern)) if path not in texts]
    for path in others:
        try:
            found = registries & podman_tables(tomllib.loads(path.read_text("utf-8")))
        except ValueError as error:
            raise click.ClickException(f"{path}: cannot be read: {error}; nothing was written") from None
        if found:
            raise click.ClickException(
                f"{path}: has tables for {', '.join(sorted(found))}, and podman takes each from one file;"
                f" nothing was written. Add the mirror yourself:\n{''.join(texts.values())}"
            )


def _files_to_write(texts: dict[Path, str]) -> list[Path]:
    """Return the files to write.

    :raises click.ClickException: when one exists with another text that this command did not write.
    """
    foreign = [path for path, text in texts.items() if path.exists() and not _is_own_file(path, text)]
    if foreign:
        raise click.ClickException(
            f"{', '.join(map(str, foreign))}: exists and was not written by this command; nothing was written"
        )
    return [path for path, text in texts.items() if not (path.exists() and path.read_text("utf-8") == text)]


def _is_own_file(path: Path, text: str) -> bool:
    existing = path.read_text("utf-8", errors="replace")
    return existing.startswith(FILE_MARK) or existing == text


def require_below(root: Path, path: Path) -> None:
    """Refuse a path that is not below a root.

    :raises OSError: when it is not.
    """
    if not is_below(root, path):
        raise OSError(errno.EXDEV, f"a link leads out of {root}", str(path))


def is_below(root: Path, path: Path) -> bool:
    """Return False when links lead this machine out of a root, whose own system has another file there."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def replace_text(path: Path, text: str) -> bool:
    """Replace a file's text, or that of a link's target, and keep its owner and permissions.

    :returns: True when the text changed.
    :raises OSError: when the file cannot be written; it is unchanged then.
    """
    path = path.resolve()
    if path.exists() and path.read_text("utf-8") == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        _copy_owner(path, Path(temporary))
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return True


def _back_up(path: Path) -> None:
    """Copy a file, if it exists, to ``.bak`` beside it; earlier copies stay.

    :raises OSError: when the copy cannot be written.
    """
    if path.exists():
        names = chain([f"{path.name}.bak"], (f"{path.name}.bak{number}" for number in count(2)))
        shutil.copy2(path, next(each for each in map(path.with_name, names) if not each.exists()))


def _copy_owner(existing: Path, temporary: Path) -> None:
    if existing.exists():
        state = existing.stat()
        os.chown(temporary, state.st_uid, state.st_gid)
        os.chmod(temporary, state.st_mode & 0o7777)
    else:
        os.chmod(temporary, 0o644)
