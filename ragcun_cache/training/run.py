"""One run: a folder that is found again, resumed or made, and is a loadable head after every epoch."""

from __future__ import annotations

import io
import math
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragcun_cache.alarms import alarms
from ragcun_cache.device import resolve_device
from ragcun_cache.errors import HeadError, TrainingError
from ragcun_cache.files import atomic_file, sha256_json
from ragcun_cache.heads.config import Arch, HeadConfig, Output
from ragcun_cache.heads.own import own_archs
from ragcun_cache.heads.store import HeadRecord, read_record, rewrite_record, save_head
from ragcun_cache.home import Home
from ragcun_cache.provenance import library_versions, source_commit
from ragcun_cache.training.code import code_version
from ragcun_cache.training.config import Schedule, Select, TensorDtype, TrainConfig
from ragcun_cache.training.diagnostics import DEV_METRIC, measure_head
from ragcun_cache.training.pairs import TrainingData, load_training_data

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ragcun_cache.heads.head import Head
    from ragcun_cache.training.loop import Epoch, PairTensors

METRICS_NAME = "metrics.parquet"


@dataclass(frozen=True)
class TrainedHead:
    """A finished run. ``rows`` is its metrics table, one row an epoch from 0; ``reused``: it was there already."""

    record: HeadRecord
    rows: list[dict[str, Any]]
    reused: bool


def run_name(config: TrainConfig, data: TrainingData) -> str:
    """Return the folder name of a run: readable parts, then 8 hex digits of all that its result depends on."""
    identity = {
        "code": code_version(),
        # Where it is computed is no part of what is computed.
        "config": config.model_dump(mode="json", exclude={"device"}),
        "caches": data.caches.provenance(),
        "judgements": data.sha256,
        **_own_source(config),
    }
    head = config.head_config(data.caches.passage.dim)
    collection = data.collection.replace("/", "__")
    return f"{collection}-{head.arch}-{head.init}-{head.out_dim}d-seed{config.seed}-{sha256_json(identity)[:8]}"


def train_head(
    config: TrainConfig,
    home: Home,
    *,
    data: TrainingData | None = None,
    fresh: bool = False,
    wait: bool = False,
    also_epochs: Collection[int] = (),
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> TrainedHead:
    """Train the head that ``config`` describes into ``home.heads/<run name>``, or return it if it is there already.

    After every epoch, epoch 0 (before training) included, the folder is a head that loads, marked incomplete until
    the last: an interruption (KeyboardInterrupt passes through) loses at most the epoch in progress, and the same
    call resumes with the same bits as if nothing had happened (on CPU, with as many threads). ``fresh`` begins anew.
    Training that passes one of ``also_epochs`` leaves the head there too, in the folder, and with the bits, of a run of
    as many epochs (``shares_epochs`` says of which configs that is true).
    ``data`` shares loaded vectors between runs of equal ``data_settings``. A run that another process is training is
    an error, or with ``wait`` waited for. ``on_epoch`` is told the row of every epoch that was trained, as soon as it
    is kept.

    Raises TrainingError, ConfigError, CollectionError, CacheError.
    """
    data = load_training_data(config, home) if data is None else data
    head_config = config.head_config(data.caches.passage.dim)
    folder = home.heads / run_name(config, data)
    with _alone_in(folder, wait=wait):
        if fresh and folder.exists():
            shutil.rmtree(folder)
        finished = _finished(folder)
        for partial in folder.glob("**/*.partial-*"):
            partial.unlink()  # of a process that was killed: nobody else writes here now
        return finished or _train(config, head_config, data, folder, also_epochs, on_epoch or (lambda row: None))


def shares_epochs(config: TrainConfig) -> bool:
    """Return whether a run of fewer epochs is the beginning of this one: nothing looks at how many are to come."""
    return config.schedule != Schedule.COSINE and config.select == Select.LAST


def _own_source(config: TrainConfig) -> dict[str, str | None]:
    """Return what stands for the code of a head of the user's own: an edited one is another head."""
    return {} if isinstance(config.arch, Arch) else {"arch_source_sha256": own_archs()[config.arch].source_sha256}


@contextmanager
def _alone_in(folder: Path, *, wait: bool) -> Iterator[None]:
    from filelock import FileLock, Timeout

    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder.with_name(f".{folder.name}.lock"), timeout=-1 if wait else 0):
            yield
    except Timeout:
        raise TrainingError("this run is being trained by another process", where=folder) from None


def _finished(folder: Path) -> TrainedHead | None:
    import polars

    try:
        record = read_record(folder)
    except HeadError:
        return None
    return TrainedHead(record, polars.read_parquet(folder / METRICS_NAME).to_dicts(), True) if record.complete else None


def _train(
    config: TrainConfig,
    head_config: HeadConfig,
    data: TrainingData,
    folder: Path,
    also_epochs: Collection[int],
    on_epoch: Callable[[dict[str, Any]], None],
) -> TrainedHead:
    import torch

    from ragcun_cache.heads.registry import build_head
    from ragcun_cache.training.checkpoint import CHECKPOINT_NAME, load_checkpoint, save_checkpoint
    from ragcun_cache.training.loop import make_optimizer, needs_negatives, run_epochs

    device = resolve_device(config.device)
    head = build_head(head_config, seed=config.seed).to(device)
    run = _Run(config, data, folder, head)
    if not config.epochs:
        return run.keep_epoch(None)
    optimizer = make_optimizer(head, config)
    checkpoint = folder / CHECKPOINT_NAME
    if checkpoint.exists():
        run.rows = load_checkpoint(checkpoint, head, optimizer)
    else:
        run.keep_epoch(None)
    judged_p2 = data.judged_p2 if needs_negatives(config) else None
    tensors = _tensors(config, data, device, data.train_p2, judged_p2)
    also = set(also_epochs) if shares_epochs(config) else set()
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        for epoch in run_epochs(head, tensors, config, optimizer, first_epoch=max(len(run.rows), 1)):
            trained = run.keep_epoch(epoch)
            if epoch.number < config.epochs:
                save_checkpoint(checkpoint, head, optimizer, run.rows)
                if epoch.number in also:
                    run.leave_behind(epoch.number)
            on_epoch(run.rows[-1])
    shutil.rmtree(checkpoint.parent, ignore_errors=True)
    return trained


def _tensors(
    config: TrainConfig,
    data: TrainingData,
    device: str,
    pair_p2: NDArray[np.int64],
    judged_p2: NDArray[np.int64] | None = None,
) -> PairTensors:
    import torch

    from ragcun_cache.training.loop import PairTensors

    dtype = torch.float16 if config.dtype == TensorDtype.FLOAT16 else torch.float32
    return PairTensors(
        torch.from_numpy(data.query_nd).to(device, dtype),
        torch.from_numpy(data.passage_nd).to(device, dtype),
        torch.from_numpy(pair_p2).to(device),
        judged_p2=None if judged_p2 is None else torch.from_numpy(judged_p2).to(device),
    )


def _dev_loss(head: Head, config: TrainConfig, data: TrainingData) -> float | None:
    """Return the loss on the dev pairs where it chooses the epoch, None elsewhere: it takes time."""
    from ragcun_cache.training.loop import dev_loss

    if config.select != Select.DEV_LOSS:
        return None
    device = str(next(head.parameters()).device)
    return dev_loss(head, _tensors(config, data, device, data.dev_p2), config)


class _Run:
    """The growing metrics table of a run, and what its folder holds."""

    def __init__(self, config: TrainConfig, data: TrainingData, folder: Path, head: Head) -> None:
        self.config = config
        self.data = data
        self.folder = folder
        self.head = head
        self.rows: list[dict[str, Any]] = []
        self.commit = source_commit()
        # Of the code that built the head: the file may be edited while the head is trained.
        self.own_source = _own_source(config)

    def keep_epoch(self, epoch: Epoch | None) -> TrainedHead:
        """Measure the head after ``epoch`` (None: before the first), add its row, and write what is to be kept."""
        self._fit_output()
        self.rows.append(self._row(epoch))
        # Which losses a head has is known after its first epoch; before, there is none to show.
        self.rows = [{**dict.fromkeys(self.rows[-1]), **row} for row in self.rows]
        return self.write()

    def write(self) -> TrainedHead:
        """Write the table, and the head as it is now if its epoch is the one to keep."""
        # The record goes last: once it says complete, everything that it speaks of is there.
        self._write_metrics()
        kept = self._kept_row()
        provenance = self._provenance(kept)
        if kept is self.rows[-1]:
            record = save_head(self.folder, self.head, provenance)
        else:
            record = rewrite_record(self.folder, provenance)
        return TrainedHead(record, self.rows, False)

    def leave_behind(self, epochs: int) -> None:
        """Leave the head as it is now where a run of ``epochs`` epochs would have put it, unless it is there."""
        if _own_source(self.config) != self.own_source:
            return  # That run would now train another head.
        shorter = self.config.model_copy(update={"epochs": epochs})
        folder = self.folder.with_name(run_name(shorter, self.data))
        with _alone_in(folder, wait=True):
            if _finished(folder) is None:
                run = _Run(shorter, self.data, folder, self.head)
                run.rows = self.rows
                run.write()

    def _fit_output(self) -> None:
        import torch

        if self.config.output == Output.PLAIN:
            return
        device = next(self.head.parameters()).device
        query_p, passage_p = self.data.train_p2.T
        self.head.fit_output(
            torch.from_numpy(self.data.query_nd[query_p]).to(device, torch.float32),
            torch.from_numpy(self.data.passage_nd[passage_p]).to(device, torch.float32),
        )

    def _row(self, epoch: Epoch | None) -> dict[str, Any]:
        started = time.perf_counter()
        measured = measure_head(self.head, self.data)
        first_std = self.rows[0]["output_std"] if self.rows else measured["output_std"]
        return {
            "epoch": epoch.number if epoch else 0,
            "steps": epoch.steps if epoch else 0,
            "learning_rate": epoch.learning_rate if epoch else None,
            "loss": epoch.loss if epoch else None,
            **{f"loss_{name}": value for name, value in (epoch.terms if epoch else {}).items()},
            **(epoch.watched if epoch else {}),
            "dev_loss": _dev_loss(self.head, self.config, self.data),
            **measured,
            "output_std_ratio": measured["output_std"] / first_std if first_std else None,
            "train_seconds": epoch.seconds if epoch else 0.0,
            "measure_seconds": time.perf_counter() - started,
        }

    def _kept_row(self) -> dict[str, Any]:
        if self.config.select == Select.LAST:
            return self.rows[-1]
        if self.config.select == Select.DEV_LOSS:
            # A loss that is no number chooses nothing. The start is not a trained head, and was never a candidate.
            trained = [row for row in self.rows[1:] if math.isfinite(row["dev_loss"])]
            return min(trained, key=lambda row: row["dev_loss"], default=self.rows[-1])
        return max(self.rows, key=lambda row: (row[DEV_METRIC], -row["epoch"]))

    def _provenance(self, kept: dict[str, Any]) -> dict[str, Any]:
        import torch

        return {
            "complete": self.rows[-1]["epoch"] == self.config.epochs,
            "epoch": kept["epoch"],
            "epochs": self.config.epochs,
            "seed": self.config.seed,
            "encoder": self.data.caches.encoder,
            "encoder_model": self.data.caches.passage.manifest.spec.get("model_id"),
            "caches": self.data.caches.provenance(),
            "train_pairs": len(self.data.train_p2),
            "train": self.config.model_dump(mode="json"),
            "dev_split": self.data.dev_split,
            **self.own_source,
            "metrics": kept,
            "alarms": [asdict(alarm) for alarm in alarms(self.rows, kept["epoch"])],
            "code": code_version(),
            # Sums are cut up by threads, so the last bits of the weights depend on their number.
            "threads": torch.get_num_threads(),
            "versions": library_versions(),
            "commit": self.commit,
        }

    def _write_metrics(self) -> None:
        import polars

        table = io.BytesIO()
        polars.DataFrame(self.rows, infer_schema_length=None).write_parquet(table)
        with atomic_file(self.folder / METRICS_NAME) as handle:
            handle.write(table.getvalue())
