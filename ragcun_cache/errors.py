"""The one family of errors that ragcun-cache raises for anything a user can mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class RagcunCacheError(Exception):
    """What went wrong, where, what was expected against what was found, and the command that fixes it.

    The CLI prints ``str(error)`` without a traceback and exits with status 2.
    """

    def __init__(
        self,
        problem: str,
        *,
        where: str | Path | None = None,
        expected: object | None = None,
        found: object | None = None,
        fix: str | None = None,
    ) -> None:
        self.problem = problem
        self.where = where
        self.expected = expected
        self.found = found
        self.fix = fix
        lines = [problem]
        if where is not None:
            lines.append(f"  where:    {where}")
        if expected is not None:
            lines.append(f"  expected: {expected}")
        if found is not None:
            lines.append(f"  found:    {found}")
        if fix is not None:
            lines.append(f"  fix:      {fix}")
        super().__init__("\n".join(lines))


class ConfigError(RagcunCacheError):
    """A setting, flag or config key that is unknown or out of range."""


class ArchiveError(RagcunCacheError):
    """A zip archive that is damaged, or that would reach outside its folder or fill the disk."""


class CollectionError(RagcunCacheError):
    """Texts, queries or qrels that cannot be found, fetched or read."""


class EncoderError(RagcunCacheError):
    """Model weights that are missing or wrong, or an encode that cannot go on."""


class CacheError(RagcunCacheError):
    """A cache that is missing, incomplete, damaged, locked, or of another spec than asked for."""


class HeadError(RagcunCacheError):
    """A head that is unknown, cannot be loaded, or does not fit the vectors."""


class TrainingError(RagcunCacheError):
    """Training that was refused (a test split) or went wrong (a loss that is not finite)."""


class EvaluationError(RagcunCacheError):
    """A run, index or result that breaks the evaluation contract."""


def unknown_choice(
    kind: str,
    found: str,
    choices: Iterable[str],
    *,
    where: str | Path | None = None,
    error: type[RagcunCacheError] = ConfigError,
) -> RagcunCacheError:
    """Build the error for a name that is not among ``choices``, with the nearest valid name first."""
    names = sorted(map(str, choices))  # a member of an enumeration is shown as its value
    near = difflib.get_close_matches(found, names, n=1)
    return error(
        f"unknown {kind} {found!r}" if names else f"unknown {kind} {found!r}: there is no {kind} yet",
        where=where,
        expected=f"one of {', '.join(names)}" if names else None,
        found=found,
        fix=f"did you mean {near[0]!r}?" if near else None,
    )
