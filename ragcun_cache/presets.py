"""What an architecture is trained with where nothing else is said, and settings that have one name together.

Every setting that comes from here stands in the config of the run that has it, so it is no part of the code that tells
one run from another: a new default repeats no run that was told the old one.
"""

from __future__ import annotations

from typing import Any

from ragcun_cache.heads.config import Arch, Init, Input, Isotropy
from ragcun_cache.similarity import Similarity

DEFAULTS: dict[str, dict[str, Any]] = {
    Arch.LEJEPA: {
        "init": Init.IDENTITY,
        "isotropy": Isotropy.SCALE_FREE,
        "lambda_isotropy": 4.5,
        "epochs": 3,
        "batch_size": 256,
        "learning_rate": 3e-4,
    },
    Arch.RESPRED: {
        "input": Input.POOLED,
        "lambda_residual": 0.01,
        "batch_size": 64,
        "learning_rate": 1e-3,
    },
    Arch.ASYMMETRIC: {
        "input": Input.POOLED,
        "similarity": Similarity.COSINE,
        "lambda_isotropy": 1.0,
        "lambda_predictive": 0.0,
        "lambda_contrastive": 1.0,
        "batch_size": 64,
        "learning_rate": 1e-3,
    },
}
"""By architecture, in place of the defaults of ``TrainConfig``'s fields. docs/beating_raw.md says how those of lejepa
were chosen, and what else was tried; the others are as published."""

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "published": {
        Arch.LEJEPA: {
            "init": Init.RANDOM,
            "isotropy": Isotropy.PUBLISHED,
            "lambda_isotropy": 1.5,
            "lambda_predictive": 1.2,
            "epochs": 3,
            "batch_size": 16,
            "learning_rate": 5e-4,
        },
    },
}
"""By name and architecture. ``published``: as the recipes of ctn/ragcun have them, whose heads start at random. The
other architectures are trained as published anyway."""
