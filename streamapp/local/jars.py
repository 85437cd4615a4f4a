"""The jars of the embedded Kafka: exactly those of the committed lock, fetched once, checked at every start.

`kafka.lock.toml` is a lock file of jgo (versions and SHA-256 digests, no addresses). Where the jars come from is jgo's
business: a repository that its configuration names, or its default.
"""

import hashlib
import logging
import os
import random
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from streamapp.errors import EmbeddedKafkaError

if TYPE_CHECKING:
    from jgo.env import LockedDependency
    from jgo.maven import MavenContext

log = logging.getLogger(__name__)

LOCK_FILE = Path(__file__).with_name("kafka.lock.toml")
#: how the lock file was resolved; `tests/unit/local` keeps it and the lock together
COORDINATE = "org.apache.kafka:kafka_2.13:4.3.1+org.slf4j:slf4j-simple:1.7.36@kafka.Kafka"
KAFKA_VERSION = "4.3.1"

_DOWNLOADS_AT_ONCE = 6
_ATTEMPTS = 4
_BACKOFF_S = 1.0
_HTTP_TIMEOUT_S = 20


def default_cache_dir() -> Path:
    """Where downloads are kept: `$XDG_CACHE_HOME/streamapp`, or `~/.cache/streamapp`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "streamapp"


def class_path(cache_dir: Path | None = None) -> list[Path]:
    """The jars of the lock, in its order, as files whose digests have just been verified.

    The first call on a machine downloads about 44 MB; later ones need no network. Several processes may do this at
    once: a jar appears in the cache only whole and verified.

    Args:
        cache_dir: where to keep them; default: `default_cache_dir()`.

    Raises:
        EmbeddedKafkaError: jgo is not installed, a jar cannot be fetched, or what came is not what the lock says.
    """
    folder = (cache_dir or default_cache_dir()) / "kafka" / KAFKA_VERSION
    locked = _load_lock()
    paths = [folder / _file_name(dependency) for dependency in locked]
    with ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as pool:
        intact = list(pool.map(_is_intact, locked, paths))
    missing = [pair for pair, fine in zip(zip(locked, paths, strict=True), intact, strict=True) if not fine]
    if missing:
        log.info("fetching %d of %d jars of Kafka %s", len(missing), len(paths), KAFKA_VERSION)
        _fetch_all(missing, folder)
    return paths


def is_cached(cache_dir: Path | None = None) -> bool:
    """Whether every jar is there already (by name; digests are checked at the start)."""
    folder = (cache_dir or default_cache_dir()) / "kafka" / KAFKA_VERSION
    return all((folder / _file_name(dependency)).exists() for dependency in _load_lock())


def _load_lock() -> "list[LockedDependency]":
    try:
        from jgo.env import LockFile
    except ImportError as problem:
        raise EmbeddedKafkaError(
            "the embedded Kafka needs the extra `local`, which is not installed: pip install 'streamapp[local]' "
            "(or point STREAMAPP_KAFKA_BROKERS at a Kafka of your own)"
        ) from problem
    return list(LockFile.load(LOCK_FILE).dependencies)


def _file_name(dependency: "LockedDependency") -> str:
    suffix = f"-{dependency.classifier}" if dependency.classifier else ""
    return f"{dependency.artifactId}-{dependency.version}{suffix}.{dependency.packaging}"


def _is_intact(dependency: "LockedDependency", path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return bool(hashlib.file_digest(file, "sha256").hexdigest() == dependency.sha256)
    except FileNotFoundError:
        return False


def _fetch_all(missing: "list[tuple[LockedDependency, Path]]", folder: Path) -> None:
    from jgo.config import GlobalSettings
    from jgo.constants import MAVEN_CENTRAL_URL, default_maven_repo
    from jgo.maven import MavenContext

    try:
        folder.mkdir(parents=True, exist_ok=True)
        # within the cache, so that the final rename stays on one file system
        with tempfile.TemporaryDirectory(prefix=".incoming-", dir=folder) as incoming:
            context = MavenContext(
                repo_cache=Path(incoming),
                local_repos=[default_maven_repo()],
                remote_repos={"central": MAVEN_CENTRAL_URL, **GlobalSettings.load().repositories},
                timeout=_HTTP_TIMEOUT_S,
            )
            with ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as pool:
                for _ in pool.map(lambda pair: _fetch(context, *pair), missing):
                    pass
    except OSError as problem:
        raise EmbeddedKafkaError(
            f"cannot keep the jars of Kafka in {folder}: {problem}; free some space or set XDG_CACHE_HOME"
        ) from problem


def _fetch(context: "MavenContext", dependency: "LockedDependency", target: Path) -> None:
    artifact = (
        context.project(dependency.groupId, dependency.artifactId)
        .at_version(dependency.version)
        .artifact(dependency.classifier or "", dependency.packaging)
    )
    name = f"{dependency.groupId}:{dependency.artifactId}:{dependency.version}"
    problem: Exception | None = None
    for attempt in range(_ATTEMPTS):
        if attempt:
            # full jitter, so that several processes do not come back together
            time.sleep(random.uniform(0, _BACKOFF_S * 2**attempt))
        try:
            found = artifact.resolve()
        except (RuntimeError, OSError) as caught:
            # requests' errors are OSErrors; jgo's own are RuntimeErrors
            problem = caught
            _discard(artifact.cached_path)
            continue
        if _is_intact(dependency, found):
            arrived = target.with_name(f"{target.name}.{os.getpid()}.part")
            shutil.copyfile(found, arrived)
            arrived.replace(target)
            return
        problem = EmbeddedKafkaError("its SHA-256 is not the one of the lock")
        if found != artifact.cached_path:
            # the user's own Maven folder holds something else: not ours to mend, but to go around
            context.local_repos.clear()
        _discard(artifact.cached_path)
    raise EmbeddedKafkaError(
        f"cannot fetch {name}, a part of the embedded Kafka: {_one_line(problem)}; check the network (HTTPS_PROXY), or "
        "point STREAMAPP_KAFKA_BROKERS at a Kafka of your own"
    )


def _discard(path: Path | None) -> None:
    if path is not None:
        path.unlink(missing_ok=True)


def _one_line(problem: Exception | None) -> str:
    return " ".join(str(problem).split())[:300]
