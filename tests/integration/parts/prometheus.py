"""Debian's Prometheus, which scrapes one target."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from .machine import Machine
from .plain import PlainClient
from .process import Process, free_port

_CONFIGURATION = """
global: {{ scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms }}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: dockmirror
    static_configs: [{{ targets: ["127.0.0.1:{port}"] }}]
"""


class Prometheus(Process):
    """Scrapes that port and evaluates these rules twice a second."""

    def __init__(self, directory: Path, machine: Machine, port: int, rules: str = "") -> None:
        configuration, own = directory / "prometheus.yml", free_port()
        configuration.write_text(_CONFIGURATION.format(port=port, rules=directory / "rules.yml"))
        (directory / "rules.yml").write_text(rules)
        self._client = PlainClient(f"http://127.0.0.1:{own}")
        super().__init__(
            machine.command(
                "prometheus",
                f"--config.file={configuration}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{own}",
            ),
            log=directory / "prometheus.log",
            ready=self._answers,
            environment=machine.environment,
        )

    def asked(self, query: str) -> list[Any]:
        """The result of a query; empty if there is none.

        :raises AssertionError: where it is none.
        """
        result: list[Any] = self._data(f"/api/v1/query?{urlencode({'query': query})}")["result"]
        return result

    def firing(self) -> dict[str, dict[str, str]]:
        """The annotations of the alerts that fire, by their names."""
        return {
            each["labels"]["alertname"]: each["annotations"]
            for each in self._data("/api/v1/alerts")["alerts"]
            if each["state"] == "firing"
        }

    def _data(self, path: str) -> Any:
        answer = json.loads(self._client.bare("GET", path, None, {}).body)
        assert answer["status"] == "success", answer
        return answer["data"]

    def _answers(self) -> bool:
        try:
            return self._client.bare("GET", "/-/ready", None, {}).status == 200
        except OSError:
            return False
