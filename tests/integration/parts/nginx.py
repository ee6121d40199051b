"""nginx in front of the mirror, with the very files that the documents give to operators."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .authority import Certificate
from .machine import Machine
from .mirror import DOMAIN
from .process import Process, free_port, listens

EXAMPLES = Path(__file__).parents[3] / "docs/examples"
USER, GROUP = "nobody", "nogroup"
"""Of nginx's workers."""
MAIN = """
daemon off;
user {user} {group};
error_log stderr info;
pid {directory}/nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/bodies;
    proxy_temp_path {directory}/buffered;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    include {directory}/mirror.conf;
}}
"""


class Nginx(Process):
    """Listens on a free port of the loopback interface; names, ports and the certificate are the tests'.

    *moved* are further texts of the example that are replaced.
    """

    def __init__(
        self,
        machine: Machine,
        mirror: int,
        certificate: Certificate,
        example: str = "nginx.conf",
        moved: Mapping[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self.configuration = machine.directory / "nginx.conf"
        self.configuration.write_text(MAIN.format(directory=machine.directory, user=USER, group=GROUP))
        text = placed((EXAMPLES / example).read_text("utf-8"), self.port, mirror, certificate)
        (machine.directory / "mirror.conf").write_text(replaced(text, moved or {}))
        super().__init__(
            machine.command("nginx", "-c", str(self.configuration)),
            log=machine.directory / "nginx.log",
            ready=lambda: listens("127.0.0.1", self.port),
            environment=machine.environment,
        )

    def host(self, name: str = "") -> str:
        """The virtual host of an upstream with nginx's port, or the mirror's own host."""
        return f"{name}.{DOMAIN}:{self.port}" if name else f"{DOMAIN}:{self.port}"


def placed(example: str, port: int, mirror: int, certificate: Certificate) -> str:
    """The example at another place; each of what is replaced must stand in it."""
    here = {
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "    listen [::]:443 ssl;\n": "",
        "server 127.0.0.1:8080;": f"server 127.0.0.1:{mirror};",
        "server_name mirror.example.com *.mirror.example.com;": f"server_name {DOMAIN} *.{DOMAIN};",
        "/etc/ssl/mirror.example.com/fullchain.pem": str(certificate.certificate),
        "/etc/ssl/mirror.example.com/privkey.pem": str(certificate.key),
    }
    return replaced(example, here)


def replaced(text: str, here: Mapping[str, str]) -> str:
    """The text with other words; each of what is replaced must stand in it."""
    for there, word in here.items():
        assert there in text, there
        text = text.replace(there, word)
    return text
