"use strict";
// What an address of the page opens: a folded section, or at `#run-ID` the card of a run, in a dialog in
// which the browser keeps the focus and which Escape closes.
(() => {
  const drawer = document.getElementById("drawer");
  const at = (name) => document.getElementById(`drawer-${name}`);
  const runs = new Map(DATA.runs.map((run) => [`#run-${run.id}`, run]));
  const CLOSED = /^(Configuration|Provenance|Packages)/;

  const section = ([title, number]) => {
    const list = make("dl");
    for (const [name, value] of DATA.sections[number]) {
      list.append(make("div", {}, make("dt", { textContent: name }), make("dd", { textContent: value })));
    }
    const heading = make("summary", {}, make("h3", { textContent: title }));
    return make("details", { open: !CLOSED.test(title) }, heading, list);
  };

  const seedLink = (run, shown) => {
    const link = make("a", { href: `#run-${run.id}`, textContent: `seed ${run.seed}` });
    if (run === shown) link.setAttribute("aria-current", "true");
    return link;
  };

  const fill = (run) => {
    at("title").textContent = run.method;
    at("role").textContent = `${run.role} · ${run.status}`;
    at("run").textContent = run.id;
    const siblings = DATA.runs.filter((other) => other.method === run.method);
    at("seeds").replaceChildren(...siblings.map((sibling) => seedLink(sibling, run)));
    at("body").replaceChildren(...run.sections.map(section));
  };

  const follow = () => {
    const part = document.getElementById(location.hash.slice(1));
    if (part instanceof HTMLDetailsElement) part.open = true;
    const run = runs.get(location.hash);
    if (!run) return drawer.close();
    fill(run);
    if (drawer.open) return at("seeds").querySelector("[aria-current]").focus();
    drawer.showModal();
    drawer.scrollTop = 0;
    at("title").focus();
  };

  window.addEventListener("hashchange", follow);
  drawer.addEventListener("close", () => {
    // A closed card leaves its address, so that the same link opens it again.
    if (runs.has(location.hash)) history.replaceState(null, "", location.pathname + location.search);
  });
  at("close").addEventListener("click", () => drawer.close());
  drawer.addEventListener("click", (event) => {
    if (event.target === drawer) drawer.close(); // beside the drawer
  });
  follow();
})();
