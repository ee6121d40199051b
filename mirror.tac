"""The mirror as an application: ``twistd -n --pidfile= -y mirror.tac``.  This file is yours to edit.

The settings come from ``dockmirror.toml`` beside it, if that file exists, and from the environment.
Settings in the first argument of ``load`` win over both.
"""

import os
from pathlib import Path

from twisted.application.service import Application

from dockmirror.config.load import load
from dockmirror.app.service import make_mirror
from dockmirror.config.settings import ConfigurationError

file = Path(__file__).with_name("dockmirror.toml") if "__file__" in globals() else Path("dockmirror.toml")
application = Application("dockmirror")


def read():
    """Read the settings, now and at each SIGHUP."""
    return load({"config": file if file.exists() else None}, os.environ)


try:
    make_mirror(read, os.environ).setServiceParent(application)
except ConfigurationError as error:
    raise SystemExit(f"mirror.tac: {error}") from None
