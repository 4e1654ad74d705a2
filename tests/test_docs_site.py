"""What the site of docs/ is made of: its navigation, its hooks, its formulas."""

from __future__ import annotations

import importlib.util
import re
from types import SimpleNamespace

import pytest

from tests.docs_console import PAGES, ROOT, blocks

CONFIG = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
NAVIGATION = set(re.findall(r"^ +- (?:[^:\n]+: )?(\S+\.md)$", CONFIG, re.M))


def hook(name):
    """A hook of the site, imported."""
    pytest.importorskip("mkdocs", reason="mkdocs is not installed (extra docs)")
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "site" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_navigation_names_every_page():
    assert {p.removeprefix("docs/") for p in PAGES} <= NAVIGATION


def test_nothing_is_fetched_from_elsewhere():
    style = (ROOT / "docs" / "site" / "style.css").read_text(encoding="utf-8")
    assert "font: false" in CONFIG
    assert not re.search(r"https?://", CONFIG + style)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "math")])
def test_formulas_are_closed(page):
    for formula in blocks(page, "math"):
        assert formula.count("{") == formula.count("}")
        assert len(re.findall(r"\\left\b", formula)) == len(re.findall(r"\\right\b", formula))
        assert formula.count(r"\begin{") == formula.count(r"\end{")
        # What looks like a formula in plain text is none here.
        assert not re.search(r"[Σ²√≤∈·ᵀ₀⁻]", re.sub(r"\\text\{[^}]*\}", "", formula)), formula


@pytest.mark.parametrize(
    ("home", "link", "leads_to"),
    [
        (
            "concepts/cost.md",
            "../../onnx_esn/numerics/esn.py",
            "../source/onnx_esn/numerics/esn.py.md",
        ),
        ("cli.md", "../calibration/README.md", "project/calibration/README.md"),
        ("cli.md", "../calibration/README.md#source", "project/calibration/README.md#source"),
        ("extending.md", "../onnx_esn/numerics", "source/onnx_esn/numerics/index.md"),
        ("cli.md", "concepts/plans.md#edit-a-plan", "concepts/plans.md#edit-a-plan"),
        ("project/CHANGELOG.md", "docs/limits.md", "../limits.md"),
        ("project/CONTRIBUTING.md", "SECURITY.md", "SECURITY.md"),
        ("index.md", "../.ci/run", "source/ci/run.md"),
        ("cli.md", "https://example.org/a.md", "https://example.org/a.md"),
        ("cli.md", "../does/not/exist.md", "../does/not/exist.md"),
    ],
)
def test_links_that_leave_the_docs_stay_in_the_site(home, link, leads_to):
    page = SimpleNamespace(file=SimpleNamespace(src_uri=home))
    links = hook("outside_links")
    links.HOMES["project/CHANGELOG.md"] = links.HOMES["project/CONTRIBUTING.md"] = ""
    text = "[a]({}) `[b]({})`\n\n```\n[c]({})\n```\n"
    moved = links.on_page_markdown(text.replace("{}", link), page, None, None)
    assert moved == text.replace("{}", leads_to, 1).replace("{}", link)


def test_formulas_become_mathml():
    formula = hook("math_blocks").formula
    made = formula("\\begin{aligned}\na &= \\mathrm{E} \\\\\nb &= c\n\\end{aligned}", "math", "f")
    assert made.startswith('<div class="f"><math')
    assert made.count("<mtr>") == 2
    assert "(1)" not in made
    assert "<mtext>E</mtext>" in made


def test_the_extras_that_the_pages_name_exist():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    table = project.split("[project.optional-dependencies]")[1].split("\n[")[0]
    known = set(re.findall(r"^([a-z]+) = ", table, re.M))
    for page in [*PAGES, "README.md", "CONTRIBUTING.md"]:
        text = (ROOT / page).read_text(encoding="utf-8")
        for names in re.findall(r"pip install [^\n`]*?\[([a-z,]+)\]", text):
            assert set(names.split(",")) <= known, (page, names)


def test_bars_in_the_code_of_tables_lose_their_backslash():
    text = "| `a \\| b` | c \\| d |\n\n`e \\| f`\n"
    made = hook("table_pipes").on_page_markdown(text, None, None, None)
    assert made == "| `a | b` | c \\| d |\n\n`e \\| f`\n"
