from __future__ import annotations

from pathlib import Path

from benchmarks.page import read_sections, write_sections


def test_one_section_is_replaced_and_the_others_stay_byte_for_byte(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "benchmarks.md"
    write_sections(page, {"first": "## First\n\n1", "second": "## Second\n\n2", "third": "## Third\n\n3"})
    before = page.read_text()
    write_sections(page, {"second": "## Second\n\nnew"})
    assert page.read_text() == before.replace("## Second\n\n2", "## Second\n\nnew")


def test_a_section_that_is_not_there_is_added_after_the_others(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    write_sections(page, {"first": "1"})
    write_sections(page, {"second": "2"})
    assert list(read_sections(page).items()) == [("first", "1"), ("second", "2")]


def test_writing_what_was_read_changes_nothing(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    write_sections(
        page, {"first": "## A \\1 back-reference\n\n| a |\n| --- |", "second": "ends in a comment <!-- x -->"}
    )
    before = page.read_bytes()
    write_sections(page, read_sections(page))
    assert page.read_bytes() == before


def test_a_page_that_is_not_there_has_no_sections(tmp_path: Path) -> None:
    assert read_sections(tmp_path / "benchmarks.md") == {}
