"""Turning flags into validated configs."""

from __future__ import annotations

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
        expected = first.get("ctx", {}).get("expected", first["msg"].removeprefix("Input should be "))
        raise ConfigError(f"{flag} is not valid", expected=expected, found=repr(first["input"])) from None
