"use strict";
// Numbers and elements, as the other scripts of the page want them.
const format = {
  bpb: (value) => (value === null ? "not finite" : value.toFixed(4)),
  exact: (value) => (value === null ? "not finite" : value.toFixed(6)),
  signed: (value, digits) => `${value < 0 ? "" : "+"}${value.toFixed(digits)}`,
  flops: (value) => (value ? value.toExponential(2).replace("e+", "e") : "0"),
  count: (value) => Math.round(value).toLocaleString("en-US").replaceAll(",", "\u202f"),
  seconds: (value) => `${value.toFixed(1)} s`,
  // Plotly reads tags in its texts; a name has none.
  plain: (text) =>
    text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;"),
};

const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

const DATA = JSON.parse(document.getElementById("data").textContent);
