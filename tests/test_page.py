"""The report's page: what a reader's browser makes of it, with the network off."""

import io
import json
import os
import re
import shutil
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vl_convert
from axe_playwright_python.sync_playwright import Axe
from build_report import build_report
from conftest import ROOT
from markupsafe import Markup
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from pcam.binding import Number
from pcam.files import InputError, file_digest, read_csv, read_json, write_csv, write_json, write_text
from pcam.page import Picture, embedded_json, inline_script, page_of_journal, read_picture
from pcam.plots import Plot, slices_plot, threshold_plot
from pcam.plots_tuning import tuning_plot

PROVENANCE = {"rule": "build_report", "commit": None, "dirty": None, "code": "0", "device": "a CPU"}
EVIL = "</script><img src=x onerror=alert(1)>"
DOT = Picture("data:image/webp;base64,AAAA", 4, 3)
CHROMIUM = shutil.which("chromium")
WIDTHS = {"desk": (1360, 900), "phone": (375, 800)}
SPACE = {
    "learning_rate": {"type": "float", "low": 0.001, "high": 0.1, "log": True},
    "model": {"type": "categorical", "choices": ["resnet", "mlp"]},
}


# Journal to page


def numbered(text: str, *words: str) -> list[Number]:
    """The first place of each word in the text, as a number that cites its own index."""
    return [
        {"start": text.index(word), "end": text.index(word) + len(word), "cites": [i]} for i, word in enumerate(words)
    ]


def test_sections_and_the_course_s_items_get_anchors_and_names() -> None:
    text = (
        "# Journal\n\n> **A note.**\n\n## Question 5: Part 1 - Tracking\n1. **First Thing:**\n\nText.\n\n"
        "2. **README Link:** [fill in]\n\n* a\n  1. b\n\n## Final Submission Checklist\n- [x] done\n- [ ] open\n"
    )
    page = page_of_journal(text, {})
    assert [(h.anchor, h.name, h.title) for h in page.headings] == [
        ("q5-1", "Q5.1", "Tracking"), ("checklist", "Checklist", ""),
    ]  # fmt: skip
    assert page.headings[0].items == [("q5-1-item-1", "First Thing"), ("q5-1-item-2", "README Link")]
    for anchor in ("q5-1", "q5-1-item-1", "q5-1-item-2", "checklist"):
        assert page.body.count(f'id="{anchor}"') == 1
    assert "<p>[fill in]</p>" in page.body
    assert "<ol>" in page.body, "a list within a list is no item of the course's"
    assert page.body.count("<li>") == page.body.count("</li>") == 4
    assert "☑ done" in page.body and "☐ open" in page.body
    assert "<strong>A note.</strong>" in page.preface and "Journal" not in page.preface


def test_a_figure_holds_its_caption_and_the_hero_s_bytes_stand_once() -> None:
    text = (
        "## Question 6: X\n1. **A:**\n\n![alt & 2](assets/a.png)\n\nFigure: shows 0.5.\n\n![b](assets/b.png)\n\nText.\n"
    )
    pictures = {"assets/a.png": DOT, "assets/b.png": Picture("data:image/webp;base64,BBBB", 4, 3)}
    plots = {"assets/a.png": Markup("<div>live</div>")}
    page = page_of_journal(text, pictures, numbered(text, "2", "0.5"), plots, "assets/a.png")
    caption = '<figcaption>shows <data class="cited" value="1">0.5</data>.</figcaption>'
    assert page.hero is not None and page.hero.count(DOT.uri) == 1 and caption in page.hero
    assert DOT.uri not in page.body and '<use href="#hero"/>' in page.body
    assert re.search(rf'aria-label="alt &amp; 2".*{re.escape(caption)}</figure>\s*<div>live</div>', page.body)
    assert '<img src="data:image/webp;base64,BBBB" alt="b" width="4" height="3"' in page.body
    with pytest.raises(InputError, match=r"shows assets/b\.png, no picture of this run"):
        page_of_journal(text, {"assets/a.png": DOT})


def test_code_is_coloured_and_a_bound_number_in_it_stays_bound() -> None:
    text = "## Question 1: X\n\n```python\ndef f(): return 1\n```\n\n```yaml\nseeds: 17\n```\n\n```nothing\n<b>\n```\n"
    page = page_of_journal(text, {}, numbered(text, "17"))
    assert '<span class="k">def</span>' in page.body
    assert 'seeds: <data class="cited" value="0">17</data>' in page.body
    assert "&lt;b&gt;" in page.body


def test_a_picture_keeps_its_pixels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png")
    held = Image.open(io.BytesIO(b64decode(picture.uri.partition(",")[2])))
    assert (picture.width, picture.height, held.format) == (30, 20, "WEBP")
    assert np.array_equal(np.asarray(held.convert("RGB")), pixels)
    (tmp_path / "b.png").write_text("no picture")
    with pytest.raises(InputError, match=r"b\.png: no picture can be read"):
        read_picture(tmp_path / "b.png")


def test_scripts_and_data_cannot_end_their_element() -> None:
    assert json.loads(embedded_json({"a": EVIL})) == {"a": EVIL}
    assert "<" not in embedded_json({"a": EVIL, "<b>": ["<!--"]})
    script, source = inline_script("const a = '</SCRIPT><!--';")
    assert "<" not in script and source.startswith("'sha256-")
    with pytest.raises(ValueError):
        embedded_json({"a": float("nan")})


def bound_text(text: str) -> dict[str, Any]:
    return {"text": text, "numbers": []}


def small_report(folder: Path, plots: dict[str, Any] | None = None, more: str = "", **changed: Any) -> Path:
    """A page of a journal with one question, its label and its texts full of HTML, and `more` at its end."""
    journal = folder / "journal.md"
    table = f"| a |\n| --- |\n| {EVIL} |\n"
    write_text(journal, f"> {EVIL}\n\n## Question 1: {EVIL}\n1. **A:**\n\nIt is 0.25.\n\n{table}{more}")
    text = journal.read_text()
    evidence = {
        "documents": {str(journal): {"sha256": file_digest(journal), "numbers": numbered(text, "0.25")}},
        "verdicts": [{"title": EVIL, "at": "q1", "state": "good", "head": bound_text(EVIL), "text": bound_text(EVIL)}],
        "cited": [{"file": EVIL, "key": EVIL, "value": 0.25}],
        "missing": [],
        "unbound": {},
        "sources": {EVIL: {"rule": EVIL, "sha256": "0"}},
        "provenance": {},
        **changed,
    }
    write_json(folder / "evidence.json", evidence)
    build_report(
        str(ROOT / "workflow/report/report.html.j2"), str(journal), str(folder / "evidence.json"), [], plots or {},
        str(folder / "report.html"), data_label=EVIL, provenance=PROVENANCE,
    )  # fmt: skip
    return folder / "report.html"


def test_html_in_any_text_of_the_data_stays_text(tmp_path: Path) -> None:
    page = small_report(tmp_path).read_text()
    assert "<img" not in page
    assert page.count("<script") == page.count("</script>") == 3
    assert '<data class="cited" value="0">0.25</data>' in page


def test_a_journal_that_the_evidence_does_not_tell_of_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not the journal that evidence\.json tells of; run write_journal again"):
        small_report(tmp_path, documents={str(tmp_path / "journal.md"): {"sha256": "0", "numbers": []}})
    with pytest.raises(InputError, match="is not the journal"):
        small_report(tmp_path, documents={})


# The live plots' data


def compiles(plot: Plot) -> None:
    """Every panel is a Vega-Lite view with its data, and the table has a row set for each state of the controls."""
    for panel in plot["panels"]:
        assert "<svg" in vl_convert.vegalite_to_svg({**panel, "width": 300, "datasets": plot["datasets"]})
    states = [""]
    for control in plot["controls"]:
        assert control["value"] in control["keys"] and len(control["keys"]) == len(control["texts"])
        states = [f"{state}|{key}".lstrip("|") for state in states for key in control["keys"]]
    assert sorted(states) == sorted(plot["told"])
    assert all(len(row) == len(plot["head"]) for rows in plot["told"].values() for row in rows)


def predictions(path: Path, labels: list[int], probabilities: list[float]) -> str:
    rows = [(i, label, 0.0, p) for i, (label, p) in enumerate(zip(labels, probabilities, strict=True))]
    write_csv(path, ("row", "label", "logit", "probability"), rows)
    return str(path)


def test_the_threshold_plot_counts_as_the_evaluation_does(tmp_path: Path) -> None:
    write_json(tmp_path / "evaluation.json", {"threshold": 0.6})
    plot = threshold_plot(
        {
            "valid": predictions(tmp_path / "valid.csv", [1, 1, 0, 0], [0.9, 0.6, 0.59, 0.1]),
            "test": predictions(tmp_path / "test.csv", [0, 0], [0.7, 0.2]),
        },
        str(tmp_path / "evaluation.json"),
    )
    compiles(plot)
    at = plot["controls"][0]["value"]
    assert plot["controls"][0]["texts"][at] == "0.600 (chosen on valid)"
    assert plot["told"][str(at)] == [
        ["valid", "2", "0", "0", "2", "1.000", "1.000", "1.000"],
        ["test", "0", "0", "1", "1", "undefined", "0.500", "0.000"],
    ]


def test_the_threshold_plot_of_many_patches_stays_small_and_keeps_the_chosen_threshold(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    write_json(tmp_path / "evaluation.json", {"threshold": 0.123456})
    told = predictions(tmp_path / "p.csv", generator.integers(0, 2, 5000).tolist(), generator.random(5000).tolist())
    plot = threshold_plot({"valid": told, "test": told}, str(tmp_path / "evaluation.json"))
    assert 200 < len(plot["told"]) <= 302
    assert plot["controls"][0]["texts"][plot["controls"][0]["value"]] == "0.123 (chosen on valid)"


TRIALS = ("phase", "trial", "rung", "state", "value", "epochs", "origin", "reason", *SPACE)


def test_the_tuning_plot_follows_a_trial_over_its_rungs_and_shows_a_failed_one(tmp_path: Path) -> None:
    rows = [
        ("round-0", 0, 0, "COMPLETE", 0.8, 1, "", "", 0.01, "resnet"),
        ("round-0", 1, 0, "FAIL", "", 1, "", "it diverged", 0.1, "mlp"),
        ("rung-1", 0, 1, "COMPLETE", 0.9, 2, "round-0/trial-0", "", 0.01, "resnet"),
    ]
    write_csv(tmp_path / "trials.csv", TRIALS, rows)
    plot = tuning_plot(str(tmp_path / "trials.csv"), SPACE, "roc_auc")
    assert plot is not None
    compiles(plot)
    assert plot["controls"][0]["value"] == "round-0/trial-0"
    assert plot["told"]["round-0/trial-0"] == [
        ["learning rate", "0.01"], ["model", "resnet"], ["ROC-AUC on rung 0", "0.800"], ["ROC-AUC on rung 1", "0.900"],
        ["state", "COMPLETE"],
    ]  # fmt: skip
    assert ["ROC-AUC on rung 0", "undefined"] in plot["told"]["round-0/trial-1"]
    assert ["state", "FAIL: it diverged"] in plot["told"]["round-0/trial-1"]
    assert {point["at"] for point in plot["datasets"]["points"]} == {"round-0/trial-0"}
    write_csv(tmp_path / "trials.csv", TRIALS, [])
    assert tuning_plot(str(tmp_path / "trials.csv"), SPACE, "roc_auc") is None


def test_the_slices_plot_tells_what_has_no_interval(tmp_path: Path) -> None:
    head = ("slice", "value", "n", "metric", "estimate", "low", "high", "gap", "p_corrected", "status")
    rows = [
        ("all", "all", 1200, "roc_auc", 0.9, 0.85, 0.95, "", "", "ok"),
        ("hospital", "A", 1000, "roc_auc", 0.92, 0.88, 0.96, 0.1, 0.0004, "ok"),
        ("hospital", EVIL, 200, "roc_auc", "", "", "", "", "", "too few"),
    ]
    write_csv(tmp_path / "slices.csv", head, rows)
    plot = slices_plot(str(tmp_path / "slices.csv"))
    assert plot is not None
    compiles(plot)
    assert plot["told"]["roc_auc|hospital"] == [
        ["A", "1,000", "0.920", "0.880 to 0.960", "0.100", "0.0004", "ok"],
        [EVIL, "200", "undefined", "none", "none", "not tested", "too few"],
    ]
    assert [point["value"] for point in plot["datasets"]["points"]] == ["all", "A"]
    write_csv(tmp_path / "slices.csv", head, rows[:1])
    assert slices_plot(str(tmp_path / "slices.csv")) is None


# In a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("Debian's chromium is not installed: no browser looks at the report")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, copy_tiny_run: Callable[[Path], Path]) -> Path:
    """Of a finished run: the one that PCAM_RUN names, as CI does with the default run, or the tiny one."""
    named = os.environ.get("PCAM_RUN")
    return (Path(named) if named else copy_tiny_run(tmp_path_factory.mktemp("page") / "run")) / "results"


class Reader:
    """A page opened from its file, with the network off and every complaint of the browser kept."""

    def __init__(
        self, browser: Browser, path: Path, width: str = "desk", scheme: Any = "light", **options: Any
    ) -> None:
        x, y = WIDTHS[width]
        self.context: BrowserContext = browser.new_context(
            viewport={"width": x, "height": y}, color_scheme=scheme, offline=True, **options
        )
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", lambda said: said.type == "error" and self.complaints.append(said.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self.asked)
        self.address = path.as_uri()
        self.page.goto(self.address)

    def asked(self, request: Any) -> None:
        if request.url.partition("#")[0] != self.address and not request.url.startswith("data:"):
            self.complaints.append(f"asked for {request.url}")

    def draw_plots(self) -> None:
        for box in self.page.locator(".plot").all():
            box.scroll_into_view_if_needed()
            panels = box.locator(".panel").count()
            expect(box).to_have_attribute("data-drawn", str(panels), timeout=30_000)

    def findings(self, *, contrast: bool) -> list[str]:
        """What axe calls serious or critical: in three rows of each table, contrast where each kind stands."""
        self.page.evaluate("document.querySelectorAll('tbody tr:nth-child(n + 4)').forEach((row) => row.remove())")
        runs: list[tuple[Any, dict[str, Any]]] = [(None, {"rules": {"color-contrast": {"enabled": False}}})]
        if contrast:
            places = ("header", "nav", "section:has(#q1)", ".plot", "details[open]", "footer")
            runs.append(({"include": [[place] for place in places]}, {"runOnly": ["color-contrast"]}))
        found = [
            violation
            for context, options in runs
            for violation in Axe()
            .run(self.page, context, {"resultTypes": ["violations"], **options})
            .response["violations"]
        ]
        return [
            f"{violation['id']}: {node['html'][:200]}"
            for violation in found
            if violation["impact"] in ("serious", "critical")
            for node in violation["nodes"]
        ]

    def is_as_wide_as_the_window(self) -> bool:
        return bool(self.page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


@pytest.fixture
def read(browser: Browser, results: Path) -> Iterator[Callable[..., Reader]]:
    """Opens the run's report; at the end, nothing may have been complained of or asked for."""
    opened: list[Reader] = []

    def open_report(**options: Any) -> Reader:
        opened.append(Reader(browser, results / "report.html", **options))
        return opened[-1]

    yield open_report
    complaints = [complaint for reader in opened for complaint in reader.complaints]
    for reader in opened:
        reader.context.close()
    assert complaints == []


@pytest.mark.slow
def test_the_page_is_one_small_file_with_each_picture_once(results: Path) -> None:
    text = (results / "report.html").read_text()
    assert (results / "report.html").stat().st_size < 15e6
    held = re.findall(r'data:image/[^"]{100,}', text)
    assert len(held) == len(set(held)) == len(list((results / "assets").glob("*.png")))


@pytest.mark.slow
def test_the_first_screen_says_what_data_and_what_verdicts_and_navigation_follows_the_reader(
    read: Callable[..., Reader], results: Path
) -> None:
    page = read().page
    screen = page.locator("#summary")
    expect(screen).to_contain_text("SYNTHETIC SAMPLE.")
    verdicts = [verdict["title"] for verdict in read_json(results / "evidence.json")["verdicts"]]
    assert page.locator(".verdicts h2 a").all_inner_texts() == verdicts
    short = page.locator(".short").inner_text()
    assert all(title in short for title in verdicts) and "look here" in short
    assert page.locator(".verdicts").bounding_box()["y"] < 400  # type: ignore[index]
    expect(page.locator(".hero figcaption")).not_to_be_empty()

    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()

    page.locator('nav a[href="#q6"]').click()
    expect(page.locator("#q6")).to_be_in_viewport()
    expect(page.locator('nav a[href="#q6"]')).to_have_attribute("aria-current", "location")
    item = page.locator('nav a[href="#q6-item-2"]')
    expect(item).to_be_visible()
    expect(page.locator('nav a[href="#q1-item-2"]')).to_be_hidden()
    item.click()
    expect(item).to_have_attribute("aria-current", "location")
    assert page.locator("[aria-current]").count() == 1
    assert page.locator("main :is(h2, h3)").count() == page.locator("nav a").count() - 1


@pytest.mark.slow
def test_tables_sort_by_click_and_by_keyboard(read: Callable[..., Reader]) -> None:
    page = read().page
    table = page.locator("#q2-item-2 ~ .scroll table").first
    column = [text.strip() for text in table.locator("th").all_inner_texts()].index("patches")

    def shown() -> list[float]:
        cells = table.locator(f"tbody td:nth-child({column + 1})").all_inner_texts()
        return [float(cell.replace(",", "")) for cell in cells]

    before = shown()
    assert len(before) > 2 and before != sorted(before)
    head = table.locator("th").nth(column)
    head.locator("button").click()
    expect(head).to_have_attribute("aria-sort", "ascending")
    assert shown() == sorted(before)
    page.keyboard.press("Enter")
    expect(head).to_have_attribute("aria-sort", "descending")
    assert shown() == sorted(before, reverse=True)
    table.locator("th button").first.click()
    words = table.locator("tbody td:first-child").all_inner_texts()
    assert words == sorted(words)
    assert table.locator("[aria-sort]").count() == 1


@pytest.mark.slow
def test_the_theme_follows_the_system_and_the_switch_is_remembered(read: Callable[..., Reader]) -> None:
    def paper(page: Page) -> Any:
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    assert paper(read(scheme="light").page) == "rgb(255, 255, 255)"
    page = read(scheme="dark").page
    dark = paper(page)
    assert dark != "rgb(255, 255, 255)"
    page.get_by_role("button", name="Switch between light and dark").click()
    assert paper(page) == "rgb(255, 255, 255)"
    page.reload()
    assert paper(page) == "rgb(255, 255, 255)"
    page.get_by_role("button", name="Switch between light and dark").click()
    assert paper(page) == dark


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [("desk", "light"), ("desk", "dark"), ("phone", "light")])
def test_nothing_is_kept_from_a_screen_reader_and_nothing_is_wider_than_the_window(
    read: Callable[..., Reader], width: str, scheme: str
) -> None:
    reader = read(width=width, scheme=scheme)
    reader.draw_plots()
    reader.page.locator(".numbers summary").last.click()
    assert reader.is_as_wide_as_the_window()
    assert reader.findings(contrast=width == "desk") == []  # the colours of a phone are the desk's


@pytest.mark.slow
def test_a_number_tells_file_key_and_value_and_the_question_lists_them_all(
    read: Callable[..., Reader], results: Path
) -> None:
    page = read().page
    evidence = read_json(results / "evidence.json")
    journal = evidence["documents"][next(name for name in evidence["documents"] if name.endswith("journal.md"))]
    section = page.locator("section:has(#q5-1)")
    number = section.locator("p data.cited").first
    cites = journal["numbers"][int(number.get_attribute("value") or "")]["cites"]
    told = evidence["cited"][cites[0]]
    text = (results / "journal.md").read_text()
    place = journal["numbers"][int(number.get_attribute("value") or "")]
    assert number.inner_text() == text[place["start"] : place["end"]]

    card = page.locator("#card")
    number.scroll_into_view_if_needed()
    number.hover()
    expect(card).to_be_visible()
    for shown in (told["file"], told["key"], evidence["sources"][told["file"]]["rule"]):
        expect(card).to_contain_text(shown)
    page.mouse.move(5, 5)
    expect(card).to_be_hidden()
    number.click()
    page.mouse.move(5, 5)
    expect(card).to_be_visible()
    page.keyboard.press("Escape")
    expect(card).to_be_hidden()

    listed = section.locator(".numbers")
    listed.locator("summary").focus()
    page.keyboard.press("Enter")
    rows = listed.locator("tbody tr")
    values = [int(of) for of in section.locator("data.cited").evaluate_all("all => all.map((one) => one.value)")]
    expect(rows).to_have_count(sum(len(journal["numbers"][of]["cites"]) for of in values))
    assert (
        rows.first.locator("td").nth(1).inner_text()
        == evidence["cited"][journal["numbers"][values[0]]["cites"][0]]["file"]
    )
    assert page.locator("data.cited[tabindex]").count() == 0


@pytest.mark.slow
def test_the_threshold_moves_by_slider_and_by_pointing_and_the_table_follows(
    read: Callable[..., Reader], results: Path
) -> None:
    reader = read()
    reader.draw_plots()
    page = reader.page
    box = page.locator(".plot", has=page.locator('input[type="range"]'))
    confusion = read_json(results / "champion/evaluation.json")["test"]["confusion"]
    row = box.locator(".told tbody tr", has_text="test").locator("td")
    assert row.all_inner_texts()[1:5] == [f"{confusion[k]:,}" for k in ("found", "missed", "alarms", "cleared")]
    slider, output = box.locator("input"), box.locator("output")
    slider.focus()
    page.keyboard.press("Home")
    table = read_csv(results / "champion/predict/test.csv", ("label",))
    tumours = sum(line["label"] == "1" for line in table)
    assert row.all_inner_texts()[1:3] == [f"{tumours:,}", "0"]
    page.keyboard.press("End")
    expect(output).to_contain_text("1.000")
    before = output.inner_text()
    panel = box.locator(".panel svg").first
    panel.scroll_into_view_if_needed()
    area = panel.bounding_box()
    assert area is not None
    for share in np.linspace(0.95, 0.1, 40):  # down the left edge, until the pointer is on the curve
        page.mouse.move(area["x"] + area["width"] * 0.25, area["y"] + area["height"] * (1 - share))
    expect(output).not_to_have_text(before)


@pytest.mark.slow
def test_trials_and_slices_follow_their_controls(read: Callable[..., Reader], results: Path) -> None:
    reader = read()
    reader.draw_plots()
    page = reader.page
    slices = page.locator(".plot", has=page.locator('select[name="attribute"]'))
    rows = read_csv(results / "slices/slices.csv", ("slice", "value", "metric"))
    attribute, metric = rows[-1]["slice"], rows[-1]["metric"]
    slices.locator('select[name="attribute"]').select_option(attribute)
    slices.locator('select[name="metric"]').select_option(metric)
    expected = [row["value"] for row in rows if (row["slice"], row["metric"]) == (attribute, metric)]
    assert slices.locator(".told tbody td:first-child").all_inner_texts() == expected
    trials = page.locator(".plot", has=page.locator('select[name="at"]'))
    first = trials.locator(".told").inner_text()
    keys = trials.locator("option").evaluate_all("all => all.map((one) => one.value)")
    other = next(key for key in keys if key != trials.locator("select").input_value())
    trials.locator("select").select_option(other)
    assert trials.locator(".told").inner_text() != first


@pytest.mark.slow
def test_without_scripts_and_on_paper_the_drawn_pictures_stand_alone(read: Callable[..., Reader]) -> None:
    page = read(java_script_enabled=False).page
    assert all(not box.is_visible() for box in page.locator(".plot, .hint, #theme, #card").all())
    assert page.locator("main figure").count() > 5
    expect(page.locator("main figure img").first).to_be_visible()
    printed = read().page
    printed.emulate_media(media="print", color_scheme="dark")
    for gone in ("nav", ".plot", ".numbers", ".skip"):
        expect(printed.locator(gone).first).to_be_hidden()
    assert printed.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


@pytest.mark.parametrize(
    ("column", "rising"),
    [
        ("day", ["2023-11-15 00:13", "2023-12-01 00:00", "2024-01-02 00:00", "none"]),
        ("commit", ["1234567a", "12e45678", "8e123456", "9abcdef0"]),
        ("rate", ["1e-7", "0.002", "1,200", "undefined"]),
    ],
)
def test_dates_and_digests_sort_as_text_and_numbers_as_numbers(
    browser: Browser, tmp_path: Path, column: str, rising: list[str]
) -> None:
    mixed = [rising[i] for i in (2, 1, 3, 0)]
    more = f"\n| {column} |\n| --- |\n" + "".join(f"| {cell} |\n" for cell in mixed)
    reader = Reader(browser, small_report(tmp_path, more=more))
    table = reader.page.locator("table", has_text=column)
    table.get_by_role("button", name=column).click()
    assert table.locator("tbody td").all_inner_texts() == rising
    reader.context.close()


def test_by_keyboard_the_summary_s_evidence_is_listed_and_what_is_missing_is_called_so(
    browser: Browser, tmp_path: Path
) -> None:
    gone = {"text": "missing: a.json", "numbers": [{"start": 0, "end": 15, "cites": [1]}]}
    verdict = {"title": "A", "at": "q1", "state": "missing", "head": gone, "text": bound_text("")}
    cited = [
        {"file": "b.json", "key": "b", "value": None},
        {"file": "a.json", "key": "", "value": None, "missing": True},
    ]
    sources = {"b.json": {"rule": "b", "sha256": "0"}}
    reader = Reader(browser, small_report(tmp_path, verdicts=[verdict], cited=cited, sources=sources))
    for place, told in (("header", ["a.json", "the whole file", "missing"]), ("main", ["b.json", "b", "null", "b"])):
        reader.page.locator(f"{place} .numbers summary").focus()
        reader.page.keyboard.press("Enter")
        cells = reader.page.locator(f"{place} .numbers tbody td")
        expect(cells).to_have_count(9)
        assert cells.all_inner_texts()[1 : 1 + len(told)] == told
    assert reader.complaints == []
    reader.context.close()


@pytest.mark.slow
def test_html_in_the_data_runs_nowhere(browser: Browser, tmp_path: Path) -> None:
    reader = Reader(browser, small_report(tmp_path))
    reader.page.locator("data.cited").click()
    expect(reader.page.locator("#card")).to_contain_text(EVIL)
    reader.page.locator(".numbers summary").click()
    expect(reader.page.locator(".numbers tbody")).to_contain_text(EVIL)
    assert reader.page.locator("img").count() == 0 and reader.complaints == []
    reader.context.close()
