"""The embedded broker's `server.properties`: one node, loopback only, small, quick to start."""

import base64
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from streamapp.errors import ConfigurationError
from streamapp.settings import KafkaSecurity

HOST = "127.0.0.1"
NODE_ID = 1
#: librdkafka's and Kafka's own default
_SCRAM_ITERATIONS = 8_192
_SCRAM_HASHES = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}
_PROTOCOLS = {"plaintext": "PLAINTEXT", "tls": "SSL", "sasl_plaintext": "SASL_PLAINTEXT", "sasl_tls": "SASL_SSL"}
_MODULES = "org.apache.kafka.common.security"


@dataclass(frozen=True)
class BrokerTls:
    """The broker's certificate, made by the caller. All files are PEM.

    Attributes:
        cert_file: the broker's chain, its own certificate first; it must be good for 127.0.0.1.
        key_file: its private key, PKCS #8, not encrypted.
        ca_file: the authorities to trust; clients must show a certificate of theirs if `require_client_cert`.
        require_client_cert: refuse clients without a certificate.
    """

    cert_file: Path
    key_file: Path
    ca_file: Path
    require_client_cert: bool = False


@dataclass(frozen=True)
class BrokerSecurity:
    """How the embedded broker protects its listener.

    With SASL, every user may log in by PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512. The controller's listener (an ephemeral
    port of the same single node) stays plain: this broker serves development and tests on loopback.

    Attributes:
        mode: as the setting `kafka_security`.
        tls: the certificate, for the modes with TLS.
        users: name -> password, for the modes with SASL.
    """

    mode: KafkaSecurity = "plaintext"
    tls: BrokerTls | None = None
    users: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.mode in ("tls", "sasl_tls") and self.tls is None:
            raise ConfigurationError(
                f"an embedded Kafka with security={self.mode} needs a certificate: pass tls=BrokerTls(...)"
            )
        if self.mode in ("sasl_plaintext", "sasl_tls") and not self.users:
            raise ConfigurationError(f"an embedded Kafka with security={self.mode} needs users={{name: password}}")

    @property
    def uses_sasl(self) -> bool:
        """Whether clients log in."""
        return self.mode in ("sasl_plaintext", "sasl_tls")


def server_properties(port: int, controller_port: int, log_dir: Path, security: BrokerSecurity) -> str:
    """The text of `server.properties`; with SASL it holds passwords, so keep the file private."""
    properties = {
        "process.roles": "broker,controller",
        "node.id": str(NODE_ID),
        "controller.quorum.voters": f"{NODE_ID}@{HOST}:{controller_port}",
        "listeners": f"CLIENT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"CLIENT://{HOST}:{port}",
        "listener.security.protocol.map": f"CLIENT:{_PROTOCOLS[security.mode]},CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "CLIENT",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": str(log_dir),
        # a typing error in a topic's name must be an error, and partitions are declared, not defaulted
        "auto.create.topics.enable": "false",
        # one node: internal topics cannot have more replicas, and need few partitions
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        # a lone worker shall not wait three seconds for company; a killed one may be declared dead quickly
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        # small: the cleaner's default buffer alone is 128 MB of the heap
        "log.cleaner.dedupe.buffer.size": str(32 << 20),
        "num.network.threads": "2",
        "num.io.threads": "4",
    }
    properties.update(_tls_properties(security))
    properties.update(_sasl_properties(security))
    return "".join(f"{name}={_escape(value)}\n" for name, value in properties.items())


def scram_arguments(security: BrokerSecurity) -> list[str]:
    """Arguments for the storage tool that create the SCRAM users.

    They carry salted passwords (RFC 5802's SaltedPassword), because a command line can be read by every local user.
    """
    arguments: list[str] = []
    if not security.uses_sasl:
        return arguments
    for name, password in security.users.items():
        for mechanism, algorithm in _SCRAM_HASHES.items():
            salt = secrets.token_bytes(16)
            salted = hashlib.pbkdf2_hmac(algorithm, password.encode(), salt, _SCRAM_ITERATIONS)
            arguments += [
                "--add-scram",
                f'{mechanism}=[name="{name}",iterations={_SCRAM_ITERATIONS},salt="{_base64(salt)}",'
                f'saltedpassword="{_base64(salted)}"]',
            ]
    return arguments


def _tls_properties(security: BrokerSecurity) -> dict[str, str]:
    tls = security.tls
    if tls is None or security.mode not in ("tls", "sasl_tls"):
        return {}
    return {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.certificate.chain": tls.cert_file.read_text(),
        "ssl.keystore.key": tls.key_file.read_text(),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.certificates": tls.ca_file.read_text(),
        "ssl.client.auth": "required" if tls.require_client_cert else "none",
    }


def _sasl_properties(security: BrokerSecurity) -> dict[str, str]:
    if not security.uses_sasl:
        return {}
    # the broker itself is a client of its own listener
    own_password = secrets.token_urlsafe(24)
    users = {"broker": own_password, **security.users}
    known = " ".join(f'user_{name}="{_quoted(password)}"' for name, password in users.items())
    prefix = "listener.name.client"
    scram = f"{_MODULES}.scram.ScramLoginModule required;"
    return {
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        f"{prefix}.plain.sasl.jaas.config": (
            f'{_MODULES}.plain.PlainLoginModule required username="broker" password="{own_password}" {known};'
        ),
        f"{prefix}.scram-sha-256.sasl.jaas.config": scram,
        f"{prefix}.scram-sha-512.sasl.jaas.config": scram,
    }


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\r", "").replace("\n", "\\n")


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
