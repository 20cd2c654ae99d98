"use strict";
// Sorting and filtering of the verdict table.
(() => {
  const table = document.getElementById("verdict-table");
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  const lines = [...body.rows];
  const texts = new Map(lines.map((line) => [line, line.textContent.toLowerCase()]));
  const form = document.getElementById("filter");
  const text = document.getElementById("filter-text");
  const count = document.getElementById("filter-count");

  const compare = (isNumber) => (a, b) =>
    isNumber ? Number(a) - Number(b) : a.localeCompare(b, "en", { numeric: true });

  const sort = (column, isNumber) => {
    const heading = headings[column];
    const isDescending = heading.getAttribute("aria-sort") === "ascending";
    for (const other of headings) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", isDescending ? "descending" : "ascending");
    const key = (line) => line.cells[column].dataset.sort;
    const inOrder = compare(isNumber);
    // `lines` keeps the order of the report, so that equal values stay in it.
    const known = lines.filter((line) => key(line) !== "");
    known.sort((a, b) => (isDescending ? -1 : 1) * inOrder(key(a), key(b)));
    body.append(...known, ...lines.filter((line) => key(line) === ""));
  };

  const filter = () => {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const roles = new Set(new FormData(form).getAll("role"));
    for (const line of lines) {
      const isWanted = words.every((word) => texts.get(line).includes(word));
      line.hidden = !(isWanted && roles.has(line.dataset.role));
    }
    const n = lines.filter((line) => !line.hidden).length;
    count.textContent = `${n} of ${lines.length} shown`;
  };

  headings.forEach((heading, column) => {
    const button = heading.firstElementChild;
    button.addEventListener("click", () => sort(column, button.dataset.number === "true"));
  });
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  filter();
})();
