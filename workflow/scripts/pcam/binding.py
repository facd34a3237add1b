"""Values that remember which result they come from, and the invisible marks that carry this through text.

A cited number computes and compares as any other; what is made of it cites all that went in. Formatted, it becomes text
between private-use characters that name file and key; they survive joining and escaping and are taken out at the end.
"""

import json
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypedDict

Citation = tuple[str, str]  # file, key in it; "" is the whole file


class Number(TypedDict):
    """A stretch of a document that comes from results: characters start to end, and the ids of what it cites."""

    start: int
    end: int
    cites: list[Any]


MOST = 24  # citations of one file beyond which a value cites the whole file: a sum over a table's rows is about all
_START, _END = "\ue000", "\ue001"
_BYTES = 0xF0000  # a byte b of a mark's content is the private-use character _BYTES + b
_MARK = re.compile("\ue000([\U000f0000-\U000f00ff]*)([^\ue000\ue001]*)\ue001")
_LEFT = re.compile("[\ue000\ue001\U000f0000-\U000f00ff]")
_ONE = re.compile("\ue000([\U000f0000-\U000f00ff]*)|\ue001")
# A word that holds a digit, less the brackets and points around it.
_WORD = re.compile(r"[^\s(]*\d\S*?(?=[).,;:!?]*(?:\s|$))")


def clean(text: str) -> str:
    """Text of data without the characters that marks are made of, so that it can neither forge nor tear one."""
    return _LEFT.sub("\ufffd", text)


def clean_tree(value: Any) -> Any:
    """A copy of nested dicts and lists, as JSON has them, with every text and key clean."""
    if isinstance(value, Mapping):
        return {clean_tree(key): clean_tree(of) for key, of in value.items()}
    if isinstance(value, list | tuple):
        return [clean_tree(item) for item in value]
    return clean(value) if isinstance(value, str) else value


def _show(hidden: str) -> str:
    return bytes(ord(character) - _BYTES for character in hidden).decode()


def _mark(content: str, text: str) -> str:
    return f"{_START}{''.join(chr(_BYTES + byte) for byte in content.encode())}{text}{_END}"


def _united(cites: Iterable[Citation]) -> tuple[Citation, ...]:
    """Each citation once, in order; of a file with more than MOST, the file."""
    once = list(dict.fromkeys(cites))
    if len(once) > MOST:
        files = [file for file, _ in once]
        once = list(dict.fromkeys((file, "" if files.count(file) > MOST else key) for file, key in once))
    return tuple(once)


def mark(text: str, cites: Iterable[Citation]) -> str:
    """`text` with marks that carry what it cites."""
    told = list(cites)
    return _mark(json.dumps(told) if told else "", text)


class Cited:
    """What all cited values share: `cites`, and text that is marked with them."""

    cites: tuple[Citation, ...]

    def marked(self, text: str) -> str:
        """`text`, which tells this value, with its marks."""
        return mark(text, self.cites)


class CitedInt(int, Cited):
    """Stands left of a plain float: Python's `float * int` asks the float alone, and what it gives cites nothing."""

    def __new__(cls, value: int, cites: Iterable[Citation] = ()) -> "CitedInt":
        made = super().__new__(cls, value)
        made.cites = _united(cites)
        return made

    def __str__(self) -> str:
        return self.marked(int.__repr__(self))

    def __format__(self, spec: str) -> str:
        return self.marked(format(bare(self), spec))


class CitedFloat(float, Cited):
    def __new__(cls, value: float, cites: Iterable[Citation] = ()) -> "CitedFloat":
        made = super().__new__(cls, value)
        made.cites = _united(cites)
        return made

    def __str__(self) -> str:
        return self.marked(float.__repr__(self))

    def __format__(self, spec: str) -> str:
        return self.marked(format(bare(self), spec))


class CitedText(str, Cited):
    """A text of the results. Only its words that hold digits are marked: the rest is no figure.

    `str.join` sees no marks: join what `str()` or formatting gives.
    """

    def __new__(cls, value: str, cites: Iterable[Citation] = ()) -> "CitedText":
        made = super().__new__(cls, bare(value))
        made.cites = _united(cites)
        return made

    def __str__(self) -> str:
        return _WORD.sub(lambda word: self.marked(word[0]), bare(self))

    def __format__(self, spec: str) -> str:
        return _WORD.sub(lambda word: self.marked(word[0]), format(bare(self), spec))

    def __add__(self, other: str) -> str:
        return str(self) + str(other)

    def __radd__(self, other: str) -> str:
        return str(other) + str(self)


def bare(value: Any) -> Any:
    """The plain int, float or str of a cited value; anything else as it is."""
    if isinstance(value, CitedInt):
        return int.__int__(value)
    if isinstance(value, CitedFloat):
        return float.__float__(value)
    return str.__str__(value) if isinstance(value, CitedText) else value


def cites_of(*values: Any) -> tuple[Citation, ...]:
    """Of every value that cites: cited numbers and texts, and whatever else has `cites`."""
    return _united(cite for value in values for cite in getattr(value, "cites", ()))


def cited(value: Any, cites: Iterable[Citation]) -> Any:
    """A number or text that cites; True, False, None, other things and text without a digit stay what they are."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return CitedInt(value, cites)
    if isinstance(value, float):
        return CitedFloat(value, cites)
    if isinstance(value, str) and re.search(r"\d", value):
        return CitedText(value, cites)
    return value


def cited_tree(value: Any, file: str, at: str = "") -> Any:
    """A copy of nested dicts and lists whose numbers and texts cite `file` and their key."""
    if isinstance(value, Mapping):
        return {
            cited(key, [(file, key_of(at, key))]): cited_tree(of, file, key_of(at, key)) for key, of in value.items()
        }
    if isinstance(value, list | tuple):
        return [cited_tree(item, file, f"{at}[{i}]") for i, item in enumerate(value)]
    return cited(value, [(file, at)])


def derived(value: Any, *from_: Any) -> Any:
    """A value that arithmetic cannot follow, such as a count of rows, citing everything it was made from."""
    return cited(bare(value), cites_of(*from_))


def count_of(things: Any) -> Any:
    """How many there are, citing the results' own list, or, of a list made here, each of its items."""
    return derived(len(things), *([things] if hasattr(things, "cites") else things))


def fixed(text: str) -> str:
    """A text with digits that no result could change: a definition. It is bound to nothing, on purpose."""
    return _mark("", text)


def key_of(at: str, key: Any) -> str:
    """The key of a part, such as `test.roc_auc`; a name that holds a dot, bracket or quote stands as `["a.b"]`."""
    name = str(bare(key))
    if re.search(r'[.\[\]"]', name) or not name:
        quoted = name.replace("\\", "\\\\").replace('"', '\\"')
        return f'{at}["{quoted}"]'
    return f"{at}.{name}" if at else name


def parts_of(key: str) -> list[str | int]:
    """Names and indices of a key that `key_of` and `[i]` made."""
    parts: list[str | int] = []
    for index, quoted, name in re.findall(r'\[(\d+)\]|\["((?:[^"\\]|\\.)*)"\]|\.?([^.\[]+)', key):
        parts.append(int(index) if index else name or re.sub(r"\\(.)", r"\1", quoted))
    return parts


def _spans(text: str) -> tuple[str, list[tuple[int, int, str]]]:
    """Text without marks; start, end and content of each mark."""
    spans: list[tuple[int, int, str]] = []
    pieces: list[str] = []
    length, at = 0, 0
    for found in _MARK.finditer(text):
        before = text[at : found.start()]
        pieces += [before, found[2]]
        start = length + len(before)
        length, at = start + len(found[2]), found.end()
        spans.append((start, length, _show(found[1])))
    plain = "".join([*pieces, text[at:]])
    if torn := _LEFT.search(plain):
        around = _LEFT.sub("", plain[max(0, torn.start() - 40) :][:120])
        raise ValueError(f"a cited value was cut after it became text, near {around!r}")
    return plain, spans


def take_marks(text: str) -> tuple[str, list[Number]]:
    """The text without marks, and where they stood; `cites` are (file, key), or what `put_marks` put.

    Raises: ValueError when marks were cut or stand within each other: no offset would hold.
    """
    plain, spans = _spans(text)
    numbers: list[Number] = []
    for start, end, content in spans:
        if content:
            told = json.loads(content)
            cites = list(map(tuple, told)) if isinstance(told, list) else [told]
            numbers.append({"start": start, "end": end, "cites": cites})
    return plain, numbers


def put_marks(text: str, numbers: Sequence[Number], first: int = 0) -> str:
    """The text with marks at its numbers, so that it may go through a renderer; that of number i carries first + i."""
    pieces, at = [], 0
    for i, number in enumerate(numbers, first):
        pieces += [text[at : number["start"]], _mark(str(i), text[number["start"] : number["end"]])]
        at = number["end"]
    return "".join([*pieces, text[at:]])


def marks_to_html(html: str) -> str:
    """Each mark as `<data class="cited" value="i">` around its text; within a tag, such as in `alt`, it vanishes."""

    def element(mark: re.Match[str]) -> str:
        return "</data>" if mark[1] is None else f'<data class="cited" value="{_show(mark[1])}">'

    parts = re.split(r"(<[^>]*>)", html)
    return "".join(_ONE.sub("" if part.startswith("<") else element, part) for part in parts)


def unbound(text: str) -> list[str]:
    """Figures of marked text outside every mark, each with what stands around it.

    Digits that follow a letter are part of a name.
    """
    plain, spans = _spans(text)
    within = {place for start, end, _ in spans for place in range(start, end)}
    places = (found.start() for found in re.finditer(r"(?<![\w.,])[.,]?\d", plain))
    return [" ".join(plain[max(0, p - 30) : p + 30].split()) for p in places if p not in within]


def unmarked(text: str) -> str:
    """Formatted text as a reader sees it, to compare with other text."""
    return take_marks(text)[0]


def distinct(texts: Iterable[str]) -> list[str]:
    """Formatted texts that a reader can tell apart, the first of each."""
    first: dict[str, str] = {}
    for text in texts:
        first.setdefault(unmarked(text), text)
    return list(first.values())


def _carrying(act: Callable[..., Any], reflected: bool = False) -> Callable[..., Any]:
    """`act` on plain values as a method; what it gives, or each item of it, cites what all of them cite."""

    def method(*values: Any, **named: Any) -> Any:
        plain = [bare(value) for value in values]
        made, cites = act(*(reversed(plain) if reflected else plain), **named), cites_of(*values)
        return type(made)(cited(v, cites) for v in made) if isinstance(made, list | tuple) else cited(made, cites)

    return method


_act: Callable[..., Any]
for _kind in (CitedInt, CitedFloat):
    for _act in (operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod, pow):
        setattr(_kind, f"__{_act.__name__}__", _carrying(_act))
        setattr(_kind, f"__r{_act.__name__}__", _carrying(_act, reflected=True))
    for _act in (operator.neg, operator.pos, operator.abs, round, divmod):
        setattr(_kind, f"__{_act.__name__}__", _carrying(_act))
for _name in ("__getitem__", "replace", "lower", "upper", "capitalize", "strip", "lstrip", "rstrip", "removeprefix",
              "removesuffix", "split", "rsplit", "splitlines", "partition", "rpartition"):  # fmt: skip
    setattr(CitedText, _name, _carrying(getattr(str, _name)))
