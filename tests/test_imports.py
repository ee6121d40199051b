"""Neither a start nor a command imports what it does not use, since that would take time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

START = """
import sys
from dockmirror.app.service import Options, makeService
options = Options()
cache, workers = sys.argv[1:]
options.parseOptions(["--cache", cache, "--workers", workers, "--listen", "tcp:0:interface=127.0.0.1"])
makeService(options)
print(*sys.modules)
"""
COMMANDS = """
import sys
from dockmirror.cli.main import main
assert len(list(main.commands.values())) > 10
print(*sys.modules)
"""
SERVE = """
import gc
from dockmirror.cli.main import main
from dockmirror.config.settings import ConfigurationError
before = gc.get_stats()[1]["collections"]
try:
    main(["serve", "--listen", "none"])
except ConfigurationError:
    print(gc.get_stats()[1]["collections"] - before)
"""
LATE_IN_START = {
    "bucket": ("dockmirror.store.bucket", "dockmirror.store.tiered", "obstore"),
    "fleet": ("dockmirror.app.fleet_bucket", "dockmirror.history.fleet", "multiprocessing.pool"),
    "archives": ("dockmirror.archive", "tarfile"),
    "pages": ("dockmirror.web.pages", "dockmirror.client_config.clients"),
    "operations endpoint": ("dockmirror.web.operations_endpoint", "dockmirror.web.status"),
    "ACME": (
        "dockmirror.app.acme",
        "dockmirror.tls.acme_client",
        "dockmirror.tls.acme_renewal",
        "acme",
        "josepy",
        "requests",
    ),
    "certificates": ("dockmirror.tls.certificate_files",),
    "policies": ("dockmirror.app.admission", "dockmirror.admission.admission_registry"),
    "client services": ("twisted.application.internet", "automat"),
    "users": ("dockmirror.users", "dockmirror.web.auth", "jwt"),
    "command": ("dockmirror.cli", "click", "rich"),
}
LATE_IN_COMMANDS = {
    "reactor": ("twisted.internet.reactor", "twisted.internet.tcp", "twisted.internet.endpoints"),
    "TLS": ("OpenSSL", "cryptography", "service_identity", "dockmirror.tls"),
    "HTTP": ("twisted.web.server", "twisted.web.client", "treq", "dockmirror.http", "dockmirror.web"),
    "upstreams": ("dockmirror.upstream", "dockmirror.middleware"),
    "metrics": ("prometheus_client", "dockmirror.metrics"),
    "bucket": ("dockmirror.store.bucket", "dockmirror.store.tiered", "obstore"),
    "downloads": ("dockmirror.store.downloads",),
}


def imported(program: str, *arguments: str) -> list[str]:
    """Run a program in another process, and return the modules that it printed."""
    run = subprocess.run(  # noqa: S603
        [sys.executable, "-c", program, *arguments],
        cwd=Path(__file__).parents[1],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return run.stdout.split()


def unwanted(modules: list[str], late: dict[str, tuple[str, ...]]) -> set[str]:
    """Return those of the modules that are to be imported late."""
    names = [name for group in late.values() for name in group]
    return {each for each in modules if any(f"{each}.".startswith(f"{name}.") for name in names)}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_start_imports_only_what_a_plain_mirror_needs(tmp_path: Path, workers: str) -> None:
    """The rest is imported when a setting or a request asks for it."""
    assert unwanted(imported(START, str(tmp_path), workers), LATE_IN_START) == set()


def test_serve_is_imported_without_searching_objects_for_garbage_again() -> None:
    """Python by itself would do that ten times."""
    (searches,) = imported(SERVE)
    assert int(searches) < 5


def test_no_command_imports_what_serves_or_what_asks_a_network() -> None:
    """A command that asks the network imports that when it runs."""
    assert unwanted(imported(COMMANDS), LATE_IN_COMMANDS) == set()
