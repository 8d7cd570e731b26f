"""The page in a real browser: everything that a reader can do with mouse and keyboard, and nothing that goes wrong."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ragcun_cache.report.content import Report
from ragcun_cache.report.page import render_page

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
OPTIONS = (
    "no-sandbox disable-gpu disable-background-networking no-first-run disable-component-update disable-sync".split()
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium; the tests are skipped where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="the Python package playwright is not installed")
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        pytest.skip(f"no browser on the path (looked for {', '.join(BROWSERS)})")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=executable, args=[f"--{option}" for option in OPTIONS])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def file(made: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_page(made.content))
    return path


@pytest.fixture
def page(browser: Any, file: Path) -> Iterator[Any]:
    """The page, opened; at the end nothing may have been logged, raised, or asked for."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="light")
    opened = context.new_page()
    said: list[str] = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: said.append(request.url))
    opened.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    opened.goto(file.as_uri())
    opened.wait_for_selector("#provenance")
    yield opened
    context.close()
    assert said == [file.as_uri()]


def labels(page: Any) -> list[str]:
    found: list[str] = page.locator("#leaderboard tbody th .name").all_inner_texts()
    return found


def test_every_section_is_there_and_texts_stay_texts(page: Any) -> None:
    sections = page.locator("section").evaluate_all("all => all.map((one) => one.id)")
    assert sections == ["leaderboard", "training", "collapse", "cost", "geometry", "queries", "provenance"]
    assert page.locator("img").count() == 0
    assert page.title() == "ragcun-cache report"
    assert page.locator("svg.chart").count() >= 10


def test_the_table_sorts_by_click_and_by_keyboard_with_raw_first(page: Any) -> None:
    heading = page.locator("th", has=page.locator('[data-sort="board0|mean|hard/test"]'))
    button = heading.locator("button")
    best_first = labels(page)
    assert best_first[0] == "raw encoder"
    assert heading.get_attribute("aria-sort") == "descending"
    button.click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert labels(page) == [best_first[0], *reversed(best_first[1:])]
    button.focus()
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    assert labels(page) == best_first
    # The button that was pressed keeps the focus, though the table was drawn anew.
    page.keyboard.press("Space")
    assert heading.get_attribute("aria-sort") == "ascending"
    page.locator('[data-sort="board0|head|"]').or_(page.locator('[data-sort="board0|label|"]')).first.click()
    assert labels(page)[1:] == sorted(best_first[1:])


def test_the_table_filters_and_keeps_raw(page: Any) -> None:
    page.fill("#filter", "lejepa hard")
    assert [label.split()[0] for label in labels(page)] == ["raw", "lejepa"]
    assert "1 of 2 rows" in page.locator("#leaderboard").inner_text()
    page.fill("#filter", "")
    page.get_by_label("architecture").select_option("untrained")
    assert [label.split()[0] for label in labels(page)] == ["raw", "untrained"]


def test_a_query_opens_from_the_list_and_from_the_chart(page: Any, made: Report) -> None:
    (place,) = made.content["queries"]
    number = next(number for number, detail in place["detail"].items() if detail["gold"] and int(number) % 2)
    text = place["texts"][number]
    page.fill("#find-query", " ".join(text.split()[:2]))
    assert page.locator(".list button").count() == 1
    page.locator(".list button").press("Enter")
    detail = page.locator(".detail").inner_text()
    assert "</script><script>" in detail
    assert text in detail
    assert page.locator(".detail ol").count() == 2
    assert page.locator(".detail ol >> nth=0 >> li").count() == 5
    assert page.locator(".detail .tag.gold").count() > 0
    assert "Relevant passages" in detail
    page.fill("#find-query", "")
    chart = page.locator("#queries svg.chart")
    chart.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#tip").is_visible()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    by_keyboard = page.locator(".detail").inner_text()
    assert by_keyboard != detail
    point = chart.locator(".point").nth(20)
    point.scroll_into_view_if_needed()
    point.click(force=True)
    assert page.locator(".detail").inner_text() != by_keyboard


def test_another_head_is_chosen(page: Any) -> None:
    chooser = page.locator("#queries > .tools select")
    before = page.locator(".list").inner_text()
    chooser.select_option("1")
    assert page.locator(".list").inner_text() != before
    assert "untrained" in page.locator(".detail").inner_text()


def test_lines_are_hidden_and_shown(page: Any) -> None:
    chip = page.locator("#geometry .legend button").first
    shown = page.locator("#geometry figure").count()
    chip.click()
    assert page.locator("#geometry figure").count() == shown - 1
    assert page.locator("#geometry .legend button").first.get_attribute("aria-pressed") == "false"


def test_dark_and_light(page: Any) -> None:
    def background() -> str:
        colour: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return colour

    light = background()
    page.click("#theme")
    dark = background()
    assert dark != light
    page.click("#theme")
    assert background() == light


def test_the_system_decides_until_someone_chooses(page: Any) -> None:
    def turns(theme: str) -> None:
        page.wait_for_function("theme => document.documentElement.dataset.theme === theme", arg=theme, timeout=5000)

    turns("light")
    page.emulate_media(color_scheme="dark")
    turns("dark")
    page.click("#theme")
    turns("light")
    page.emulate_media(color_scheme="light")
    page.emulate_media(color_scheme="dark")
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    turns("light")


def test_nothing_is_wider_than_the_window(page: Any) -> None:
    for width in (1280, 1440, 700):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
