"""TLS and mTLS of the server, and certificates that are replaced while it runs."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from pemba.errors import ConfigError
from pemba.rpc.tls import TlsFiles, server_credentials

NOW = datetime.datetime.now(datetime.UTC)


@dataclass
class Pair:
    """A certificate and its key, which may sign others."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def made(cls, name: str, by: Pair | None = None) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        local = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(by.certificate.subject if by else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - datetime.timedelta(hours=1))
            .not_valid_after(NOW + datetime.timedelta(hours=1))
            .add_extension(local, critical=False)
            .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
            .sign(by.key if by else key, hashes.SHA256())
        )
        return cls(certificate, key)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return self.key.private_bytes(*form)

    def put(self, folder: Path) -> TlsFiles:
        folder.mkdir(exist_ok=True)
        for name, pem in (("cert.pem", self.pem), ("key.pem", self.key_pem)):
            (folder / f"{name}.new").write_bytes(pem)
            (folder / f"{name}.new").rename(folder / name)
        return TlsFiles(folder / "cert.pem", folder / "key.pem")


@asynccontextmanager
async def serving(files: TlsFiles) -> AsyncIterator[str]:
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    port = server.add_secure_port("127.0.0.1:0", server_credentials(files))
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(0)


async def is_answered(endpoint: str, ca: Pair, mine: Pair | None = None) -> bool:
    """On a connection of its own, of somebody who trusts `ca`."""
    shown = (mine.key_pem, mine.pem) if mine else (None, None)
    options = [("grpc.use_local_subchannel_pool", 1)]
    credentials = grpc.ssl_channel_credentials(ca.pem, *shown)
    async with grpc.aio.secure_channel(endpoint, credentials, options) as channel:
        try:
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return False
    return True


@pytest.fixture
def ca() -> Pair:
    return Pair.made("acme")


async def test_who_trusts_the_signer_is_answered_and_nobody_else(tmp_path: Path, ca: Pair) -> None:
    async with serving(Pair.made("server", ca).put(tmp_path)) as endpoint:
        assert await is_answered(endpoint, ca)
        assert not await is_answered(endpoint, Pair.made("globex"))


async def test_with_a_client_ca_a_caller_has_to_show_a_certificate_of_it(tmp_path: Path, ca: Pair) -> None:
    files = Pair.made("server", ca).put(tmp_path)
    (tmp_path / "ca.pem").write_bytes(ca.pem)
    async with serving(TlsFiles(files.certificates, files.key, tmp_path / "ca.pem")) as endpoint:
        assert await is_answered(endpoint, ca, Pair.made("caller", ca))
        assert not await is_answered(endpoint, ca)
        assert not await is_answered(endpoint, ca, Pair.made("caller", Pair.made("globex")))


async def test_files_that_are_replaced_are_read_and_halves_of_them_are_not(tmp_path: Path, ca: Pair) -> None:
    old, new = Pair.made("globex"), ca
    async with serving(Pair.made("server", old).put(tmp_path)) as endpoint:
        assert await is_answered(endpoint, old)
        following = Pair.made("server", new)
        (tmp_path / "cert.pem").write_bytes(following.pem)
        assert await is_answered(endpoint, old), "the key is not there yet"
        (tmp_path / "key.pem").write_bytes(following.key_pem)
        assert await is_answered(endpoint, new)
        assert not await is_answered(endpoint, old)


def test_files_that_do_not_fit_are_refused_at_the_start(tmp_path: Path, ca: Pair) -> None:
    files = Pair.made("server", ca).put(tmp_path)
    (tmp_path / "key.pem").write_bytes(ca.key_pem)
    with pytest.raises(ConfigError, match="PEMBA_GRPC_TLS_CERT_FILE"):
        server_credentials(files)
    with pytest.raises(ConfigError, match="PEMBA_GRPC_TLS_CERT_FILE"):
        server_credentials(TlsFiles(tmp_path / "missing", tmp_path / "key.pem"))
