"""Which code made a head."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import ragcun_cache


def library_versions() -> dict[str, str]:
    """Return the versions of everything that numbers depend on."""
    return {
        "ragcun_cache": ragcun_cache.__version__,
        "python": platform.python_version(),
        "torch": version("torch"),
        "numpy": version("numpy"),
    }


def source_commit() -> str | None:
    """Return the commit of the checkout that this package runs from; None if it is installed, or git is not there."""
    module = Path(ragcun_cache.__file__)
    git = ["git", "-C", str(module.parent)]
    try:
        # An installed package can lie inside somebody else's repository: only a tracked file says that it is ours.
        subprocess.run([*git, "ls-files", "--error-unmatch", module.name], check=True, capture_output=True)
        found = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
