"""TLS of the gRPC server: certificates from files, which may be replaced while it runs."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc
import structlog

from pemba.errors import ConfigError
from pemba.telemetry import Event

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files; with `client_ca` a caller has to show a certificate that it signed (mTLS)."""

    certificates: Path
    key: Path
    client_ca: Path | None = None


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """What the files hold now, and at each handshake what they hold then.

    Raises ConfigError where they hold no certificate with its key.  Files that do not fit later, as in the midst of
    being replaced, are left alone until they do.
    """
    _require_fit(files)
    seen = _stamps(files)

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal seen
        try:
            stamps = _stamps(files)
            if stamps == seen:
                return None
            _require_fit(files)
            seen = stamps
            log.info(Event.TLS_RENEWED, certificates=str(files.certificates))
            return _configuration(files)
        except (OSError, ConfigError) as error:
            log.warning(Event.TLS_NOT_RENEWED, error=str(error))
            return None

    return grpc.dynamic_ssl_server_credentials(
        _configuration(files),
        renewed,  # type: ignore[arg-type]  # None says that nothing changed, as gRPC documents; the stubs do not know
        require_client_authentication=files.client_ca is not None,
    )


def _configuration(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    pair = [(files.key.read_bytes(), files.certificates.read_bytes())]
    return grpc.ssl_server_certificate_configuration(pair, files.client_ca.read_bytes() if files.client_ca else None)


def _stamps(files: TlsFiles) -> list[tuple[int, int]]:
    """What changes where a file is replaced."""
    paths = [path for path in (files.certificates, files.key, files.client_ca) if path is not None]
    return [(path.stat().st_mtime_ns, path.stat().st_ino) for path in paths]


def _require_fit(files: TlsFiles) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(files.certificates, files.key)
        if files.client_ca is not None:
            context.load_verify_locations(files.client_ca)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(
            f"PEMBA_GRPC_TLS_CERT_FILE, PEMBA_GRPC_TLS_KEY_FILE and PEMBA_GRPC_TLS_CLIENT_CA_FILE: take PEM files, the"
            f" key that of the certificate: {error}"
        ) from error
