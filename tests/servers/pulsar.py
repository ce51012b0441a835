"""A real Pulsar broker (standalone, WebSocket service inside) for tests, from Maven's jars."""

from __future__ import annotations

import base64
import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.servers.admin import PulsarAdmin
from tests.servers.credentials import TLSFiles, make_token
from tests.servers.ports import free_ports
from tests.servers.process import ServerError, ServerProcess, cache_folder
from tests.servers.server import Server

#: The broker that CI runs, and one that the environment names.
TESTED = "4.0.7"
VERSION = os.environ.get("STARGATE_TEST_PULSAR_VERSION", TESTED)
ADMIN_ROLE = "admin"

_POM = Path(__file__).parent / "pulsar" / "pom.xml"
_DOWNLOAD_TIMEOUT = 900.0

#: What `bin/pulsar` opens to the broker, as far as a broker needs it.
_OPENED = (
    "java.base/java.lang",
    "java.base/java.nio",
    "java.base/java.util",
    "java.base/jdk.internal.misc",
    "java.base/jdk.internal.loader",
    "java.base/jdk.internal.platform",
    "java.base/sun.net",
    "java.management/sun.management",
)

#: The quick compiler alone, and the collector with the fewest threads: half the processor time.
_QUICK_START = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")

_LOGGING = """\
<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="WARN">
  <Appenders>
    <Console name="out"><PatternLayout pattern="%d{ISO8601} [%t] %-5level %c{1} - %m%n"/></Console>
  </Appenders>
  <Loggers>
    <Root level="info"><AppenderRef ref="out"/></Root>
    <Logger name="org.apache.bookkeeper" level="warn"/>
    <Logger name="org.apache.pulsar.broker.web.JettyRequestLogFactory" level="warn"/>
    <Logger name="RequestLog" level="warn"/>
  </Loggers>
</Configuration>
"""


def missing_reason() -> str | None:
    """Why this machine cannot run a broker, with what to do about it; None when it can."""
    java = shutil.which("java")
    if java is None:
        return "java not found on PATH; install with: apt-get install openjdk-17-jre-headless"
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', said)
    if found is None or int(found.group(1)) < 17:
        return f"Pulsar {VERSION} needs Java 17 or newer"
    if not _jars_folder().is_dir() and shutil.which("mvn") is None:
        return "mvn not found on PATH (to get Pulsar's jars once); install: apt-get install maven"
    return None


def _jars_folder() -> Path:
    return cache_folder() / f"pulsar-{VERSION}"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def jars() -> Path:
    """The folder with the broker's jars; Maven gets them the first time (about a minute).

    Raises:
        ServerError: Maven failed; its words are in the text.
    """
    folder = _jars_folder()
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_suffix(".lock")):
        if folder.is_dir():  # another run was faster
            return folder
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            made = Path(scratch) / "jars"
            command = ["mvn", "-q", "-B", "-f", str(_POM), "dependency:copy-dependencies"]
            command += [f"-Dpulsar.version={VERSION}"]
            if VERSION.startswith("3."):
                command.append("-Ppinned")
            command += ["-DincludeScope=runtime", f"-DoutputDirectory={made}"]
            try:
                subprocess.run(
                    command, check=True, capture_output=True, text=True, timeout=_DOWNLOAD_TIMEOUT
                )
            except subprocess.CalledProcessError as error:
                words = (error.stdout + error.stderr)[-2000:]
                raise ServerError(f"Maven could not get Pulsar's jars:\n{words}") from None
            except subprocess.TimeoutExpired:
                raise ServerError(f"Maven took over {_DOWNLOAD_TIMEOUT:g} s") from None
            # A folder appears whole or not at all.
            made.rename(folder)
    return folder


def _forget_bookie(metadata: Path) -> None:
    """Take away the registration that a killed bookie left in its metadata.

    The next one would find its own name taken. What then deletes and registers it anew sometimes
    never ends, thousands of times a second, and no ledger can be made in between
    (`ResourceLockImpl.silentRevalidateOnce` in pulsar-metadata 4.0).
    """
    if not (metadata / "CURRENT").exists():
        return
    import rocksdict

    store = rocksdict.Rdict(str(metadata), rocksdict.Options(raw_mode=True))
    try:
        for name in list(store.keys()):
            if isinstance(name, bytes) and name.startswith(b"/ledgers/available/"):
                del store[name]
    finally:
        store.close()
    # Its own settings, which nothing of Pulsar's reads.
    (metadata / "rocksdict-config.json").unlink(missing_ok=True)


class PulsarServer(Server):
    """A broker of its own: data, ports, log. Namespace `public/default` exists when it is ready.

    Args:
        data_dir: all it writes goes below, made when missing. Keep the object to start it again
            on the same data: the data knows its ports.
        deduplication: `brokerDeduplicationEnabled`.
        token_secret: demand tokens (HS256) made with this secret; see `token`. The role `admin`
            is the super user.
        tls: serve `wss` and `https` with these files (plain HTTP stays on for the admin calls).
        extra: more settings of the broker's configuration file; they win.
        optimized: let the JVM compile as it does in production. Its start takes twice the processor
            time, which pays only where it is measured.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        deduplication: bool = True,
        token_secret: bytes | None = None,
        tls: TLSFiles | None = None,
        extra: Mapping[str, str] | None = None,
        optimized: bool = False,
    ) -> None:
        self.data_dir = data_dir
        self.log_path = data_dir / "pulsar.log"
        self._deduplication = deduplication
        self._token_secret = token_secret
        self.tls = tls
        self._extra = dict(extra or {})
        self._flags = () if optimized else _QUICK_START
        self.port, self.http_port, self.tls_port, self._bookie_port = free_ports(4)
        self.process: ServerProcess | None = None

    @property
    def url(self) -> str:
        """The base of its WebSocket URLs: `wss` with TLS."""
        if self.tls is not None:
            return f"wss://127.0.0.1:{self.tls_port}"
        return f"ws://127.0.0.1:{self.http_port}"

    @property
    def http_url(self) -> str:
        """The base of its admin URLs (plain HTTP)."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def service_url(self) -> str:
        """What native clients connect to."""
        return f"pulsar://127.0.0.1:{self.port}"

    @property
    def admin(self) -> PulsarAdmin:
        """An admin client that may do everything."""
        return PulsarAdmin(self.http_url, token=self.token(ADMIN_ROLE))

    def token(self, role: str, expires_in: float | None = None) -> str | None:
        """A token for a role, or None when the broker asks for none."""
        if self._token_secret is None:
            return None
        return make_token(self._token_secret, role, expires_in)

    def start(self, *, timeout: float = 180.0) -> None:
        """Start it; it stores messages when this returns.

        Raises:
            ServerError: its jars could not be had, or it was not ready in time.
        """
        if self.process is not None and self.process.alive:
            raise ServerError("this broker runs already")
        classpath = jars() / "*"
        for name in ("tmp", "metadata", "bookkeeper"):
            (self.data_dir / name).mkdir(parents=True, exist_ok=True)
        _forget_bookie(self.data_dir / "metadata")
        (self.data_dir / "log4j2.xml").write_text(_LOGGING)
        conf = self.data_dir / "standalone.conf"
        conf.write_text("".join(f"{name}={value}\n" for name, value in self._settings().items()))
        conf.chmod(0o600)  # tokens
        command = ["java", *self._flags, "-Xms256m", "-Xmx512m", "-XX:MaxDirectMemorySize=512m"]
        for package in _OPENED:
            command += ["--add-opens", f"{package}=ALL-UNNAMED"]
        command += [
            # Native libraries are unpacked there; a kill -9 would leave them in /tmp for ever.
            f"-Djava.io.tmpdir={self.data_dir / 'tmp'}",
            f"-Dlog4j2.configurationFile={self.data_dir / 'log4j2.xml'}",
            "-Dio.netty.leakDetectionLevel=disabled",
            "-Dio.netty.tryReflectionSetAccessible=true",
            "-Dbookkeeper.metadata.bookie.drivers=org.apache.pulsar.metadata.bookkeeper.PulsarMetadataBookieDriver",
            "-Dbookkeeper.metadata.client.drivers=org.apache.pulsar.metadata.bookkeeper.PulsarMetadataClientDriver",
            *("-cp", str(classpath), "org.apache.pulsar.PulsarStandaloneStarter"),
            *("--config", str(conf), "-nfw", "-nss", "-a", "127.0.0.1"),
            *("--metadata-dir", str(self.data_dir / "metadata")),
            *("--bookkeeper-dir", str(self.data_dir / "bookkeeper")),
            *("--bookkeeper-port", str(self._bookie_port)),
        ]
        env = {name: value for name, value in os.environ.items() if name != "CLASSPATH"}
        self.process = ServerProcess(
            "pulsar", command, log_path=self.log_path, env=env, cwd=self.data_dir
        )
        self.process.start(self._ready, timeout=timeout)

    def _ready(self) -> bool:
        # The standalone's starter makes the cluster, the tenant and the namespace, in this order,
        # after the broker answers; who makes them, too, meets it half way.
        admin = self.admin
        return admin.has_namespace("public/default") and admin.healthy()

    def _settings(self) -> dict[str, str]:
        settings = {
            "clusterName": "standalone",
            "brokerServicePort": str(self.port),
            "webServicePort": str(self.http_port),
            "bindAddress": "127.0.0.1",
            "advertisedAddress": "127.0.0.1",
            "webSocketServiceEnabled": "true",
            "managedLedgerDefaultEnsembleSize": "1",
            "managedLedgerDefaultWriteQuorum": "1",
            "managedLedgerDefaultAckQuorum": "1",
            "brokerDeduplicationEnabled": str(self._deduplication).lower(),
            # A topic that a test looks at must not go away while it is idle.
            "brokerDeleteInactiveTopicsEnabled": "false",
            "loadBalancerEnabled": "false",
            "journalSyncData": "false",
            "diskUsageThreshold": "0.99",
            "diskUsageLwmThreshold": "0.98",
        }
        if self._token_secret is not None:
            settings |= {
                "authenticationEnabled": "true",
                "authorizationEnabled": "true",
                "superUserRoles": ADMIN_ROLE,
                "authenticationProviders": (
                    "org.apache.pulsar.broker.authentication.AuthenticationProviderToken"
                ),
                "tokenSecretKey": ("data:;base64," + base64.b64encode(self._token_secret).decode()),
                "brokerClientAuthenticationPlugin": (
                    "org.apache.pulsar.client.impl.auth.AuthenticationToken"
                ),
                "brokerClientAuthenticationParameters": f"token:{self.token(ADMIN_ROLE)}",
            }
        if self.tls is not None:
            settings |= {
                "webServicePortTls": str(self.tls_port),
                "tlsCertificateFilePath": str(self.tls.server_certificate),
                "tlsKeyFilePath": str(self.tls.server_key),
                "tlsTrustCertsFilePath": str(self.tls.ca),
                "tlsRequireTrustedClientCertOnConnect": str(self.tls.require_client).lower(),
            }
        return settings | self._extra
