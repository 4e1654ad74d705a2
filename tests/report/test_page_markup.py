"""What is text stays text, and what is quoted for a shell is what the shell reads."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_esn.report.page.markup import Markup, element, escape, fragment, island, visible
from onnx_esn.report.page.shell import command_words, quoted
from tests.report.html import Page

NASTY = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "<!--",
    "]]>",
    "&lt;&#60;&amp",
    "a\x00b",
    "a\u202eb",
    "javascript:alert(1)",
    "{{7*7}}${7*7}",
    "`$(id)`",
]


@pytest.mark.parametrize("text", NASTY)
def test_text_is_never_markup(text):
    page = Page(element("p", element("b", text, title=text), text))
    assert page.problems == []
    assert [tag for tag, _, _ in page.elements] == ["p", "b"]
    assert page.text == " ".join((visible(text) * 2).split())
    assert page.attributes("title") == [visible(text)]


@given(st.text())
def test_any_text_comes_back_as_it_was_shown(text):
    page = Page(element("p", text, title=text))
    assert page.problems == []
    assert page.attributes("title") == [visible(text)]
    assert page.text == " ".join(visible(text).split())


def test_what_cannot_be_seen_is_written_as_a_code():
    assert (
        visible("a\x00\u202e\ud800\U000e0001b é 日本") == "a\\x00\\u202e\\ud800\\U000e0001b é 日本"
    )


def test_elements_nest_and_none_is_nothing():
    made = element("p", None, ["a", element("b", "c")], [[" ", ["d"]]])
    assert made == "<p>a<b>c</b> d</p>"
    assert fragment("<", Markup("<br>")) == "&lt;<br>"
    assert element("input", checked=True, disabled=False, id=None) == "<input checked>"


@pytest.mark.parametrize("tag", ["", "p onclick", "p>", "1"])
def test_names_that_are_none_are_refused(tag):
    with pytest.raises(ValueError, match="no name"):
        element(tag)


def test_a_void_element_has_no_children():
    with pytest.raises(ValueError, match="no children"):
        element("br", "x")


@given(st.recursive(st.text() | st.integers(), lambda x: st.lists(x), max_leaves=8))
def test_an_island_is_one_script_and_its_data(data):
    (_, text), *others = Page(island("data", data)).scripts
    assert not others
    assert json.loads(text) == data


@pytest.mark.parametrize("text", NASTY)
def test_nothing_ends_an_island(text):
    made = island("data", {text: text})
    assert re.findall(r"</?script|<!--", made) == ["<script", "</script"]
    assert json.loads(Page(made).scripts[0][1]) == {text: text}


def test_escaped_text_keeps_its_quotes_apart():
    assert escape("\"'&<>") == "&quot;&#x27;&amp;&lt;&gt;"


WORDS = [
    *("a b", "it's", "--target-cost", "25%", "$HOME", "`id`", "a\\b", "*", "", "a\nb", "\x1b[31m"),
    *("é", "\u202e'\\", "x\udcffy", "a\x01b1"),
]


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_a_shell_reads_the_words_as_they_were():
    line = " ".join(["printf '%s\\0'", *map(quoted, WORDS)])
    assert line.isprintable()
    done = subprocess.run(["bash", "-c", line], stdout=subprocess.PIPE, check=True)
    assert done.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1] == WORDS


def test_a_command_begins_with_the_tool():
    assert command_words(["compress", "my model.onnx"]) == (
        "onnx-esn",
        "compress",
        "'my model.onnx'",
    )
