"""Journal to page: sections with anchors, figures, highlighted code, and every bound number as an element."""

import base64
import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markupsafe import Markup
from PIL import Image
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from pcam.binding import Number, marks_to_html, put_marks, take_marks
from pcam.files import InputError

NAMES = {"Group Information": "Group", "Final Submission Checklist": "Checklist"}
PARAGRAPHS = {"Evidence:": "evidence", "Not measured": "open"}  # first words to class
FIGURE = "Figure:"
_SEAL = "<!-- sha256 of all above: "


@dataclass(frozen=True)
class Picture:
    """A picture as the page holds it: data URI, and its size in pixels."""

    uri: str
    width: int
    height: int


@dataclass
class Heading:
    """A second-level heading: anchor, name in the navigation, title, and (anchor, title) of the items below it."""

    anchor: str
    name: str
    title: str
    items: list[tuple[str, str]]


@dataclass(frozen=True)
class Page:
    """The journal as HTML: what stands above the first section, the sections, and the figure for the first screen."""

    preface: Markup
    body: Markup
    hero: Markup | None
    headings: list[Heading]


def read_picture(path: str | Path) -> Picture:
    """A picture as lossless WebP: the same pixels in about half of a PNG's bytes.

    Raises: InputError when the file is no picture.
    """
    content = io.BytesIO()
    try:
        with Image.open(path) as image:
            image.save(content, "WEBP", lossless=True, method=2, quality=30)
            width, height = image.size
    except Exception:  # Pillow's parsers raise whatever damaged bytes lead them into
        raise InputError(f"{path}: no picture can be read; its rule draws it again") from None
    return Picture(f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}", width, height)


def heading_name(heading: str) -> tuple[str, str]:
    """Short name and title of a second-level heading, such as Q5.1 and Experiment Tracking."""
    found = re.match(r"Question (\d+)(?:: Part (\d+))?(?: -|:)? *(.*)", heading)
    if found:
        return f"Q{'.'.join(part for part in found.groups()[:2] if part)}", found[3]
    return NAMES.get(heading, heading), ""


def highlighted(code: str, language: str, _attributes: str) -> str:
    """A fenced block as HTML. One that holds marks stays plain: a lexer would cut them."""
    html = escape(code)
    if not re.search("[\ue000-\uf8ff]", code):
        with suppress(ClassNotFound):
            html = highlight(code, get_lexer_by_name(language), HtmlFormatter(nowrap=True))
    return f'<pre tabindex="0"><code>{html}</code></pre>'


def element(kind: str, html: str) -> Token:
    return Token(kind, "", 0, content=html)


def unmarked(text: str) -> str:
    return take_marks(text)[0]


def split_item(inline: Token) -> tuple[str, list[Token]] | None:
    """Title and the rest of a list item that begins with a title in bold; None for any other."""
    children = inline.children or []
    kinds = [child.type for child in children if child.content or child.type != "text"]
    if kinds[:1] != ["strong_open"]:
        return None
    end = next(i for i, child in enumerate(children) if child.type == "strong_close")
    title = "".join(child.content for child in children[:end])
    return title.rstrip(":"), children[end + 1 :]


def item_tokens(anchor: str, number: int, title: str, rest: list[Token]) -> list[Token]:
    """A numbered item of a question as a third-level heading, and what stood beside its title as a paragraph."""
    heading = element("html_block", f'<h3 id="{anchor}"><span>{number}.</span> {escape(title)}</h3>\n')
    if not any(child.content.strip() for child in rest):
        return [heading]
    rest[0].content = rest[0].content.lstrip()
    inline = Token("inline", "", 0, children=rest)
    return [heading, Token("paragraph_open", "p", 1, block=True), inline, Token("paragraph_close", "p", -1, block=True)]


def shape_lists(tokens: Sequence[Token], heading: Heading) -> list[Token]:
    """The course's numbered items as headings; other lists stay lists."""
    shaped: list[Token] = []
    number: int | None = None  # of the next item; None outside such a list
    i = 0
    while i < len(tokens):
        token = tokens[i]
        if token.type == "ordered_list_open" and token.level == 0 and split_item(tokens[i + 3]):
            number = int(token.attrs.get("start", 1))
        elif number is None:
            shaped.append(token)
        elif token.type == "list_item_open" and token.level == 1:
            title, rest = split_item(tokens[i + 2]) or ("", tokens[i + 2].children or [])
            anchor = f"{heading.anchor}-item-{number}"
            heading.items.append((anchor, title))
            shaped += item_tokens(anchor, number, title, rest)
            number += 1
            i += 3  # and the three tokens of its first paragraph
        elif token.type == "ordered_list_close" and token.level == 0:
            number = None
        elif not (token.type == "list_item_close" and token.level == 1):
            shaped.append(token)
        i += 1
    return shaped


def image_of(tokens: Sequence[Token], at: int) -> Token | None:
    """The image of a paragraph that holds nothing else."""
    if tokens[at].type != "paragraph_open":
        return None
    children = tokens[at + 1].children or []
    return children[0] if len(children) == 1 and children[0].type == "image" else None


class Renderer(RendererHTML):
    """A method named after a token renders it: tables scroll in a box of their own."""

    def table_open(self, *_: Any) -> str:
        return '<div class="scroll" tabindex="0"><table>\n'

    def table_close(self, *_: Any) -> str:
        return "</table></div>\n"


class Writer:
    """One journal's way to HTML. `pictures`: path in the journal to picture; `plots`: that path to a plot's HTML."""

    def __init__(self, pictures: Mapping[str, Picture], plots: Mapping[str, Markup], hero: str | None) -> None:
        self.pictures, self.plots, self.hero_path = pictures, plots, hero
        self.hero: Markup | None = None
        self.parser = MarkdownIt("commonmark", {"html": False, "highlight": highlighted}).enable("table")
        self.renderer = Renderer(self.parser)

    def render(self, tokens: Sequence[Token]) -> str:
        return marks_to_html(self.renderer.render(tokens, self.parser.options, {}))

    def picture(self, image: Token, caption: str) -> str:
        """A figure. That of the first screen is kept for it, and drawn once more here from the same bytes."""
        source = str(image.attrs["src"])
        if source not in self.pictures:
            raise InputError(f"results/journal.md: shows {source}, no picture of this run; write it again")
        picture = self.pictures[source]
        text = escape(unmarked(self.renderer.renderInlineAsText(image.children or [], self.parser.options, {})))
        size = f'width="{picture.width}" height="{picture.height}"'
        below = f"<figcaption>{caption}</figcaption>" if caption else ""
        shown = f'<img src="{picture.uri}" alt="{text}" {size} decoding="async">'
        if source == self.hero_path:
            box = f'role="img" aria-label="{text}" viewBox="0 0 {picture.width} {picture.height}"'
            self.hero = Markup(
                f'<figure class="hero"><svg {box}><image id="hero" href="{picture.uri}" {size}/></svg>{below}</figure>'
            )
            shown = f'<svg {box}><use href="#hero"/></svg>'
        return f"<figure>{shown}{below}</figure>\n{self.plots.get(source, '')}\n"

    def shape(self, tokens: Sequence[Token]) -> list[Token]:
        """Figures with their captions, and classes for paragraphs of a kind."""
        shaped: list[Token] = []
        i = 0
        while i < len(tokens):
            token = tokens[i]
            if image := image_of(tokens, i):
                i += 3
                caption = ""
                if i + 1 < len(tokens) and unmarked(tokens[i + 1].content).startswith(FIGURE):
                    inline = self.renderer.render([tokens[i + 1]], self.parser.options, {})
                    caption = marks_to_html(inline.removeprefix(FIGURE).strip())
                    i += 3
                shaped.append(element("html_block", self.picture(image, caption)))
                continue
            if token.type == "paragraph_open":
                for start, kind in PARAGRAPHS.items():
                    if tokens[i + 1].content.lstrip("*").startswith(start):
                        token.attrSet("class", kind)
            for child in token.children or ():
                if child.type == "text":
                    child.content = re.sub(r"^\[( |x)\] ", lambda box: "☑ " if box[1] == "x" else "☐ ", child.content)
            shaped.append(token)
            i += 1
        return shaped

    def section(self, tokens: Sequence[Token]) -> tuple[str, Heading]:
        """A second-level heading and all up to the next, as a section."""
        text = unmarked(tokens[1].content)
        name, title = heading_name(text)
        heading = Heading(re.sub(r"[^a-z0-9]+", "-", name.lower()), name, title, [])
        below = self.render(self.shape(shape_lists([t for t in tokens[3:] if t.type != "hr"], heading)))
        at = heading.anchor
        return f'<section aria-labelledby="{at}">\n<h2 id="{at}">{escape(text)}</h2>\n{below}</section>\n', heading


def page_of_journal(
    text: str,
    pictures: Mapping[str, Picture],
    numbers: Sequence[Number] = (),
    plots: Mapping[str, Markup] | None = None,
    hero: str | None = None,
) -> Page:
    """The journal's Markdown as the parts of the page; raw HTML in it stays text. `numbers` bind as in pcam.binding.

    Raises: InputError when it shows a picture that is not among `pictures`.
    """
    writer = Writer(pictures, plots or {}, hero)
    tokens = writer.parser.parse(put_marks(text, numbers))
    starts = [i for i, token in enumerate(tokens) if token.type == "heading_open" and token.tag == "h2"]
    sections = [writer.section(tokens[i:j]) for i, j in zip(starts, [*starts[1:], len(tokens)], strict=True)]
    notes, depth = [], 0
    for token in tokens[: starts[0]] if starts else ():
        depth += token.type == "blockquote_open"
        if depth:
            notes.append(token)
        depth -= token.type == "blockquote_close"
    body = Markup("".join(html for html, _ in sections))
    return Page(Markup(writer.render(notes)), body, writer.hero, [heading for _, heading in sections])


def bound(text: str, numbers: Sequence[Number], first: int) -> Markup:
    """Plain text as HTML with its numbers bound; the first of them is number `first` of the page."""
    return Markup(marks_to_html(escape(put_marks(text, numbers, first))))


def sealed(html: str) -> str:
    """A page that ends in the digest of all above, so that a change of any part of it shows."""
    return f"{html}{_SEAL}{hashlib.sha256(html.encode()).hexdigest()} -->\n"


def seal_holds(page: str) -> bool:
    return sealed(page.rpartition(_SEAL)[0]) == page


def embedded_files(page: str) -> dict[str, str]:
    """Path to digest of each file that a page with a whole seal was made of; none of a page of another version."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return dict(json.loads(found[1]).get("files", {})) if found else {}


def embedded_json(document: Any) -> Markup:
    """JSON for a script element: no text in it can end the element."""
    return Markup(json.dumps(document, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c"))


def inline_script(code: str) -> tuple[Markup, str]:
    """A script as an element can hold it, and the source that a content security policy allows it by."""
    held = re.sub(r"<(?=/script|!--)", r"\\x3c", code, flags=re.IGNORECASE)
    return Markup(held), f"'sha256-{base64.b64encode(hashlib.sha256(held.encode()).digest()).decode()}'"
