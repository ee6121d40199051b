"""The directory in which the mirror's certificates lie, and are renewed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from time import gmtime, strftime

from OpenSSL.SSL import TLS_METHOD, Connection, Context
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from .certificate_files import CertificateChain, read_certificate_folder

_SUFFIXES = (".pem", ".crt", ".cer", ".key")
_PAUSE = 1.0
_DAY = 86_400.0
_SOON = 7 * _DAY

_log = Logger()
_State = dict[Path, tuple[int, ...]]


class NoUsableCertificate(ValueError):
    """A directory has nothing in it that could be shown to anybody, and why."""


@implementer(IOpenSSLServerConnectionCreator)
class CertificateDirectory:
    """Connections over TLS with the certificates of a directory, which is looked at again as they are made.

    Its files and those of the folders in it are read when one of them has changed, at most once a second; the
    connections that are open stay as they are.  **A certificate is shown for as long as its file is there**:
    while what is in the file is of no use, such as half of it, the one that was read from it before.  What is
    wrong is logged once, and that a certificate ends within seven days once a day.

    :param domain: the host whose certificate is shown to those who ask for no other.
    :param clock: tells the time since 1970.
    """

    def __init__(self, path: Path, domain: str, clock: IReactorTime) -> None:
        self.path = path
        self._domain = domain
        self._clock = clock
        self._looked = -_PAUSE
        self._reminded = -_DAY
        self._state: _State = {}
        self._told: tuple[str, ...] = ()
        self._choice: SniSelector | None = None

    def set_default_domain(self, domain: str) -> None:
        """Show the certificate for this host from now on to clients that ask for no other."""
        self._domain = domain
        if self._choice is not None:
            self._choice = SniSelector(self._choice.served, domain)

    @property
    def chains(self) -> tuple[CertificateChain, ...]:
        """The certificates that are shown."""
        return self._choice.served if self._choice else ()

    def serverConnectionForTLS(self, tlsProtocol: object) -> Connection:
        """See ``IOpenSSLServerConnectionCreator``; called for each connection.

        Where there is no certificate yet, the handshake fails with the alert that says that it could not be
        agreed upon: a stand-in would teach people to pass over warnings.
        """
        try:
            return Connection(self.reload_if_changed().context)
        except NoUsableCertificate:
            return Connection(Context(TLS_METHOD))

    def reload_if_changed(self) -> SniSelector:
        """What is to be shown now; calls that block, for small files.

        :raises NoUsableCertificate: when there is none, and never has been.
        """
        now = self._clock.seconds()
        if self._choice is None or not 0 <= now - self._looked < _PAUSE:
            self._looked = now
            state = _state(self.path)
            if self._choice is None or state != self._state:
                self._choice = self._read(state)
                self._state, self._reminded = state, -_DAY
            self._remind(now)
        return self._choice

    def _read(self, state: _State) -> SniSelector:
        by_folder = groupby(sorted(state, key=lambda path: (path.parent, path)), key=lambda path: path.parent)
        folders = [read_certificate_folder(paths) for _, paths in by_folder]
        served = [each for folder in folders for each in folder.chains]
        read = {each.path for each in served}
        served += [each for each in self.chains if each.path in state and each.path not in read]
        remarks = [remark for folder in folders for remark in folder.problems]
        if not served and not self.chains:
            raise NoUsableCertificate(
                "; ".join([f"{self.path}: there is no certificate with its key", *remarks])
            )
        if not served:
            remarks.append(f"{self.path}: there is no certificate left; those that were there are shown on")
        self._tell(served, remarks)
        return SniSelector(served or self.chains, self._domain)

    def _tell(self, served: Iterable[CertificateChain], remarks: list[str]) -> None:
        shown = [each.certificate for each in self.chains]
        for each in served:
            if each.certificate not in shown:
                _log.info("{path}: for {names}, until {ends}", **_described(each))
        for remark in remarks:
            if remark not in self._told:
                _log.warn("{remark}", remark=remark)
        self._told = tuple(remarks)

    def _remind(self, now: float) -> None:
        ending = [each for each in self.chains if each.expires_at < now + _SOON]
        if ending and now - self._reminded >= _DAY:
            self._reminded = now
            for each in ending:
                verb = "ends" if each.expires_at > now else "ended"
                _log.warn(
                    "{path}: the certificate for {names} {verb} at {ends}", verb=verb, **_described(each)
                )


def _described(served: CertificateChain) -> dict[str, str]:
    ends = strftime("%Y-%m-%dT%H:%MZ", gmtime(served.expires_at))
    return {"path": str(served.path), "names": ", ".join(served.names) or "no host name", "ends": ends}


def _state(directory: Path) -> _State:
    """By what it is seen that a file is another one; what cannot be looked into is there, too."""
    return {path: _seen(path) for path in _files(directory)}


def _files(directory: Path, depth: int = 1) -> Iterator[Path]:
    for path in _listed(directory):
        if path.suffix in _SUFFIXES or path == directory:
            yield path
        elif depth and path.is_dir():
            yield from _files(path, depth - 1)


def _listed(directory: Path) -> list[Path]:
    """What is in it and is not hidden; where that cannot be told, the directory itself."""
    try:
        return [path for path in directory.iterdir() if not path.name.startswith(".")]
    except OSError:
        return [directory]


def _seen(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:
        return ()
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class SniSelector:
    """Chooses by the name that a client asks for (SNI, RFC 6066, section 3).

    A certificate for that very name stands before one for the wildcard above it, and of several for the same
    name stands the one that ends last.  Who asks for no name, or for one that no certificate is for, is shown
    the one that is for ``domain``, or the first where there is none.

    :param served: at least one.
    :ivar context: with which a connection begins; it goes over to another's by itself.
    """

    def __init__(self, served: Sequence[CertificateChain], domain: str) -> None:
        self.served = tuple(served)
        self._by_name = {
            name: each for each in sorted(served, key=lambda it: it.expires_at) for name in each.names
        }
        self._contexts = {each: each.context() for each in served}
        self.context = (self._find(domain) or self.served[0]).context(self._for_server_name)

    def _find(self, host: str) -> CertificateChain | None:
        return self._by_name.get(host) or self._by_name.get("*." + host.partition(".")[2])

    def _for_server_name(self, name: bytes | None) -> Context | None:
        """None where the connection goes on as it began."""
        found = self._find((name or b"").decode("ascii", "replace").lower().removesuffix("."))
        return self._contexts[found] if found else None


class CertificateDirectories:
    """Each directory once, however many listeners show its certificates.

    :param default: the one where none is named.
    :param filled: whether somebody puts certificates into the default one, which may have none to begin with.
    """

    def __init__(self, default: Path | None, domain: str, clock: IReactorTime, filled: bool = False) -> None:
        self._default = default
        self._filled = default if filled else None
        self._domain = domain
        self._clock = clock
        self._opened: dict[Path, CertificateDirectory] = {}

    def open(self, path: Path | None) -> CertificateDirectory:
        """Called at start, once for each listener.

        :raises NoUsableCertificate: when there is nothing to be shown in it.
        """
        path = path or self._default
        if path is None:
            raise NoUsableCertificate(
                "https needs a directory of certificates, which the key 'certificates' names"
            )
        if path not in self._opened:
            directory = CertificateDirectory(path, self._domain, self._clock)
            try:
                directory.reload_if_changed()
            except NoUsableCertificate:
                if path != self._filled:
                    raise
            self._opened[path] = directory
        return self._opened[path]

    def set_default_domain(self, domain: str) -> None:
        """Show the certificate for this host from now on to clients that ask for no other."""
        self._domain = domain
        for each in self._opened.values():
            each.set_default_domain(domain)

    def expiry_times(self) -> dict[str, float]:
        """When the certificates that are shown end, in seconds since 1970, by their files."""
        return {str(each.path): each.expires_at for one in self._opened.values() for each in one.chains}
