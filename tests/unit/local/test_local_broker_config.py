from pathlib import Path

import pytest

from streamapp.errors import ConfigurationError, EmbeddedKafkaError
from streamapp.local import broker
from streamapp.local.broker_config import BrokerSecurity, BrokerTls, scram_arguments, server_properties
from streamapp.local.java import Java


def parsed(text):
    return dict(line.split("=", 1) for line in text.splitlines())


def test_properties_listen_on_loopback_only(tmp_path):
    properties = parsed(server_properties(1111, 2222, tmp_path, BrokerSecurity()))
    assert properties["listeners"] == "CLIENT://127.0.0.1:1111,CONTROLLER://127.0.0.1:2222"
    assert properties["advertised.listeners"] == "CLIENT://127.0.0.1:1111"
    assert properties["auto.create.topics.enable"] == "false"
    assert not [name for name in properties if name.startswith("ssl.") or "sasl" in name]


def test_properties_hold_pem_files_on_one_line_each(tmp_path):
    pem = tmp_path / "x.pem"
    pem.write_text("-----BEGIN X-----\nAB\\C\n-----END X-----\n")
    tls = BrokerTls(pem, pem, pem, require_client_cert=True)
    properties = parsed(server_properties(1, 2, tmp_path, BrokerSecurity("tls", tls)))
    assert properties["ssl.keystore.key"] == "-----BEGIN X-----\\nAB\\\\C\\n-----END X-----\\n"
    assert properties["ssl.client.auth"] == "required"


def test_security_without_what_it_needs_is_refused():
    with pytest.raises(ConfigurationError, match="certificate"):
        BrokerSecurity("sasl_tls", users={"a": "b"})
    with pytest.raises(ConfigurationError, match="users"):
        BrokerSecurity("sasl_plaintext")


def test_security_does_not_print_passwords():
    assert "secret" not in repr(BrokerSecurity("sasl_plaintext", users={"alice": "secret"}))


def test_scram_arguments_do_not_carry_the_password():
    arguments = scram_arguments(BrokerSecurity("sasl_plaintext", users={"alice": "a-secret"}))
    assert "a-secret" not in " ".join(arguments)
    assert [argument[:14] for argument in arguments[1::2]] == ["SCRAM-SHA-256=", "SCRAM-SHA-512="]


def test_broker_that_cannot_be_formatted_leaves_no_folder(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(broker, "find_java", lambda: Java(Path("/bin/false"), "25", "PATH"))
    monkeypatch.setattr(broker, "class_path", lambda _: [])
    with pytest.raises(EmbeddedKafkaError, match="cannot format"):
        broker.EmbeddedKafka().start_blocking()
    assert not list(tmp_path.iterdir())
