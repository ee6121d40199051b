"""The directory of the mirror's certificates, reloaded after changes, with selection by server name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from OpenSSL.SSL import TLS_METHOD, Connection, Context
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ..system.times import format_timestamp

if TYPE_CHECKING:
    from .certificate_files import CertificateChain

_SUFFIXES = (".pem", ".crt", ".cer", ".key")
_CHECK_PERIOD = 1.0
_DAY = 86_400.0
_EXPIRY_WARNING = 7 * _DAY

_log = Logger()
_State = dict[Path, tuple[int, ...]]


class NoUsableCertificate(ValueError):
    """A directory has no certificate that could be used; the message says why."""


@implementer(IOpenSSLServerConnectionCreator)
class CertificateDirectory:
    """Creates TLS connections with the certificates of a directory.

    Its files and those of its subdirectories are read again after a change, checked at most once a second;
    open connections keep their certificate.  **A certificate is used for as long as its file exists**: while
    the file is unusable, such as half written, the previous certificate stays in use.  Each problem is logged
    once, and a certificate that expires within seven days once a day.

    :param domain: the host whose certificate is the default.
    :param clock: returns the time since 1970.
    """

    def __init__(self, path: Path, domain: str, clock: IReactorTime) -> None:
        self.path = path
        self._domain = domain
        self._clock = clock
        self._checked = -_CHECK_PERIOD
        self._warned = -_DAY
        self._state: _State = {}
        self._logged: tuple[str, ...] = ()
        self._selector: SniSelector | None = None

    def set_default_domain(self, domain: str) -> None:
        """Use the certificate of this host for clients that send no known server name."""
        self._domain = domain
        if self._selector is not None:
            self._selector = SniSelector(self._selector.chains, domain)

    @property
    def chains(self) -> tuple[CertificateChain, ...]:
        """The certificates in use."""
        return self._selector.chains if self._selector else ()

    def serverConnectionForTLS(self, tlsProtocol: object) -> Connection:
        """Return a new TLS connection.

        Without a certificate the handshake fails with an alert: a self-signed stand-in would teach people to
        ignore warnings.
        """
        try:
            return Connection(self.reload_if_changed().context)
        except NoUsableCertificate:
            return Connection(Context(TLS_METHOD))

    def reload_if_changed(self) -> SniSelector:
        """Return the certificates to use now; blocks, but only for small files.

        :raises NoUsableCertificate: when there is none, and never has been.
        """
        now = self._clock.seconds()
        if self._selector is None or not 0 <= now - self._checked < _CHECK_PERIOD:
            self._checked = now
            state = _state(self.path)
            if self._selector is None or state != self._state:
                self._selector = self._read(state)
                self._state, self._warned = state, -_DAY
            self._warn_of_expiry(now)
        return self._selector

    def _read(self, state: _State) -> SniSelector:
        from .certificate_files import read_certificate_folder  # a mirror without https needs none of it

        by_folder = groupby(sorted(state, key=lambda path: (path.parent, path)), key=lambda path: path.parent)
        folders = [read_certificate_folder(paths) for _, paths in by_folder]
        chains = [each for folder in folders for each in folder.chains]
        read = {each.path for each in chains}
        chains += [each for each in self.chains if each.path in state and each.path not in read]
        problems = [problem for folder in folders for problem in folder.problems]
        if not chains and not self.chains:
            raise NoUsableCertificate(
                "; ".join([f"{self.path}: no certificate with its key found", *problems])
            )
        if not chains:
            problems.append(f"{self.path}: no certificate left; the previous ones stay in use")
        self._log_changes(chains, problems)
        return SniSelector(chains or self.chains, self._domain)

    def _log_changes(self, chains: Iterable[CertificateChain], problems: list[str]) -> None:
        in_use = [each.certificate for each in self.chains]
        for each in chains:
            if each.certificate not in in_use:
                _log.info("{path}: certificate for {names}, valid until {ends}", **_describe(each))
        for problem in problems:
            if problem not in self._logged:
                _log.warn("{problem}", problem=problem)
        self._logged = tuple(problems)

    def _warn_of_expiry(self, now: float) -> None:
        expiring = [each for each in self.chains if each.expires_at < now + _EXPIRY_WARNING]
        if expiring and now - self._warned >= _DAY:
            self._warned = now
            for each in expiring:
                verb = "expires" if each.expires_at > now else "expired"
                _log.warn(
                    "{path}: the certificate for {names} {verb} at {ends}", verb=verb, **_describe(each)
                )


def _describe(chain: CertificateChain) -> dict[str, str]:
    ends = format_timestamp(chain.expires_at)
    return {"path": str(chain.path), "names": ", ".join(chain.names) or "no host name", "ends": ends}


def _state(directory: Path) -> _State:
    """Return values that change when a file is replaced or edited, for each file."""
    return {path: _file_version(path) for path in _files(directory)}


def _files(directory: Path, depth: int = 1) -> Iterator[Path]:
    for path in _visible_entries(directory):
        if path.suffix in _SUFFIXES or path == directory:
            yield path
        elif depth and path.is_dir():
            yield from _files(path, depth - 1)


def _visible_entries(directory: Path) -> list[Path]:
    """Return the visible entries of the directory, or the directory itself if it cannot be read."""
    try:
        return [path for path in directory.iterdir() if not path.name.startswith(".")]
    except OSError:
        return [directory]


def _file_version(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:
        return ()
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class SniSelector:
    """Chooses a certificate by the server name that a client sends (SNI, RFC 6066, section 3).

    An exact match wins over a wildcard, and of several for the same name the one that expires last.  A client
    that sends no name, or an unknown one, gets the certificate of ``domain``, or else the first one.

    :param chains: at least one.
    :ivar context: for a new connection; it switches to another certificate's context by itself.
    """

    def __init__(self, chains: Sequence[CertificateChain], domain: str) -> None:
        self.chains = tuple(chains)
        self._by_name = {
            name: each for each in sorted(chains, key=lambda it: it.expires_at) for name in each.names
        }
        self._contexts = {each: each.context() for each in chains}
        self.context = (self._find(domain) or self.chains[0]).context(self._for_server_name)

    def _find(self, host: str) -> CertificateChain | None:
        return self._by_name.get(host) or self._by_name.get("*." + host.partition(".")[2])

    def _for_server_name(self, name: bytes | None) -> Context | None:
        """Return the context of the server name, or None to keep the current one."""
        chain = self._find((name or b"").decode("ascii", "replace").lower().removesuffix("."))
        return self._contexts[chain] if chain else None


class CertificateDirectories:
    """The certificate directories in use, each opened once for all of its listeners.

    :param default: the directory of listeners that name none.
    :param filled: True if the mirror writes certificates into the default directory, which may be empty at
        first.
    """

    def __init__(self, default: Path | None, domain: str, clock: IReactorTime, filled: bool = False) -> None:
        self._default = default
        self._filled = default if filled else None
        self._domain = domain
        self._clock = clock
        self._opened: dict[Path, CertificateDirectory] = {}

    def open(self, path: Path | None) -> CertificateDirectory:
        """Return the directory of a listener; called at start.

        :raises NoUsableCertificate: when it has no usable certificate.
        """
        path = path or self._default
        if path is None:
            raise NoUsableCertificate("https needs a directory of certificates: set 'certificates'")
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
        """Use the certificate of this host for clients that send no known server name."""
        self._domain = domain
        for each in self._opened.values():
            each.set_default_domain(domain)

    def expiry_times(self) -> dict[str, float]:
        """Return the expiry of each certificate in use, in seconds since 1970, by file."""
        return {str(each.path): each.expires_at for one in self._opened.values() for each in one.chains}
