"""``docs/beating_raw.md``: what ``tune`` and the default head give beside the raw encoder, from what is stored.

Nothing is computed here but tables: ``make beat`` runs all that they are of.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.shuffled_heads import ARCH as SHUFFLED_HEAD
from ragcun_cache.ablation.recipe import load_recipe
from ragcun_cache.ablation.sweep import Sweep, SweepRun
from ragcun_cache.errors import EvaluationError, HeadError
from ragcun_cache.evaluation.render import provenance_markdown
from ragcun_cache.evaluation.results import Result
from ragcun_cache.evaluation.significance import Comparison, compare, holm
from ragcun_cache.evaluation.store import ResultStore
from ragcun_cache.files import write_text
from ragcun_cache.heads.store import read_record
from ragcun_cache.home import Home
from ragcun_cache.markdown import paragraphs, table
from ragcun_cache.marked_yaml import read_settings
from ragcun_cache.report.provenance import ranges
from ragcun_cache.training.config import TrainConfig, make_config
from ragcun_cache.training.diagnostics import DEV_METRIC
from ragcun_cache.tuning.config import Labels, TuneConfig, load_tune_config
from ragcun_cache.tuning.record import TuningRecord, list_tunings

PAGE = Path(__file__).resolve().parents[1] / "docs" / "beating_raw.md"
METRIC = "ndcg@10"
LEVEL = 0.05
_ABSENT = "–"
# Entries of a grid that are shown.
_SHOWN = 10

_HEAD = """\
# Beating the raw encoder

Written by `make beat` (`python -m benchmarks.beating_raw`); do not edit. All figures are NDCG@10 on the official test
splits, exact search, over the same cached vectors. What `tune` uses was chosen on dev and tested once for each seed.
The seeds of a row are counted in its table; where it says 1, the figure has no spread. p-values are those of the paired
randomisation test of per-query scores averaged over the seeds (see [evaluation.md](evaluation.md)), corrected by Holm's
method for the collections of a table."""

_ZERO_SHOT = """\
`ragcun-cache tune --labels none`: no judgement of the collection had a part. What is tried (BM25 and its weight,
feedback, whitening) learns nothing; which of it is used is chosen by the judged train and dev queries of the other
collection. MS MARCO does not choose: the encoder was trained on it, so its vectors look better there than elsewhere."""

_IN_DOMAIN = """\
`ragcun-cache tune --labels train`: learnt from the collection's own train judgements and chosen on its dev split, or on
the train queries in five parts by turns where it has none. A query has *seen gold* if one of its relevant passages was
relevant to a train or dev query. Only *unseen gold* says what to expect of passages that nobody has asked for yet."""

_FEW = """\
`tune` given 200 of the judged train queries, drawn anew for each seed. *Above* and *below* count the draws whose
difference to raw on the test split has p < 0.05 (uncorrected). Where nothing is sure on dev, raw is kept, and the
difference is 0."""

_NULL = """\
The same with every judged query given another's passages, those of dev too. There is nothing to find then; what is
found anyway is an error of the protocol. Test judgements are as they are."""

_HEADS_NULL = """\
Heads of the default LeJEPA recipe, trained on pairs that were shuffled in the same way: with the epoch chosen on
shuffled dev queries (epoch 0 is raw), or the last one kept whatever dev says, as the recipe does. Its isotropy term
needs no pairs, so the last epoch may differ from raw for a reason."""

_DENSE = """\
`train-head --arch lejepa` with nothing else said: trained on 10,000 pairs of MS MARCO; no BM25, no judgement of the
collections. In parentheses the difference to raw. *dev* is MS MARCO, which the encoder was trained on, and has no say
in anything. The rows below the default's are the other defaults there have been, over ten seeds too: the first that the
rule chose (see below), and one that came from looks at the test splits before there was a rule. No test figure has a
part in the rule, but it was asked once more, over a wider grid, after its first choice had been tested: the test splits
were looked at more than once, and the margin is that much flattered."""

_FRESH = """\
The same heads on queries that had no part in choosing any of the defaults. The recipe was written, and committed,
before it was run, once, when all of them were known; no result on these queries was in the store. Looks at test cannot
have flattered this. The column *dev* is that of MS MARCO, as above."""

_CHOICE = """\
What the default was chosen from, by NDCG@10 on the *train* queries of the collections (which no head here learns
from), not on their test splits. The rule stood before the first run: the entry of the grid with the highest mean is the
default. Difference to raw, rank among the {entries} entries of the grid in parentheses; mean over seeds {seeds}. A
collection's own first is chosen without the other's help: for the other it is zero-shot."""

_TRIED = """\
The best of each family on dev, as its difference to the raw encoder on dev (mean over seeds). The best of many is
partly luck, so these are no results. Every system that was tried is in [{name}]({name})."""


@dataclass(frozen=True)
class Outcome:
    """Tunings that differ in their seed alone: the raw result, and for each seed what is used in its place."""

    records: Sequence[TuningRecord]
    raw: Result
    used: Sequence[Result]

    @property
    def collection(self) -> str:
        """Name of the collection."""
        return self.raw.setting.collection

    def value_s(self) -> NDArray[np.float64]:
        """Return the test figure of each seed, (s,)."""
        return np.array([one.metrics[METRIC] for one in self.used])


def write_page(
    home: Home,
    tunings: Sequence[TuneConfig],
    recipes: Sequence[Path],
    page: Path,
    train: Mapping[str, Any] | None = None,
) -> None:
    """Write the page and, beside it, every trial as CSV. ``train`` goes over the settings of the ``recipes`` of heads.

    Of what was tuned the page only shows what was tuned as one of ``tunings`` says, with any seed and encoder.

    Raises:
        EvaluationError: nothing was tuned so yet, or a result that a tuning names is not in the store.

    """
    store = ResultStore(home.results)
    asked = {_asked(config) for config in tunings}
    records = [record for record in list_tunings(home.tunings) if _asked(record.config) in asked]
    if not records:
        raise EvaluationError("nothing was tuned yet", where=home.tunings, fix="make beat")
    trials = page.with_name(f"{page.stem}_trials.csv")
    sweeps = [Sweep(load_recipe(path, train=train), home) for path in recipes]
    blocks = [_HEAD]
    used: list[Result] = []
    by_encoder: dict[str, list[Outcome]] = {}
    for outcome in _outcomes(records, store):
        by_encoder.setdefault(outcome.raw.setting.encoder, []).append(outcome)
        used += [outcome.raw, *outcome.used]
    # The encoder that heads were trained on goes first.
    first = {run.results[0].setting.encoder for sweep in sweeps for run in sweep.runs if run.results}
    for encoder, outcomes in sorted(by_encoder.items(), key=lambda item: (item[0] not in first, item[0])):
        blocks.append(f"## {outcomes[0].raw.setting.model}")
        blocks += _tuned(outcomes, store)
        if encoder in first:
            blocks += [block for sweep in sweeps for block in _dense(sweep, store)]
            used += [result for sweep in sweeps for run in sweep.runs for result in run.results]
        shuffled_heads = _shuffled_heads(encoder, store, train or {})
        blocks += _null(outcomes, shuffled_heads, store)
        used += shuffled_heads
        blocks += _tried(outcomes, trials.name)
    origin = provenance_markdown(used, home).replace("###", "##", 1).strip()
    blocks.append("\n".join([origin, *_adapters(records, home)]))
    write_text(page, paragraphs(*blocks) + "\n")
    write_text(trials, _trials([record for group in by_encoder.values() for one in group for record in one.records]))


def _adapters(records: Sequence[TuningRecord], home: Home) -> list[str]:
    """Return lines that say from how many pairs the adapters were learnt that are a part of what was chosen."""
    counts: dict[str, list[int | None]] = {}
    for record in records:
        if record.head is not None:
            drawn = record.config.train_queries
            place = record.collection + (f" ({drawn} train queries)" if drawn else "")
            try:
                count = read_record(home.heads / record.head).provenance.get("train_pairs")
            except HeadError:
                count = None
            counts.setdefault(place, []).append(count)
    return [f"- adapters of `tune`: {place}, {_number_of_pairs(found)}" for place, found in sorted(counts.items())]


def _number_of_pairs(counts: Sequence[int | None]) -> str:
    known = sorted({count for count in counts if count is not None})
    if not known:
        return "number of pairs unknown"
    return " to ".join(dict.fromkeys([f"{known[0]:,}", f"{known[-1]:,}"])) + " pairs"


def _asked(config: TuneConfig) -> str:
    """Return all of a tuning's settings but its seed and encoder, which make no other row."""
    return config.model_dump_json(exclude={"seed", "encoder"})


def _outcomes(records: Sequence[TuningRecord], store: ResultStore) -> list[Outcome]:
    groups: dict[str, dict[int, TuningRecord]] = {}
    # Of one tuning that is there twice, under names of different versions, the latest.
    for record in sorted(records, key=lambda one: one.date):
        group = groups.setdefault(f"{record.encoder} {record.collection} {_asked(record.config)}", {})
        if any((one.raw, one.made_from) != (record.raw, record.made_from) for one in group.values()):
            # Tested on other vectors or judgements than this later one, or made by other code: no seeds of one row.
            group.clear()
        group[record.config.seed] = record
    outcomes = []
    for _, group in sorted(groups.items()):
        ordered = [group[seed] for seed in sorted(group)]
        used = [_stored(one.winner or one.raw, store) for one in ordered]
        outcomes.append(Outcome(ordered, _stored(ordered[0].raw, store), used))
    return outcomes


def _stored(key: str, store: ResultStore) -> Result:
    result = store.find(key)
    if result is None:
        raise EvaluationError("a tuning's result is not in the store", where=store.root, found=key, fix="make beat")
    return result


def _scores(results: Iterable[Result], store: ResultStore) -> NDArray[np.float64]:
    """Return per-query scores averaged over the results, (q,)."""
    mean_q: NDArray[np.float64] = np.mean([store.per_query(one).values[METRIC] for one in results], axis=0)
    return mean_q


def _tuned(outcomes: Sequence[Outcome], store: ResultStore) -> list[str]:
    blocks = []
    for title, about, labels in (("Zero-shot", _ZERO_SHOT, Labels.NONE), ("In-domain", _IN_DOMAIN, Labels.TRAIN)):
        chosen = [
            one
            for one in outcomes
            if (config := one.records[0].config).labels == labels and not (config.shuffled or config.train_queries)
        ]
        if chosen:
            blocks += [f"### {title}", about, _main_table(chosen, store), _choices(chosen), _cost_table(chosen)]
    few = [one for one in outcomes if one.records[0].config.train_queries and not one.records[0].config.shuffled]
    if few:
        blocks += ["### With few labels", _FEW, _spread_table(few, store)]
    return blocks


def _main_table(outcomes: Sequence[Outcome], store: ResultStore) -> str:
    found = [compare(_scores(one.used, store), _scores([one.raw], store)) for one in outcomes]
    corrected = holm({place: one.p_value for place, one in enumerate(found)})
    gold = any(result.seen_gold is not None for outcome in outcomes for result in outcome.used)
    rows = []
    for place, (one, comparison) in enumerate(zip(outcomes, found, strict=True)):
        row = [
            one.collection,
            f"{one.raw.metrics[METRIC]:.4f}",
            _mean_sd(one.value_s()),
            str(len(one.used)),
            _difference(comparison),
            _p(corrected[place]),
            f"{comparison.wins}/{comparison.ties}/{comparison.losses}",
        ]
        rows.append([*row, *(_gold(one, store) if gold else [])])
    by_collection: dict[str, list[Outcome]] = {}
    for one in outcomes:
        by_collection.setdefault(one.collection, []).append(one)
    if len(by_collection) > 1:
        # A collection counts once, however often it was tuned.
        raw = _mean(_mean(one.raw.metrics[METRIC] for one in same) for same in by_collection.values())
        mean = _mean(_mean(one.value_s().mean() for one in same) for same in by_collection.values())
        blanks = [""] * (len(rows[0]) - 5)
        rows.append(["mean", f"{raw:.4f}", f"{mean:.4f}", "", f"{mean - raw:+.4f}", *blanks])
    columns = ["collection", "raw", "tuned", "seeds", "difference (95 %)", "p", "won/tied/lost"]
    return table([*columns, *(["seen gold", "unseen gold"] if gold else [])], rows)


def _gold(outcome: Outcome, store: ResultStore) -> list[str]:
    """Return the means over queries with seen and with unseen gold, raw beside them."""
    seen_q = next((seen_q for one in outcome.used if (seen_q := store.gold_seen(one)) is not None), None)
    if seen_q is None:
        return [_ABSENT, _ABSENT]
    own_q, raw_q = _scores(outcome.used, store), _scores([outcome.raw], store)
    return [
        f"{own_q[part_q].mean():.4f}, raw {raw_q[part_q].mean():.4f} ({part_q.sum()})" if part_q.any() else _ABSENT
        for part_q in (seen_q, ~seen_q)
    ]


def _choices(outcomes: Sequence[Outcome]) -> str:
    """Say what was chosen on dev, seeds with the same choice in one line."""
    lines = []
    for outcome in outcomes:
        by_choice: dict[str, list[TuningRecord]] = {}
        for record in outcome.records:
            by_choice.setdefault(str(record.spec), []).append(record)
        for choice, records in by_choice.items():
            seeds = ranges(sorted(one.config.seed for one in records))
            figures = [one.dev_ndcg for one in records if one.dev_ndcg is not None]
            found = f"{np.mean(figures):.4f} on dev, raw {_raw_dev(records):.4f}" if figures else "fixed in advance"
            if figures:
                found += f"; {records[0].dev_queries:,} dev queries of {', '.join(records[0].chosen_by)}"
            lines.append(f"- {outcome.collection}, seeds {seeds}: **{choice}**; {found}")
            if left_out := sorted({rung for one in records for rung in one.left_out}):
                lines.append(f"  - no time was left for {', '.join(left_out)}")
    return "\n".join(["Chosen on dev:", "", *lines])


def _raw_dev(records: Sequence[TuningRecord]) -> float:
    return float(np.mean([one.trials[0].dev_ndcg for one in records if one.trials] or [np.nan]))


def _cost_table(outcomes: Sequence[Outcome]) -> str:
    rows = []
    for one in outcomes:
        seconds = [record.seconds for record in one.records]
        costs = [result.cost for result in one.used if result.cost is not None]
        sizes = sorted({f"{(cost.bytes or 0) / 1e6:.1f}" for cost in costs}, key=float)
        rebuilt = {bool(cost.index_rebuilt) for cost in costs}
        index = "depends on the seed" if len(rebuilt) > 1 else "is built again" if True in rebuilt else "stays"
        rows.append(
            [
                one.collection,
                f"{np.mean([len(record.trials) for record in one.records]):,.0f}",
                f"{np.median(seconds):.0f} ({max(seconds):.0f})",
                " to ".join(dict.fromkeys([*sizes[:1], *sizes[-1:]])) or "0",
                index,
            ]
        )
    columns = ["cost", "systems tried", "s in all, median (most)", "MB to keep", "index of passages"]
    return table(columns, rows)


def _spread_table(outcomes: Sequence[Outcome], store: ResultStore) -> str:
    """Show how far the seeds lie around raw, and how many of them are surely above or below it."""
    rows = []
    for outcome in outcomes:
        config, raw_q = outcome.records[0].config, _scores([outcome.raw], store)
        found = [compare(_scores([one], store), raw_q) for one in outcome.used]
        kept = sum(record.winner is None for record in outcome.records)
        name = f"{outcome.collection}, labels {config.labels}"
        name += f", {config.train_queries} queries" if config.train_queries else ""
        rows.append([name, f"{outcome.raw.metrics[METRIC]:.4f}", str(kept), *_spread(found)])
    return table(["tuned", "raw", "raw kept", *_SPREAD], rows)


_SPREAD = ("seeds", "mean difference", "lowest", "highest", "above", "below")


def _spread(found: Sequence[Comparison]) -> list[str]:
    sure = [one.difference for one in found if one.p_value < LEVEL]
    differences = [one.difference for one in found]
    return [
        str(len(found)),
        f"{np.mean(differences):+.4f}",
        f"{min(differences):+.4f}",
        f"{max(differences):+.4f}",
        str(sum(one > 0 for one in sure)),
        str(sum(one < 0 for one in sure)),
    ]


def _shuffled_heads(encoder: str, store: ResultStore, train: Mapping[str, Any]) -> list[Result]:
    """Return the results of default heads on shuffled pairs, one for each setting, way of choosing the epoch and seed.

    The pairs are of the collection that ``train`` names, if it names one. Of results by other code, which have other
    weights, it is the latest.
    """
    dataset = train.get("dataset")
    found: dict[tuple[str, str, int | None], Result] = {}
    for one in store.all():
        system, setting = one.system, one.setting
        if system.arch != SHUFFLED_HEAD or setting.encoder != encoder or not _is_todays(system.settings):
            continue
        if dataset in (None, system.settings["dataset"]):
            found[setting.sha256, str(system.settings["select"]), system.seed] = one
    return list(found.values())


def _null(outcomes: Sequence[Outcome], heads: Sequence[Result], store: ResultStore) -> list[str]:
    shuffled = [one for one in outcomes if one.records[0].config.shuffled]
    blocks = ["### The planted null", _NULL, _spread_table(shuffled, store)] if shuffled else []
    if not heads:
        return blocks
    raw = {one.setting.sha256: one for one in store.all() if one.system.is_raw}
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in heads:
        groups.setdefault((result.setting.sha256, str(result.system.settings["select"])), []).append(result)
    rows = []
    for (setting, select), results in sorted(groups.items(), key=lambda item: item[1][0].setting.collection):
        raw_q = _scores([raw[setting]], store)
        found = [compare(_scores([one], store), raw_q) for one in results]
        name = f"{results[0].setting.collection}, epoch {'chosen on dev' if select == 'best_dev' else 'the last'}"
        rows.append([name, f"{raw[setting].metrics[METRIC]:.4f}", *_spread(found)])
    return [*blocks, _HEADS_NULL, table(["head", "raw", *_SPREAD], rows)]


def _is_todays(settings: Mapping[str, Any]) -> bool:
    """Return whether a head on shuffled pairs has the settings that a default head has today."""
    default = make_config({name: settings[name] for name in ("dataset", "pairs", "select")}).model_dump(mode="json")
    shared = settings.keys() & default.keys()
    return all(settings[name] == default[name] for name in shared)


def _dense(sweep: Sweep, store: ResultStore) -> list[str]:
    """Show how the seeds of the default head do, or for a recipe with a grid, how it was chosen."""
    rows: dict[str, list[SweepRun]] = {}
    for run in sweep.runs:
        if run.results:
            rows.setdefault(run.planned.label.rpartition(", seed ")[0], []).append(run)
    if not rows:
        return []
    if any(_in_grid(name) for name in rows):
        return _choice(sweep, rows)
    raw = {one.setting.sha256: one for one in sweep.results() if one.system.is_raw}
    columns = ["LeJEPA", *(one.setting.collection for one in raw.values()), "mean", "dev"]
    figures = [f"{one.metrics[METRIC]:.4f}" for one in raw.values()]
    lines = [["raw encoder", *figures, f"{_mean_of(raw.values()):.4f}", _ABSENT]]

    def of(runs: Sequence[SweepRun], setting: str) -> list[Result]:
        return [result for run in runs for result in run.results if result.setting.sha256 == setting]

    def line(name: str, runs: Sequence[SweepRun]) -> list[str]:
        results_of = {setting: of(runs, setting) for setting in raw}
        found = {
            setting: compare(_scores(results, store), _scores([raw[setting]], store))
            for setting, results in results_of.items()
        }
        corrected = holm({setting: one.p_value for setting, one in found.items()})
        cells = []
        for setting, results in results_of.items():
            value = _mean_sd(np.array([result.metrics[METRIC] for result in results]))
            cells.append(f"{value} ({found[setting].difference:+.4f}, {_p(corrected[setting], 'p')})")
        mean_s = np.array([_mean_of(run.results) for run in runs])
        records = [record for run in runs if (record := sweep.head(run)) is not None]
        dev_s = np.array([record.provenance["metrics"][DEV_METRIC] for record in records], dtype=np.float64)
        return [name, *cells, _mean_sd(mean_s), _mean_sd(dev_s)]

    for place, (name, runs) in enumerate(rows.items()):
        lines += [line(f"seed {run.planned.config.seed}", [run]) for run in runs if place == 0]
        lines.append(line(f"{name}, {len(runs)} seeds", runs))
    title = "### Dense only: the default head"
    if sweep.recipe.split is not None:
        return [f"{title} on the {sweep.recipe.split} split", _FRESH, table(columns, lines)]
    return [title, _DENSE, table(columns, lines)]


def _in_grid(name: str) -> bool:
    return name.startswith("grid")


def _choice(sweep: Sweep, rows: Mapping[str, Sequence[SweepRun]]) -> list[str]:
    """Show the best entries of the recipe's grids, which are the runs called so, and the other runs below them."""
    raw = {one.setting.collection: one.metrics[METRIC] for one in sweep.results() if one.system.is_raw}
    gains = {name: {one: _gain(runs, one, raw[one]) for one in raw} for name, runs in rows.items()}
    grid = [name for name in gains if _in_grid(name)]

    def ranks(value: Callable[[str], float]) -> dict[str, int]:
        return {name: rank for rank, name in enumerate(sorted(grid, key=value, reverse=True), start=1)}

    by_mean = ranks(lambda name: _mean(gains[name].values()))
    by_one = {one: ranks(lambda name, one=one: gains[name][one]) for one in raw}  # type: ignore[misc]
    default = rows[min(by_mean, key=by_mean.__getitem__)][0].planned.config
    plain = make_config({"dataset": default.dataset, "pairs": default.pairs, "encoder": default.encoder})
    same = plain.model_copy(update={"seed": default.seed}) == default
    shown = [name for name in by_mean if min(by_mean[name] / _SHOWN, *(by[name] for by in by_one.values())) <= 1]
    # What rows outside the grid change one thing of, where it is one entry of the grid.
    others = [name for name in gains if name not in grid]
    base = [name for name in grid if _has(rows[name][0].planned.config, sweep.recipe.train)] if others else []
    shown += [name for name in base if len(base) == 1 and name not in shown]
    lines = [["raw encoder", *(f"{value:.4f}" for value in raw.values()), f"{_mean(raw.values()):.4f}"]]
    for name in [*shown, *others]:
        cells = [_ranked(gain, by_one[one].get(name)) for one, gain in gains[name].items()]
        lines.append([_point(name), *cells, _ranked(_mean(gains[name].values()), by_mean.get(name))])
    about = _CHOICE.format(entries=len(grid), seeds=ranges(sweep.recipe.seeds))
    if len(base) == 1:
        about += f" Rows without a rank change one thing of {_point(base[0])}."
    told = (
        "The default of `train-head` is the first of this grid." if same else "The default of `train-head` is another."
    )
    title = f"### Dense only: what else was tried (`{sweep.recipe.name}`)"
    return [title, about, table(["LeJEPA", *raw, "mean"], lines), told]


def _point(name: str) -> str:
    return name.removeprefix("grid, ").removeprefix("grid at ")


def _has(config: TrainConfig, settings: Mapping[str, Any]) -> bool:
    return all(getattr(config, name) == value for name, value in settings.items())


def _gain(runs: Sequence[SweepRun], collection: str, raw: float) -> float:
    """Return the mean difference to raw of a row's runs on a collection."""
    found = [one.metrics[METRIC] for run in runs for one in run.results if one.setting.collection == collection]
    return float(np.mean(found)) - raw


def _ranked(gain: float, rank: int | None) -> str:
    return f"{gain:+.4f}" + (f" ({rank})" if rank else "")


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _mean_of(results: Iterable[Result]) -> float:
    return _mean(one.metrics[METRIC] for one in results)


def _tried(outcomes: Sequence[Outcome], name: str) -> list[str]:
    """Return a table of the best trial of each family, a column a tuning."""
    chosen = [one for one in outcomes if not (one.records[0].config.shuffled or one.records[0].config.train_queries)]
    best: dict[str, dict[int, float]] = {}
    for column, outcome in enumerate(chosen):
        by_family: dict[str, list[float]] = {}
        for record in outcome.records:
            own: dict[str, float] = {}
            for trial in record.trials[1:]:
                own[trial.family] = max(own.get(trial.family, -1.0), trial.dev_ndcg - record.trials[0].dev_ndcg)
            for family, value in own.items():
                by_family.setdefault(family, []).append(value)
        for family, values in by_family.items():
            best.setdefault(family, {})[column] = float(np.mean(values))
    if not best:
        return []
    columns = [f"{one.collection}, labels {one.records[0].config.labels}" for one in chosen]
    raw = ["raw, on dev", *(f"{_raw_dev(one.records):.4f}" for one in chosen)]
    order = sorted(best, key=lambda family: -max(best[family].values()))
    rows = [
        [family, *(f"{best[family][i]:+.4f}" if i in best[family] else _ABSENT for i in range(len(chosen)))]
        for family in order
    ]
    return ["### What else was tried", _TRIED.format(name=name), table(["family", *columns], [raw, *rows])]


def _trials(records: Sequence[TuningRecord]) -> str:
    """Return every system that was tried with all the labels there are, its dev figure a mean over seeds, as CSV."""
    found: dict[tuple[str, str, str, str], list[float]] = {}
    for record in records:
        if not (record.config.shuffled or record.config.train_queries):
            for trial in record.trials:
                key = (record.encoder, record.collection, str(record.config.labels), trial.system)
                found.setdefault(key, []).append(trial.dev_ndcg)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["encoder", "collection", "labels", "system", "seeds", "dev ndcg@10"])
    writer.writerows([*key, len(values), f"{np.mean(values):.4f}"] for key, values in found.items())
    return text.getvalue()


def _mean_sd(value_s: NDArray[np.float64]) -> str:
    return f"{value_s.mean():.4f}" + (f" ± {value_s.std(ddof=1):.4f}" if len(value_s) > 1 else "")


def _difference(found: Comparison) -> str:
    low, high = found.interval
    return f"{found.difference:+.4f} ({low:+.4f}, {high:+.4f})"


def _p(value: float, name: str = "") -> str:
    equals = f"{name} = " if name else ""
    return f"{equals}{value:.3f}" if value >= 0.001 else f"{name} < 0.001".strip()


_NAMES = ("lejepa_ten_seeds", "lejepa_fresh_queries", "lejepa_choice", "lejepa_choice_wider")
_RECIPES = [Path(f"pipelines/{name}.yaml") for name in _NAMES]
_TUNINGS = Path("pipelines/tune")


def main(
    recipe: Annotated[
        list[Path], typer.Option(help="Recipe of heads whose table is on the page too. Repeatable.")
    ] = _RECIPES,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="name=value: as it was set for `ragcun-cache ablate`; repeatable.")
    ] = None,
    tunings: Annotated[
        Path, typer.Option(help="Folder with the recipes of `ragcun-cache tune` that are on the page.")
    ] = _TUNINGS,
    page: Annotated[Path, typer.Option(help="The page to write.")] = PAGE,
) -> None:
    """Write the page from the tunings, heads and results that are stored."""
    configs = [load_tune_config(path, {}) for path in sorted(tunings.glob("*.yaml"))]
    write_page(Home.default(), configs, recipe, page, read_settings(set_))
    typer.echo(f"{page}")


if __name__ == "__main__":
    typer.run(main)
