"""What a report draws on besides the results: heads, collections and caches, where this machine still has them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from ragcun_cache.cache import open_pair
from ragcun_cache.collections.locate import find_collection
from ragcun_cache.errors import HeadError, RagcunCacheError
from ragcun_cache.evaluation.candidates import head_encoder
from ragcun_cache.evaluation.results import Result, Setting
from ragcun_cache.evaluation.store import ResultStore
from ragcun_cache.evaluation.subject import Encode, Subject, encode_raw
from ragcun_cache.heads.store import RECORD_NAME, HeadRecord, read_record
from ragcun_cache.home import Home


class Sources:
    """Results by key, and what they were made from. ``left_out`` collects what a reader will miss, and why."""

    def __init__(self, results: Sequence[Result], store: ResultStore, home: Home) -> None:
        self.results = {result.key: result for result in results}
        self.store = store
        self.home = home
        self.left_out: list[str] = []
        self._subjects: dict[str, Subject | None] = {}

    @cached_property
    def records(self) -> dict[str, HeadRecord]:
        """The heads below the home, by the sha256 that their results carry."""
        found: dict[str, HeadRecord] = {}
        for path in sorted(self.home.heads.glob(f"*/{RECORD_NAME}")):
            try:
                record = read_record(path.parent)
            except HeadError as error:
                self.left_out.append(f"The head {path.parent.name}: {error.problem}.")
                continue
            found[record.sha256] = record
        return found

    def record(self, result: Result) -> HeadRecord | None:
        """Return the head that a result is of, or None if it is no head, or is no longer there."""
        return self.records.get(result.system.sha256)

    def encode(self, result: Result) -> Encode | None:
        """Return the function that maps cached vectors as the system of a result does, or None if it cannot be had."""
        if result.system.is_raw:
            return encode_raw
        record = self.record(result)
        if record is None:
            return None
        try:
            return head_encoder(record, "cpu")()
        except HeadError as error:
            self.left_out.append(f"The vectors of {record.name}: {error.problem}.")
            return None

    def subject(self, setting: Setting) -> Subject | None:
        """Return the collection and caches of a setting, unless they are gone or have changed since."""
        if setting.sha256 not in self._subjects:
            self._subjects[setting.sha256] = self._open(setting)
        return self._subjects[setting.sha256]

    def _open(self, setting: Setting) -> Subject | None:
        place = f"{setting.collection}/{setting.split}"
        try:
            collection = find_collection(setting.collection, self.home, download=False)
            subject = Subject.of(collection, open_pair(self.home.caches, collection, setting.vectors), setting.config)
            if subject.setting == setting:
                return subject
            reason = "its texts, judgements or vectors have changed since"
        except RagcunCacheError as error:
            reason = error.problem
        self.left_out.append(f"Texts, spectra and similarities of {place}: {reason}.")
        return None

    def metrics(self, record: HeadRecord) -> list[dict[str, Any]]:
        """Return the rows that were measured after each epoch of a head, ``[]`` if there are none."""
        import polars

        from ragcun_cache.training.run import METRICS_NAME

        try:
            return polars.read_parquet(record.folder / METRICS_NAME).to_dicts()
        except (OSError, polars.exceptions.PolarsError):
            return []
