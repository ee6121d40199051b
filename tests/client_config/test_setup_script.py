"""The setup scripts, run by dash below a directory and with programs that only say what they were told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from attrs import evolve, frozen

from dockmirror.client_config.clients import CLIENTS, SETUP_CLIENTS, merge_daemon_json, render_setup_script
from dockmirror.client_config.snippet import FILE_MARK, MirrorAddress, MirroredRegistry

from ..integration.parts.programs import require_installed

HUB = MirroredRegistry("docker.io", "docker.io", "https://registry-1.docker.io", "docker.m.example")
LAN = MirroredRegistry("lan.example:5000", "lan.example_5000", "http://lan.example:5000", "lan.m.example")
MIRROR = MirrorAddress("https", "m.example", (HUB, LAN))
DAEMON = "etc/docker/daemon.json"
SHELL = "/bin/sh"  # dash, on Debian
TOOLS = [
    *("cat", "cmp", "cp", "diff", "dirname", "find", "grep", "head", "mkdir", "mktemp", "mv", "readlink"),
    *("rm", "rmdir", "sed", "sleep", "touch"),
]

each_client = pytest.mark.parametrize("client", SETUP_CLIENTS)


@frozen
class Host:
    """A machine's files below a directory, and the programs that its script finds.

    :ivar command: runs scripts.
    """

    directory: Path
    command: Sequence[str] = (SHELL,)

    @classmethod
    def create(cls, directory: Path, *programs: str) -> Host:
        for each in (*TOOLS, *programs):
            program = os.path.realpath(sys.executable) if each == "python3" else shutil.which(each)
            assert program is not None
            host_bin = directory / "bin"
            host_bin.mkdir(exist_ok=True)
            (host_bin / each).symlink_to(program)
        (directory / "root").mkdir()
        return cls(directory)

    @property
    def root(self) -> Path:
        return self.directory / "root"

    def run(self, client: str, *arguments: str, code: int | None = 0, mirror: MirrorAddress = MIRROR) -> str:
        """Run a client's script below the directory, and return its output.

        :param code: the exit status; None allows every one.
        """
        script = render_setup_script(client, mirror)
        return self._run(script, ["--root", str(self.root), *arguments], code)

    def run_and_test(self, client: str, *arguments: str, code: int = 0) -> str:
        """Run a script that takes the directory's files for those of the machine, and tests the client."""
        script = render_setup_script(client, MIRROR)
        for file in CLIENTS[client].files(MIRROR):
            script = script.replace(file.path, f"{self.root}{file.path}")
        return self._run(script, arguments, code)

    def add_program(self, name: str, lines: str) -> None:
        """Let the script find a program that only says what its lines say."""
        program = self.directory / "bin" / name
        program.unlink(missing_ok=True)
        program.write_text(f"#!{SHELL}\n{lines}\n")
        program.chmod(0o755)

    def _run(self, text: str, arguments: Sequence[str], code: int | None) -> str:
        script = self.directory / "setup.sh"
        script.write_text(text)
        done = subprocess.run(  # noqa: S603
            [*self.command, str(script), *arguments],
            env={"PATH": str(self.directory / "bin")},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert code in (done.returncode, None), done.stderr
        return done.stdout + done.stderr

    def write_daemon_json(self, text: str) -> Path:
        """Write dockerd's file, and return its path."""
        file = self.root / DAEMON
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def files(self) -> dict[str, str]:
        """Return the text of each file below the directory."""
        found = (each for each in sorted(self.root.rglob("*")) if each.is_file())
        return {str(each.relative_to(self.root)): each.read_text() for each in found}


@pytest.fixture(params=["jq", "python3"])
def host(tmp_path: Path, request: pytest.FixtureRequest) -> Host:
    """A machine with one of the programs that change JSON."""
    require_installed(request.param)
    return Host.create(tmp_path, request.param)


@pytest.fixture
def bare(tmp_path: Path) -> Host:
    """A machine with neither of the programs that change JSON."""
    return Host.create(tmp_path)


@each_client
def test_a_script_shows_what_it_would_change_and_changes_nothing(bare: Host, client: str) -> None:
    shown = bare.run(client)
    for file in CLIENTS[client].files(MIRROR):
        assert f"{file.path}: new:" in shown
        assert all(f"+{line}" in shown for line in file.text.splitlines())
    assert "--apply" in shown
    assert bare.files() == {}


@each_client
def test_a_script_writes_the_files_of_the_command_and_removes_them(bare: Host, client: str) -> None:
    """A second run finds nothing to do."""
    config = CLIENTS[client]
    bare.run(client, "--apply")
    written = {each.path.lstrip("/"): config.file_text(each) for each in config.files(MIRROR)}
    assert {
        path: text for path, text in bare.files().items() if not path.endswith(".by-dockmirror")
    } == written
    assert "in place already" in bare.run(client, "--apply")
    assert "stays as it is" in bare.run(client)
    bare.run(client, "--undo")
    assert bare.files() == {}
    assert "nothing to take back" in bare.run(client, "--undo")


@pytest.mark.parametrize("client", ["podman", "containerd", "k3s"])
def test_a_file_of_somebody_else_stops_everything(bare: Host, client: str) -> None:
    path = CLIENTS[client].files(MIRROR)[-1].path.lstrip("/")
    (bare.root / path).parent.mkdir(parents=True)
    (bare.root / path).write_text("# mine\n")
    for mode in ([], ["--apply"]):
        assert f"/{path}: exists and was not written by dockmirror" in bare.run(client, *mode, code=1)
    assert "stays" in bare.run(client, "--undo")
    assert bare.files() == {path: "# mine\n"}


@pytest.mark.parametrize("name", ["registries.conf", "registries.conf.d/99-own.conf"])
@pytest.mark.parametrize("line", ['  location="docker.io"', "prefix = 'lan.example:5000/'"])
def test_podmans_table_of_the_same_registry_stops_everything(bare: Host, name: str, line: str) -> None:
    """podman takes the whole table from the file that it reads last."""
    file = bare.root / "etc/containers" / name
    file.parent.mkdir(parents=True)
    file.write_text(f"[[registry]]\n{line}\n")
    for mode in ([], ["--apply"]):
        assert f"{file}: has a table for one of these" in bare.run("podman", *mode, code=1)
    assert list(bare.files()) == [f"etc/containers/{name}"]
    file.write_text('[[registry]]\nlocation = "lanxexample:5000"\n')
    assert "written" in bare.run("podman", "--apply")


def test_files_of_an_earlier_mirror_are_replaced_and_removed(bare: Host) -> None:
    bare.run("containerd", "--apply", mirror=MirrorAddress("http", "10.0.0.1:8080", (HUB, LAN)))
    only_hub = MirrorAddress("https", "m.example", (HUB,))
    bare.run("containerd", "--apply", mirror=only_hub)
    hosts = [text for path, text in bare.files().items() if "docker.io" in path]
    assert ["https://m.example" in each and each.startswith(FILE_MARK) for each in hosts] == [True]
    bare.run("containerd", "--undo", mirror=only_hub)
    assert bare.files() == {}


EXISTING = '{"log-level": "warn",\n "registry-mirrors": ["https://other.example"], "é": 1}\n'


def test_docker_keeps_its_other_settings_and_gets_back_the_very_file(host: Host) -> None:
    file = host.write_daemon_json(EXISTING)
    os.chmod(file, 0o640)
    assert '+    "https://m.example"' in host.run("docker")
    host.run("docker", "--apply")
    assert json.loads(file.read_text()) == merge_daemon_json(json.loads(EXISTING), MIRROR)
    assert file.stat().st_mode & 0o777 == 0o640
    assert "in place already" in host.run("docker", "--apply")
    host.run("docker", "--undo")
    assert host.files() == {DAEMON: EXISTING}


def test_docker_loses_only_the_lines_of_the_mirror_where_the_file_was_changed_since(host: Host) -> None:
    host.run("docker", "--apply")
    file = host.root / DAEMON
    file.write_text(json.dumps({**json.loads(file.read_text()), "log-level": "warn"}))
    host.run("docker", "--undo")
    assert json.loads(file.read_text()) == {"log-level": "warn"}


LARGE = '{"default-ulimits": {"core": {"Name": "core", "Hard": 9223372036854775807, "Soft": 0}}}\n'


def test_docker_keeps_its_large_numbers(host: Host) -> None:
    """jq 1.6 would round them, and dockerd would not start: the file stays as it is then."""
    file = host.write_daemon_json(LARGE)
    shown = host.run("docker", "--apply", code=None)
    assert json.loads(file.read_text())["default-ulimits"] == json.loads(LARGE)["default-ulimits"]
    assert ("https://m.example" in file.read_text()) is not ("would change large numbers" in shown)


def test_python_is_preferred_to_jq(tmp_path: Path) -> None:
    host = Host.create(tmp_path, "python3")
    host.add_program("jq", "exit 1")
    file = host.write_daemon_json(LARGE)
    host.run("docker", "--apply")
    assert "9223372036854775807" in file.read_text()
    assert "https://m.example" in file.read_text()


@pytest.mark.parametrize("text", ["", "\n", " \t\n"])
def test_a_blank_file_is_an_empty_one(bare: Host, text: str) -> None:
    file = bare.write_daemon_json(text)
    assert '+    "https://m.example"' in bare.run("docker")
    bare.run("docker", "--apply")
    assert json.loads(file.read_text()) == merge_daemon_json({}, MIRROR)
    bare.run("docker", "--undo")
    assert bare.files() == {DAEMON: text}


@pytest.mark.parametrize("text", ["{}\n", "\n", EXISTING])
def test_a_linked_file_is_again_as_it_was(host: Host, text: str) -> None:
    file = host.write_daemon_json(text).rename(host.root / "managed.json")
    (host.root / DAEMON).symlink_to("../../managed.json")
    host.run("docker", "--apply")
    assert "https://m.example" in file.read_text()
    host.run("docker", "--undo")
    assert (host.root / DAEMON).is_symlink()
    assert host.files() == {DAEMON: text, "managed.json": text}


FORMER = MirrorAddress("http", "10.0.0.1:8080", (HUB, LAN))


@pytest.mark.parametrize("text", [None, "{}\n", EXISTING])
def test_the_lines_of_a_former_address_are_replaced_and_removed(host: Host, text: str | None) -> None:
    if text is not None:
        host.write_daemon_json(text)
    host.run("docker", "--apply", mirror=FORMER)
    host.run("docker", "--apply")
    existing = json.loads(text or "{}")
    assert json.loads((host.root / DAEMON).read_text()) == merge_daemon_json(existing, MIRROR)
    host.run("docker", "--undo")
    assert host.files() == ({} if text is None else {DAEMON: text})


def test_a_script_of_the_present_address_removes_the_lines_of_the_former_one(host: Host) -> None:
    host.write_daemon_json(EXISTING)
    host.run("docker", "--apply", mirror=FORMER)
    host.run("docker", "--undo")
    assert host.files() == {DAEMON: EXISTING}


def test_the_file_from_before_is_kept_where_it_could_not_be_put_back(host: Host) -> None:
    """Another run copies and puts back the file that it found."""
    file = host.write_daemon_json(EXISTING)
    host.run("docker", "--apply")
    changed = {**json.loads(file.read_text()), "log-level": "info"}
    file.write_text(json.dumps(changed))
    old = f"{DAEMON}.before-dockmirror.old"
    assert f"/{old}: the file as it was before" in host.run("docker", "--undo")
    assert json.loads(file.read_text()) == {**json.loads(EXISTING), "log-level": "info"}
    files = host.files()
    assert files.keys() == {DAEMON, old}
    assert files[old] == EXISTING
    host.run("docker", "--apply")
    host.run("docker", "--undo")
    assert host.files() == files


@pytest.mark.parametrize("text", ['{"registry-mirrors": "https://other.example"}', "{no json"])
def test_a_file_that_docker_could_not_read_is_left(host: Host, text: str) -> None:
    host.write_daemon_json(text)
    host.run("docker", "--apply", code=1)
    assert host.files() == {DAEMON: text}


def test_without_a_program_for_json_the_lines_are_shown(bare: Host) -> None:
    bare.write_daemon_json(EXISTING)
    shown = bare.run("docker", "--apply", code=1)
    assert '"https://m.example"' in shown
    assert "neither python3 nor jq is installed" in shown
    assert bare.files() == {DAEMON: EXISTING}


@pytest.fixture
def docker(bare: Host) -> Host:
    """A machine with a docker that has the mirror, and with a curl that reads the files of a directory.

    There is no such file of a mirror that does not answer.
    """
    (bare.directory / "mirror").mkdir()
    for path in ("healthz", "pulls?latest"):
        (bare.directory / "mirror" / path).write_text("41\n")
    bare.add_program("systemctl", "")
    bare.add_program("sleep", "")
    bare.add_program("curl", f'for url; do :; done; cat "{bare.directory}/mirror/${{url#{MIRROR.url}/}}"')
    set_pull(bare, "")
    return bare


def set_pull(docker: Host, pull: str) -> None:
    """Choose the lines that run in the mirror's directory when docker pulls an image."""
    answers = f"""info*) echo '["{MIRROR.url}/"]';; "image inspect"*) exit 1;; pull*) {pull or ":"};;"""
    docker.add_program("docker", f"cd {docker.directory}/mirror; case $* in {answers} esac")


def test_a_pull_that_the_mirror_shows_is_a_success(docker: Host) -> None:
    set_pull(docker, "echo 42 >'pulls?latest'")
    assert "was pulled through the mirror." in docker.run_and_test("docker", "--apply")


@pytest.mark.parametrize(
    ("pull", "words"),
    [("", "was pulled, but not through the mirror"), ("rm *", f"{MIRROR.url} does not answer any more")],
)
def test_a_pull_that_the_mirror_does_not_show_is_a_failure(docker: Host, pull: str, words: str) -> None:
    """docker goes to Docker Hub itself when the mirror is gone."""
    set_pull(docker, pull)
    said = docker.run_and_test("docker", "--apply", code=1)
    assert words in said
    assert "It works" not in said


def test_a_mirror_that_goes_before_the_pull_is_a_failure(docker: Host) -> None:
    docker.add_program("systemctl", f"rm {docker.directory}/mirror/*")
    said = docker.run_and_test("docker", "--apply", code=1)
    assert "does not answer any more" in said
    assert "It works" not in said


def test_a_mirror_that_shows_no_pulls_leaves_the_way_of_a_pull_open(docker: Host) -> None:
    """Its history is off, or it asks for a user name."""
    (docker.directory / "mirror/pulls?latest").unlink()
    said = docker.run_and_test("docker", "--apply")
    assert "was pulled; https://m.example/pulls does not show" in said
    assert "It works" not in said


@each_client
@pytest.mark.parametrize("is_directory", [False, True])
def test_a_link_out_of_the_root_is_refused(bare: Host, client: str, is_directory: bool) -> None:
    """An absolute link of an image means a file of the image, and not one of the machine."""
    written = CLIENTS[client].files(MIRROR)[-1]
    inside = bare.root / written.path.lstrip("/")
    outside = bare.directory / inside.name
    outside.write_text(CLIENTS[client].file_text(written).replace("m.example", "n.example"))
    link = inside.parent if is_directory else inside
    link.parent.mkdir(parents=True)
    link.symlink_to(bare.directory if is_directory else outside)
    before = outside.read_text()
    for mode in ([], ["--apply"], ["--undo"]):
        assert f"{inside}: a link leads out of {bare.root}" in bare.run(client, *mode, code=1)
    assert outside.read_text() == before
    assert bare.files() == ({} if is_directory else {str(inside.relative_to(bare.root)): before})


def test_links_within_the_root_are_followed(bare: Host) -> None:
    (bare.root / "usr/docker").mkdir(parents=True)
    (bare.root / "etc").mkdir()
    (bare.root / "etc/docker").symlink_to("../usr/docker")
    bare.run("docker", "--apply")
    assert (bare.root / "usr/docker/daemon.json").exists()
    bare.run("docker", "--undo")
    assert bare.files() == {}


def test_a_link_to_no_file_is_refused(bare: Host) -> None:
    """busybox would follow it to the directory that the script is run in."""
    link = bare.write_daemon_json("")
    link.unlink()
    link.symlink_to("managed.json")
    assert f"{link}: is a link to no file" in bare.run("docker", "--apply", code=1)
    assert bare.files() == {}


@each_client
@pytest.mark.parametrize("is_directory", [False, True])
def test_a_file_that_only_root_can_read_needs_root(bare: Host, client: str, is_directory: bool) -> None:
    bare.run(client, "--apply")
    before = bare.files()
    file = bare.root / CLIENTS[client].files(MIRROR)[0].path.lstrip("/")
    closed = file.parent if is_directory else file
    closed.chmod(0)
    if os.geteuid() == 0:
        setpriv = shutil.which("setpriv")
        assert setpriv is not None
        bare = evolve(bare, command=(setpriv, "--bounding-set=-all", SHELL))
    for mode in ([], ["--apply"], ["--undo"]):
        assert f"{closed}: cannot be read; run this as root" in bare.run(client, *mode, code=1)
    closed.chmod(0o755)
    assert bare.files() == before


def test_a_wrong_option_is_refused(bare: Host) -> None:
    assert "usage:" in bare.run("docker", "--nonsense", code=1)
    bare.root.rmdir()
    assert f"--root: there is no directory {bare.root}" in bare.run("docker", "--apply", code=1)


def test_names_from_the_settings_cannot_leave_their_place() -> None:
    """A script is run as root."""
    registry = MirroredRegistry("$(id)`id`", "x", "https://x'\"\n$(id)", "")
    script = render_setup_script("containerd", MirrorAddress("https", "m.example", (registry,)))
    assert f"'/etc/containerd/certs.d/{registry.name}/hosts.toml') cat <<'END_OF_FILE'" in script
    cut = MirroredRegistry("x", "x", "https://x\nEND_OF_FILE\nid", "")
    with pytest.raises(ValueError, match="not to be written"):
        render_setup_script("containerd", MirrorAddress("https", "m.example", (cut,)))
