"""YAML that remembers on which line everything stands, so that a complaint can name it; and single values of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ragcun_cache.errors import ConfigError

Location = tuple[str | int, ...]
"""The keys and list positions that lead to a value, from the outside in."""


class _Loader(yaml.SafeLoader):
    """SafeLoader that takes ``1e-4`` for a number, as YAML 1.2 and everybody who writes it do."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


@dataclass(frozen=True)
class MarkedYaml:
    """The content of a YAML file, and the line of every key and list entry in it."""

    path: Path
    content: Any
    lines: dict[Location, int]

    def where(self, location: Location) -> str:
        """Return the file and the line of ``location``, or of the nearest thing around it that has one."""
        while location and location not in self.lines:
            location = location[:-1]
        return f"{self.path}, line {self.lines[location]}" if location else str(self.path)


def read_yaml(path: Path) -> MarkedYaml:
    """Read a YAML file that holds a mapping. Raises ConfigError, also for a key that is set twice."""
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        lines: dict[Location, int] = {}
        if isinstance(root, yaml.MappingNode):
            for location, line in _marks(root, ()):
                if location in lines:
                    raise ConfigError(
                        f"{location[-1]} is set twice", where=f"{path}, lines {lines[location]} and {line}"
                    )
                lines[location] = line
            return MarkedYaml(path, loader.construct_document(root), lines)
    except FileNotFoundError:
        raise ConfigError("there is no such config file", where=path) from None
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: no UTF-8, or a date that there is not.
        raise ConfigError("the config file cannot be read as YAML", where=path, found=error) from None
    raise ConfigError("a config file holds settings, one `name: value` a line", where=path)


def read_value(text: str) -> Any:
    """Read ``text`` as the value of a setting in a YAML file. Raises ConfigError."""
    try:
        return _Loader(text).get_single_data()
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigError("a value cannot be read as YAML", found=error) from None


def read_settings(given: Iterable[str] | None) -> dict[str, Any]:
    """Read flags of the form ``name=value``; the value is read as YAML, so ``null`` and ``1e-4`` are what they say.

    Raises:
        ConfigError: there is no ``=`` in one of them, or its value is no YAML.
    """
    found: dict[str, Any] = {}
    for one in given or ():
        name, equals, value = one.partition("=")
        try:
            found[name.strip()] = read_value(value)
        except ConfigError:
            equals = ""
        if not equals:
            raise ConfigError("a setting cannot be read", expected="--set name=value", found=one)
    return found


def _marks(node: yaml.Node, location: Location) -> Iterator[tuple[Location, int]]:
    parts: list[tuple[str | int, yaml.Node, yaml.Node]] = []
    if isinstance(node, yaml.MappingNode):
        parts = [(str(key.value), key, value) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        parts = [(index, value, value) for index, value in enumerate(node.value)]
    for name, marked, value in parts:
        yield (*location, name), marked.start_mark.line + 1
        yield from _marks(value, (*location, name))
