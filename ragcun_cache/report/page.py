"""The HTML page: one file that asks for nothing, with its style, script and data inside."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from typing import Any

_SCRIPTS = ["dom", "theme", "chart", "leaderboard", "training", "geometry", "queries", "main"]


def render_page(content: dict[str, Any]) -> str:
    """Return the page that shows ``content``.

    A Content-Security-Policy allows the page's own style and script, by their hashes, and forbids every request. Data
    is JSON in which no character can end its element, and the script makes text nodes of it: a passage is never markup.
    """
    style = _asset("page.css")
    script = '"use strict";\n(() => {\n' + "\n".join(_asset(f"{name}.js") for name in _SCRIPTS) + "})();\n"
    page = _asset("page.html")
    parts = {
        "style_hash": _csp_hash(style),
        "script_hash": _csp_hash(script),
        "style": style,
        "script": script,
        "data": _harmless_json(content),
    }
    # In one pass, so that nothing that is put in is taken for a place to put more.
    head, *rest = page.split("{{")
    return head + "".join(parts[name] + tail for name, _, tail in (one.partition("}}") for one in rest))


def _asset(name: str) -> str:
    return (files("ragcun_cache.report") / "assets" / name).read_text(encoding="utf-8")


def _csp_hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _harmless_json(content: dict[str, Any]) -> str:
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    escapes = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
    # Half of a surrogate pair, which JSON may carry, is no character that a file could hold.
    whole = text.encode("utf-8", "replace").decode()
    return whole.translate({ord(character): escape for character, escape in escapes.items()})
