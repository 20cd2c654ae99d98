"use strict";
// Light or dark: as the system says, until a reader chooses.
(() => {
  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const stored = () => {
    try {
      return window.localStorage.getItem("growbench-theme");
    } catch {
      return null; // storage is switched off
    }
  };
  const isDark = () => root.dataset.theme === "dark";
  const show = () => {
    const button = document.getElementById("theme");
    button.setAttribute("aria-pressed", String(isDark()));
    root.dispatchEvent(new Event("themechange"));
  };
  const follow = () => {
    root.dataset.theme = stored() ?? (system.matches ? "dark" : "light");
  };
  follow();
  system.addEventListener("change", () => {
    follow();
    show();
  });
  document.addEventListener("DOMContentLoaded", () => {
    document.getElementById("theme").addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      try {
        window.localStorage.setItem("growbench-theme", root.dataset.theme);
      } catch {
        // the choice lasts as long as the page
      }
      show();
    });
    show();
  });
  window.addEventListener("beforeprint", () => {
    root.dataset.theme = "light";
    for (const section of document.querySelectorAll("details")) section.open = true;
    show();
  });
  window.addEventListener("afterprint", () => {
    follow();
    show();
  });
})();
