#!/usr/bin/env python3
"""Set everything up on a fresh machine, then run the main job or the checks.

    python3 dev.py quickstart     install, and run the main job end to end on data it makes itself
    python3 dev.py check          install, and run every check that CI runs
    python3 dev.py setup          install only

Needs Python 3.11 or newer and nothing else. Packages go into .venv (or --venv DIR), in the versions
of constraints.txt; nothing is installed again until pyproject.toml or constraints.txt changes.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
PYTHON_FILES = ["fcn_model", "pipelines", "jobs", "tests", "benchmarks", "dev.py"]
CHECKS = {
    "format": ["ruff", "format", "--check", *PYTHON_FILES],
    "lint": ["ruff", "check", *PYTHON_FILES],
    "imports": ["lint-imports"],
    "types": ["mypy"],
    # Much of the time one test waits for processes to start; files stay whole on one worker.
    "tests": ["pytest", "--numprocesses=2", "--dist=loadfile"],
}


def main() -> int:
    """Run the command that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["quickstart", "check", "setup"])
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="virtual environment")
    parser.add_argument("--only", choices=list(CHECKS), help="one check of those that `check` runs")
    options, rest = parser.parse_known_args()
    if sys.version_info < (3, 11):
        parser.error(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}")
    binaries = install(
        options.venv.absolute(), extras="" if options.command == "quickstart" else "[test]"
    )
    if options.command == "quickstart":
        return run([str(binaries / "python"), "jobs/quickstart.py", *rest])
    if options.command == "check":
        return check(binaries, [options.only] if options.only else list(CHECKS), rest)
    print(f"ready: {binaries / 'python'}")
    return 0


def install(directory: Path, *, extras: str) -> Path:
    """Make the virtual environment and install the project into it; return its bin folder."""
    binaries = directory / ("Scripts" if os.name == "nt" else "bin")
    inputs = [ROOT / "pyproject.toml", ROOT / "constraints.txt"]
    wanted = hashlib.sha256(b"".join(file.read_bytes() for file in inputs)).hexdigest() + extras
    stamp = directory / "installed"
    have = stamp.read_text() if stamp.exists() else ""
    if have in {wanted, f"{wanted}[test]"}:
        return binaries
    print(
        f"installing into {directory}; the first time this takes some minutes and 7 GB", flush=True
    )
    try:
        venv.create(directory, with_pip=True, upgrade_deps=False)
    except subprocess.CalledProcessError:
        sys.exit("error: this Python cannot make virtual environments; install python3-venv")
    command = [str(binaries / "python"), "-m", "pip", "install", "--quiet"]
    command += ["--disable-pip-version-check", "-c", str(inputs[1]), "-e", f"{ROOT}{extras}"]
    if run(command) != 0:
        sys.exit("error: the installation failed; the lines above say why")
    stamp.write_text(wanted)
    return binaries


def check(binaries: Path, names: list[str], rest: list[str]) -> int:
    """Run the named checks and say which failed. Further arguments go to the last one."""
    failed = []
    for name in names:
        program, *arguments = CHECKS[name]
        print(f"\n== {name}", flush=True)
        more = rest if name == names[-1] else []
        if run([str(binaries / program), *arguments, *more]) != 0:
            failed.append(name)
    print(f"\nfailed: {', '.join(failed)}" if failed else f"\nall passed: {', '.join(names)}")
    return 1 if failed else 0


def run(command: list[str]) -> int:
    """Run a program in the project's folder, with its own bin folder first on the path."""
    path = os.pathsep.join([str(Path(command[0]).parent), os.environ.get("PATH", "")])
    try:
        return subprocess.call(command, cwd=ROOT, env={**os.environ, "PATH": path})
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
