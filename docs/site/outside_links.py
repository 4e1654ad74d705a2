"""Links that leave docs/ stay inside the site: what they point at becomes a page of it.

On a code host `../onnx_esn/numerics/esn.py` leads to the file. The site has the same file as a
page, so that it can be read without a network. Markdown files become pages under `project/`, other
files listings under `source/`, folders a list of what is in them.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
FENCE_OR_CODE = re.compile(r"^( *)(```+)[^\n]*\n.*?^\1\2$|`[^`\n]+`", re.S | re.M)
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
LANGUAGES = {".py": "python", ".json": "json", ".toml": "toml", ".yml": "yaml", ".sh": "bash"}
HOMES: dict[str, str] = {}  # of the pages made here: the folder of what they stand for
UNSEARCHED = "---\nsearch:\n  exclude: true\n---\n\n"


def on_files(files: Any, config: Any) -> Any:
    """Add a page for each file or folder outside docs/ that a page links to."""
    texts = {
        f.src_uri: Path(f.abs_src_path).read_text("utf-8") for f in files.documentation_pages()
    }
    while texts:
        page, text = texts.popitem()
        for target in _outside_targets(text, _home(page)):
            uri = _page_of(target)
            if files.get_file_from_path(uri) is None:
                content = _content(target)
                HOMES[uri] = target if (ROOT / target).is_dir() else posixpath.dirname(target)
                files.append(File.generated(config, uri, content=content))
                texts[uri] = content
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Point the links of a page at the pages that stand for what is outside."""
    here = page.file.src_uri
    home = _home(here)

    def moved(target: str) -> str:
        path, mark, anchor = target.partition("#")
        found = _resolved(path, home)
        if found is None:
            return target
        uri = found.removeprefix("docs/") if found.startswith("docs/") else _page_of(found)
        return posixpath.relpath(uri, posixpath.dirname(here) or ".") + mark + anchor

    return _with_links(markdown, moved)


def _home(page: str) -> str:
    """Folder, from the root of the checkout, that the links of a page start from."""
    return HOMES[page] if page in HOMES else posixpath.dirname(f"docs/{page}")


def _with_links(text: str, change: Callable[[str], str]) -> str:
    """Return the text with `change` applied to each link, code left alone."""
    parts, at = [], 0
    for code in FENCE_OR_CODE.finditer(text):
        parts += [_changed(text[at : code.start()], change), code.group()]
        at = code.end()
    return "".join([*parts, _changed(text[at:], change)])


def _changed(text: str, change: Callable[[str], str]) -> str:
    return LINK.sub(lambda m: m[1] + change(m[2]) + m[3], text)


def _resolved(path: str, home: str) -> str | None:
    """Path from the root of the checkout, or None where the link is not one to a file."""
    if not path or re.match(r"[a-z]+:", path) or path.startswith("/"):
        return None
    found = posixpath.normpath(posixpath.join(home, path))
    return found if (ROOT / found).exists() else None


def _outside_targets(text: str, home: str) -> list[str]:
    found: list[str] = []

    def note(target: str) -> str:
        path = _resolved(target.partition("#")[0], home)
        if path is not None and not path.startswith("docs/"):
            found.append(path)
        return target

    _with_links(text, note)
    return found


def _page_of(target: str) -> str:
    """The page that stands for a file or folder; hidden ones would be left out of the site."""
    shown = target.replace("/.", "/").removeprefix(".")
    if shown.endswith(".md"):
        return f"project/{shown}"
    return f"source/{shown}/index.md" if (ROOT / target).is_dir() else f"source/{shown}.md"


def _content(target: str) -> str:
    path = ROOT / target
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix in LANGUAGES or p.suffix == ".md")
        rows = [f"- [{p.name}]({p.name}): {_first_line(p)}" for p in files]
        return f"{UNSEARCHED}# {target}/\n\n" + "\n".join(rows) + "\n"
    text = path.read_text("utf-8")
    if path.suffix == ".md":
        return text
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    language = LANGUAGES.get(path.suffix, "text")
    return f'{UNSEARCHED}# {target}\n\n{fence} {{.{language} linenums="1"}}\n{text}{fence}\n'


def _first_line(path: Path) -> str:
    """What a module says of itself."""
    text = path.read_text("utf-8")
    said = re.match(r'(?:#[^\n]*\n)*"""(.*?)(?:\n|""")', text)
    return said[1] if said else ""
