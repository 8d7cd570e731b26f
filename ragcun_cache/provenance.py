"""Where vectors, heads and figures come from: versions, machine and commit. Nothing that names a person or a host."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = (
    "ragcun-cache",
    "numpy",
    "torch",
    "transformers",
    "sentence-transformers",
    "tokenizers",
    "openvino",
    "faiss-cpu",
    "pytrec-eval-terrier",
)


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that vectors and figures depend on, where they are there."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def machine() -> dict[str, str | int]:
    """Return CPU model, number of usable cores, architecture and operating system."""
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(errors="replace").splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {"cpu": cpu, "cores": cores, "architecture": platform.machine(), "system": platform.system()}


@cache
def source_commit() -> str | None:
    """Return the commit of the checkout that this package runs from, with ``+changes`` if it has any; else None."""
    repository = Path(__file__).resolve().parents[1]
    if not (repository / ".git").exists():
        return None
    try:
        head = _git(repository, "rev-parse", "HEAD")
        return head + ("+changes" if _git(repository, "status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(repository: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=repository, check=True, capture_output=True, text=True
    ).stdout.strip()
