import ssl

import pytest

from streamapp.errors import ConfigurationError
from streamapp.kafka.config import confluent_config, faust_broker_options, tls_context
from streamapp.settings import Settings


def test_config_of_plaintext_names_brokers_and_nothing_secret():
    config = confluent_config(Settings(kafka_brokers="a:1, b:2"))
    assert config["bootstrap.servers"] == "a:1,b:2"
    assert config["security.protocol"] == "PLAINTEXT"
    assert not [name for name in config if name.startswith(("sasl.", "ssl."))]


@pytest.mark.parametrize("brokers", ["", "nohost", ":9092", "a:0", "a:99999", "a:b"])
def test_config_of_unusable_brokers_is_refused(brokers):
    with pytest.raises(ConfigurationError, match="host:port"):
        confluent_config(Settings(kafka_brokers=brokers))


def test_config_of_sasl_without_a_user_is_refused():
    with pytest.raises(ConfigurationError, match="STREAMAPP_KAFKA_USERNAME"):
        confluent_config(Settings(kafka_security="sasl_tls"))


def test_config_of_half_a_client_certificate_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="both"):
        confluent_config(Settings(kafka_security="tls", kafka_cert_file=tmp_path / "c.pem"))


def test_config_of_sasl_carries_the_mechanism():
    settings = Settings(
        kafka_security="sasl_plaintext", kafka_sasl_mechanism="PLAIN", kafka_username="u", kafka_password="opensesame"
    )
    config = confluent_config(settings)
    assert (config["security.protocol"], config["sasl.mechanism"]) == ("SASL_PLAINTEXT", "PLAIN")
    assert "opensesame" not in repr(settings)


def test_faust_options_verify_the_brokers_certificate():
    credentials = faust_broker_options(Settings(kafka_security="tls"))["broker_credentials"]
    assert credentials.context.verify_mode is ssl.CERT_REQUIRED
    assert credentials.context.check_hostname


def test_faust_options_of_sasl_tls_use_both():
    settings = Settings(kafka_security="sasl_tls", kafka_username="u", kafka_password="secret")
    credentials = faust_broker_options(settings)["broker_credentials"]
    assert credentials.protocol.value == "SASL_SSL"
    assert credentials.mechanism.value == "SCRAM-SHA-512"
    assert "secret" not in repr(credentials)


def test_faust_options_are_accepted_by_faust():
    import faust

    settings = Settings(kafka_brokers="10.0.0.1:9092,10.0.0.2:9093", kafka_session_timeout_ms=6_000)
    app = faust.App("options", **faust_broker_options(settings))
    assert [str(url) for url in app.conf.broker] == ["aiokafka://10.0.0.1:9092", "aiokafka://10.0.0.2:9093"]
    assert app.conf.broker_session_timeout == 6.0
    assert app.conf.broker_heartbeat_interval == 1.5
    # a join request is answered at the end of the rebalance only
    assert app.conf.broker_request_timeout > app.conf.broker_rebalance_timeout


def test_tls_context_of_missing_files_says_which(tmp_path):
    with pytest.raises(ConfigurationError, match=r"absent\.pem"):
        tls_context(Settings(kafka_security="tls", kafka_ca_file=tmp_path / "absent.pem"))
