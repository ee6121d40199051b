"""Find the file of the settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

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
