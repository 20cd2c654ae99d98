"use strict";
// The chart: curves with bands, growth markers and names at the ends of lines.
(() => {
  const chart = document.getElementById("chart");
  const form = document.getElementById("chart-controls");
  const legend = document.getElementById("legend");
  const note = document.getElementById("chart-note");
  const shown = new Set(DATA.methods.filter((method) => method.shown).map((method) => method.name));
  const wide = window.matchMedia("(min-width: 44rem)");
  const coarse = window.matchMedia("(pointer: coarse)");
  const LABEL_GAP = 14; // pixels between names
  const TITLES = {
    flops: `training compute in FLOPs; C* = ${format.flops(DATA.budget)}`,
    tokens: "bytes predicted in training",
    seconds: "wall-clock of training and growth, in seconds",
  };
  const LEVEL = { mean: "bits per byte, validation slice", minus: "bits per byte minus scratch, at equal compute" };
  const BANDS = { few: (method) => method.banded, all: () => true, none: () => false };
  let zoom = {}; // ranges that a reader chose
  let labels = false;

  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const paint = (colour) => (colour.startsWith("#") ? colour : style(`--${colour}`));
  const faint = (colour, alpha) => {
    const parts = [1, 3, 5].map((i) => parseInt(paint(colour).slice(i, i + 2), 16));
    return `rgba(${parts.join(",")},${alpha})`;
  };
  const option = (name) => form.elements[name];
  const isMinus = () => option("view")?.value === "minus";
  const points = (method) => method[isMinus() ? "minus" : "mean"];
  const visible = () => DATA.methods.filter((method) => shown.has(method.name) && points(method));
  const said = (bpb) => (isMinus() && bpb !== null ? `${format.signed(bpb, 6)} bpb to scratch` : `${format.exact(bpb)} bpb`);

  const where = (points, i) =>
    `${format.flops(points.flops[i])} FLOPs (${format.bpb(points.flops[i] / DATA.budget)} C*)<br>` +
    `${format.count(points.tokens[i])} bytes · ${format.seconds(points.seconds[i])}`;

  const meanNotes = (method, mean) =>
    mean.bpb.map((bpb, i) => {
      const range = `${mean.band}: ${format.bpb(mean.low[i])} to ${format.bpb(mean.high[i])}`;
      const own = method.seeds
        .filter((seed) => seed.aligned && !isMinus())
        .map((seed) => `<br>${format.bpb(seed.bpb[i])}  seed ${seed.seed}, run ${seed.run}`);
      return (
        `<b>${format.plain(method.name)}</b><br>${said(bpb)}, mean of ${mean.n}<br>` +
        `${range}<br>${where(mean, i)}${own.join("")}`
      );
    });

  const seedNotes = (method, seed, bpb) =>
    bpb.map(
      (value, i) =>
        `<b>${format.plain(method.name)}</b>, seed ${seed.seed}<br>${said(value)} at step ` +
        `${format.count(seed.step[i])}<br>${where(seed, i)}<br>run ${seed.run}`,
    );

  const band = (method, x) => {
    const mean = points(method);
    return {
      x: [...mean[x], ...mean[x].toReversed()],
      y: [...mean.high, ...mean.low.toReversed()],
      fill: "toself",
      fillcolor: faint(method.colour, 0.1),
      hoverinfo: "skip",
      line: { width: 0 },
      mode: "lines",
    };
  };

  const line = (x, y, method, text, look) => ({
    x,
    y,
    line: { color: paint(method.colour), dash: method.dash, width: method.width * 1.15 },
    mode: "lines",
    hoverinfo: "text",
    text,
    ...look,
  });

  const markers = (method, marks, symbol, size, text) => ({
    x: marks.map((mark) => mark[option("x").value]),
    y: marks.map((mark) => mark[isMinus() && "minus" in mark ? "minus" : "bpb"]),
    mode: "markers",
    hoverinfo: "text",
    text,
    marker: {
      symbol,
      size,
      color: symbol === "circle" ? style("--paper") : paint(method.colour),
      line: { color: paint(method.colour), width: 1.5 },
    },
  });

  const end = (method) => {
    const mean = points(method);
    return Object.fromEntries(["bpb", "flops", "tokens", "seconds"].map((name) => [name, mean[name].at(-1)]));
  };

  // What there is to draw, and what the note above the chart says of it.
  const drawn = () => {
    const methods = visible().toSorted((a, b) => a.order - b.order);
    return {
      methods,
      bands: methods.filter((method) => BANDS[option("bands").value](method)),
      seeds: option("seeds").checked ? methods : [],
      grown: methods.filter((method) => method.growths.length),
      stopped: methods.filter((method) => method.stopped),
      rungs: shown.has("scratch") && !isMinus() ? DATA.rungs : [],
    };
  };

  const noteOf = ({ methods, bands, seeds, grown, stopped, rungs }) => {
    const ranges = new Set(bands.map((method) => points(method).band));
    return Object.entries({
      "Bits per byte on the validation slice, minus scratch with the same seed at equal compute.": isMinus(),
      "Bits per byte on the validation slice.": !isMinus(),
      "Lines: mean over seeds.": methods.some((method) => points(method).n > 1),
      [`Bands: ${[...ranges].sort().join(", or with fewer than 3 seeds ")}.`]: ranges.size,
      "Thin lines: every run.": seeds.length,
      "Circles: growth.": grown.length,
      "Diamonds: scratch annealed at a smaller budget.": rungs.length,
      "Crosses: a run of the method failed.": stopped.length,
    }).filter(([, isTrue]) => isTrue).map(([sentence]) => sentence).join(" ");
  };

  const traces = ({ methods, bands, seeds, grown, stopped, rungs }) => {
    const x = option("x").value;
    return [
      ...bands.map((method) => band(method, x)),
      ...seeds.flatMap((method) =>
        method.seeds.map((seed) => {
          const bpb = seed[isMinus() ? "minus" : "bpb"];
          return line(seed[x], bpb, method, seedNotes(method, seed, bpb), {
            line: { color: faint(method.colour, 0.55), width: 1 },
            customdata: bpb.map(() => seed.run),
          });
        }),
      ),
      ...methods.map((method) =>
        line(points(method)[x], points(method).bpb, method, meanNotes(method, points(method)), {})),
      ...grown.map((method) =>
        markers(method, method.growths, "circle", 8,
          method.growths.map((growth) =>
            `<b>${format.plain(method.name)} grows</b><br>${growth.notes.map(format.plain).join("<br>")}`)),
      ),
      ...stopped.map((method) =>
        markers(method, [end(method)], "x", 9, `<b>${format.plain(method.name)}</b><br>a run failed`)),
      markers({ colour: "ink" }, rungs, "diamond", 8,
        rungs.map((rung) => `<b>${format.plain(rung.method)}</b><br>${format.exact(rung.bpb)} bpb<br>` +
          `annealed at ${format.flops(rung.flops)} FLOPs`)),
    ];
  };

  const scaled = (scale, value) => (scale === "log" ? Math.log10(value) : value);

  // Along the chosen axis: from a tenth or from the last fifth of what there is, to a little beyond it.
  const rangeAcross = (x, scale) => {
    const ends = visible().map((method) => end(method)[x]);
    const last = x === "flops" ? DATA.budget : Math.max(0, ...ends) || 1;
    const part = option("part").value;
    const from = part === "all" ? { log: DATA.from, linear: 0 }[scale] : Number(part);
    const [low, high] = [from * last, last].map((value) => scaled(scale, value));
    return [low, high + 0.012 * (high - low)];
  };

  // Up: what the visible mean curves reach within a range of the other axis; of a whole course without
  // the highest and the lowest few points, such as right after a growth.
  const rangeUp = (x, scales, across) => {
    const isWhole = option("part").value === "all" && !zoom.x;
    if (isWhole && !isMinus()) return DATA.limits.map((value) => scaled(scales.y, value));
    const inside = visible().flatMap((method) => {
      const mean = points(method);
      return mean.bpb.filter((bpb, i) => {
        const at = scaled(scales.x, mean[x][i]);
        return bpb !== null && at >= across[0] && at <= across[1];
      });
    });
    inside.sort((a, b) => a - b);
    const cut = isWhole ? Math.floor(0.04 * inside.length) : 0;
    const [low, high] = inside.length ? [inside[cut], inside.at(-1 - cut)] : DATA.limits;
    const pad = 0.06 * (high - low || 0.01);
    return [low - pad, high + pad].map((value) => scaled(scales.y, value));
  };

  const budgetTicks = (scale, range) => {
    const isLate = option("part").value !== "all";
    const early = scale === "log" ? [1 / 8, 1 / 4, 1 / 2, 1] : [1 / 4, 1 / 2, 3 / 4, 1];
    const parts = isLate ? [0.8, 0.85, 0.9, 0.95, 1] : early;
    const names = { 0.125: "C*/8", 0.25: "C*/4", 0.5: "C*/2", 0.75: "3C*/4", 1: "C*" };
    const inside = parts.filter((u) => {
      const at = scaled(scale, u * DATA.budget);
      return at >= range[0] && at <= range[1];
    });
    if (inside.length < 2) return {}; // zoomed in: Plotly's own ticks
    return {
      tickvals: inside.map((u) => u * DATA.budget),
      ticktext: inside.map((u) => `${names[u] ?? `${u} C*`}<br>${format.flops(u * DATA.budget)}`),
    };
  };

  // Positions moved as little as possible (least squares) to lie `gap` apart, within [0, height].
  const spread = (positions, gap, height) => {
    const blocks = [];
    positions.forEach((position, i) => {
      let block = { sum: position - i * gap, n: 1 };
      while (blocks.length && blocks.at(-1).sum / blocks.at(-1).n > block.sum / block.n) {
        const before = blocks.pop();
        block = { sum: before.sum + block.sum, n: before.n + block.n };
      }
      blocks.push(block);
    });
    const top = height - gap * (positions.length - 1);
    const free = blocks.flatMap(({ sum, n }) => Array(n).fill(Math.min(Math.max(sum / n, 0), top)));
    return free.map((position, i) => position + i * gap);
  };

  const canvas = document.createElement("canvas").getContext("2d");
  const textWidth = (text) => {
    canvas.font = `12px ${style("--sans")}`;
    return canvas.measureText(text).width;
  };

  const direct = (ranges, scales, height) => {
    const x = option("x").value;
    const share = (range, value) => (value - range[0]) / (range[1] - range[0]);
    const ends = visible()
      .map((method) => ({ method, ...end(method) }))
      .filter((at) => at.bpb !== null)
      .map((at) => ({
        ...at,
        right: share(ranges.x, scaled(scales.x, at[x])),
        up: share(ranges.y, scaled(scales.y, at.bpb)),
      }))
      .filter((at) => at.up >= 0 && at.up <= 1 && at.right >= 0 && at.right <= 1.001)
      .toSorted((a, b) => a.up - b.up);
    if (!labels || ends.length * LABEL_GAP > height) return { annotations: [], shapes: [] };
    const heights = spread(ends.map((at) => at.up * height), LABEL_GAP, height);
    const width = chart.clientWidth - margins().l - margins().r;
    const annotations = ends.map((at, i) => ({
      xref: "paper", yref: "paper", x: 1, y: heights[i] / height, xshift: 30,
      xanchor: "left", yanchor: "middle", showarrow: false, align: "left",
      text: `${isMinus() ? format.signed(at.bpb, 3) : at.bpb.toFixed(3)}  ${format.plain(at.method.name)}`,
      font: { size: 12, color: style("--ink") },
    }));
    const shapes = ends.map((at, i) => ({
      type: "path", xref: "paper", yref: "paper",
      path: `M${at.right},${at.up} L${1 + 14 / width},${heights[i] / height} L${1 + 26 / width},${heights[i] / height}`,
      line: { color: paint(at.method.colour), dash: at.right > 0.97 ? at.method.dash : "1px,3px", width: 1.3 },
    }));
    return { annotations, shapes };
  };

  const margins = () => {
    const widths = labels ? visible().map((method) => textWidth(`+0.000  ${method.name}`)) : [];
    return { l: isMinus() ? 74 : 62, r: labels ? Math.min(Math.max(60, ...widths) + 40, chart.clientWidth / 3) : 26, t: 12, b: 62 };
  };

  const layout = () => {
    const x = option("x").value;
    option("yscale").disabled = isMinus(); // differences have no logarithm
    const scales = { x: option("xscale").value, y: isMinus() ? "linear" : option("yscale").value };
    labels = wide.matches && visible().length <= 60;
    const height = labels ? Math.max(500, 74 + LABEL_GAP * visible().length) : 380;
    const across = zoom.x ?? rangeAcross(x, scales.x);
    const ranges = { x: across, y: zoom.y ?? rangeUp(x, scales, across) };
    const digits = ranges.y[1] - ranges.y[0] < 0.1 ? 3 : 2;
    const margin = margins();
    const axis = {
      automargin: false,
      color: style("--muted"),
      gridcolor: style("--rule"),
      linecolor: style("--rule"),
      showline: true,
      zeroline: false,
    };
    return {
      ...direct(ranges, scales, height - margin.t - margin.b),
      height,
      margin,
      autosize: true,
      dragmode: coarse.matches ? false : "zoom",
      font: { family: style("--sans"), size: 12, color: style("--ink") },
      hoverlabel: {
        align: "left",
        bgcolor: style("--raised"),
        bordercolor: style("--rule"),
        font: { family: style("--sans"), size: 12, color: style("--ink") },
      },
      hovermode: "closest",
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      showlegend: false,
      xaxis: {
        ...axis,
        ...(x === "flops" ? budgetTicks(scales.x, ranges.x) : {}),
        exponentformat: "SI",
        range: ranges.x,
        title: { text: TITLES[x], standoff: 8 },
        type: scales.x,
      },
      yaxis: {
        ...axis,
        zeroline: isMinus(),
        zerolinecolor: style("--muted"),
        range: ranges.y,
        tickformat: `${isMinus() ? "+" : ""}.${digits}f`,
        title: { text: LEVEL[isMinus() ? "minus" : "mean"], standoff: 6 },
        type: scales.y,
      },
    };
  };

  const config = { displayModeBar: false, doubleClick: "reset", responsive: true, scrollZoom: false };
  const draw = () => {
    const what = drawn();
    note.textContent = noteOf(what);
    return Plotly.react(chart, traces(what), layout(), config);
  };

  const swatch = (method) => {
    const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
    const attributes = { x1: 0, x2: 26, y1: 5, y2: 5, "stroke-width": method.width * 1.3 };
    for (const [name, value] of Object.entries(attributes)) line.setAttribute(name, value);
    line.setAttribute("stroke", method.colour.startsWith("#") ? method.colour : `var(--${method.colour})`);
    if (method.dash !== "solid") line.setAttribute("stroke-dasharray", method.dash);
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 26 10");
    svg.setAttribute("aria-hidden", "true");
    svg.append(line);
    return svg;
  };

  const fillLegend = () => {
    const groups = Map.groupBy(DATA.methods, (method) => method.role);
    for (const [role, methods] of groups) {
      const items = methods.map((method) => {
        const box = make("input", { type: "checkbox", name: "method", value: method.name });
        box.checked = shown.has(method.name);
        return make("label", {}, box, swatch(method), make("span", { textContent: method.name }));
      });
      legend.append(make("fieldset", {}, make("legend", { textContent: role }), ...items));
    }
  };

  const choose = (wanted) => {
    for (const method of DATA.methods) {
      if (wanted === "all" || (wanted === "first" && method.shown)) shown.add(method.name);
      else shown.delete(method.name);
    }
    for (const box of legend.querySelectorAll("input")) box.checked = shown.has(box.value);
    draw();
  };

  legend.addEventListener("change", ({ target }) => {
    if (target.checked) shown.add(target.value);
    else shown.delete(target.value);
    draw();
  });
  legend.addEventListener("click", ({ target }) => {
    if (target.dataset.choose) choose(target.dataset.choose);
  });
  form.addEventListener("change", ({ target }) => {
    if (["x", "xscale", "part", "view"].includes(target.name)) zoom = {};
    if (target.name === "yscale") delete zoom.y;
    draw();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("zoom-out").addEventListener("click", () => {
    zoom = {};
    option("part").value = "all";
    draw();
  });
  document.getElementById("save").addEventListener("click", () => {
    const { clientWidth: width, clientHeight: height } = chart;
    Plotly.downloadImage(chart, { format: "svg", filename: "curves", width, height });
  });
  document.documentElement.addEventListener("themechange", draw);
  wide.addEventListener("change", draw);
  // Paper has its own width, which a page learns only when it is too late to draw again: that of A4.
  const resize = (width) => () => {
    chart.style.width = width;
    draw();
  };
  window.addEventListener("beforeprint", resize("41rem"));
  window.addEventListener("afterprint", resize(""));

  fillLegend();
  draw().then(() => {
    chart.on("plotly_relayout", (change) => {
      const range = (axis) =>
        change[`${axis}.range[0]`] === undefined ? undefined : [0, 1].map((i) => change[`${axis}.range[${i}]`]);
      const [x, y] = [range("xaxis"), range("yaxis")];
      const isReset = change["xaxis.autorange"] || change["yaxis.autorange"];
      if (!x && !y && !isReset) return;
      zoom = isReset ? {} : { x: x ?? zoom.x, y: y ?? zoom.y };
      draw();
    });
    chart.on("plotly_click", ({ points }) => {
      const run = points[0]?.customdata;
      if (run) location.hash = `run-${run}`;
    });
    requestAnimationFrame(() =>
      requestAnimationFrame(() => {
        document.documentElement.dataset.drawn = String(Math.round(performance.now()));
      }),
    );
  });
})();
