"""Find the file of the settings, and load it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .load import load
from .settings import Settings

DEFAULT_FILE = Path("/etc/dockmirror.toml")


def find_settings_file(
    given: str | Path | None, environ: Mapping[str, str], default: Path = DEFAULT_FILE
) -> Path | None:
    """Return the given file, or that of ``DOCKMIRROR_CONFIG``, or the default one if it exists, or None.

    Only a default file that does not exist is passed over: one that cannot be read is an error for its
    reader, since the mirror would run with other settings than the operator's.
    """
    named = given or environ.get("DOCKMIRROR_CONFIG")
    if named:
        return Path(named)
    try:
        default.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        pass
    return default


def load_found(options: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """Return the settings, as ``load`` does, with the file that is found now.

    :param options: the options of the command line; ``config`` may name the file.
    """
    return load({**options, "config": find_settings_file(options.get("config"), environ)}, environ)
