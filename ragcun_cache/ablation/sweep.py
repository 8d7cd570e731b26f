"""Carrying out a recipe: what is done is found, what is missing is run, what fails is written down."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ragcun_cache.ablation.bench import Bench
from ragcun_cache.ablation.grid import PlannedRun
from ragcun_cache.ablation.recipe import Recipe, expand
from ragcun_cache.ablation.record import SweepRecord
from ragcun_cache.ablation.workers import Event, Task, Workers, WorkerSetup
from ragcun_cache.errors import HeadError, RagcunCacheError
from ragcun_cache.files import sha256_json
from ragcun_cache.heads.store import HeadRecord, read_record
from ragcun_cache.home import Home
from ragcun_cache.provenance import machine
from ragcun_cache.training.pairs import data_settings
from ragcun_cache.training.run import run_name, shares_epochs

if TYPE_CHECKING:
    from ragcun_cache.ablation.search import Found
    from ragcun_cache.evaluation.results import Result

State = Literal["done", "failed", "missing"]


@dataclass
class SweepRun:
    """A run of the recipe and how it stands. ``name`` is the folder of its head, None if it cannot even begin."""

    planned: PlannedRun
    name: str | None
    state: State
    error: str | None = None
    results: list[Result] = field(default_factory=list)


class Sweep:
    """One recipe in one home."""

    def __init__(self, recipe: Recipe, home: Home) -> None:
        self.recipe = recipe
        self.home = home
        self.record = SweepRecord.of(recipe, home)
        self.bench = Bench(home, recipe.evaluate, recipe.split)
        self.runs = self.look_at(expand(recipe), evaluate=True)
        self.found: Found | None = None
        if recipe.search:
            from ragcun_cache.ablation.search import require_search

            require_search(self)

    def look_at(self, planned: Sequence[PlannedRun], *, evaluate: bool) -> list[SweepRun]:
        """Return how each run stands, by what is on disk; it is only done if it is evaluated too, if it is to be.

        Raises the first run's error if none can begin: there is no cache, or it would train on a test split.
        """
        runs = {index: self._look_at(planned[index], evaluate) for index in _by_data(planned)}
        errors = [error for _, error in runs.values() if error is not None]
        if len(errors) == len(runs):
            raise errors[0]
        return [runs[index][0] for index in range(len(planned))]

    def _look_at(self, planned: PlannedRun, evaluate: bool) -> tuple[SweepRun, RagcunCacheError | None]:
        try:
            data = self.bench.data(planned.config)
            name = run_name(planned.config, data)
            if evaluate:
                self.bench.subjects(data.caches.vectors)
        except RagcunCacheError as error:
            return SweepRun(planned, None, "failed", str(error)), error
        run = SweepRun(planned, name, "missing")
        self._look_again(run, evaluate)
        return run, None

    def _look_again(self, run: SweepRun, evaluate: bool) -> None:
        assert run.name is not None
        record = self.head(run)
        if record is not None and evaluate:
            run.results = self.bench.stored(record) or []
        run.error = self.record.failure(run.name)
        run.state = "done" if run.results or (record and not evaluate) else "failed" if run.error else "missing"
        if run.state == "done":
            run.error = None

    def head(self, run: SweepRun) -> HeadRecord | None:
        """Return the record of a run's head, None unless its training came to its end."""
        try:
            record = read_record(self.home.heads / str(run.name))
        except HeadError:
            return None
        return record if record.complete else None

    def carry_out(
        self,
        watch: Callable[[SweepRun, Event], None],
        *,
        jobs: int | None = None,
        threads: int = 1,
        retry_failed: bool = False,
    ) -> None:
        """Run what is missing, in ``jobs`` processes (None: one a core) of ``threads`` threads each.

        A run that fails is written down and the others go on; one that failed before is only tried again if it is
        to be. ``watch`` is told of all that happens. An interruption loses no more than the epochs in progress.
        A search comes last: its best trial's runs join ``runs`` and are evaluated, the others are only trained.
        """
        with self.record.alone():
            self._keep_runs()
            setup = WorkerSetup(self.home, tuple(self.recipe.evaluate), self.recipe.split, threads)
            with Workers(setup, jobs or default_jobs(threads)) as workers:

                def run_all(runs: Sequence[SweepRun], *, evaluate: bool = False) -> None:
                    self._run_missing(runs, workers, watch, evaluate=evaluate, retry_failed=retry_failed)

                run_all(self.runs, evaluate=True)
                if self.recipe.search:
                    self._search(run_all)

    def _search(self, run_all: Callable[..., None]) -> None:
        from ragcun_cache.ablation.search import mark_chosen, search, trial_runs

        self.found = search(self, run_all)
        if self.found.best is not None:
            planned = trial_runs(self.recipe, self.found.best.settings)
            for head in map(self.head, self.look_at(planned, evaluate=False)):
                if head is not None:
                    mark_chosen(head, self.recipe)
            best = self.look_at(planned, evaluate=True)
            run_all(best, evaluate=True)
            known = {run.name for run in self.runs}
            self.runs += [run for run in best if run.name not in known]
            self._keep_runs()

    def _keep_runs(self) -> None:
        self.record.write(self.recipe, [(run.name, run.planned) for run in self.runs])

    def _run_missing(
        self,
        runs: Sequence[SweepRun],
        workers: Workers,
        watch: Callable[[SweepRun, Event], None],
        *,
        evaluate: bool,
        retry_failed: bool,
    ) -> None:
        """Bring ``runs`` to their end, and say in each how it stands."""
        wanted = to_do(runs, retry_failed=retry_failed)
        for run in wanted:
            self.record.forget_failure(str(run.name))

        def hear(event: Event) -> None:
            run = wanted[event.number]
            if event.kind == "failed":
                self.record.keep_failure(str(run.name), run.planned, event.error or "", event.traceback)
            if event.kind in ("done", "failed"):
                self._look_again(run, evaluate)
            watch(run, event)

        shorter = shorter_runs([run.planned for run in wanted])
        tasks = [
            Task(number, str(run.name), run.planned.config, evaluate, tuple(shorter.get(number, {}).values()))
            for number, run in enumerate(wanted)
        ]
        # Those that longer runs leave on their way come after them: nothing is left to train in them.
        waiting = {number for numbers in shorter.values() for number in numbers}
        workers.carry_out([task for task in tasks if task.number not in waiting], hear)
        workers.carry_out([task for task in tasks if task.number in waiting], hear)

    def results(self) -> list[Result]:
        """Return the results of all runs that are done, after those of the raw encoders that they stand on."""
        found = [result for run in self.runs for result in run.results]
        every = dict.fromkeys(result.setting.vectors for result in found)
        raw = [result for vectors in every for result in self.bench.raw(vectors)]
        return list({result.key: result for result in [*raw, *found]}.values())


def to_do(runs: Sequence[SweepRun], *, retry_failed: bool) -> list[SweepRun]:
    """Return the runs that are still to be carried out, those of equal data after each other.

    One that failed is among them if it is to be tried again and can begin at all.
    """
    wanted = [run for run in runs if run.state == "missing" or (run.state == "failed" and run.name and retry_failed)]
    return [wanted[index] for index in _by_data([run.planned for run in wanted])]


def default_jobs(threads: int = 1) -> int:
    """Return how many processes of ``threads`` threads this machine's cores are best used by."""
    return max(1, int(machine()["cores"]) // threads)


def _by_data(planned: Sequence[PlannedRun]) -> list[int]:
    """Return the positions of ``planned`` in an order in which runs of equal data follow each other."""
    keys = [sha256_json(data_settings(run.config)) for run in planned]
    return sorted(range(len(planned)), key=lambda index: keys.index(keys[index]))


def shorter_runs(planned: Sequence[PlannedRun]) -> dict[int, dict[int, int]]:
    """Return, for each run that others are the beginning of, their positions in ``planned`` with their epochs."""
    longest: dict[str, int] = {}
    places = [place for place, run in enumerate(planned) if shares_epochs(run.config) and run.config.epochs]
    keys = {place: planned[place].config.model_dump_json(exclude={"epochs"}) for place in places}
    for place in sorted(places, key=lambda place: -planned[place].config.epochs):
        longest.setdefault(keys[place], place)
    shorter: dict[int, dict[int, int]] = {}
    for place in places:
        if longest[keys[place]] != place:
            shorter.setdefault(longest[keys[place]], {})[place] = planned[place].config.epochs
    return shorter


def count(runs: Iterable[SweepRun]) -> dict[State, int]:
    """Return how many runs are in each state."""
    states = [run.state for run in runs]
    return {state: states.count(state) for state in ("done", "failed", "missing")}


def failures(runs: Iterable[SweepRun]) -> Iterator[tuple[str, str]]:
    """Yield the label of every failed run, and why it failed."""
    yield from ((run.planned.label, run.error or "") for run in runs if run.state == "failed")
