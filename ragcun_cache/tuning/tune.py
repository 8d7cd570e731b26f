"""One tuning: find the data, climb the ladder on dev, fit the choice on everything, test it once beside raw."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ragcun_cache.adapters.judgements import Judgements
from ragcun_cache.errors import TrainingError
from ragcun_cache.evaluation.candidates import trained_on
from ragcun_cache.evaluation.config import EvalConfig
from ragcun_cache.evaluation.results import Result
from ragcun_cache.evaluation.store import ResultStore
from ragcun_cache.evaluation.subject import Subject, encode_raw
from ragcun_cache.evaluation.system import TrainedOn, raw_head
from ragcun_cache.heads.store import HeadRecord
from ragcun_cache.home import Home
from ragcun_cache.progress import progress
from ragcun_cache.tuning.choice import Dev, choose
from ragcun_cache.tuning.config import Labels, TuneConfig
from ragcun_cache.tuning.fitted import Fitted
from ragcun_cache.tuning.heads import learnt_from, refuse_informed
from ragcun_cache.tuning.ladder import Ladder
from ragcun_cache.tuning.queries import Fold
from ragcun_cache.tuning.record import Tried, TuningRecord, provenance, read_tuning
from ragcun_cache.tuning.spec import Fusion, Spec, TrainedHead
from ragcun_cache.tuning.task import Task

_FOLDS = 5
_MAX_DEV_QUERIES = 1000
# What is kept back of the time for fitting and testing the choice.
_CLIMB_SHARE = 0.8

FIXED_IN_ADVANCE = Spec(bm25=Fusion.CONVEX, dense_weight=0.6)
"""What is used where nothing may choose: raw vectors with BM25.

The weight was seen to do well on the test queries of SciFact and NFCorpus, so on these two it would be no clean choice.
"""


@dataclass(frozen=True)
class Tuned:
    """The outcome.

    ``trials`` are all systems that were tried, raw first, with their NDCG@10 on the dev queries; none where no
    judgement could be used, and ``spec``, the system that was chosen, is then the one that was fixed in advance
    (``dev_ndcg`` None). ``raw`` and ``winner`` are results on the test split; ``winner`` is None where raw was chosen.
    ``head`` is the adapter in it, saved as a head of its own, if there is one. ``left_out`` are the rungs, and the
    systems of a rung that was begun, for which there was no time.
    """

    config: TuneConfig
    trials: list[tuple[Spec, float]]
    spec: Spec
    dev_ndcg: float | None
    dev_queries: int
    chosen_by: list[str]
    left_out: list[str]
    raw: Result
    winner: Result | None
    head: HeadRecord | None
    seconds: float


def tune(config: TuneConfig, home: Home, store: ResultStore) -> Tuned:
    """Choose a system for the collection on dev queries, test it and the raw encoder once, and store both results.

    Where raw itself is chosen, its result is stored under the name of the tuned system as well.

    In domain, dev is the split ``dev``, or every fifth of the train queries in turn where there is none; what is
    chosen is then fitted on all of them. Zero-shot, dev are judged queries of other collections. The test split is
    read when the choice is made, and for nothing else. Without any judged query, ``FIXED_IN_ADVANCE`` is tested. All
    that was tried is kept in ``home.tunings``.

    Raises:
        TrainingError: there is nothing to learn from or to choose by.
        HeadError: a head knows the judgements that choose, or cannot be tuned with.
        CollectionError, CacheError, EvaluationError: something that is named is not there or does not fit.

    """
    started = time.monotonic()
    task = Task.of(config, home)
    data, heads, made_from = task.data, task.heads, task.made_from()
    everything: Judgements | None = None
    if config.labels == Labels.TRAIN:
        folds, everything, chosen_by = _in_domain(task)
    else:
        folds, chosen_by = _zero_shot(task)
    trials, left_out, spec, dev_ndcg = [], [], FIXED_IN_ADVANCE, None
    if folds:
        dev = _dev(folds, config)
        deadline = started + 60 * config.minutes * _CLIMB_SHARE
        ladder = Ladder(folds, dev, deadline, seed=config.seed, heads=[record.name for record in heads])
        with progress("tuning", "rungs", None) as advance:
            for _ in ladder.climb():
                advance(1)
        chosen = choose(ladder.trials, dev)
        trials = [(trial.spec, dev.mean(trial.ndcg_q)) for trial in ladder.trials]
        left_out, spec, dev_ndcg = ladder.left_out, chosen.spec, dev.mean(chosen.ndcg_q)

    subject = Subject.of(data.collection, data.pair, EvalConfig())
    raw = subject.evaluate(raw_head(data.pair.passage.dim), lambda: encode_raw, store)
    fitted = Fitted(spec, data, everything)
    seconds = time.monotonic() - started
    # The head that is kept is the dense part alone, whose own figure on dev it bears.
    alone = next((ndcg for tried, ndcg in trials if tried == Spec(dense=spec.dense)), None)
    head = fitted.save(config, chosen_by, alone, seconds, home)
    by_head = [learnt_from(one, home) for one in heads if spec.dense == TrainedHead(name=one.name)]
    # Raw is stored as what tune has come to as well, or its row would be of the seeds that found something better.
    tested = fitted.test(subject, fitted.system(config, chosen_by, *by_head), seconds, store)
    tuned = Tuned(
        config=config,
        trials=trials,
        spec=spec,
        dev_ndcg=dev_ndcg,
        dev_queries=sum(len(fold.dev) for fold in folds),
        chosen_by=[f"{one.collection}/{one.split}" for one in chosen_by],
        left_out=left_out,
        raw=raw,
        winner=None if spec.is_raw else tested,
        head=head,
        seconds=time.monotonic() - started,
    )
    _record(tuned, task.name, made_from).save(home.tunings)
    return tuned


def is_stored(config: TuneConfig, home: Home) -> bool:
    """Return whether this very tuning was carried out before: of these vectors, by the same code and data."""
    task = Task.of(config, home)
    record = read_tuning(home.tunings, task.name)
    return record is not None and record.made_from == task.made_from()


def was_tuned(config: TuneConfig, home: Home) -> bool:
    """Return whether there is a record of this tuning, by whatever code and data."""
    return read_tuning(home.tunings, Task.of(config, home).name) is not None


def _record(tuned: Tuned, name: str, made_from: str) -> TuningRecord:
    setting = tuned.raw.setting
    return TuningRecord.model_validate(
        {
            "name": name,
            "config": tuned.config,
            "collection": setting.collection,
            "encoder": setting.encoder,
            "trials": [Tried(system=str(spec), family=spec.family, dev_ndcg=ndcg) for spec, ndcg in tuned.trials],
            "spec": tuned.spec,
            "dev_ndcg": tuned.dev_ndcg,
            "dev_queries": tuned.dev_queries,
            "chosen_by": tuned.chosen_by,
            "left_out": tuned.left_out,
            "raw": tuned.raw.key,
            "winner": None if tuned.winner is None else tuned.winner.key,
            "head": None if tuned.head is None else tuned.head.name,
            "seconds": tuned.seconds,
            "made_from": made_from,
            **provenance(),
        }
    )


def _dev(folds: Sequence[Fold], config: TuneConfig) -> Dev:
    """Put the dev queries of all folds in one row: parts of one collection, or collections of their own."""
    sizes = [len(fold.dev) for fold in folds]
    if config.labels == Labels.NONE:
        return Dev(np.repeat(np.arange(len(folds)), sizes), np.zeros(sum(sizes), np.bool_))
    return Dev(np.zeros(sum(sizes), np.int64), np.concatenate([fold.unseen for fold in folds]))


def _in_domain(task: Task) -> tuple[list[Fold], Judgements, tuple[TrainedOn, ...]]:
    """Return the folds, all that the choice is fitted on in the end, and the splits that all of it is from."""
    config, data = task.config, task.data
    collection, splits = data.collection, data.splits
    if "train" not in splits:
        raise TrainingError(
            f"{collection.name} has no train split to learn from",
            expected="a split called train",
            found=", ".join(collection.splits()),
            fix=f"ragcun-cache tune --dataset {shlex.quote(collection.dataset)} --labels none",
        )
    train = data.judgements("train")
    if config.train_queries is not None:
        if len(train) < config.train_queries:
            raise TrainingError(
                f"{collection.name} has too few judged queries to draw from",
                expected=f"{config.train_queries} in train",
                found=f"{len(train)}",
                fix="leave --train-queries out: all of them are learnt from then",
            )
        train, splits = train.drawn(config.train_queries, config.seed), ["train"]
    dev = data.judgements("dev") if "dev" in splits else None
    # A query that is judged in both would be remembered, not found.
    in_both_m = np.isin(train.query_m, () if dev is None else dev.query_m)
    learnt = train.take(np.flatnonzero(~in_both_m))
    if len(learnt) < 2 * _FOLDS or (dev is not None and not len(dev)):
        raise TrainingError(
            f"{collection.name} has too few judged queries to tune by",
            expected=f"at least {2 * _FOLDS} to learn from" + ("" if dev is None else " and 1 to choose by"),
            found=f"{len(learnt)} in train" + ("" if dev is None else f" that are not in dev, {len(dev)} in dev"),
        )
    if config.shuffled:
        learnt, dev = learnt.shuffled(config.seed), None if dev is None else dev.shuffled(config.seed)
    chosen_by = trained_on(collection.name, splits, task.home)
    if dev is not None:
        refuse_informed(task.heads, collection, ["dev", *(["train"] if in_both_m.any() else [])], task.home)
        return [data.fold(data.drawn(dev, _MAX_DEV_QUERIES, config.seed), learnt)], learnt.joined(dev), chosen_by
    refuse_informed(task.heads, collection, ["train"], task.home)
    fold_m = np.random.default_rng(config.seed).permutation(len(learnt)) % _FOLDS
    folds = []
    for fold in range(_FOLDS):
        part = learnt.take(np.flatnonzero(fold_m == fold))
        part = data.drawn(part, _MAX_DEV_QUERIES // _FOLDS, config.seed, folds=_FOLDS)
        folds.append(data.fold(part, learnt.take(np.flatnonzero(fold_m != fold))))
    return folds, learnt, chosen_by


def _zero_shot(task: Task) -> tuple[list[Fold], tuple[TrainedOn, ...]]:
    """Return the judged queries of other collections, a fold each, and the splits that they are from."""
    config = task.config
    folds: list[Fold] = []
    splits: list[TrainedOn] = []
    for other in task.others:
        judged = other.judged(_MAX_DEV_QUERIES, config.seed, folds=len(task.others))
        if judged is not None:
            judged = judged.shuffled(config.seed) if config.shuffled else judged
            folds.append(other.fold(judged, None))
            splits += trained_on(other.collection.name, other.splits, task.home)
    return folds, tuple(splits)
