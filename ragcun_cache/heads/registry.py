"""From a head's config to a head."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ragcun_cache.errors import HeadError, unknown_choice
from ragcun_cache.heads.adapter import AdapterHead
from ragcun_cache.heads.asymmetric import AsymmetricHead
from ragcun_cache.heads.config import ADAPTER, Arch, HeadConfig, is_own
from ragcun_cache.heads.head import Head
from ragcun_cache.heads.identity import IdentityHead
from ragcun_cache.heads.lejepa import LejepaHead
from ragcun_cache.heads.own import own_archs
from ragcun_cache.heads.projected import IsotropyHead, ProjectionHead
from ragcun_cache.heads.respred import ResPredHead

_BUILDERS: dict[Arch, Callable[[HeadConfig, bool], Head]] = {
    Arch.IDENTITY: lambda config, for_training: IdentityHead(config),
    Arch.UNTRAINED: lambda config, for_training: ProjectionHead(config),
    Arch.ISOTROPY: lambda config, for_training: IsotropyHead(config),
    Arch.LEJEPA: lambda config, for_training: LejepaHead(config, for_training=for_training),
    Arch.RESPRED: lambda config, for_training: ResPredHead(config, for_training=for_training),
    Arch.ASYMMETRIC: lambda config, for_training: AsymmetricHead(config, for_training=for_training),
}


def build_head(config: HeadConfig, *, seed: int, for_training: bool = True) -> Head:
    """Build the head that ``config`` describes, initialised by ``seed``; the global generator is left as it was.

    The projection is drawn first, so heads of one seed and one size share it whatever their architecture:
    ``untrained`` with seed s is what ``isotropy`` and ``lejepa`` with seed s start from.

    Raises:
        HeadError: the architecture is neither built in nor registered.

    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _build(config, for_training)


def build_empty_head(config: HeadConfig, *, seed: int = 0) -> Head:
    """Build the retrieval part of a head for its weights to be put in.

    Those of a built-in head have no memory yet (they are on the meta device). A head of the user's own may hold tensors
    that are saved nowhere and have to be there, as they were when it was trained: it is built by its ``seed``.
    """
    if is_own(config.arch):
        return build_head(config, seed=seed, for_training=False)
    with torch.device("meta"):
        return _build(config, False)


def _build(config: HeadConfig, for_training: bool) -> Head:
    if isinstance(config.arch, Arch):
        return _BUILDERS[config.arch](config, for_training)
    if config.arch == ADAPTER:
        return AdapterHead(config)
    own = own_archs()
    if config.arch not in own:
        raise unknown_choice("arch", config.arch, [*Arch, *own], error=HeadError)
    return own[config.arch].build(config)
