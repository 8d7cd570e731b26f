from __future__ import annotations

from ragcun_cache.markdown import escape, table


def test_a_table_has_a_rule_and_a_line_for_every_row() -> None:
    lines = ["| way | s |", "| --- | ---: |", "| ours | 1 |", "| theirs | 2 |"]
    assert table(["way", "s"], [["ours", 1], ["theirs", 2]]).splitlines() == lines


def test_a_table_of_text_has_nothing_to_the_right() -> None:
    assert table(["way", "of"], [["ours", "x"]], figures=False).splitlines()[1] == "| --- | --- |"


def test_escaped_words_make_no_cell_link_tag_or_line() -> None:
    assert escape("a|b [c] <d>\ne") == "a\\|b \\[c] &lt;d> e"
