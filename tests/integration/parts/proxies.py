"""Outbound proxies: real ones, that let nobody through but who knows the password."""

from __future__ import annotations

from collections.abc import Sequence

from .authority import Certificate
from .machine import Machine
from .process import Process, free_port, listens

USERNAME, PASSWORD = "proxyuser", "proxy-secret"
#: The password's hashes, as a password file of Apache's and the system's have them.
_APR1 = "$apr1$dockmirr$GbFD4HDeVGNb3UjKxHCwN."
_SHA512 = (
    "$6$dockmirror$0WWl.Kyddvw2IBK8DVJRglq0u4Tjs/muyLQuzsP.KHkjB.XjxbopPGfpEfZ3HgkoAve8uS40Ja/92OMChgSHO1"
)

_TINYPROXY = """
Listen {host}
Port {port}
Timeout 60
LogLevel Info
BasicAuth {username} {password}
"""
_SQUID = """
http_port {host}:{port}
https_port {host}:{tls_port} tls-cert={certificate} tls-key={key}
auth_param basic program /usr/lib/squid/basic_ncsa_auth /etc/squid.passwords
acl known proxy_auth REQUIRED
http_access allow known
http_access deny all
cache deny all
access_log none
cache_log /run/cache.log
pid_filename none
coredump_dir /
visible_hostname proxy.test
shutdown_lifetime 0 seconds
"""
_DANTE = """
logoutput: stderr
internal: {host} port = {port}
external: {host}
clientmethod: none
socksmethod: username
user.privileged: root
user.unprivileged: nobody
client pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 }}
socks pass {{
    from: 127.0.0.0/8 to: 0.0.0.0/0
    command: connect
    log: connect
}}
"""


class RunningProxy(Process):
    """A proxy on a machine of its own, whose hosts file alone knows the names that it is asked for."""

    def __init__(self, machine: Machine, command: Sequence[str], configuration: str) -> None:
        self.host, self.port = "127.0.0.1", free_port()
        file = machine.directory / "proxy.conf"
        file.write_text(
            configuration.format(host=self.host, port=self.port, username=USERNAME, password=PASSWORD)
        )
        super().__init__(
            machine.command(*command, str(file)),
            log=machine.directory / "proxy.log",
            ready=lambda: listens(self.host, self.port),
            environment=machine.environment,
        )

    def url(self, scheme: str, login: str = f"{USERNAME}:{PASSWORD}@") -> str:
        """The proxy's URL as an operator would write it."""
        return f"{scheme}://{login}{self.host}:{self.port}"

    def read_log(self) -> str:
        """The log so far."""
        return self.log.read_text(errors="replace")


def tinyproxy(machine: Machine) -> RunningProxy:
    """An HTTP proxy that connects to any port."""
    return RunningProxy(machine, ["tinyproxy", "-d", "-c"], _TINYPROXY)


def dante(machine: Machine) -> RunningProxy:
    """A SOCKS5 proxy, whose users are the system's."""
    with (machine.etc / "passwd").open("a") as passwd:
        passwd.write(f"{USERNAME}:x:60001:65534::/:/bin/false\n")
    (machine.etc / "shadow").write_text(f"{USERNAME}:{_SHA512}:19000:0:99999:7:::\n")
    return RunningProxy(machine, ["danted", "-f"], _DANTE)


class Squid(RunningProxy):
    """An HTTP proxy that is spoken to in clear on one port and over TLS on another."""

    def __init__(self, machine: Machine, certificate: Certificate) -> None:
        self.tls_port = free_port()
        (machine.etc / "squid.passwords").write_text(f"{USERNAME}:{_APR1}\n")
        configuration = _SQUID.replace("{tls_port}", str(self.tls_port))
        configuration = configuration.replace("{certificate}", str(certificate.certificate))
        configuration = configuration.replace("{key}", str(certificate.key))
        name = f"t{self.tls_port}"  # which its shared memory has
        super().__init__(machine, ["squid", "-N", "-n", name, "-f"], configuration)

    def url(self, scheme: str, login: str = f"{USERNAME}:{PASSWORD}@") -> str:
        """The proxy's URL as an operator would write it; ``https`` has its own port."""
        port = self.tls_port if scheme == "https" else self.port
        return f"{scheme}://{login}{self.host}:{port}"
