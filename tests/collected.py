"""Tests that a process collects before it becomes a worker of pytest-xdist."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import _pytest.config
import pytest
from _pytest.tmpdir import TempPathFactory


class Collected:
    """The tests that the worker in this process runs, instead of those that it would collect.

    :param arguments: those of the run.
    :raises SystemExit: if some cannot be collected.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        config = _pytest.config._prepareconfig([*arguments, "--numprocesses=0"])
        config._do_configure()
        self._session = pytest.Session.from_config(config)
        config.hook.pytest_sessionstart(session=self._session)
        try:
            config.hook.pytest_collection(session=self._session)
        except pytest.UsageError as error:
            sys.exit(str(error))
        if self._session.testsfailed:
            sys.exit("some tests cannot be collected: each worker tries it, and says why")
        config.pluginmanager.register(self)
        self._plugins = config.pluginmanager.get_plugins()
        self._capture: Any = config.pluginmanager.getplugin("capturemanager")
        self._capture.stop_global_capturing()
        _pytest.config._prepareconfig = lambda *_: config

    def pytest_cmdline_main(self, config: pytest.Config) -> bool:
        """Run the tests that the worker is told to; the worker calls it."""
        config._tmp_path_factory = TempPathFactory.from_config(config, _ispytest=True)  # type: ignore[attr-defined]
        self._capture.start_global_capturing()
        self._capture.suspend_global_capture()
        for each in ("pytest_sessionstart", "pytest_collection_finish"):  # the worker has not seen them
            config.pluginmanager.subset_hook_caller(each, self._plugins)(session=self._session)
        config.hook.pytest_runtestloop(session=self._session)
        config.hook.pytest_sessionfinish(session=self._session, exitstatus=int(self._session.testsfailed > 0))
        config._ensure_unconfigure()
        return True
