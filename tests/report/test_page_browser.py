"""The page in a real browser: no error, and what the script adds does work."""

from __future__ import annotations

import io
import json
from collections import Counter

import pytest
from PIL import Image

from onnx_esn.report.page.assembly import report_page
from tests.report.browser import Browser, find_browser
from tests.report.reports import report_document, sweep_report_document

pytestmark = pytest.mark.skipif(
    find_browser() is None, reason="needs Chromium (apt-get install chromium)"
)


@pytest.fixture(scope="module")
def browser():
    program = find_browser()
    assert program is not None
    opened = Browser(program)
    yield opened
    opened.close()


@pytest.fixture
def pages(tmp_path):
    """Files of pages by name."""
    documents = {
        "compress": report_document(layers=30, skipped=[("a", "why")]),
        "sweep": sweep_report_document(layers=6),
        "hostile": report_document(name="</script><script>document.title='broken'</script>{}"),
    }
    for name, document in documents.items():
        (tmp_path / f"{name}.html").write_text(report_page(document), encoding="utf-8")
    return tmp_path


@pytest.fixture(autouse=True)
def quiet(request):
    """No page may write to the console, nor stumble."""
    if "browser" not in request.fixturenames:
        yield
        return
    opened = request.getfixturevalue("browser")
    opened.messages.clear()
    yield
    assert opened.messages == []


@pytest.mark.parametrize("name", ["compress", "sweep", "hostile"])
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_fits_the_window_in_both_schemes(browser, pages, name, width, dark):
    browser.open(pages / f"{name}.html", width=width, dark=dark)
    assert browser.run("document.documentElement.scrollWidth") <= width
    image = Image.open(io.BytesIO(browser.picture())).convert("L")
    corner = image.getpixel((2, 2))
    assert corner < 40 if dark else corner > 220
    assert len(image.getcolors(1 << 20)) > 20
    assert browser.run("document.title") != "broken"


def order(browser):
    rows = "[...document.querySelectorAll('#layer-table tbody tr')]"
    return json.loads(browser.run(f"JSON.stringify({rows}.map(r => r.id))"))


@pytest.mark.parametrize(("column", "key"), [(2, "macs"), (4, "esn_prime"), (5, "output_snr_db")])
def test_columns_sort_down_up_and_back(browser, pages, column, key):
    layers = report_document(layers=30)["report"]["layers"]
    values = [x[key] if key in x else x["after"][key] for x in layers]
    browser.open(pages / "compress.html")
    original = order(browser)
    assert original == [f"layer-{i}" for i in range(30)]
    press = f"document.querySelectorAll('#layer-table thead button')[{column}].click()"
    found = []
    for expected in ("descending", "ascending", "none"):
        browser.run(press)
        head = f"document.querySelectorAll('#layer-table th[scope=col]')[{column}]"
        assert browser.run(f"{head}.getAttribute('aria-sort')") == expected
        found.append([values[int(i.removeprefix("layer-"))] for i in order(browser)])
    assert found[0] == sorted(values, reverse=True)
    assert found[1] == sorted(values)
    assert found[2] == values


def test_names_sort_and_are_found(browser, pages):
    browser.open(pages / "compress.html")
    browser.run("document.querySelector('#layer-table thead button').click()")
    assert order(browser)[:3] == ["layer-0", "layer-1", "layer-2"], "numbers as numbers"
    browser.run(
        "{const x = document.querySelector('.tools input'); x.value = 'LAYER1';"
        " x.dispatchEvent(new Event('input'));}"
    )
    shown = "document.querySelectorAll('#layer-table tbody tr:not([hidden])').length"
    assert browser.run(shown) == 11  # 1, 10 … 19
    assert browser.run("document.querySelector('.tools [role=status]').textContent") == (
        "11 of 30 layers"
    )


def place(browser, selector):
    """Centre of an element, once it is in view."""
    box = browser.run(
        f"{{const e = document.querySelector({selector!r}); e.scrollIntoView({{block: 'center', "
        "behavior: 'instant'}); const b = e.getBoundingClientRect();"
        " JSON.stringify([b.x + b.width / 2, b.y + b.height / 2])}"
    )
    return json.loads(box)


def test_hovering_shows_the_point_and_a_click_its_command(browser, pages):
    document = sweep_report_document()
    browser.open(pages / "sweep.html")
    chosen = document["report"]["choice"]["index"]
    shown = "document.querySelector('#point-command').textContent"
    assert f"'model {chosen}.onnx'" in browser.run(shown)
    tip = "document.querySelector('#tip')"
    assert browser.run(f"{tip}.hidden")
    index = 8
    x, y = place(browser, f"[data-point='{index}'] .hit")
    browser.move_to(x, y)
    assert not browser.run(f"{tip}.hidden")
    told = browser.run(f"{tip}.textContent")
    point = document["points"][index]
    assert told.startswith(f"{point['method']} at {point['target']} bits per MAC")
    assert f"{100 * point['accuracy']:.1f} ± 1.0 %" in told
    browser.click(x, y)
    assert f"'model {index}.onnx'" in browser.run(
        "document.querySelector('#point-command').textContent"
    )
    assert browser.run("document.querySelector('#points tr.chosen').id") == f"point-{index}"
    browser.move_to(2, 2)
    assert browser.run(f"{tip}.hidden")


def test_the_keyboard_reaches_every_point(browser, pages):
    browser.open(pages / "sweep.html")
    browser.run("document.querySelector('.point').focus()")
    seen = []
    number = browser.run("document.querySelectorAll('.point').length")
    for _ in range(number):
        seen.append(browser.run("document.activeElement.dataset.point"))
        assert not browser.run("document.querySelector('#tip').hidden")
        browser.press("ArrowRight")
    assert len(set(seen)) == number


def test_the_switch_of_colours_beats_the_system(browser, pages):
    ground = "getComputedStyle(document.body).backgroundColor"
    browser.open(pages / "compress.html", dark=True)
    dark = browser.run(ground)
    browser.run("document.querySelector('#theme-light').click()")
    light = browser.run(ground)
    browser.run("document.querySelector('#theme-dark').click()")
    assert browser.run(ground) == dark != light
    browser.run("document.querySelector('#theme-auto').click()")
    assert browser.run(ground) == dark


def test_without_scripts_it_shows_the_same(browser, pages):
    """But for what only a script can do, which is then not there."""
    for name, extra in (("compress", "Copy Save the figures as JSON 30 layers"), ("sweep", "")):
        browser.open(pages / f"{name}.html")
        with_scripts = Counter(browser.run("document.querySelector('main').innerText").split())
        browser.scripts(False)
        browser.open(pages / f"{name}.html")
        without = Counter(browser.run("document.querySelector('main').innerText").split())
        browser.scripts(True)
        assert without - with_scripts == Counter()
        if extra:
            assert with_scripts - without == Counter(extra.split())
        assert sum(without.values()) > 100


def test_a_print_opens_what_is_folded(browser, pages):
    browser.open(pages / "compress.html")
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert browser.run("document.querySelectorAll('details:not([open])').length") == 0
    browser.run("dispatchEvent(new Event('afterprint'))")
    assert browser.run("document.querySelectorAll('details[open]').length") == 0
    assert len(browser.call("Page.printToPDF")["data"]) > 10_000


def test_two_thousand_layers_stay_usable(browser, tmp_path):
    path = tmp_path / "large.html"
    path.write_text(report_page(report_document(layers=2000, filters=64)), encoding="utf-8")
    browser.open(path)
    browser.run("document.querySelectorAll('#layer-table thead button')[5].click()")
    assert len(order(browser)) == 2000
    assert browser.run("document.documentElement.scrollHeight") < 12_000, "folded where it is long"
