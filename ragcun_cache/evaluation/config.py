"""How to evaluate: all that changes a figure besides the vectors and the qrels."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ragcun_cache.collections.collection import Collection
from ragcun_cache.retrieval.index import FLAT, parse_index


class EvalConfig(BaseModel):
    """Settings of one evaluation. None means: as the collection's registry entry says.

    ``index`` is ``flat``, the exact search, or an approximate index as ``parse_index`` reads it; all its parameters are
    filled in. Raises ConfigError for one that is unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    split: str | None = None
    k: int = Field(default=100, ge=100, description="depth of the run; recall@100 and map@100 need 100")
    ignore_identical_ids: bool | None = None
    index: str = FLAT

    @field_validator("index")
    @classmethod
    def _every_parameter(cls, index: str) -> str:
        found = parse_index(index)
        return FLAT if found is None else found.name

    @property
    def depth(self) -> int:
        """How deep a run must reach before it is scored: one more than ``k``, which a query's own id may take up."""
        return self.k + 1

    def resolved(self, collection: Collection) -> EvalConfig:
        """Return this config with every None replaced by what ``collection`` says."""
        rule = collection.ignore_identical_ids if self.ignore_identical_ids is None else self.ignore_identical_ids
        return self.model_copy(update={"split": self.split or collection.test_split, "ignore_identical_ids": rule})
