from __future__ import annotations

from pathlib import Path

import pytest

from ragcun_cache.ablation.recipe import load_recipe
from ragcun_cache.errors import ConfigError
from reproduction.plan import load_plan, load_published
from reproduction.rows import MEAN, planned_rows

REPOSITORY = Path(__file__).resolve().parents[2]


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def test_seeds_go_over_those_of_the_recipes_but_not_of_the_nulls(plan_file: Path) -> None:
    assert [recipe.seeds for recipe in load_plan(plan_file).recipes] == [[0, 1], [0, 1, 2]]
    assert [recipe.seeds for recipe in load_plan(plan_file, seeds=[5]).recipes] == [[5], [0, 1, 2]]


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ('as_ran: "slow, epochs=2"', 'as_ran: "slow, epochs=3"', 7, "unknown run 'slow, epochs=3'"),
        ("as_written: diverges", "as_written: divergse", 7, "did you mean 'diverges'"),
        ("16: untrained", "16: untrainde", 4, "did you mean 'untrained'"),
        ("residual: slow, epochs=1", "residual: slow", 9, "unknown run 'slow'"),
        ("removed: never run", "removed: ever run", 12, "did you mean 'never run'"),
        ('failed: "slow, epochs=2", removed: untrained', "failed: x, removed: untrained", 11, "unknown run 'x'"),
        ("published: Raw", "published: Rwa", 6, "did you mean 'Raw'"),
        ("  - {published: Raw, as_ran: raw encoder}\n", "", 5, "would not be on the page"),
        ("{published: Raw, as_ran: raw encoder}", "{published: Raw}", 6, "no run stands for the row"),
        ("side: same", "side: lower", 11, "causes.0.side cannot be used"),
        ("fails: true", "fails: true, also: 1", 8, "rows.2.also cannot be used"),
    ],
)
def test_refusals_name_the_line(plan_file: Path, old: str, new: str, line: int, message: str) -> None:
    replace(plan_file, old, new)
    with pytest.raises(ConfigError) as refused:
        load_plan(plan_file)
    assert message in str(refused.value)
    assert f"{plan_file}, line {line}\n" in str(refused.value) + "\n"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{tiny: 0.5, other: 0.5}", "{tiny: 0.5}", "not those of the table"),
        ("{tiny: 0.5, other: 0.5}", "{tiny: 0.5, other: 0.5, third: 0.5}", "not those of the table"),
        ("mean: 0.45", "mean: 0.46", "the mean of 'Head | one' is not that of its figures"),
        ("name: Head that fails", "name: Raw", "two rows are called 'Raw'"),
        ("source: a list", "sources: a list", "cannot be used"),
    ],
)
def test_refusals_of_published_figures(plan_file: Path, old: str, new: str, message: str) -> None:
    path = plan_file.with_name("published.yaml")
    replace(path, old, new)
    with pytest.raises(ConfigError, match=message) as refused:
        load_published(path)
    assert f"{path}, line " in str(refused.value)


def test_the_mean_is_as_published_or_else_computed(plan_file: Path) -> None:
    raw, head, failing = load_published(plan_file.with_name("published.yaml")).rows
    assert raw.figures == {"tiny": 0.5, "other": 0.5, MEAN: 0.5}
    assert head.figures[MEAN] == 0.45
    assert failing.figures == {MEAN: 0.2}


def test_the_published_table_of_the_repository() -> None:
    published = load_published(REPOSITORY / "reproduction" / "published.yaml")
    assert list(published.collections) == ["scifact", "nfcorpus"]
    assert all(row.source for row in published.rows)
    assert published.residual is not None
    assert list(published.residual.epochs) == [1, 2, 3]


def test_the_nulls_of_the_repository_have_twenty_seeds() -> None:
    rows = planned_rows(load_recipe(REPOSITORY / "pipelines" / "untrained.yaml"))
    assert {label: len(runs) for label, runs in rows.items()} == {"untrained 512": 20, "untrained 768": 20}
    assert {label: runs[0].config.out_dim for label, runs in rows.items()} == {
        "untrained 512": 512,
        "untrained 768": None,
    }


def test_the_page_of_the_repository_names_runs_that_there_are() -> None:
    if not (REPOSITORY / "pipelines" / "seed_table.yaml").exists():
        pytest.skip("no pipelines/seed_table.yaml")
    load_plan(REPOSITORY / "reproduction" / "page.yaml", seeds=[0])
