"use strict";
// Sorting and filtering of the verdict table.
(() => {
  const table = document.getElementById("verdict-table");
  const headings = [...table.tHead.rows[0].cells];
  const groups = [...table.tBodies];
  const lines = [...table.querySelectorAll("tr[data-role]")];
  const home = new Map(lines.map((line) => [line, line.parentNode]));
  const sorted = table.createTBody();
  const texts = new Map(lines.map((line) => [line, line.textContent.toLowerCase()]));
  const form = document.getElementById("filter");
  const text = document.getElementById("filter-text");
  const count = document.getElementById("filter-count");
  const unsort = document.getElementById("unsort");
  const NEXT = { none: "ascending", ascending: "descending", descending: "none" };

  const isNumber = (heading) => heading.matches(".number, .difference");
  const compare = (numbers) => (a, b) =>
    numbers ? Number(a) - Number(b) : a.localeCompare(b, "en", { numeric: true });

  const showGroups = () => {
    for (const group of groups) {
      group.hidden = ![...group.rows].some((line) => line.dataset.role && !line.hidden);
    }
  };

  const sort = (column, direction) => {
    headings.forEach((heading, i) => heading.setAttribute("aria-sort", i === column ? direction : "none"));
    unsort.hidden = direction === "none";
    table.classList.toggle("sorted", direction !== "none");
    if (direction === "none") {
      for (const line of lines) home.get(line).append(line);
    } else {
      const key = (line) => line.cells[column].dataset.sort;
      const inOrder = compare(isNumber(headings[column]));
      // `lines` keeps the order of the report, so that equal values stay in it.
      const known = lines.filter((line) => key(line) !== "");
      known.sort((a, b) => (direction === "descending" ? -1 : 1) * inOrder(key(a), key(b)));
      sorted.append(...known, ...lines.filter((line) => key(line) === ""));
    }
    showGroups();
  };

  const filter = () => {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const roles = new Set(new FormData(form).getAll("role"));
    for (const line of lines) {
      const isWanted = words.every((word) => texts.get(line).includes(word));
      line.hidden = !(isWanted && roles.has(line.dataset.role));
    }
    showGroups();
    const n = lines.filter((line) => !line.hidden).length;
    count.textContent = `${n} of ${lines.length} shown`;
  };

  headings.forEach((heading, column) => {
    heading.firstElementChild.addEventListener("click", () => sort(column, NEXT[heading.ariaSort]));
  });
  unsort.addEventListener("click", () => {
    sort(-1, "none");
    headings[0].firstElementChild.focus(); // the button is gone
  });
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  filter();
})();
