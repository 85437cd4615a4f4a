"""Client configuration: the same settings, for librdkafka, for aiokafka, and for Faust."""

import ssl
from typing import Any

from streamapp.errors import ConfigurationError
from streamapp.settings import Settings

#: our words -> Kafka's
_PROTOCOLS = {"plaintext": "PLAINTEXT", "tls": "SSL", "sasl_plaintext": "SASL_PLAINTEXT", "sasl_tls": "SASL_SSL"}

#: librdkafka refuses values outside of these bounds, in milliseconds
_SOCKET_TIMEOUT_MS = (10, 300_000)
_CONNECT_TIMEOUT_MS = (1_000, 300_000)


def confluent_config(settings: Settings) -> dict[str, Any]:
    """The part of a librdkafka configuration that every client shares: where, how protected, how patient.

    Args:
        settings: brokers, security and request time-out are taken from it.

    Returns:
        Properties for `confluent_kafka` clients. The dict holds the password: never log it.

    Raises:
        ConfigurationError: a setting that the chosen security needs is missing or unreadable.
    """
    _check(settings)
    config: dict[str, Any] = {
        "bootstrap.servers": ",".join(settings.broker_list),
        "security.protocol": _PROTOCOLS[settings.kafka_security],
        "socket.timeout.ms": _clamp(settings.kafka_request_timeout_ms, _SOCKET_TIMEOUT_MS),
        "socket.connection.setup.timeout.ms": _clamp(settings.kafka_request_timeout_ms, _CONNECT_TIMEOUT_MS),
        "socket.keepalive.enable": True,
        # a broker that restarts is found again within a second or two; librdkafka adds the jitter itself
        "reconnect.backoff.ms": 100,
        "reconnect.backoff.max.ms": 2_000,
        # closing an idle connection is not an event that anybody must act on
        "log.connection.close": False,
    }
    if _uses_tls(settings):
        if settings.kafka_ca_file is not None:
            config["ssl.ca.location"] = str(settings.kafka_ca_file)
        if settings.kafka_cert_file is not None:
            config["ssl.certificate.location"] = str(settings.kafka_cert_file)
            config["ssl.key.location"] = str(settings.kafka_key_file)
    if _uses_sasl(settings):
        config["sasl.mechanism"] = settings.kafka_sasl_mechanism
        config["sasl.username"] = settings.kafka_username
        config["sasl.password"] = _password(settings)
    return config


def faust_broker_options(settings: Settings) -> dict[str, Any]:
    """Keyword arguments for `faust.App` (0.15.3) that say where Kafka is, how it is protected, how patient to be.

    Durations are seconds there. `broker_request_timeout` (90 s) and `broker_rebalance_timeout` (60 s) keep Faust's
    defaults on purpose: a join request is answered only at the end of the rebalance, so the first bound must stay above
    the second, and above the session time-out. Of a worker's requests only joins take it; see `engine/membership.py`.

    Raises:
        ConfigurationError: as `confluent_config`.
    """
    _check(settings)
    session_s = settings.kafka_session_timeout_ms / 1000
    options: dict[str, Any] = {
        "broker": [f"aiokafka://{address}" for address in settings.broker_list],
        "broker_session_timeout": session_s,
        # three beats may be lost before the session is
        "broker_heartbeat_interval": min(3.0, session_s / 4),
        "producer_request_timeout": settings.kafka_delivery_timeout_ms / 1000,
    }
    context = tls_context(settings)
    if _uses_sasl(settings):
        # Faust's modules take long to load, and most callers of this module never need them
        from faust.auth import SASLCredentials

        options["broker_credentials"] = SASLCredentials(
            username=settings.kafka_username,
            password=_password(settings),
            mechanism=settings.kafka_sasl_mechanism,
            ssl_context=context,
        )
    elif context is not None:
        from faust.auth import SSLCredentials

        options["broker_credentials"] = SSLCredentials(context)
    return options


def aiokafka_options(settings: Settings) -> dict[str, Any]:
    """Keyword arguments for aiokafka's clients: where, how protected, how patient. They hold the password: never log them.

    Raises:
        ConfigurationError: as `confluent_config`.
    """
    _check(settings)
    options: dict[str, Any] = {
        "bootstrap_servers": settings.broker_list,
        "security_protocol": _PROTOCOLS[settings.kafka_security],
        "request_timeout_ms": settings.kafka_request_timeout_ms,
        "ssl_context": tls_context(settings),
    }
    if _uses_sasl(settings):
        options["sasl_mechanism"] = settings.kafka_sasl_mechanism
        options["sasl_plain_username"] = settings.kafka_username
        options["sasl_plain_password"] = _password(settings)
    return options


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """A client's TLS context that verifies certificate and host name; None where the connection is not encrypted.

    Raises:
        ConfigurationError: a certificate or key file cannot be used.
    """
    if not _uses_tls(settings):
        return None
    try:
        context = ssl.create_default_context(cafile=settings.kafka_ca_file)
        if settings.kafka_cert_file is not None:
            context.load_cert_chain(settings.kafka_cert_file, settings.kafka_key_file)
    except (OSError, ssl.SSLError) as problem:
        raise ConfigurationError(
            f"cannot use the TLS files: expected PEM in kafka_ca_file={settings.kafka_ca_file}, "
            f"kafka_cert_file={settings.kafka_cert_file}, kafka_key_file={settings.kafka_key_file}, got: {problem}; "
            "check that they exist, are readable and belong together"
        ) from problem
    return context


def _uses_tls(settings: Settings) -> bool:
    return settings.kafka_security in ("tls", "sasl_tls")


def _uses_sasl(settings: Settings) -> bool:
    return settings.kafka_security in ("sasl_plaintext", "sasl_tls")


def _password(settings: Settings) -> str:
    return settings.kafka_password.get_secret_value() if settings.kafka_password is not None else ""


def _check(settings: Settings) -> None:
    if not settings.broker_list:
        raise ConfigurationError(
            f"kafka_brokers must name at least one host:port, got {settings.kafka_brokers!r}; "
            "set STREAMAPP_KAFKA_BROKERS=127.0.0.1:9092"
        )
    for address in settings.broker_list:
        host, colon, port = address.rpartition(":")
        if not (host and colon and port.isdigit() and 0 < int(port) < 65536):
            raise ConfigurationError(
                f"kafka_brokers must be host:port, comma separated, got {address!r}; "
                "set STREAMAPP_KAFKA_BROKERS=127.0.0.1:9092"
            )
    if _uses_sasl(settings) and (settings.kafka_username is None or settings.kafka_password is None):
        raise ConfigurationError(
            f"kafka_security={settings.kafka_security} needs a user name and a password; "
            "set STREAMAPP_KAFKA_USERNAME and STREAMAPP_KAFKA_PASSWORD"
        )
    if (settings.kafka_cert_file is None) != (settings.kafka_key_file is None):
        raise ConfigurationError(
            "a client certificate needs both kafka_cert_file and kafka_key_file, got only one; set both or none"
        )


def _clamp(value: int, bounds: tuple[int, int]) -> int:
    return max(bounds[0], min(bounds[1], value))
