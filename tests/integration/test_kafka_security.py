"""TLS with SCRAM and with PLAIN, by our settings: our own clients, and Faust's."""

import asyncio
import uuid

import pytest

from streamapp.errors import BrokerUnavailableError
from streamapp.kafka.admin import KafkaAdmin
from streamapp.kafka.config import confluent_config, faust_broker_options, tls_context
from streamapp.kafka.producer import DurableProducer, OutMessage
from streamapp.kafka.topics import TopicSpec
from streamapp.local.broker import EmbeddedKafka
from streamapp.local.broker_config import BrokerTls
from streamapp.settings import Settings

pytestmark = pytest.mark.integration

trustme = pytest.importorskip("trustme", reason="trustme makes the certificates")

USER, PASSWORD = "alice", 'se"cr\\et with space'


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A folder with the broker's and a client's certificate of one authority, and a second authority's."""
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_pem_private_key,
    )

    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    trustme.CA().cert_pem.write_to_path(str(folder / "other-ca.pem"))
    for name, identity in (("broker", "127.0.0.1"), ("client", "client.example")):
        certificate = authority.issue_cert(identity)
        (folder / f"{name}.pem").write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
        # Java reads PKCS #8 only
        key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
        (folder / f"{name}-key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return folder


@pytest.fixture(scope="module")
def secure_kafka(certificates):
    tls = BrokerTls(certificates / "broker.pem", certificates / "broker-key.pem", certificates / "ca.pem")
    with EmbeddedKafka(security="sasl_tls", tls=tls, users={USER: PASSWORD}) as broker:
        yield broker.bootstrap


@pytest.fixture
def settings_for(secure_kafka, certificates):
    def make(**changes):
        return Settings(
            **{
                "kafka_brokers": secure_kafka,
                "kafka_security": "sasl_tls",
                "kafka_username": USER,
                "kafka_password": PASSWORD,
                "kafka_ca_file": certificates / "ca.pem",
                **changes,
            }
        )

    return make


async def send_and_count(settings):
    topic = f"t-{uuid.uuid4().hex[:12]}"
    admin = KafkaAdmin(settings)
    await admin.ensure_topics([TopicSpec(topic, 1)])
    producer = DurableProducer(settings, client_id="secure")
    await producer.start()
    offsets = await producer.send_all([OutMessage(topic, b"k", b"v")] * 5)
    await producer.stop(10)
    assert await admin.end_offsets([(topic, 0)]) == {(topic, 0): 5}
    assert offsets == list(range(5))
    return topic


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"])
async def test_sasl_over_tls_reaches_both_kinds_of_clients(settings_for, mechanism):
    from aiokafka import AIOKafkaConsumer
    from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

    settings = settings_for(kafka_sasl_mechanism=mechanism)
    topic = await send_and_count(settings)
    options = faust_broker_options(settings)
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=[url.removeprefix("aiokafka://") for url in options["broker"]],
        auto_offset_reset="earliest",
        **credentials_to_aiokafka_auth(options["broker_credentials"]),
    )
    await consumer.start()
    try:
        async with asyncio.timeout(30):
            assert [(await consumer.getone()).value for _ in range(5)] == [b"v"] * 5
    finally:
        await consumer.stop()


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN"])
async def test_wrong_password_is_refused(settings_for, mechanism):
    settings = settings_for(kafka_password="wrong", kafka_sasl_mechanism=mechanism, kafka_request_timeout_ms=2_000)
    with pytest.raises(BrokerUnavailableError) as caught:
        await KafkaAdmin(settings).cluster_id()
    assert "wrong" not in str(caught.value)


async def test_broker_of_an_unknown_authority_is_refused(settings_for, certificates):
    settings = settings_for(kafka_ca_file=certificates / "other-ca.pem", kafka_request_timeout_ms=2_000)
    with pytest.raises(BrokerUnavailableError):
        await KafkaAdmin(settings).cluster_id()


async def test_client_certificate_is_required_where_the_broker_says_so(certificates):
    tls = BrokerTls(
        certificates / "broker.pem", certificates / "broker-key.pem", certificates / "ca.pem", require_client_cert=True
    )
    async with EmbeddedKafka(security="tls", tls=tls) as broker:
        without = Settings(
            kafka_brokers=broker.bootstrap,
            kafka_security="tls",
            kafka_ca_file=certificates / "ca.pem",
            kafka_request_timeout_ms=2_000,
        )
        with pytest.raises(BrokerUnavailableError):
            await KafkaAdmin(without).cluster_id()
        shown = without.model_copy(
            update={
                "kafka_cert_file": certificates / "client.pem",
                "kafka_key_file": certificates / "client-key.pem",
                "kafka_request_timeout_ms": 10_000,
            }
        )
        await send_and_count(shown)
        assert confluent_config(shown)["security.protocol"] == "SSL"
        assert tls_context(shown) is not None
