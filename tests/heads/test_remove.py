from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from ragcun_cache.cache import CachePair
from ragcun_cache.cli.main import app
from ragcun_cache.collections import Collection
from ragcun_cache.errors import HeadError
from ragcun_cache.evaluation.store import ResultStore
from ragcun_cache.home import Home
from ragcun_cache.training.config import make_config
from ragcun_cache.training.run import train_head


def ragcun(*arguments: str) -> str:
    return CliRunner().invoke(app, arguments, catch_exceptions=False).stdout


def test_a_head_that_is_removed_takes_its_results_along(
    home: Home,
    cached_collection: Callable[..., tuple[Collection, CachePair]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("RAGCUN_HOME", str(home.root))
    cached_collection()
    settings = {"arch": "untrained", "dataset": "tiny", "out_dim": 16}
    kept, gone = (train_head(make_config({**settings, "seed": seed}), home).record.name for seed in range(2))
    ragcun("eval", "--dataset", "tiny")

    def evaluated() -> set[str]:
        return {one.system.name for one in ResultStore(home.results).all()}

    assert evaluated() == {"identity", kept, gone}
    assert "would go" in ragcun("heads", "rm", gone)
    with FileLock(home.heads / f".{gone}.lock"), pytest.raises(HeadError, match="being trained"):
        ragcun("heads", "rm", gone, "--delete")
    assert evaluated() == {"identity", kept, gone} and (home.heads / gone).exists()

    assert f"removed: {gone} and 1 of its results" in ragcun("heads", "rm", "*seed1*", "--delete")
    assert not (home.heads / gone).exists() and (home.heads / kept).exists()
    assert evaluated() == {"identity", kept}
    assert len(list((home.results / "per_query").iterdir())) == 2

    (home.heads / kept / "head.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        assert "no heads yet" in ragcun("heads", "ls")
    assert "a head is left out: the head's record cannot be read" in caplog.text
    assert "heads rm NAME --delete" in caplog.text
    ragcun("eval", "--dataset", "tiny")
    with pytest.raises(HeadError, match="cannot be read"):
        ragcun("eval", "--dataset", "tiny", "--head", kept)
    assert f"removed: {kept} and 1 of its results" in ragcun("heads", "rm", kept, "--delete")
    assert not (home.heads / kept).exists() and evaluated() == {"identity"}

    train_head(make_config({**settings, "seed": 0}), home)
    elsewhere = (home.heads / kept).rename(home.root / "elsewhere")
    with pytest.raises(HeadError, match="one's own home"):
        ragcun("heads", "rm", str(elsewhere), "--delete")
    assert elsewhere.exists()
