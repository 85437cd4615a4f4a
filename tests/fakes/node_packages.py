"""Commands of npm packages, each installed in a folder of the test's own."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest


class NodePackages:
    """Installs packages, a newer node among them; skips the test where that cannot be had.

    Args:
        folder: where to.
        packages: with their versions.
    """

    def __init__(self, folder: Path, *packages: str) -> None:
        self.folder = folder
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip(f"{packages[-1]} needs node's npm, which is not on the path")
        install = [npm, "install", "--no-audit", "--no-fund", "--no-save", "--loglevel=error", "--prefix", str(folder)]
        try:
            done = subprocess.run(
                [*install, "node@24", *packages], capture_output=True, text=True, timeout=300, check=False, cwd=folder
            )
        except subprocess.TimeoutExpired:
            pytest.skip(f"npm could not install {packages[-1]} within five minutes")
        if done.returncode != 0:
            pytest.skip(f"npm could not install {packages[-1]}: {done.stderr[-500:]}")

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
