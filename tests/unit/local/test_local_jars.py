import re
from types import SimpleNamespace

import pytest

from streamapp.errors import EmbeddedKafkaError
from streamapp.local import jars

jgo_env = pytest.importorskip("jgo.env", reason="the extra `local` is not installed")


@pytest.fixture
def one_jar(monkeypatch, tmp_path):
    """A lock with a single small jar, and a stand-in for jgo that serves `served` as its content."""
    import hashlib

    served = {"content": b"right", "fetched": 0}
    locked = SimpleNamespace(
        groupId="g", artifactId="a", version="1", classifier=None, packaging="jar",
        sha256=hashlib.sha256(b"right").hexdigest(),
    )  # fmt: skip
    monkeypatch.setattr(jars, "_load_lock", lambda: [locked])
    monkeypatch.setattr(jars, "_BACKOFF_S", 0)

    def resolve(artifact):
        if not artifact.cached_path.exists():
            served["fetched"] += 1
            if served["content"] is None:
                raise RuntimeError("no route to the repository")
            artifact.cached_path.parent.mkdir(parents=True, exist_ok=True)
            artifact.cached_path.write_bytes(served["content"])
        return artifact.cached_path

    from jgo.maven import Artifact

    monkeypatch.setattr(Artifact, "resolve", resolve)
    return served


def test_lock_names_versions_and_digests_but_no_address():
    text = jars.LOCK_FILE.read_text()
    locked = jars._load_lock()
    assert "://" not in text
    assert len(locked) == len({(d.groupId, d.artifactId) for d in locked}) > 40
    assert all(re.fullmatch(r"[0-9a-f]{64}", d.sha256) for d in locked)
    for coordinate in jars.COORDINATE.split("@")[0].split("+"):
        assert coordinate in {f"{d.groupId}:{d.artifactId}:{d.version}" for d in locked}
    assert f":{jars.KAFKA_VERSION}+" in jars.COORDINATE


def test_class_path_is_fetched_once(one_jar, tmp_path):
    first = jars.class_path(tmp_path)
    assert [path.read_bytes() for path in first] == [b"right"]
    assert jars.class_path(tmp_path) == first
    assert one_jar["fetched"] == 1
    assert [path.name for path in first[0].parent.iterdir()] == ["a-1.jar"]


def test_class_path_replaces_a_damaged_jar(one_jar, tmp_path):
    (jar,) = jars.class_path(tmp_path)
    jar.write_bytes(b"wrong")
    jars.class_path(tmp_path)
    assert jar.read_bytes() == b"right"


def test_class_path_refuses_what_is_not_in_the_lock(one_jar, tmp_path):
    one_jar["content"] = b"tampered"
    with pytest.raises(EmbeddedKafkaError, match=r"g:a:1.*SHA-256"):
        jars.class_path(tmp_path)
    assert not list(tmp_path.rglob("*.jar"))


def test_class_path_without_network_says_what_to_do(one_jar, tmp_path):
    one_jar["content"] = None
    with pytest.raises(EmbeddedKafkaError, match=r"no route.*check the network"):
        jars.class_path(tmp_path)
    assert one_jar["fetched"] == jars._ATTEMPTS
    one_jar["content"] = b"right"
    assert jars.class_path(tmp_path)
