"""Tokens and certificates for servers under test. Nothing here is fit for production."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import shutil
import ssl
import subprocess
import time
from dataclasses import dataclass, fields
from pathlib import Path


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def make_token(secret: bytes, subject: str, expires_in: float | None = None) -> str:
    """A JSON web token (HS256) for a role, as Pulsar's token provider takes it.

    Args:
        secret: the shared key, at least 32 bytes.
        subject: the role.
        expires_in: seconds until it expires; negative for one that has expired; never by default.
    """
    claims: dict[str, object] = {"sub": subject}
    if expires_in is not None:
        claims["exp"] = int(time.time() + expires_in)
    signed = ".".join(
        _part(json.dumps(part, separators=(",", ":")).encode())
        for part in ({"alg": "HS256", "typ": "JWT"}, claims)
    )
    return f"{signed}.{_part(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"


@dataclass(frozen=True)
class TLSFiles:
    """A certificate authority with a server's and a client's certificate, as PEM files.

    `require_client` makes a server that gets these demand a client certificate.
    """

    ca: Path
    server_certificate: Path
    server_key: Path
    client_certificate: Path
    client_key: Path
    require_client: bool = False

    def copy_to(self, others: TLSFiles) -> None:
        """Put these in the place of others, one after the other."""
        shutil.copy(self.ca.with_suffix(".key"), others.ca.with_suffix(".key"))
        for each in fields(self):
            path = getattr(self, each.name)
            if isinstance(path, Path):
                shutil.copy(path, getattr(others, each.name))

    def server_context(self) -> ssl.SSLContext:
        """A context for a server in Python."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.ca))
        context.load_cert_chain(self.server_certificate, self.server_key)
        if self.require_client:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client_context(self, *, certificate: bool = True) -> ssl.SSLContext:
        """A context that trusts the authority, and shows the client's certificate unless told
        otherwise."""
        context = ssl.create_default_context(cafile=str(self.ca))
        if certificate:
            context.load_cert_chain(self.client_certificate, self.client_key)
        return context


def tls_missing_reason() -> str | None:
    """Why no certificates can be made on this machine; None when they can."""
    if shutil.which("openssl") is None:
        return "openssl not found on PATH; install with: apt-get install openssl"
    return None


def sign_server(
    folder: Path,
    authority: Path,
    names: str,
    *,
    subject: str = "/CN=server",
    until: str = "20991231000000Z",
    key: tuple[str, ...] = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
) -> tuple[Path, Path]:
    """Make a server's certificate that an authority signs.

    Args:
        folder: gets it.
        authority: the authority's certificate; its key is beside it.
        names: a line of an extension, as `subjectAltName=DNS:localhost,IP:127.0.0.1`.
        subject: of the certificate.
        until: the end of its time, as `20200201000000Z`; it begins in 2019.
        key: the arguments of `openssl req` for a new key. Those of EC keys are made fastest.

    Returns:
        Its file, and that of its key.

    Raises:
        subprocess.CalledProcessError: `openssl` failed; its words are in `stderr`.
    """

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    (folder / "index").write_text("")
    (folder / "serial").write_text("1000")
    (folder / "ca.cnf").write_text(
        "[ca]\ndefault_ca=own\n[own]\ndatabase=index\nserial=serial\nnew_certs_dir=.\n"
        "default_md=sha256\npolicy=any\nx509_extensions=ext\n[any]\ncommonName=supplied\n"
        f"[ext]\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n{names}\n"
    )
    openssl("req", *key, "-nodes", "-keyout", "s.key", "-out", "s.csr", "-subj", subject)
    openssl(
        *("ca", "-batch", "-config", "ca.cnf", "-in", "s.csr", "-out", "s.pem", "-notext"),
        *("-cert", str(authority), "-keyfile", str(authority.with_suffix(".key"))),
        *("-startdate", "190101000000Z", "-enddate", until),
    )
    return folder / "s.pem", folder / "s.key"


def make_tls(folder: Path, *, require_client: bool = False) -> TLSFiles:
    """Make an authority and certificates for 127.0.0.1 and localhost, with PKCS#8 keys.

    Raises:
        subprocess.CalledProcessError: `openssl` failed; its words are in `stderr`.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    # genpkey writes PKCS#8, the only form that the broker reads.
    new_key = ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048")
    openssl("genpkey", *new_key, "-out", "ca.key")
    openssl(
        *("req", "-x509", "-new", "-key", "ca.key", "-subj", "/CN=stargate test authority"),
        *("-days", "30", "-out", "ca.pem", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
    )
    for name, usage in (("server", "serverAuth"), ("client", "clientAuth")):
        openssl("genpkey", *new_key, "-out", f"{name}.key")
        openssl("req", "-new", "-key", f"{name}.key", "-subj", f"/CN={name}", "-out", f"{name}.csr")
        (folder / f"{name}.ext").write_text(
            "basicConstraints=CA:FALSE\n"
            f"extendedKeyUsage={usage}\n"
            "subjectAltName=DNS:localhost,IP:127.0.0.1\n"
            "authorityKeyIdentifier=keyid\n"
        )
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key"),
            *("-CAcreateserial", "-days", "30", "-extfile", f"{name}.ext", "-out", f"{name}.pem"),
        )
    return TLSFiles(
        ca=folder / "ca.pem",
        server_certificate=folder / "server.pem",
        server_key=folder / "server.key",
        client_certificate=folder / "client.pem",
        client_key=folder / "client.key",
        require_client=require_client,
    )
