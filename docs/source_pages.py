"""Show the source files that pages link to as pages of the site, so that the site needs no other host.

A page links to a file as it lies in the repository (``../pyflue/mailbox/admit.py``), which works wherever the
Markdown is read. When the site is built, each such file becomes a page under ``source/`` and the link leads there.
MkDocs calls the functions by their names (``hooks`` in mkdocs.yml).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).parent.parent
LINK: Final = re.compile(r"\]\((?P<up>(?:\.\./)+)(?P<path>(?:pyflue|web|workers|examples)/[\w./-]+\.(?:py|sql|toml))\)")
LANGUAGES: Final = {".py": "python", ".sql": "sql", ".toml": "toml"}


def on_files(files: Files, /, *, config: MkDocsConfig) -> Files:
    """Add a page for every source file a page links to."""
    linked: set[str] = set()
    for file in files.documentation_pages():
        linked.update(found["path"] for found in LINK.finditer(file.content_string))
    for path in sorted(linked):
        files.append(File.generated(config, f"source/{path}.md", content=source_page(path)))
    return files


def on_page_markdown(markdown: str, /, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to source files to their pages."""
    up = "../" * page.file.src_uri.count("/")
    return LINK.sub(lambda found: f"]({up}source/{found['path']}.md)", markdown)


def source_page(path: str) -> str:
    """Write the page of one file, left out of the search, which would find every word twice."""
    text = (ROOT / path).read_text("utf-8").rstrip()
    head = f"---\ntitle: {path.rsplit('/', 1)[-1]}\nsearch:\n  exclude: true\n---\n\n# {path}\n"
    return f'{head}\n~~~~~~ {{ .{LANGUAGES[Path(path).suffix]} linenums="1" }}\n{text}\n~~~~~~\n'
