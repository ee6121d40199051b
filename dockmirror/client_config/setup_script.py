"""A shell script that configures a client on its own machine, says what it changes, and takes it back."""

from __future__ import annotations

import shlex
from functools import cache
from importlib.resources import files

from .clients import CLIENTS
from .snippet import FILE_MARK, ClientConfig, MirrorAddress, Snippet

SETUP_CLIENTS = ("docker", "podman", "containerd", "k3s")
"""The names of the clients that have a script."""
_END = "END_OF_FILE"


def render_setup_script(name: str, mirror: MirrorAddress) -> str:
    """Return the script of one of ``SETUP_CLIENTS``, for a POSIX shell.

    :raises ValueError: when a file of the client cannot stand in a script.
    """
    client = CLIENTS[name]
    written = client.files(mirror)
    values = {
        "TITLE": client.title,
        "CLIENT": shlex.quote(client.name),
        "MARK": shlex.quote(FILE_MARK.rstrip("\n")),
        "PATHS": "\n".join(each.path for each in written),
        "CONTENTS": "".join(_case(client, each) for each in written).rstrip("\n"),
    }
    script = _template()
    for key, value in values.items():
        script = script.replace(f"@{key}@", value)
    return script.replace("mirror=@URL@", f"mirror={shlex.quote(mirror.url)}").replace("@URL@", mirror.url)


@cache
def _template() -> str:
    return files(__package__).joinpath("setup.sh").read_text("utf-8")


def _case(client: ClientConfig, file: Snippet) -> str:
    """Return the case of the function that prints a file."""
    text = client.file_text(file)
    if _END in text.splitlines() or file.path.split() != [file.path]:
        raise ValueError(f"{file.path}: not to be written by a script")
    return f"    {shlex.quote(file.path)}) cat <<'{_END}'\n{text}{_END}\n      ;;\n"
