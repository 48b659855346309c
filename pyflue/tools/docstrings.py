"""Read what a tool's docstring says to the model: its first paragraph, and a Google-style ``Args:`` section."""

from __future__ import annotations

import inspect
import re
from typing import Final

_PARAMETER: Final = re.compile(r"\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)")


def first_paragraph(docstring: str | None) -> str:
    """Return the first paragraph on one line; empty without a docstring."""
    paragraph = inspect.cleandoc(docstring or "").split("\n\n", 1)[0]
    return " ".join(paragraph.split())


def parameter_descriptions(docstring: str | None) -> dict[str, str]:
    """Return descriptions by parameter name, from the ``Args:`` section; lines indented deeper continue one."""
    described: dict[str, str] = {}
    name, indent = "", 0
    for line in _section(docstring):
        depth = len(line) - len(line.lstrip())
        match = _PARAMETER.match(line.strip())
        if match and (not name or depth <= indent):
            name, indent = match[1], depth
            described[name] = match[2]
        elif name:
            described[name] = f"{described[name]} {line.strip()}".strip()
    return {name: text for name, text in described.items() if text}


def _section(docstring: str | None) -> list[str]:
    lines = inspect.cleandoc(docstring or "").splitlines()
    starts = [place for place, line in enumerate(lines) if line.strip() in {"Args:", "Arguments:"}]
    section: list[str] = []
    for line in lines[starts[0] + 1 :] if starts else []:
        if line.strip() and not line.startswith((" ", "\t")):
            break  # back at the left margin: the next section
        if line.strip():
            section.append(line)
    return section
