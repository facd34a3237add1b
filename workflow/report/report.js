"use strict";
// Theme first, before anything is painted. Storage may be closed to a page opened from a file.
const stored = { get: () => { try { return localStorage.getItem("theme"); } catch { return null; } },
                 set: (theme) => { try { localStorage.setItem("theme", theme); } catch { /* not remembered */ } } };
const root = document.documentElement;
if (["light", "dark"].includes(stored.get())) root.dataset.theme = stored.get();

const all = (selector, from = document) => [...from.querySelectorAll(selector)];
const make = (name, text = "", attributes = {}) => {
  const element = Object.assign(document.createElement(name), attributes);
  element.textContent = text;
  return element;
};
const row = (cells, name = "td") => {
  const line = make("tr");
  line.append(...cells.map((cell) => make(name, cell)));
  return line;
};

function switchTheme() {
  const button = document.getElementById("theme");
  const isDark = () => (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const tell = () => { button.textContent = isDark() ? "Light" : "Dark"; };
  button.hidden = false;
  button.setAttribute("aria-label", "Switch between light and dark");
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    stored.set(root.dataset.theme);
    tell();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", tell);
  tell();
}

// One reads below the last heading that has passed the place where a link puts its own; at the end, below the last.
function markCurrent() {
  const links = new Map(all("nav a").map((link) => [link.hash.slice(1), link]));
  const places = [...links.keys()].map((id) => document.getElementById(id));
  let shown;
  const update = () => {
    const line = parseFloat(getComputedStyle(root).scrollPaddingTop) + 24;
    const ended = innerHeight + scrollY >= root.scrollHeight - 2;
    const passed = places.filter((place) => ended || place.getBoundingClientRect().top < line);
    const link = links.get((passed.at(-1) ?? places[0]).id);
    if (link === shown) return;
    shown = link;
    all("nav .current").forEach((item) => item.classList.remove("current"));
    all("nav [aria-current]").forEach((item) => item.removeAttribute("aria-current"));
    link.setAttribute("aria-current", "location");
    for (let item = link.closest("li"); item; item = item.parentElement.closest("nav li")) item.classList.add("current");
    const box = document.querySelector("nav > ul");
    const top = link.closest("nav > ul > li");
    box.scrollTo({ left: top.offsetLeft - box.clientWidth / 3, top: top.offsetTop - box.clientHeight / 3 });
  };
  let waiting = false;
  addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; update(); });
  }, { passive: true });
  addEventListener("resize", update);
  update();
}

// Dates and digests begin with digits and are no numbers.
const isText = (text) => /^\s*(\d{4}-\d\d-\d\d|(?=\d*[a-f])[\da-f]{7,}\s*$)/i.test(text);

// "1,200", "−0.5 (…)" and "12 %" sort as numbers where most of a column begins with one; the rest comes last.
const leading = (text) => {
  if (isText(text)) return NaN;
  const found = /^[<>~]?\s*([+\-−]?[\d,]*\.?\d+(?:e[+-]?\d+)?)/i.exec(text.trim());
  return found ? Number(found[1].replaceAll(",", "").replace("−", "-")) : NaN;
};

function sortTable(table, column, falling) {
  const body = table.tBodies[0];
  const lines = [...body.rows].map((line) => ({ line, text: line.cells[column]?.textContent ?? "" }));
  const numeric = lines.filter(({ text }) => !Number.isNaN(leading(text))).length > lines.length / 2;
  const inside = !lines.some(({ text }) => isText(text)); // whether digits within a text count as numbers
  const turn = falling ? -1 : 1;
  lines.sort((one, other) => {
    if (!numeric) return turn * one.text.localeCompare(other.text, "en", { numeric: inside });
    const [a, b] = [leading(one.text), leading(other.text)];
    return Number.isNaN(a) || Number.isNaN(b) ? Number.isNaN(a) - Number.isNaN(b) : turn * (a - b);
  });
  body.append(...lines.map(({ line }) => line));
}

function makeSortable(table) {
  if (!table.tHead || !table.tBodies[0] || table.tBodies[0].rows.length < 3) return;
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    if (!head.textContent.trim()) return;
    const button = make("button", "", { type: "button", className: "sort" });
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const falling = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      sortTable(table, column, falling);
    });
  });
}

const shownValue = (value) => (typeof value === "object" ? JSON.stringify(value) : String(value));

function evidenceRows(data, i) {
  return data.numbers[i].map((id) => {
    const { file, key, value, missing } = data.cited[id];
    const source = data.sources[file] ?? {};
    const commit = source.commit ? source.commit.slice(0, 8) + (source.dirty ? " with uncommitted changes" : "") : "none";
    return { file, key: key || "the whole file", value: missing ? "missing" : shownValue(value), rule: source.rule ?? "none", commit,
             code: source.code ?? "none", device: source.device ?? "none", written: source.written ?? "unknown" };
  });
}

function showEvidence(data) {
  const card = document.getElementById("card");
  let pinned = false;
  let timer;
  const hide = () => { card.hidden = true; pinned = false; };
  const show = (number) => {
    card.replaceChildren();
    for (const told of evidenceRows(data, Number(number.value)).slice(0, 4)) {
      const list = make("dl");
      for (const [name, text] of Object.entries(told)) list.append(make("dt", name), make("dd", text));
      card.append(list);
    }
    const more = data.numbers[Number(number.value)].length - 4;
    if (more > 0) card.append(make("p", `and ${more} more, listed below the question`));
    card.hidden = false;
    const at = number.getBoundingClientRect();
    const below = at.bottom + card.offsetHeight + 12 < innerHeight;
    card.style.top = `${Math.max(8, below ? at.bottom + 8 : at.top - card.offsetHeight - 8)}px`;
    card.style.left = `${Math.max(8, Math.min(at.left, innerWidth - card.offsetWidth - 16))}px`;
  };
  document.addEventListener("pointerover", (event) => {
    const number = event.target.closest?.("data.cited");
    clearTimeout(timer);
    if (pinned || event.pointerType === "touch") return;
    if (number) timer = setTimeout(() => show(number), 150);
    else if (!event.target.closest?.("#card")) hide();
  });
  document.addEventListener("click", (event) => {
    const number = event.target.closest("data.cited");
    if (number) { show(number); pinned = true; } else if (!event.target.closest("#card")) hide();
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  addEventListener("scroll", hide, { passive: true });
  document.querySelector(".hint").hidden = false;
}

// Built when opened: the whole list of a long question has thousands of cells.
function listEvidence(section, data, place = "this question") {
  const numbers = all("data.cited", section);
  if (!numbers.length) return;
  const details = make("details", "", { className: "numbers" });
  details.append(make("summary", `Evidence of ${place}: ${numbers.length.toLocaleString("en")} numbers`));
  details.addEventListener("toggle", () => {
    if (!details.open || details.querySelector("table")) return;
    const table = make("table");
    const columns = ["file", "key", "value", "rule", "commit", "code", "device", "written"];
    table.createTHead().append(row(["number", ...columns], "th"));
    const body = table.createTBody();
    for (const number of numbers) {
      for (const told of evidenceRows(data, Number(number.value))) {
        body.append(row([number.textContent, ...columns.map((column) => told[column])]));
      }
    }
    const box = make("div", "", { className: "scroll", tabIndex: 0 });
    box.append(table);
    details.append(box);
    makeSortable(table);
  });
  section.append(details);
}

function drawPlot(box, plot) {
  const inputs = all("[name]", box);
  const output = box.querySelector("output");
  const body = box.querySelector(".told tbody");
  const views = [];
  const values = () => inputs.map((input) => (input.type === "range" ? Number(input.value) : input.value));
  const tell = () => {
    body.replaceChildren(...(plot.told[values().join("|")] ?? []).map((cells) => row(cells)));
    if (output) {
      output.textContent = plot.controls[0].texts[values()[0]];
      inputs[0].setAttribute("aria-valuetext", output.textContent);
    }
    for (const view of views) {
      inputs.forEach((input, i) => view.signal(input.name, values()[i]));
      view.runAsync();
    }
  };
  const point = (event, item) => {
    const at = item?.datum?.at;
    if (at === undefined || String(at) === inputs[0].value) return;
    inputs[0].value = at;
    tell();
  };
  const draw = () => all(".panel", box).forEach(async (place, i) => {
    const spec = { ...plot.panels[i], datasets: plot.datasets };
    // `ast` interprets expressions: the page's policy forbids to compile them.
    const options = { ast: true, actions: false, renderer: "svg", tooltip: false, defaultStyle: false };
    const drawn = await vegaEmbed(place, spec, options);
    views.push(drawn.view);
    if (inputs.some((input) => input.name === "at")) drawn.view.addEventListener("pointermove", point);
    box.dataset.drawn = views.length;
    tell();
  });
  inputs.forEach((input) => input.addEventListener("input", tell));
  box.hidden = false;
  tell();
  const seen = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    seen.disconnect();
    draw();
  }, { rootMargin: "400px" });
  seen.observe(box);
}

document.addEventListener("DOMContentLoaded", () => {
  const data = JSON.parse(document.getElementById("data").textContent);
  switchTheme();
  all("main table:not(.told)").forEach(makeSortable);
  showEvidence(data);
  listEvidence(document.getElementById("summary"), data, "this summary");
  all("main section").forEach((section) => listEvidence(section, data));
  Object.entries(data.plots).forEach(([id, plot]) => {
    const box = document.getElementById(id);
    if (box) drawPlot(box, plot);
  });
  markCurrent();
});
