"""Builds the native library where a Rust compiler is at hand; without one the project is installed as pure Python."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent
CRATE = ROOT / "native"
TARGET = ROOT / "streamapp" / "columns" / "_native.so"
BUILD_TIMEOUT_S = 600


class NativeBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Runs cargo before the files are packed; STREAMAPP_NATIVE=off leaves it out, =required fails without it."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build, and name the library as a file of the wheel."""
        mode = os.environ.get("STREAMAPP_NATIVE", "auto")
        problem = "STREAMAPP_NATIVE=off" if mode == "off" else build()
        if problem is None:
            build_data["artifacts"].append("streamapp/columns/_native.so")
            build_data["pure_python"] = False
            build_data["infer_tag"] = True
        elif mode == "required":
            raise RuntimeError(f"the native library was not built: {problem}")
        else:
            print(
                f"streamapp: installed without the native library, records are decoded slower: {problem}",
                file=sys.stderr,
            )


def build() -> str | None:
    """Build the library to where it is loaded from; what went wrong, or None."""
    cargo = shutil.which("cargo")
    if cargo is None and TARGET.exists():
        return None  # built before, elsewhere
    if cargo is None:
        return "no cargo on the path (https://rust-lang.org/tools/install)"
    command = [cargo, "build", "--release", "--locked", "--quiet", "--manifest-path", str(CRATE / "Cargo.toml")]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as broken:
        return str(broken)
    if done.returncode:
        return done.stderr.strip()[-2_000:] or f"cargo ended with {done.returncode}"
    folder = Path(os.environ.get("CARGO_TARGET_DIR", CRATE / "target")) / "release"
    built = next((path for path in map(folder.joinpath, _NAMES) if path.exists()), None)
    if built is None:
        return f"expected one of {', '.join(_NAMES)} in {folder}"
    # a running worker may have the old one mapped: put a new file in its place, do not write into it
    fresh = TARGET.with_suffix(".new")
    shutil.copyfile(built, fresh)
    fresh.replace(TARGET)
    return None


_NAMES = ("libstreamapp_native.so", "libstreamapp_native.dylib", "streamapp_native.dll")

if __name__ == "__main__":
    sys.exit(build())
