"""What is kept of a recipe beside its heads and results: the runs it stood for, and why some of them failed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ragcun_cache.ablation.grid import PlannedRun
from ragcun_cache.ablation.recipe import Recipe, expand
from ragcun_cache.errors import ConfigError
from ragcun_cache.files import make_folder, sha256_json, write_json
from ragcun_cache.home import Home

RECIPE_NAME = "recipe.json"


@dataclass(frozen=True)
class SweepRecord:
    """The folder of a recipe. Which runs are done is not in it: that is read off the heads and results themselves."""

    folder: Path

    @classmethod
    def of(cls, recipe: Recipe, home: Home) -> SweepRecord:
        """Return the record of ``recipe``, named by its name and 8 hex digits of all that it asks for."""
        asked = {
            "runs": [run.config.model_dump(mode="json") for run in expand(recipe)],
            **recipe.model_dump(mode="json", include={"evaluate", "split", "search"}),
        }
        return cls(home.ablations / f"{recipe.name}-{sha256_json(asked)[:8]}")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from running the same recipe. Raises ConfigError if one does."""
        from filelock import FileLock, Timeout

        make_folder(self.folder)
        try:
            with FileLock(self.folder / ".lock", timeout=0):
                yield
        except Timeout:
            raise ConfigError("this recipe is being run by another process", where=self.folder) from None

    def write(self, recipe: Recipe, runs: Sequence[tuple[str | None, PlannedRun]]) -> None:
        """Write what was asked for: the recipe as it was understood, and its runs with the folders of their heads."""
        content = {
            "recipe": recipe.model_dump(mode="json"),
            "runs": [
                {"label": run.label, "head": name, "train": run.config.model_dump(mode="json")} for name, run in runs
            ],
        }
        write_json(self.folder / RECIPE_NAME, content)

    def failure(self, name: str) -> str | None:
        """Return why the run ``name`` failed, or None if it did not."""
        path = self._failure_path(name)
        try:
            content: dict[str, Any] = json.loads(path.read_bytes())
            return str(content["error"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            return f"unknown: {path} cannot be read"

    def keep_failure(self, name: str, run: PlannedRun, error: str, traceback: str | None) -> None:
        """Write why the run ``name`` failed."""
        date = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(self._failure_path(name), {"label": run.label, "error": error, "date": date, "traceback": traceback})

    def forget_failure(self, name: str) -> None:
        """Remove the failure of the run ``name``, if there is one."""
        self._failure_path(name).unlink(missing_ok=True)

    def _failure_path(self, name: str) -> Path:
        return self.folder / "failed" / f"{name}.json"
