"""The directories of certificates that are in use."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.interfaces import IReactorTime

from .certificate_directory import CertificateDirectory, NoUsableCertificate


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

    def prefer(self, domain: str) -> None:
        """Show the certificate for this host from now on to clients that ask for no other."""
        self._domain = domain
        for each in self._opened.values():
            each.prefer(domain)

    def ends(self) -> dict[str, float]:
        """When the certificates that are shown end, in seconds since 1970, by their files."""
        return {str(each.path): each.ends for one in self._opened.values() for each in one.served}
