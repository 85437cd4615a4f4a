"""Commands of npm packages, each installed in a folder of the test's own."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest


class NodePackages:
    """Installs packages, a newer node among them; skips the test where that cannot be had.

    Args:
        folder: where to; one that holds a `package-lock.json` gets what that says.
        packages: with their versions, where there is no such file.
    """

    def __init__(self, folder: Path, *packages: str) -> None:
        self.folder = folder
        what = packages[-1] if packages else folder.name
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip(f"{what} needs node's npm, which is not on the path")
        wanted = ["install", "--no-save", "node@24", *packages] if packages else ["ci"]
        options = ["--no-audit", "--no-fund", "--prefer-offline", "--loglevel=error", "--prefix", str(folder)]
        try:
            done = subprocess.run(
                [npm, *wanted, *options], capture_output=True, text=True, timeout=300, check=False, cwd=folder
            )
        except subprocess.TimeoutExpired:
            pytest.skip(f"npm could not install {what} within five minutes")
        if done.returncode != 0:
            pytest.skip(f"npm could not install {what}: {done.stderr[-500:]}")

    @property
    def node(self) -> Path:
        """The newer node."""
        return self.folder / "node_modules" / ".bin" / "node"

    def run(self, name: str, *arguments: str, timeout_s: float = 300.0) -> subprocess.CompletedProcess[str]:
        """One command of these packages, to its end."""
        binaries = self.folder / "node_modules" / ".bin"
        return subprocess.run(
            [str(binaries / name), *arguments],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            cwd=self.folder,
            env={**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}", "NO_COLOR": "1"},
        )
