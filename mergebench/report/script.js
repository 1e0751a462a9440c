"use strict";
(() => {
  const page = document.documentElement;
  const ABSENT = new Set(["missing", "n/a", "", "-", "—"]);

  // The theme: the reader's system decides until the button does. A page from disk may not be allowed to remember.
  const remembered = { get: () => { try { return localStorage.getItem("theme"); } catch { return null; } },
    set: (theme) => { try { localStorage.setItem("theme", theme); } catch { /* not remembered */ } } };
  const dark = () => (page.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const toggle = document.getElementById("theme");
  const show = () => {
    toggle.setAttribute("aria-pressed", String(dark()));
    toggle.textContent = dark() ? "Light" : "Dark";
  };
  if (["light", "dark"].includes(remembered.get())) page.dataset.theme = remembered.get();
  toggle.hidden = false;
  toggle.addEventListener("click", () => {
    page.dataset.theme = dark() ? "light" : "dark";
    remembered.set(page.dataset.theme);
    show();
  });
  show();

  // Sorting: numbers by value, text by its words and numbers; what has no value stands last in both directions.
  const text = (row, column) => row.cells[column].textContent.trim();
  const TIMES = { "": 1, K: 1e3, M: 1e6, B: 1e9 };
  const number = (cell) => {
    const found = /([-+−]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?)(?:([KMB])(?![A-Za-z]))?/.exec(cell);
    if (!found) return -Infinity; // a word, as "best", ranks below all numbers
    return Number(found[1].replace(/,/g, "").replace("−", "-")) * TIMES[found[2] || ""];
  };
  const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
  const pieces = (cell) => cell.toLowerCase().split(/(\d+)/);
  const byText = (a, b) => {
    const [first, second] = [pieces(a), pieces(b)];
    for (let place = 0; place < Math.min(first.length, second.length); place += 1) {
      const [x, y] = place % 2 ? [Number(first[place]), Number(second[place])] : [first[place], second[place]];
      if (x !== y) return compare(x, y);
    }
    return first.length - second.length;
  };
  const sort = (table, column, direction) => {
    const numeric = table.tHead.rows[0].cells[column].classList.contains("n");
    const keyed = table.original.map((row) => ({ row, cell: text(row, column) }));
    const there = keyed.filter((each) => !ABSENT.has(each.cell));
    if (direction) {
      const sign = direction === "ascending" ? 1 : -1;
      there.sort((a, b) => sign * (numeric ? compare(number(a.cell), number(b.cell)) : byText(a.cell, b.cell)));
    }
    const order = direction ? [...there, ...keyed.filter((each) => ABSENT.has(each.cell))] : keyed;
    table.tBodies[0].append(...order.map((each) => each.row));
    table.classList.toggle("sorted", Boolean(direction));
  };
  const NEXT = { none: "ascending", ascending: "descending", descending: "none" };
  for (const table of document.querySelectorAll("table.sortable")) {
    table.original = [...table.tBodies[0].rows];
    for (const heading of table.tHead.rows[0].cells) {
      if (heading.classList.contains("drawn")) continue;
      const button = document.createElement("button");
      button.type = "button";
      button.title = "Sort";
      button.append(...heading.childNodes);
      heading.append(button);
      heading.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const direction = NEXT[heading.getAttribute("aria-sort")];
        for (const other of table.tHead.rows[0].cells) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
        heading.setAttribute("aria-sort", direction);
        sort(table, heading.cellIndex, direction === "none" ? null : direction);
      });
    }
  }

  // Filtering: a row stays if it has all words.
  const filter = (table, input, status) => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let left = 0;
    for (const row of table.original) {
      row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
      left += row.hidden ? 0 : 1;
    }
    status.textContent = words.length ? `${left} of ${table.original.length} rows` : "";
  };
  for (const table of document.querySelectorAll("table.filtered")) {
    const line = document.createElement("p");
    const label = document.createElement("label");
    const input = document.createElement("input");
    const status = document.createElement("span");
    line.className = "filter";
    input.type = "search";
    input.placeholder = "words that a row must have";
    status.setAttribute("role", "status");
    label.append("Filter ", input);
    line.append(label, " ", status);
    table.closest(".box").before(line);
    input.addEventListener("input", () => filter(table, input, status));
    table.unfilter = () => { input.value = ""; filter(table, input, status); };
  }

  // A link may lead into something closed or filtered away.
  const reveal = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let part = target; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
    const table = target.closest("table");
    if (target.closest("tr")?.hidden && table.unfilter) table.unfilter();
    target.scrollIntoView({ block: target.closest("table") ? "center" : "start" });
  };
  addEventListener("hashchange", reveal);
  reveal();

  // On paper everything is open.
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const part of closed) part.open = true;
  });
  addEventListener("afterprint", () => { for (const part of closed) part.open = false; });

  if (matchMedia("(max-width: 60rem)").matches) document.getElementById("contents").open = false;
})();
