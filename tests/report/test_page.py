from __future__ import annotations

import base64
import hashlib
import json
import re

import pytest
from typer.testing import CliRunner

from ragcun_cache.cli.main import app
from ragcun_cache.errors import EvaluationError
from ragcun_cache.home import Home
from ragcun_cache.report.content import Report
from ragcun_cache.report.page import render_page


def test_no_text_can_end_the_data_or_become_markup(made: Report) -> None:
    page = render_page({**made.content, "title": "</script> <!-- & {{style}} \u2028 \ud800"})
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert not set("<>&\u2028") & set(data)
    content = json.loads(data)
    assert content["title"] == "</script> <!-- & {{style}} \u2028 ?"
    assert content["boards"] == json.loads(json.dumps(made.content["boards"]))
    assert page.count("<script") == 2


def test_only_the_pages_own_style_and_script_may_run(made: Report) -> None:
    page = render_page(made.content)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy.startswith("default-src 'none'")
    for element, source in (("style", "style-src"), ("script", "script-src")):
        (text,) = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{source} 'sha256-{digest}'" in policy


def test_the_page_names_no_address_but_that_of_svg(made: Report) -> None:
    page = re.sub(r'id="data">.*?</script>', "", render_page(made.content), flags=re.DOTALL)
    assert set(re.findall(r"https?://[^\s\"']*", page)) == {"http://www.w3.org/2000/svg"}
    assert "innerHTML" not in page


def test_the_command_writes_both_files(evaluated: Home, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGCUN_HOME", str(evaluated.root))
    page, text = tmp_path / "page.html", tmp_path / "page.md"
    done = CliRunner().invoke(app, ["report", "--out", str(page), "--markdown", str(text), "--dataset", "hard"])
    assert done.exit_code == 0, done.output
    assert page.read_text().startswith("<!doctype html>")
    assert "ragcun-cache report --dataset hard --out" in text.read_text()
    missing = CliRunner().invoke(app, ["report", "--dataset", "hart"])
    assert isinstance(missing.exception, EvaluationError)
    assert "did you mean 'hard'" in str(missing.exception)
    monkeypatch.setenv("RAGCUN_HOME", str(tmp_path / "none"))
    assert "no results yet" in str(CliRunner().invoke(app, ["report"]).exception)
