"""Certificates of both doors, read again when their files change."""

import logging
import ssl
from pathlib import Path

import grpc

from candor.gateway.config.settings import Settings

_log = logging.getLogger("gateway.tls")


class Certificates:
    """One certificate, its key and, with mutual TLS, the authorities of clients.

    New handshakes use new files; connections that stand keep theirs.

    Raises:
        OSError: on making it, a file is missing, is no PEM, or key and certificate do not match.
    """

    def __init__(self, settings: Settings) -> None:
        self._cert, self._key = Path(settings.tls_cert), Path(settings.tls_key)
        self._client_ca = Path(settings.tls_client_ca) if settings.tls_client_ca else None
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._client_ca is not None:
            self.context.verify_mode = ssl.CERT_REQUIRED
        self._load_into(self.context)
        self._grpc_config = self._new_grpc_config()
        self._stamp = self._stamps()
        self._told_grpc = True

    def refresh(self) -> None:
        """Reads the files again if they changed; what cannot be read leaves all as it was.

        The REST door adds new authorities to the old ones, which go with a restart.
        """
        stamp = self._stamps()
        if stamp == self._stamp:
            return
        try:
            # OpenSSL drops the old key as soon as it has read a certificate of another key, so
            # that half of a new pair would leave the served context with none.
            self._load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
            self._load_into(self.context)
            self._grpc_config = self._new_grpc_config()
        except OSError as err:
            _log.error("certificates stay as they were: %s", err)
        else:
            self._stamp = stamp
            self._told_grpc = False
            _log.info("certificates read again")

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """For `add_secure_port`."""
        return grpc.dynamic_ssl_server_credentials(
            self._grpc_config,
            self._fetch_for_grpc,
            require_client_authentication=self._client_ca is not None,
        )

    def _fetch_for_grpc(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC at every handshake; None where nothing is new."""
        if self._told_grpc:
            return None
        self._told_grpc = True
        return self._grpc_config

    def _load_into(self, context: ssl.SSLContext) -> None:
        context.load_cert_chain(self._cert, self._key)
        if self._client_ca is not None:
            context.load_verify_locations(self._client_ca)

    def _new_grpc_config(self) -> grpc.ServerCertificateConfiguration:
        authorities = self._client_ca.read_bytes() if self._client_ca is not None else None
        return grpc.ssl_server_certificate_configuration(
            [(self._key.read_bytes(), self._cert.read_bytes())], authorities
        )

    def _stamps(self) -> tuple[tuple[int, int], ...]:
        paths = [path for path in (self._cert, self._key, self._client_ca) if path is not None]
        try:
            return tuple((path.stat().st_ino, path.stat().st_mtime_ns) for path in paths)
        except OSError:  # between the old files and the new ones
            return self._stamp
