"""What a newcomer is told who names a wrong thing, in commands that read no vector."""

from __future__ import annotations

from ragcun_cache.errors import unknown_choice
from ragcun_cache.role import Role


def test_the_nearest_of_an_enumeration_is_shown_as_it_is_typed() -> None:
    assert unknown_choice("role", "querry", list(Role)).fix == "did you mean 'query'?"
