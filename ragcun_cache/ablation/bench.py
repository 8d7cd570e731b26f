"""What the runs of a recipe share in one process: loaded vectors, the collections they are evaluated on, the store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from ragcun_cache.cache import open_pair
from ragcun_cache.collections.locate import find_collection
from ragcun_cache.collections.registry import each_name
from ragcun_cache.errors import EvaluationError, TrainingError
from ragcun_cache.evaluation.candidates import describe_head, head_cost, head_encoder
from ragcun_cache.evaluation.config import EvalConfig
from ragcun_cache.evaluation.store import ResultStore
from ragcun_cache.evaluation.subject import Subject, encode_raw
from ragcun_cache.evaluation.system import raw_head
from ragcun_cache.heads.store import HeadRecord
from ragcun_cache.home import Home
from ragcun_cache.training.config import TrainConfig
from ragcun_cache.training.pairs import TrainingData, data_settings, load_training_data
from ragcun_cache.training.run import TrainedHead, run_name, train_head

if TYPE_CHECKING:
    from ragcun_cache.evaluation.results import Result


class Bench:
    """Trains and evaluates one run after the other. Runs of equal data that follow each other share its vectors."""

    def __init__(self, home: Home, collections: Sequence[str], split: str | None) -> None:
        self.home = home
        self.store = ResultStore(home.results)
        self._collections = each_name(collections)
        self._split = split
        self._subjects: dict[str, list[Subject]] = {}
        self._data: tuple[dict[str, Any], TrainingData] | None = None

    def data(self, config: TrainConfig) -> TrainingData:
        """Return what ``config`` trains on; vectors are loaded when they are first asked for."""
        wanted = data_settings(config)
        if self._data is None or self._data[0] != wanted:
            self._data = None  # before the next is loaded: both may not fit in memory
            self._data = wanted, load_training_data(config, self.home)
        return self._data[1]

    def subjects(self, vectors: str) -> list[Subject]:
        """Return what heads on such vectors (``CachePair.vectors``) are evaluated on.

        Raises an error for what is not there.
        """
        if vectors not in self._subjects:
            self._subjects[vectors] = [self._subject(name, vectors) for name in self._collections]
        return self._subjects[vectors]

    def _subject(self, name: str, vectors: str) -> Subject:
        collection = find_collection(name, self.home, download=False)
        subject = Subject.of(
            collection, open_pair(self.home.caches, collection, vectors), EvalConfig(split=self._split)
        )
        # Read now, so that a split that does not exist is known before anything is computed.
        _ = subject.qrels
        return subject

    def carry_out(
        self,
        name: str,
        config: TrainConfig,
        *,
        evaluate: bool,
        also_epochs: Collection[int] = (),
        on_epoch: Callable[[dict[str, Any]], None],
    ) -> TrainedHead:
        """Train the head, or find it, and evaluate it where it has not been.

        Raises TrainingError if ``name`` is no longer that of the run, and whatever training and evaluating raise.
        """
        data = self.data(config)
        if (found := run_name(config, data)) != name:
            raise TrainingError(
                "the code or the data was changed while the recipe ran",
                expected=name,
                found=found,
                fix="run the same command again",
            )
        trained = train_head(config, self.home, data=data, wait=True, also_epochs=also_epochs, on_epoch=on_epoch)
        if evaluate:
            self.evaluate(trained.record, config.device)
        return trained

    def evaluate(self, record: HeadRecord, device: str) -> list[Result]:
        """Return the results of a head on all collections, evaluating it on ``device`` where it has not been."""
        encode, system, cost = head_encoder(record, device), describe_head(record, self.home), head_cost(record)
        return [subject.evaluate(system, encode, self.store, cost=cost) for subject in self.subjects(_vectors(record))]

    def stored(self, record: HeadRecord) -> list[Result] | None:
        """Return the results of a head on all collections, or None if one is not in the store, or cannot be."""
        system = describe_head(record, self.home)
        try:
            return [subject.evaluate(system, _not_stored, self.store) for subject in self.subjects(_vectors(record))]
        except (_NotStoredError, EvaluationError):
            return None

    def raw(self, vectors: str) -> list[Result]:
        """Return the results of the raw encoder, evaluating it where it has not been."""
        return [
            subject.evaluate(raw_head(subject.pair.passage.dim), lambda: encode_raw, self.store)
            for subject in self.subjects(vectors)
        ]


def _vectors(record: HeadRecord) -> str:
    """Return those that a head was trained on, as ``CachePair.vectors`` says it."""
    caches = record.provenance["caches"]
    return "+".join([record.provenance["encoder"], *(caches[role]["fingerprint"] for role in ("query", "passage"))])


class _NotStoredError(Exception):
    pass


def _not_stored() -> NoReturn:
    raise _NotStoredError
