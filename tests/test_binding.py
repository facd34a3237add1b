"""Numbers keep what they cite through arithmetic and text, and marks come out of any document whole."""

import copy
import json
import math

import pytest
from markdown_it import MarkdownIt

from pcam.binding import (
    MOST,
    CitedInt,
    CitedText,
    bare,
    cited,
    cited_tree,
    count_of,
    derived,
    distinct,
    fixed,
    key_of,
    marks_to_html,
    parts_of,
    put_marks,
    take_marks,
    unbound,
)
from pcam.rendering import escape_markdown

A, B = ("a.json", "n"), ("b.csv", "[3].rate")


def shown(text: str) -> list[tuple[str, list[tuple[str, str]]]]:
    plain, numbers = take_marks(text)
    return [(plain[number["start"] : number["end"]], number["cites"]) for number in numbers]


def test_numbers_compute_as_plain_ones_and_unite_what_they_cite() -> None:
    n, rate = cited(1200, [A]), cited(0.25, [B])
    for made, value in (
        (n * rate, 300.0), (n * 2.5, 3000.0), (2.5 * rate, 0.625), (n // 7, 171), (n % 7, 3), (-rate, -0.25),
        (abs(-rate), 0.25), (round(rate, 1), 0.2), (round(rate), 0), (n**2, 1440000), (1 - rate, 0.75),
        (sum([n, n]), 2400),
        (n / 3, 400.0), (divmod(n, 7)[1], 3), (max(n, 3), 1200), (min([rate, n]), 0.25),
    ):  # fmt: skip
        assert made == value and type(bare(made)) is type(value) and made.cites
    assert (n * rate).cites == (A, B) and (rate + n + n).cites == (B, A)
    assert n == 1200 and hash(n) == hash(1200) and {1200: "x"}[n] == "x" and list(range(n))[-1] == 1199
    assert math.isfinite(rate) and rate < n and isinstance(rate, float) and not isinstance(cited(True, [A]), CitedInt)
    assert cited(None, [A]) is None and copy.deepcopy(rate).cites == (B,)


def test_a_value_of_very_many_parts_cites_the_whole_file() -> None:
    parts = [cited(i, [("t.csv", f"[{i}].n")]) for i in range(MOST + 1)]
    assert len(sum(parts[:MOST]).cites) == MOST
    assert sum(parts).cites == (("t.csv", ""),)


def test_formatted_values_are_marked_and_json_never_is() -> None:
    n, rate, text = cited(1200, [A]), cited(0.25, [B]), cited("6 of 8 runs (x1, y2), no more", [A])
    assert shown(f"{n:,} of {100 * rate:.1f} % and {rate!s}") == [("1,200", [A]), ("25.0", [B]), ("0.25", [B])]
    assert [words for words, _ in shown(str(text))] == ["6", "8", "x1", "y2"]
    assert shown("of " + text[:6]) == [("6", [A]), ("8", [A])]
    assert json.dumps([n, rate, text, {text: n}]) == json.dumps([1200, 0.25, str.__str__(text), {bare(text): 1200}])
    assert repr(n) == "1200" and cited("no digit", [A]).__class__ is str
    assert isinstance(text.replace("x1", "z9"), CitedText) and text.split()[0].cites == (A,)


def test_counts_and_other_made_values_cite_what_they_were_made_from() -> None:
    values = [cited(3, [A]), cited(4, [B])]
    assert count_of(values).cites == derived(math.hypot(*values), *values).cites == (A, B)
    assert derived(5.0, *values) == 5 and derived(2, 7).cites == ()
    tree = cited_tree({"seeds": [0, 1], "train": {"a.b": {"epochs": 8}, "x": None}}, "config")
    assert tree["seeds"][1].cites == (("config", "seeds[1]"),) and tree["train"]["x"] is None
    assert tree["train"]["a.b"]["epochs"].cites == (("config", 'train["a.b"].epochs'),)


@pytest.mark.parametrize("names", [["a", "b"], ["a.b", "c"], ['q"x', "[1]"], ["", "\\"], ["stages.0", "last_epoch"]])
def test_a_key_leads_back_to_its_parts(names: list[str]) -> None:
    key = ""
    for name in names:
        key = key_of(key, name)
    assert parts_of(f"{key}[3]") == [*names, 3]


def test_marks_survive_markdown_and_come_back_as_elements() -> None:
    n, name = cited(1200, [A]), cited("<b>|q1_x*", [B])
    cell = escape_markdown(f"{name} has {n:,}")
    text = f"![{n} patches](assets/a.png)\n\n**{n}** and `{n}`, {n}.\n\n| a | b |\n| --- | --- |\n| {cell} | {n} |\n"
    plain, numbers = take_marks(text)
    assert plain == text.replace(f"{n}", "1200").replace(cell, r"\<b\>\|q1_x\* has 1,200")
    marked = put_marks(plain, numbers, first=5)
    assert take_marks(marked)[0] == plain
    assert [number["cites"] for number in take_marks(marked)[1]] == [[5 + i] for i in range(len(numbers))]
    html = marks_to_html(MarkdownIt("commonmark", {"html": False}).enable("table").render(marked))
    assert 'alt="1200 patches"' in html
    for i, shown_as in ((6, "1200"), (7, "1200"), (8, "1200"), (9, "&lt;b&gt;|q1_x*"), (10, "1,200"), (11, "1200")):
        assert f'<data class="cited" value="{i}">{shown_as}</data>' in html
    assert not [c for c in html if 0xE000 <= ord(c) <= 0xF8FF or ord(c) >= 0xF0000]


def test_a_cut_mark_is_an_error_and_never_a_wrong_offset() -> None:
    text = f"{cited(1200, [A]):,} patches"
    for cut in (text[1:], text[:6], text[:-9]):
        with pytest.raises(ValueError, match="was cut"):
            take_marks(cut)


def test_figures_outside_marks_are_found_and_names_are_not() -> None:
    n = cited(1200, [A])
    assert unbound(f"{n:,} of uint8 and sha256 in {fixed('95 %')} intervals") == []
    assert len(unbound(f"about 24 of {n}, +0.3, n=7 and .5")) == 4
    assert "about 24 of 1200" in unbound(f"about 24 of {n}")[0]
    assert take_marks(fixed("95 %")) == ("95 %", [])


def test_texts_alike_to_a_reader_are_one() -> None:
    a, b = f"{cited(0.5, [A]):.0%}", f"{cited(0.5, [B]):.0%}"
    assert a != b and distinct([a, b]) == [a] and distinct([b, "x", a]) == [b, "x"]
