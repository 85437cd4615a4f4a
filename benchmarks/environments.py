"""Engines of the comparison, each in an environment of its own: made at the first use, kept for the next one."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PEERS = Path(__file__).parent / "peers"
DEFAULT_FOLDER = Path(__file__).parent / ".envs"

#: exactly these versions are measured
REQUIREMENTS = {
    "faust": ("faust-streaming==0.15.3", "rocksdict==0.3.29", "cramjam==2.14.0"),
    "quix": ("quixstreams==3.28.1",),
    "bytewax": ("bytewax[kafka]==0.21.1",),
    "pathway": ("pathway==0.33.0",),
}
KAFKA_STREAMS_VERSION = "4.3.1"

_INSTALL_TIMEOUT_S = 900
_MARKER = ".complete"
#: enough for the store's cache and the consumer's buffers, and the same on every machine
_JAVA_OPTIONS = ("-Xmx2g",)


class UnavailableError(RuntimeError):
    """An engine cannot be had on this machine; the message is one line that says why."""


def python_of(engine: str, folder: Path) -> str:
    """The Python of an engine's environment, made first where it is missing or out of date.

    Raises:
        UnavailableError: it cannot be installed here.
    """
    requirements = REQUIREMENTS[engine]
    home = folder / engine
    python = home / "bin" / "python"
    digest = _digest([*requirements, sys.version])
    if python.exists() and _is_complete(home, digest):
        return str(python)
    shutil.rmtree(home, ignore_errors=True)
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if uv is not None:
        _run([uv, "venv", "--quiet", "--python", sys.executable, str(home)])
        _run([uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), *requirements])
    else:
        _run([sys.executable, "-m", "venv", str(home)])
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements])
    (home / _MARKER).write_text(digest)
    return str(python)


def kafka_streams(folder: Path) -> list[str]:
    """The command, up to the name of the main class, that runs the Kafka Streams programs; compiled first where needed.

    Raises:
        UnavailableError: there is no JDK or no Maven, or they failed.
    """
    maven, java = shutil.which("mvn"), java_path()
    if java is None or shutil.which("javac", path=str(Path(java).parent)) is None:
        raise UnavailableError("there is no JDK (java and javac) on the PATH or in JAVA_HOME")
    source, home = PEERS / "kafka_streams", folder / "kafka-streams"
    files = sorted(path for path in source.rglob("*") if path.is_file() and path.suffix in (".java", ".xml"))
    digest = _digest([*(path.read_text() for path in files), java_version(java)])
    if not _is_complete(home, digest):
        if maven is None:
            raise UnavailableError("there is no Maven (mvn) on the PATH")
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(source, home, ignore=shutil.ignore_patterns("target"))
        goals = ["compile", "dependency:copy-dependencies", "-DoutputDirectory=libs", "-DincludeScope=runtime"]
        _run([maven, "--batch-mode", "--quiet", "-f", str(home / "pom.xml"), *goals])
        (home / _MARKER).write_text(digest)
    return [java, *_JAVA_OPTIONS, "-cp", f"{home / 'target' / 'classes'}{os.pathsep}{home / 'libs'}{os.sep}*"]


def java_path() -> str | None:
    """The machine's Java: of `JAVA_HOME`, else of the PATH, links resolved."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=str(Path(home) / "bin")) if home else None
    found = found or shutil.which("java")
    return str(Path(found).resolve()) if found else None


def java_version(java: str) -> str:
    """The first line of `java -version`."""
    answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=False)
    return (answer.stderr or answer.stdout).splitlines()[0] if answer.returncode == 0 else "unknown"


def _is_complete(home: Path, digest: str) -> bool:
    try:
        return (home / _MARKER).read_text() == digest
    except OSError:
        return False


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _run(command: Sequence[str]) -> None:
    try:
        answer = subprocess.run(
            list(command),
            capture_output=True,
            text=True,
            timeout=_INSTALL_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise UnavailableError(f"{Path(command[0]).name}: {_one_line(str(problem))}") from problem
    if answer.returncode:
        raise UnavailableError(f"{Path(command[0]).name}: {_one_line(f'{answer.stdout} {answer.stderr}')}")


def _one_line(text: str) -> str:
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).split())[:300] or "failed without a word"
