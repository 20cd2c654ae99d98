"use strict";
// The card of a run, in a dialog: the browser keeps the focus in it and Escape closes it.
(() => {
  const drawer = document.getElementById("drawer");
  const at = (name) => document.getElementById(`drawer-${name}`);
  const runs = new Map(DATA.runs.map((run) => [run.id, run]));
  const CLOSED = /^(Configuration|Stages|Provenance|Packages)/;

  const section = ([title, number]) => {
    const list = make("dl");
    for (const [name, value] of DATA.sections[number]) {
      list.append(make("div", {}, make("dt", { textContent: name }), make("dd", { textContent: value })));
    }
    const heading = make("summary", {}, make("h3", { textContent: title }));
    return make("details", { open: !CLOSED.test(title) }, heading, list);
  };

  const seedButton = (run, shown) => {
    const button = make("button", { type: "button", textContent: `seed ${run.seed}` });
    button.setAttribute("aria-pressed", String(run === shown));
    button.addEventListener("click", () => {
      fill(run);
      at("seeds").querySelector("[aria-pressed=true]").focus();
    });
    return button;
  };

  const fill = (run) => {
    at("title").textContent = run.method;
    at("role").textContent = `${run.role} · ${run.status}`;
    at("run").textContent = run.id;
    const siblings = DATA.runs.filter((other) => other.method === run.method);
    at("seeds").replaceChildren(...siblings.map((sibling) => seedButton(sibling, run)));
    at("body").replaceChildren(...run.sections.map(section));
  };

  const open = (id) => {
    fill(runs.get(id));
    if (!drawer.open) drawer.showModal();
    drawer.scrollTop = 0;
    at("title").focus();
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-run]");
    if (button) open(button.dataset.run);
  });
  document.addEventListener("openrun", (event) => open(event.detail));
  at("close").addEventListener("click", () => drawer.close());
  drawer.addEventListener("click", (event) => {
    if (event.target === drawer) drawer.close(); // beside the drawer
  });
})();
