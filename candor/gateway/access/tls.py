"""Certificates of gRPC and REST, read again when their files change."""

import logging
import ssl
from pathlib import Path

import grpc

from candor.files.reading import MIB, read_file
from candor.gateway.config.settings import Settings

_MAX_BYTES = 4 * MIB  # a bundle of every public authority has 0.3
_log = logging.getLogger("gateway.tls")


class Certificates:
    """One certificate, its key and, with mutual TLS, the authorities of clients.

    New handshakes use the new files; open connections keep their certificates.

    Raises:
        OSError: on construction, if a file is missing, is no PEM, is encrypted, or the key does
            not match.
    """

    def __init__(self, settings: Settings) -> None:
        self._cert, self._key = Path(settings.tls_cert), Path(settings.tls_key)
        self._client_ca = Path(settings.tls_client_ca) if settings.tls_client_ca else None
        self._paths = [one for one in (self._cert, self._key, self._client_ca) if one is not None]
        for name in ("tls_cert", "tls_key", "tls_client_ca"):
            _check_file(name, getattr(settings, name))  # OpenSSL's error would not name it
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._client_ca is not None:
            self.context.verify_mode = ssl.CERT_REQUIRED
        self._load_into(self.context)
        self._grpc_config = self._new_grpc_config()
        self._stamp = self._stamps()
        self._grpc_has_latest = True

    def refresh(self) -> None:
        """Reads the files again if they changed; unreadable ones leave everything as it was.

        REST adds new authorities to the old ones, which a restart removes.
        """
        stamp = self._stamps()
        if stamp == self._stamp:
            return
        try:
            # OpenSSL drops the old key as soon as it has read a certificate of another key, so
            # half of a new pair would leave the context in use without a key.
            self._load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
            self._load_into(self.context)
            self._grpc_config = self._new_grpc_config()
        except OSError as err:
            _log.error("certificates were not changed: %s", err)
        else:
            self._stamp = stamp
            self._grpc_has_latest = False
            _log.info("certificates were read again")

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """For `add_secure_port`."""
        return grpc.dynamic_ssl_server_credentials(
            self._grpc_config,
            self._fetch_for_grpc,  # type: ignore[arg-type]  # may give None, the stub forgets that
            require_client_authentication=self._client_ca is not None,
        )

    def _fetch_for_grpc(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC at every handshake; None if nothing has changed."""
        if self._grpc_has_latest:
            return None
        self._grpc_has_latest = True
        return self._grpc_config

    def _load_into(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self._cert, self._key, _refuse_password)
            if self._client_ca is not None:
                context.load_verify_locations(self._client_ca)
        except ssl.SSLError as err:
            files = ", ".join(str(path) for path in self._paths)
            reason = err.reason or "no PEM"
            raise OSError(f"certificates: {files}: cannot be used: {reason}") from err

    def _new_grpc_config(self) -> grpc.ServerCertificateConfiguration:
        authorities = None
        if self._client_ca is not None:
            authorities = read_file(self._client_ca, _MAX_BYTES)
        return grpc.ssl_server_certificate_configuration(
            [(read_file(self._key, _MAX_BYTES), read_file(self._cert, _MAX_BYTES))], authorities
        )

    def _stamps(self) -> tuple[tuple[int, int], ...]:
        try:
            return tuple((path.stat().st_ino, path.stat().st_mtime_ns) for path in self._paths)
        except OSError:  # between the old files and the new ones
            return self._stamp


def _check_file(setting: str, path: str) -> None:
    """Raises: OSError: it cannot be read; the message names the setting."""
    try:
        if path:
            read_file(Path(path), _MAX_BYTES)
    except OSError as err:
        reason = f"{path}: {err.strerror}" if err.strerror else str(err)
        raise OSError(f"CANDOR_{setting.upper()}: {reason}") from err


def _refuse_password() -> str:
    """OpenSSL would ask for it on the terminal, and wait."""
    raise OSError("tls_key: expected a key without a password, got an encrypted one")
