"""Turning flags into validated configs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ragcun_cache.errors import ConfigError

Config = TypeVar("Config", bound=BaseModel)


def validated(kind: type[Config], **values: Any) -> Config:
    """Build a config from flags; None stands for a flag that was not given.

    Raises:
        ConfigError: a value is not allowed; the message names the flag and the valid choices.
    """
    try:
        return kind(**{name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        flag = "--" + ".".join(str(part) for part in first["loc"]).replace("_", "-")
        expected = first.get("ctx", {}).get("expected", first["msg"])
        raise ConfigError(f"{flag} is not valid", expected=expected, found=repr(first["input"])) from None


def settings(given: Iterable[str] | None) -> dict[str, Any]:
    """Read flags of the form ``name=value``; the value is read as YAML, so ``null`` and ``1e-4`` are what they say.

    Raises:
        ConfigError: there is no ``=`` in one of them, or its value is no YAML.
    """
    import yaml

    found: dict[str, Any] = {}
    for one in given or ():
        name, equals, value = one.partition("=")
        try:
            content = yaml.safe_load(value)
        except yaml.YAMLError:
            equals = ""
        if not equals:
            raise ConfigError("a setting cannot be read", expected="--set name=value", found=one)
        # YAML wants a dot in a number with an exponent; people do not.
        found[name.strip()] = _number(content) if isinstance(content, str) else content
    return found


def _number(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text
