"""Commands in the documents' blocks, and the tests that run them or their like."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

MARK = re.compile(r"(?:Not run by a test: |没有测试运行\uff1a)(?=(?:needs |需要))")
"""Begins the paragraph below a block whose commands no test runs; it says what they need."""
_BLOCK = re.compile(r"^```console\n(.*?)^```\n(.*?)(?=^```console|\Z)", re.MULTILINE | re.DOTALL)

_CLIENTS = "integration/test_clients.py"
_PULLS = "integration/test_pull.py"
_LINES = "test_docs_of_clients.py::test_addresses"
_IMAGES = "cli/test_image_commands.py"
_HISTORY = "cli/test_history_commands.py"
_PINS = f"{_IMAGES}::test_an_image_is_pinned_until_it_is_unpinned"
_INSTALLED = "test_packaging.py::test_installed"
_CONFIG = "cli/test_config_command.py::test_each_value_has_its_source"
_ARCHIVES = "integration/test_archive.py"
_UNITS = "integration/test_systemd.py::test_versions_are_replaced_under_load"
RUN = {
    r"(helm (install|uninstall)|kubectl -n) .*": "integration/test_chart.py",
    r"helm pull \S+": "integration/test_helm.py::test_a_chart",
    r"python3 -m venv /opt/dockmirror|/opt/dockmirror/bin/pip install \.": _INSTALLED,
    r"make run": _INSTALLED,
    r"cp docs/examples/dockmirror.(service|socket) /etc/systemd/system/": _UNITS,
    r"systemctl (daemon-reload|(enable --now|start|restart|stop) dockmirror(-next|.socket)?)": _UNITS,
    r"journalctl -fu dockmirror": _UNITS,
    r"sed -i .s#/opt/dockmirror/#/opt/dockmirror-new/#g. \S+/dockmirror.service": _UNITS,
    r"\S*dockmirror serve( --offline)?": _INSTALLED,
    r"docker pull \S+": "integration/test_clients.py::test_dockerd",
    r"docker (image rm|login) \S+": "integration/test_nginx.py::test_dockerd",
    r"docker push \S+": "integration/test_push_clients.py::test_docker",
    r"docker load -i nginx.tar": f"{_ARCHIVES}::test_loads",
    r"docker info \| grep -A1 .Registry Mirrors.": f"{_CLIENTS}::test_dockerd_reloads",
    r"systemctl (reload|restart) docker": f"{_CLIENTS}::test_dockerd_reloads",
    r"(curl -fsSLo setup.sh \S+; )?sh setup.sh( --apply| --undo)?": f"{_CLIENTS}::test_setup_script",
    r"curl (-s )?\S+/client/(docker|containerd/\S+|podman)": f"{_CLIENTS}::test_dockerd",
    r"curl -s \S+/client/(gitlab|desktop|kaniko|buildkit|k3s)\S*( > \S+)?": _LINES,
    r"curl (-s )?(http://)?[0-9.]+:(8080|9464)/(healthz)?": "integration/test_page.py::test_without_script",
    r"curl https://mirror.example.com/healthz": f"{_PULLS}::test_curl",
    r"curl -s \S+/v2/\S+/manifests/\S+": f"{_PULLS}::test_curl",
    r"curl -sI \S+/v2/\S+/manifests/latest \| grep .*": "integration/test_cache_pulls.py",
    r"curl -s \S+/api/v1/images\?name=\S+": "web/api/test_api_resource.py",
    r"curl -su ci:SECRET -H .* \S+/api/v1/pins": "web/api/test_api_resource.py",
    r"curl -s \S+:9464/metrics \| grep .*": "integration/test_operations.py::test_a_pull_and_another",
    r"curl -C - -o nginx.tar \S+": f"{_ARCHIVES}::test_as_the_page_says",
    r"skopeo inspect \S+": f"{_PULLS}::test_skopeo_by_tag_and_digest",
    r"skopeo copy --all \S+ oci:\S+": f"{_PULLS}::test_skopeo_from_each_upstream",
    r"\S*dockmirror client (docker|podman) --mirror \S+( --write)?": f"{_CLIENTS}::test_dockerd",
    r"\S*dockmirror( -c \S+)? ls( --json uv)?": f"{_ARCHIVES}::test_listed",
    r"\S*dockmirror( -c \S+)? usage": f"{_IMAGES}::test_shared_contents_count_once_in_the_total",
    r"dockmirror history .*": f"{_HISTORY}::test_an_image_is_found_by_its_short_name",
    r"dockmirror report .*": f"{_HISTORY}::test_a_report_has_a_table_for_each_key",
    r"dockmirror rm --yes \S+": f"{_IMAGES}::test_a_tag_is_deleted_after_a_question",
    r"dockmirror lock .*": "cli/test_lock_commands.py",
    r"dockmirror recall .*": "cli/test_recall_commands.py",
    r"dockmirror top( --once)?": "cli/test_top_command.py::test_it_looks_until_the_user_interrupts",
    r"dockmirror verify": f"{_IMAGES}::test_verify_reports_corrupt_contents_and_repairs_them",
    r"dockmirror gc( --dry-run)?": f"{_IMAGES}::test_gc_deletes_contents_over_the_budget",
    r"\S*dockmirror export .* -o \S+": f"{_ARCHIVES}::test_the_same_bytes",
    r"dockmirror import --key \S+ \S+": "cli/test_export_command.py::test_signed_checksums_are_checked_first",
    r"\S*dockmirror import \S+": f"{_ARCHIVES}::test_imported",
    r"\S*dockmirror( -c \S+)? check [a-z0-9./ ]+": "integration/test_check.py::test_for_people",
    r"dockmirror( -c \S+)? node (configure|remove).*": "integration/test_nodes.py",
    r"\S*dockmirror warm .*": "integration/test_warm.py::test_an_image",
    r"dockmirror sync( --dry-run| --now)?": "integration/test_sync.py::test_images_follow_the_registry",
    r"dockmirror policy (test \S+|report)": "cli/test_policy_commands.py",
    r"dockmirror (pin|unpin|pins)\b.*": _PINS,
    r"\S*dockmirror( -c \S+)? config( --check)?": _CONFIG,
    r"(\S*/)?twistd -n --pidfile= dockmirror( --config \S+)?": _INSTALLED,
    r"\S*/twistd -n --pidfile= -y mirror.tac": "test_packaging.py::test_tac",
    r"(twistd -n --pidfile= dockmirror|dockmirror serve) --networks \S+": "config/test_load.py",
    r"(twistd -n --pidfile= dockmirror|dockmirror serve) --store \S+": "integration/test_shared_store.py",
    r"pipx install (--include-deps )?\S+": "integration/test_first_pull.py::test_pipx",
    r"(podman|docker) (build|run) .*": "integration/test_release.py::test_container",
    r"printf \S+ .*> images.txt": "integration/test_air_gap.py::test_to_the_letter",
}
"""A pattern of commands, and the test that runs such a command, or a whole file of them."""


@frozen
class Command:
    """A command of a document, and the reason why no test runs it, or an empty string."""

    line: str
    not_run: str


def read_commands(document: Path) -> Iterator[Command]:
    """Yield the commands of the document's blocks, without their prompts."""
    for block, after in _BLOCK.findall(document.read_text("utf-8")):
        mark = MARK.match(after.strip())
        reason = after.strip()[mark.end() :].partition("\n")[0] if mark else ""
        for line in block.splitlines():
            if line.startswith(("$ ", "# ")):
                yield Command(line[2:].partition("  #")[0].strip(), reason)


def find_test(command: str) -> str | None:
    """Return the test that runs such a command."""
    return next((test for pattern, test in RUN.items() if re.fullmatch(pattern, command)), None)
