from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ragcun_cache.cli import main as cli
from ragcun_cache.encoder import EncodeConfig, encode_collection
from ragcun_cache.home import Home


def run(home: Home, *arguments: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code] if code else [sys.executable, "-m", "ragcun_cache"]
    environment = {**os.environ, "RAGCUN_HOME": str(home.root), "HF_HUB_OFFLINE": "1"}
    return subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment, check=False)


HEAVY = """
import sys
from ragcun_cache.cli.main import main
try:
    main()
finally:
    heavy = sorted({"torch", "faiss", "transformers", "sentence_transformers", "beir"} & set(sys.modules))
    print("heavy imports:", heavy)
"""


def test_help_imports_nothing_heavy_and_answers_at_once(home: Home) -> None:
    started = time.monotonic()
    done = run(home, "--help", code=HEAVY)
    assert time.monotonic() - started < 5.0
    assert done.returncode == 0
    assert "heavy imports: []" in done.stdout
    for command in ("encode", "train-head", "eval", "leaderboard", "caches", "collections", "heads", "models"):
        assert command in done.stdout


def test_a_finished_cache_is_known_without_torch(home: Home, tiny_collection, tiny_encoder: Path) -> None:
    from ragcun_cache.collections import find_collection

    tiny_collection()
    encode_collection(find_collection("tiny", home), home, EncodeConfig(model=str(tiny_encoder), device="cpu"))
    done = run(home, "encode", "--dataset", "tiny", "--model", str(tiny_encoder), code=HEAVY)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("already complete") == 2
    assert "heavy imports: []" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("encode", "--dataset", "no-such-set"), ("no-such-set", "scifact", "pydocs")),
        (("encode", "--dataset", "pydocs", "--device", "tpu"), ("tpu", "auto", "cpu")),
        (("encode", "--dataset", "pydocs", "--precision", "fp8"), ("--precision", "fp32", "bf16", "fp8")),
        (("train-head", "--arch", "lejepo", "--dataset", "pydocs"), ("lejepo", "lejepa", "identity")),
        (("train-head", "--arch", "lejepa", "--dataset", "no-such-set"), ("no-such-set", "scifact")),
    ],
)
def test_a_wrong_name_exits_2_and_names_the_right_ones(
    home: Home, arguments: tuple[str, ...], named: tuple[str, ...]
) -> None:
    done = run(home, *arguments)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    for word in named:
        assert word in done.stderr


def test_a_home_that_cannot_be_written_is_an_error_not_a_traceback(home: Home, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run(Home(tmp_path / "file"), "encode", "--dataset", "pydocs")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert str(tmp_path / "file") in done.stderr


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF])
def test_a_full_disk_is_an_error_not_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int
) -> None:
    """A write that fails names no file."""

    def fail() -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(OSError if code == errno.EBADF else SystemExit):
        cli.main()
    assert capsys.readouterr().err == ("" if code == errno.EBADF else f"error: {os.strerror(code)}\n")
