"""The pages in headless Chromium: that they draw, sort, read out and stay silent."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from videogn.evaluation.metrics import confusion
from videogn.evaluation.result import read_result
from videogn.report.media import Example
from videogn.report.run import write_report
from videogn.report.several import write_comparison
from videogn.report.sweep import write_sweep
from videogn.report.swept import SweptJob

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("no Chromium here: apt-get install chromium", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install playwright")

ARGUMENTS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
# Of all visible elements with text of their own the contrast with what lies behind them, by WCAG 2.1; the least of them.
LEAST_CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => { for (; element; element = element.parentElement) {
    const found = rgba(getComputedStyle(element).backgroundColor);
    if (found[3] === 255) return found; } return [255, 255, 255]; };
  let least = [99, ""], count = 0;
  for (const element of document.body.querySelectorAll("*")) {
    const silent = ["SCRIPT", "STYLE", "NOSCRIPT", "CANVAS", "VIDEO", "OPTION"];
    if (!element.checkVisibility() || silent.includes(element.tagName)) continue;
    if (![...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
    const style = getComputedStyle(element), colour = rgba(element instanceof SVGElement ? style.fill : style.color);
    const pair = [light(colour), light(behind(element))].sort((a, b) => b - a);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    count += 1;
    if (ratio < least[0]) least = [ratio, `${element.tagName}.${element.className} ${element.textContent.slice(0, 40)}`];
  }
  return [...least, count];
}"""


@dataclass
class Watch:
    """What a page said and asked for."""

    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture
def show(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a page, and afterwards holds it to have said nothing, opened no dialog and asked for nothing but itself."""
    watch, contexts = Watch(), []

    def opened(path: Path, width: int = 1280, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(5000)
        page.on("console", lambda message: watch.said.append(message.text))
        page.on("pageerror", lambda error: watch.said.append(str(error)))
        page.on("dialog", lambda dialog: (watch.said.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: watch.asked.append(request.url))
        page.goto(path.as_uri())
        if options.get("java_script_enabled", True):
            page.wait_for_selector("html[data-ready]", state="attached")
        return page

    opened.watch = watch  # type: ignore[attr-defined]
    yield opened
    for context in contexts:
        context.close()
    assert watch.said == []
    assert [url for url in watch.asked if not url.startswith(("file:", "data:"))] == []
    assert sum(url.startswith("file:") for url in watch.asked) == len(contexts)


@pytest.fixture
def hostile_page(hostile_run: Path) -> Path:
    clip = np.random.default_rng(0).integers(0, 255, (16, 32, 48, 3), dtype=np.uint8)
    heat = np.ones((16, 32, 48), np.float32)
    name = '"><img src=x onerror=alert(4)>'
    return write_report(hostile_run, [Example(name, name, name, 0.75, 0.125, clip, 8.0, heat, None)] * 2)


@pytest.fixture(scope="module")
def large_page(large_run: Path) -> Path:
    return write_report(large_run)


@pytest.fixture
def several_page(tmp_path: Path, write_run: Callable[..., Path]) -> Path:
    labels = [row % 6 for row in range(30)]
    runs = [
        write_run(
            tmp_path / f"<img src=x onerror=alert({index})>" / "run", list("abcdef"), labels, [*labels[index:], *labels[:index]]
        )
        for index in range(6)
    ]
    return write_comparison(runs, tmp_path / "page.html")


@pytest.fixture
def sweep_page(tmp_path: Path, sweep_jobs: Callable[..., list[SweptJob]]) -> Path:
    jobs = sweep_jobs({"norm": ["group_norm", "<img src=x onerror=alert(7)>"], "batch_size": ["2", "4", "8"], "seed": ["0", "1"]})
    return write_sweep(tmp_path, "videogn train -m 'x=<script>alert(8)</script>'", jobs)[0]


def until(page: Any, condition: str, seconds: float = 5.0) -> None:
    """Playwright's own wait evaluates text inside the page, which the page's policy forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, f"never: {condition}"
        page.wait_for_timeout(20)


def readout(page: Any) -> tuple[str, str, int]:
    found = page.locator(".cell").first.evaluate("cell => ({ ...cell.dataset })")
    assert f"{found['count']} of " in page.locator(".cell").first.inner_text()
    return found["row"], found["column"], int(found["count"])


@pytest.mark.parametrize("width", [400, 1600])
@pytest.mark.parametrize("name", ["hostile_page", "large_page", "several_page", "sweep_page"])
def test_is_as_wide_as_the_window(name: str, width: int, show: Callable[..., Any], request: pytest.FixtureRequest) -> None:
    page = show(request.getfixturevalue(name), width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if name == "large_page":
        # What is wide scrolls by itself: nothing that can be seen ends beyond the window.
        beyond = page.evaluate(
            "w => [...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, .strip, pre, ul, svg, canvas') "
            "&& e.getBoundingClientRect().right > w + 0.5).map(e => e.outerHTML.slice(0, 80))",
            width,
        )
        assert beyond == []


def test_hostile_names_are_shown_and_run_nothing(hostile_page: Path, show: Callable[..., Any]) -> None:
    page = show(hostile_page)
    assert page.locator("img[src=x], main script, bold").count() == 0
    assert page.locator("#table-0 tbody th").all_inner_texts()[1:3] == [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(2)>',
    ]
    page.locator("canvas").first.focus()
    for _ in range(5):  # every class is read out
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowRight")
    assert page.locator("img[src=x]").count() == 0
    assert show.watch.said == []  # type: ignore[attr-defined]
    # And were one put into the page as markup, the page's policy would not run it.
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=data:, onerror=alert(9)>')")
    page.wait_for_timeout(100)
    (refusal,) = show.watch.said  # type: ignore[attr-defined]
    assert "Content Security Policy" in refusal
    show.watch.said.clear()  # type: ignore[attr-defined]


def test_plots_are_drawn_within_their_axes(large_page: Path, show: Callable[..., Any]) -> None:
    page = show(large_page)
    assert page.locator("figure.plot svg").count() == 4  # loss, top-1, learning rate, calibration
    for svg in page.locator("figure.plot svg").all():
        box = svg.bounding_box()
        assert box["width"] > 250
        assert box["height"] > 120
    inside = page.evaluate("""() => [...document.querySelectorAll("polyline")].map((line) => {
      const box = line.getBBox(), axis = line.closest("svg").querySelector(".axis").getBBox();
      return [box.width > 200, box.height > 20, box.x >= axis.x - 0.1, box.y >= axis.y - 0.1,
        box.x + box.width <= axis.x + axis.width + 0.1, box.y + box.height <= axis.y + axis.height + 0.1];
    })""")
    assert len(inside) == 5
    assert all(all(flags) for flags in inside), inside


def test_plots_are_read_by_pointer_and_by_key(large_page: Path, show: Callable[..., Any]) -> None:
    page = show(large_page)
    figure = page.locator("#curve-0")
    svg, words = figure.locator("svg"), figure.locator(".readout")
    svg.scroll_into_view_if_needed()
    page.keyboard.press("Shift")  # the keyboard is in use: focus is visible
    svg.focus()
    svg.press("Home")
    assert words.inner_text() == "epoch 1: training 2, val 2.5"
    svg.press("ArrowRight")
    assert words.inner_text() == "epoch 2: training 1, val 1.25"
    svg.press("End")
    assert words.inner_text() == "epoch 40: training 0.05, val 0.0625"
    box = figure.locator("polyline").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 9 / 39, box["y"] + 20)
    assert words.inner_text() == "epoch 10: training 0.2, val 0.25"
    assert figure.locator(".spot").count() == 2


def test_a_sweep_is_read_out_with_its_intervals(sweep_page: Path, show: Callable[..., Any]) -> None:
    page = show(sweep_page)
    figure = page.locator("#plot-0")
    svg = figure.locator("svg")
    assert figure.locator("polyline").count() == 2
    assert figure.locator("circle.dot").count() == 6
    svg.scroll_into_view_if_needed()
    svg.focus()
    svg.press("Home")
    said = figure.locator(".readout").inner_text()
    assert said.startswith("batch_size 2: group_norm ")
    assert " to " in said
    assert page.locator("img[src=x], main script").count() == 0
    # The dots and bars lie within the axes.
    inside = page.evaluate("""() => [...document.querySelectorAll("figure.plot g")].map((line) => {
      const box = line.getBBox(), axis = line.closest("svg").querySelector(".axis").getBBox();
      return box.x >= axis.x && box.y >= axis.y - 4 && box.x + box.width <= axis.x + axis.width
        && box.y + box.height <= axis.y + axis.height + 4; })""")
    assert len(inside) > 2
    assert all(inside)


def test_tables_sort_both_ways_and_numbers_as_numbers(large_page: Path, show: Callable[..., Any]) -> None:
    page = show(large_page)

    def column(index: int) -> list[str]:
        return page.locator("#table-0 tbody tr").evaluate_all(f"rows => rows.map(row => row.cells[{index}].textContent)")

    names = column(0)
    for index, kinds in ((1, 7), (2, 20)):  # 5 to 11 videos: as text, 10 would stand before 5
        number = page.locator("#table-0 thead th").nth(index)
        for way, sign in (("descending", -1), ("ascending", 1)):
            number.locator("button").press("Enter")
            assert number.get_attribute("aria-sort") == way
            values = [float(text.removesuffix("%")) for text in column(index)]
            assert values == sorted(values, key=lambda value: sign * value)
            assert len(set(values)) >= kinds
    head = page.locator("#table-0 thead th").nth(0)
    head.locator("button").click()
    assert number.get_attribute("aria-sort") == "none"
    ascending = column(0)
    assert sorted(ascending) == sorted(names)
    head.locator("button").click()
    assert column(0) == ascending[::-1]
    page.locator("input.rows[data-table='table-0']").fill("drum")
    shown = page.locator("#table-0 tbody tr:visible th").all_inner_texts()
    assert sorted(shown) == sorted(name for name in names if "drum" in name)


def test_missing_values_stay_last(hostile_page: Path, show: Callable[..., Any]) -> None:
    page = show(hostile_page)
    for _ in range(2):
        page.locator("#table-0 thead button").nth(3).click()  # precision: two classes were never answered
        assert page.locator("#table-0 tbody tr td:nth-child(4)").all_inner_texts()[-2:] == ["-", "-"]


def test_the_matrix_reads_out_what_was_answered(large_run: Path, large_page: Path, show: Callable[..., Any]) -> None:
    result = read_result(large_run)
    matrix = confusion(result.scores["ten_clip"].videos(), result.labels)
    row_of = {name: index for index, name in enumerate(result.classes)}
    page = show(large_page)
    canvas = page.locator("canvas").first
    page.locator(".order").first.select_option("name")
    canvas.focus()
    canvas.press("Home")
    for _ in range(2):
        canvas.press("Shift+ArrowUp")
    seen = set()
    for key in ("ArrowDown", "ArrowRight", "Shift+ArrowDown", "End", "ArrowLeft", "PageDown", "Home"):
        canvas.press(key)
        row, column, count = readout(page)
        assert count == matrix[row_of[row], row_of[column]]
        seen.add((row, column))
    assert len(seen) == 7
    # Every pair of the table is found in the matrix with its number.
    for button in page.locator("#pairs-0 .find").all()[:3]:
        number = int(button.inner_text())
        button.click()
        row, column, count = readout(page)
        assert count == number == matrix[row_of[row], row_of[column]] > 0
        assert row != column
    # Under the pointer: with the order by name the cells of the diagonal are from corner to corner.
    page.locator(".fit").first.click()
    canvas.hover(position={"x": 22.5, "y": 22.5})  # once it stands still
    assert readout(page)[:2] == (sorted(result.classes)[0],) * 2


def test_the_matrix_is_sorted(large_run: Path, large_page: Path, show: Callable[..., Any]) -> None:
    result = read_result(large_run)
    top1 = {name: facts["top1"] for name, facts in result.facts["results"][0]["metrics"]["per_class"].items()}
    page = show(large_page)
    canvas, order = page.locator("canvas").first, page.locator(".order").first

    def first_rows(count: int) -> list[str]:
        page.locator(".filter").first.fill("zzz")  # nothing matches, so the cursor goes back to the first
        page.locator(".filter").first.fill("")
        canvas.focus()
        rows = []
        for _ in range(count):
            rows.append(readout(page)[0])
            canvas.press("ArrowDown")
        return rows

    order.select_option("top1")
    worst = [top1[name] for name in first_rows(12)]
    assert worst == sorted(top1.values())[:12]
    order.select_option("name")
    assert first_rows(3) == sorted(result.classes)[:3]
    order.select_option("together")
    together = first_rows(2)
    matrix = confusion(result.scores["ten_clip"].videos(), result.labels)
    a, b = (result.classes.index(name) for name in together)
    assert matrix[a, b] + matrix[b, a] > 0  # neighbours are taken for each other


def test_names_of_400_classes_can_be_read(large_page: Path, show: Callable[..., Any]) -> None:
    page = show(large_page)
    # Which names are written into the picture.
    page.evaluate("""() => { const drawing = CanvasRenderingContext2D.prototype, draw = drawing.fillText; window.written = [];
      drawing.fillText = function (text, ...rest) { written.push(text); draw.call(this, text, ...rest); }; }""")

    def written(action: Callable[[], None]) -> list[str]:
        page.evaluate("written.length = 0")
        action()
        return page.evaluate("written")

    names = page.evaluate("data.classes")
    canvas = page.locator("canvas").first
    assert written(lambda: page.locator(".fit").first.click()) == ["answered", "shows"]
    for _ in range(7):
        page.locator(".in").first.click()
    zoomed = [text for text in written(lambda: canvas.press("ArrowDown")) if not text.isdigit()]
    assert len(zoomed) >= 16
    assert sum(text in names for text in zoomed) >= len(zoomed) // 2  # the rest is too long, and cut short with an ellipsis
    assert all(text in names or text.endswith("\u2026") for text in zoomed)
    found = written(lambda: page.locator(".filter").first.fill("abseil"))
    assert "abseiling" in found
    assert "1 of 400 classes match" in page.locator(".status").first.inner_text()


def test_a_large_page_is_ready_in_time(large_page: Path, show: Callable[..., Any]) -> None:
    start = time.monotonic()
    page = show(large_page)
    page.locator("canvas").first.press("ArrowDown")
    assert time.monotonic() - start < 3


def test_protocols_are_tabs(hostile_page: Path, show: Callable[..., Any]) -> None:
    page = show(hostile_page)
    assert page.locator(".protocol:visible").count() == 1
    page.locator("[role=tab]").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("[role=tab][aria-selected=true]").inner_text() == "<b>dense"
    assert page.evaluate("document.activeElement.textContent") == "<b>dense"
    assert page.locator("#protocol-1").is_visible()
    assert not page.locator("#protocol-0").is_visible()
    assert page.locator("#protocol-1 canvas").bounding_box()["height"] > 100  # drawn when it appears
    assert page.locator(".contents a", has_text="Confusion").get_attribute("href") == "#confusion-1"


def test_without_a_script_all_is_there(hostile_page: Path, show: Callable[..., Any]) -> None:
    page = show(hostile_page, java_script_enabled=False)
    assert page.locator(".protocol:visible").count() == 2
    assert page.locator("noscript table").first.is_visible()


def test_the_tab_key_reaches_every_control(hostile_page: Path, show: Callable[..., Any]) -> None:
    page = show(hostile_page)
    reached, bare = set(), set()
    for _ in range(120):
        page.keyboard.press("Tab")
        where, outline = page.evaluate("""() => { const at = document.activeElement, style = getComputedStyle(at);
          const kind = `${at.tagName} ${at.getAttribute("role") ?? ""}`.trim();
          return [at.id || at.getAttribute("class") || kind, style.outlineStyle]; }""")
        # Inside a video the browser's own controls show their focus themselves.
        if outline == "none" and where not in reached | {"VIDEO"}:
            bare.add(where)
        reached.add(where)
        if page.evaluate("document.activeElement.tagName") == "SUMMARY":
            break
    expected = {"theme", "skip", "order", "filter", "in", "out", "fit", "rows", "find", "command", "copy", "tab-0"}
    assert expected <= reached
    assert {"CANVAS application", "VIDEO", "SUMMARY"} <= reached
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    assert bare == set()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["hostile_page", "several_page"])
def test_text_can_be_read(name: str, scheme: str, show: Callable[..., Any], request: pytest.FixtureRequest) -> None:
    page = show(request.getfixturevalue(name), color_scheme=scheme)
    ratio, where, count = page.evaluate(LEAST_CONTRAST)
    assert count > 100
    assert ratio >= 4.5, where
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(15, 18, 22)") == (scheme == "dark")


def test_the_colours_can_be_switched(hostile_page: Path, show: Callable[..., Any]) -> None:
    page = show(hostile_page, color_scheme="light")
    colours = [page.evaluate("getComputedStyle(document.body).backgroundColor")]
    pictures = [page.locator("canvas").first.evaluate("canvas => canvas.toDataURL()")]
    for _ in range(2):
        page.locator("#theme").press("Enter")
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        pictures.append(page.locator("canvas").first.evaluate("canvas => canvas.toDataURL()"))
    assert colours[0] == colours[2] != colours[1]
    assert pictures[0] == pictures[2] != pictures[1]


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_clips_play_where_motion_is_wanted(motion: str, hostile_page: Path, show: Callable[..., Any]) -> None:
    page = show(hostile_page, reduced_motion=motion)
    video = page.locator("video").first
    video.scroll_into_view_if_needed()
    assert video.evaluate("v => v.paused")
    until(page, "document.querySelector('video').readyState > 0")
    assert video.evaluate("v => [v.videoWidth, v.videoHeight]") == [48, 32]
    video.hover()
    if motion == "reduce":
        page.wait_for_timeout(200)
        assert video.evaluate("v => v.paused")
    else:
        until(page, "!document.querySelector('video').paused")
        page.mouse.move(0, 0)
        until(page, "document.querySelector('video').paused")


def test_the_command_is_copied(hostile_page: Path, show: Callable[..., Any]) -> None:
    page = show(hostile_page)
    page.locator(".copy").click()
    until(page, "['Copied', 'Selected'].includes(document.querySelector('.copy').textContent)")
    if page.locator(".copy").inner_text() == "Selected":
        assert page.evaluate("getSelection().toString()") == "videogn train norm=group_norm 'note=<b>'"
