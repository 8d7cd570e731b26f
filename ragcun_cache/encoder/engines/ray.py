"""The model on a Ray cluster: a task a shard. Ray decides where tasks run, and runs those again whose worker died."""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from ragcun_cache.encoder.blocks import Block
from ragcun_cache.encoder.choice import Choice
from ragcun_cache.encoder.config import EncodeConfig
from ragcun_cache.encoder.engines.config import EngineConfig
from ragcun_cache.encoder.engines.engine import Encodings, Model
from ragcun_cache.encoder.engines.local import LocalEngine
from ragcun_cache.encoder.forward import NOTHING, Encoded
from ragcun_cache.encoder.frozen import FrozenModel
from ragcun_cache.encoder.spec import EncoderSpec
from ragcun_cache.encoder.threads import ahead
from ragcun_cache.encoder.weights import find_weights
from ragcun_cache.errors import ConfigError, EncoderError, RagcunCacheError
from ragcun_cache.home import Home
from ragcun_cache.progress import Advance, silent
from ragcun_cache.role import Role

# A task is run so often again when its worker dies or its machine is lost.
_RETRIES = 2
_WAIT_SECONDS = 1.0
_CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class _ModelThere:
    """A model as it is settled on the workers, which may have other devices than this machine."""

    config: EncodeConfig
    choice: Choice
    specs: Mapping[Role, EncoderSpec]

    def spec(self, role: Role) -> EncoderSpec:
        return self.specs[role]


@dataclass
class _Held:
    """A block on its way: with a task, or finished from the start if there is nothing to encode."""

    block: Block
    task: Any
    finished: bool = False


class RayEngine:
    """Hands blocks to a cluster as tasks, a bounded number at a time, and takes the results in order.

    Package and model must be on every machine, the model at the same path or by the same name.
    """

    name = "ray"

    def __init__(self, settings: EngineConfig, config: EncodeConfig, home: Home) -> None:
        """Connect to the cluster, or start one, and let a worker settle what is left to ``auto``.

        Raises:
            ConfigError: Ray is not installed, or there is no cluster at the address that was given.
            EncoderError: the workers do not have the model.
        """
        try:
            import ray
        except ImportError:
            raise ConfigError("Ray is not installed", fix="pip install 'ragcun-cache[ray]'") from None
        self._ray: Any = ray
        self._threads = settings.threads or 1
        self._asked_workers = settings.workers
        self._root = str(home.root.resolve())
        self._owner = not ray.is_initialized()
        if self._owner:
            self._connect(settings)
        if Path(config.model).is_dir():
            config = config.model_copy(update={"model": str(Path(config.model).resolve())})
        resources, wanted = self._ray.cluster_resources(), config.wanted_device
        self._on_gpu = wanted.startswith("cuda") or (wanted == "auto" and resources.get("GPU", 0) >= 1)
        if self._on_gpu:
            config = config.model_copy(update={"device": "cuda"})  # Each task sees only the one that Ray gave it.
        self._config = config
        settled, choice, specs = self._get(self._task(_settle).remote(config, self._root, self._threads))
        self.model: Model = _ModelThere(settled, choice, specs)
        self._config = settled

    def _connect(self, settings: EngineConfig) -> None:
        quiet = {"log_to_driver": False, "logging_level": "error"}
        try:
            if settings.ray_address is not None:
                _check_reachable(settings.ray_address)
            self._ray.init(address=settings.ray_address or "auto", **quiet)
            return
        except OSError as error:  # What Ray raises is one too, a ConnectionError.
            if settings.ray_address is not None:
                raise ConfigError(
                    "no Ray cluster answers", where=settings.ray_address, found=error, fix="start it: ray start --head"
                ) from None
        cores = max((settings.workers or 1) * self._threads, os.cpu_count() or 1)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        self._ray.init(address="local", num_cpus=cores, include_dashboard=False, **quiet)

    @property
    def workers(self) -> int:
        """Tasks that run at the same time: as asked for, else as many as the cluster has room for."""
        resources = self._ray.cluster_resources()
        room = resources.get("GPU", 1) if self._on_gpu else resources.get("CPU", 1) // self._threads
        return self._asked_workers or max(int(room), 1)

    @cached_property
    def dim(self) -> int:
        """Dimensions of a vector, as a worker says that has loaded the model."""
        return int(self._get(self._task(_dim).remote(self._config, self._root, self._threads)))

    def encode(self, blocks: Iterator[Block], advance: Advance) -> Encodings:
        """Yield every block with what became of its strings, in the order of ``blocks``."""
        task = self._task(_encode)
        spec = self.model.spec(Role.PASSAGE).fingerprint
        held: deque[_Held] = deque()
        with closing(ahead(blocks)) as source:
            try:
                while True:
                    # One waits for every one that runs, unless the user has set their number.
                    running = self.workers * (1 if self._asked_workers else 2)
                    while len(held) < 2 * running and sum(not one.finished for one in held) < running:
                        if (block := next(source, None)) is None:
                            break
                        there = (self._config, self._root, self._threads, spec)
                        held.append(
                            _Held(block, task.remote(*there, block.bare()))
                            if block.strings
                            else _Held(block, None, True)
                        )
                    if not held:
                        return
                    if held[0].finished:
                        one = held.popleft()
                        yield one.block, NOTHING if one.task is None else self._result(one)
                        continue
                    self._wait(held, advance)
            except BaseException:
                for one in held:
                    if not one.finished:
                        self._ray.cancel(one.task, force=True)
                raise

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        if self._owner and self._ray.is_initialized():
            self._ray.shutdown()

    def _task(self, function: Any) -> Any:
        resources = {"num_gpus": 1} if self._on_gpu else {"num_cpus": self._threads}
        return self._ray.remote(max_retries=_RETRIES, **resources)(function)

    def _wait(self, held: deque[_Held], advance: Advance) -> None:
        """Wait for some task to end, and tell of it."""
        waiting = {one.task: one for one in held if not one.finished}
        for ready in self._ray.wait(list(waiting), num_returns=1, timeout=_WAIT_SECONDS)[0]:
            one = waiting[ready]
            one.finished = True
            advance(len(one.block.strings))
        advance(0)

    def _result(self, one: _Held) -> Encoded:
        try:
            encoded: Encoded = self._get(one.task)
            return encoded
        except self._ray.exceptions.RayTaskError:
            raise  # It has run, and failed in a way that is no error of ours.
        except self._ray.exceptions.RayError as error:
            raise EncoderError(
                f"Ray gave up on shard {one.block.index}, after {_RETRIES + 1} attempts",
                where=f"rows {one.block.ids[0]!r} to {one.block.ids[-1]!r}",
                found=str(error).strip().splitlines()[0],
                fix="look at the cluster (ray status), then run the same command again: it goes on from here",
            ) from error

    def _get(self, task: Any) -> Any:
        """Return what a task returned; an error of ours is raised as it was raised there."""
        try:
            return self._ray.get(task)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, RagcunCacheError):
                raise error.cause from None
            raise


def _check_reachable(address: str) -> None:
    """Raise OSError at once if nothing listens at ``host:port``, where Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()


@lru_cache(maxsize=1)
def _model(config: str, root: str, threads: int) -> FrozenModel:
    """Return the model of this worker, which stays loaded from task to task."""
    import torch

    torch.set_num_threads(threads)
    settings = EncodeConfig.model_validate_json(config)
    return FrozenModel(find_weights(settings.model, Home(Path(root)), settings.model_id), settings, threads)


def _settle(config: EncodeConfig, root: str, threads: int) -> tuple[EncodeConfig, Choice, dict[Role, EncoderSpec]]:
    model = _model(config.model_dump_json(), root, threads)
    return model.config, model.choice, {role: model.spec(role) for role in Role}


def _dim(config: EncodeConfig, root: str, threads: int) -> int:
    return _model(config.model_dump_json(), root, threads).backend.dim


def _encode(config: EncodeConfig, root: str, threads: int, fingerprint: str, block: Block) -> Encoded:
    model = _model(config.model_dump_json(), root, threads)
    if (found := model.spec(Role.PASSAGE).fingerprint) != fingerprint:
        raise EncoderError(
            "a worker has another model under the same name",
            where=model.weights.folder,
            expected=fingerprint,
            found=found,
        )
    ((_, encoded),) = LocalEngine(model).encode(iter([block]), silent)
    return encoded
