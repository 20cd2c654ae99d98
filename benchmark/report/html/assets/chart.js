"use strict";
// The chart: curves with bands, growth markers and names at the ends of lines.
(() => {
  const chart = document.getElementById("chart");
  const form = document.getElementById("chart-controls");
  const legend = document.getElementById("legend");
  const shown = new Set(DATA.methods.filter((method) => method.shown).map((method) => method.name));
  const wide = window.matchMedia("(min-width: 44rem)");
  const coarse = window.matchMedia("(pointer: coarse)");
  const LABEL_GAP = 14; // pixels between names
  const TITLES = {
    flops: `training compute in FLOPs; C* = ${format.flops(DATA.budget)}`,
    tokens: "bytes predicted in training",
    seconds: "wall-clock of training and growth, in seconds",
  };
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
  const visible = () => DATA.methods.filter((method) => shown.has(method.name));

  const where = (points, i) =>
    `${format.flops(points.flops[i])} FLOPs (${format.bpb(points.flops[i] / DATA.budget)} C*)<br>` +
    `${format.count(points.tokens[i])} bytes · ${format.seconds(points.seconds[i])}`;

  const meanNotes = (method) =>
    method.mean.bpb.map((bpb, i) => {
      const range = `${method.band}: ${format.bpb(method.mean.low[i])} to ${format.bpb(method.mean.high[i])}`;
      const own = method.seeds
        .filter((seed) => seed.aligned)
        .map((seed) => `<br>${format.bpb(seed.bpb[i])}  seed ${seed.seed}, run ${seed.run}`);
      return (
        `<b>${format.plain(method.name)}</b><br>${format.exact(bpb)} bpb, mean of ${method.n}<br>` +
        `${range}<br>${where(method.mean, i)}${own.join("")}`
      );
    });

  const seedNotes = (method, seed) =>
    seed.bpb.map(
      (bpb, i) =>
        `<b>${format.plain(method.name)}</b>, seed ${seed.seed}<br>${format.exact(bpb)} bpb at step ` +
        `${format.count(seed.step[i])}<br>${where(seed, i)}<br>run ${seed.run}`,
    );

  const band = (method, x) => {
    const xs = method.mean[x];
    return {
      x: [...xs, ...xs.toReversed()],
      y: [...method.mean.high, ...method.mean.low.toReversed()],
      fill: "toself",
      fillcolor: faint(method.colour, 0.1),
      hoverinfo: "skip",
      line: { width: 0 },
      mode: "lines",
    };
  };

  const line = (points, method, text, look) => ({
    x: points[option("x").value],
    y: points.bpb,
    line: { color: paint(method.colour), dash: method.dash, width: method.width * 1.15 },
    mode: "lines",
    hoverinfo: "text",
    text,
    ...look,
  });

  const markers = (method, points, symbol, size, text) => ({
    x: points.map((point) => point[option("x").value]),
    y: points.map((point) => point.bpb),
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
    const points = method.mean;
    const last = points.bpb.length - 1;
    return { bpb: points.bpb[last], ...Object.fromEntries(["flops", "tokens", "seconds"].map((x) => [x, points[x][last]])) };
  };

  const traces = () => {
    const x = option("x").value;
    const methods = visible().toSorted((a, b) => a.order - b.order);
    const bands = methods.filter((method) => BANDS[option("bands").value](method));
    const seeds = option("seeds").checked ? methods : [];
    const rungs = shown.has("scratch") ? DATA.rungs : [];
    return [
      ...bands.map((method) => band(method, x)),
      ...seeds.flatMap((method) =>
        method.seeds.map((seed) =>
          line(seed, method, seedNotes(method, seed), {
            line: { color: faint(method.colour, 0.55), width: 1 },
            customdata: seed.bpb.map(() => seed.run),
          }),
        ),
      ),
      ...methods.map((method) => line(method.mean, method, meanNotes(method), {})),
      ...methods.map((method) =>
        markers(method, method.growths, "circle", 8,
          method.growths.map((growth) =>
            `<b>${format.plain(method.name)} grows</b><br>${growth.notes.map(format.plain).join("<br>")}`)),
      ),
      ...methods.filter((method) => method.stopped).map((method) =>
        markers(method, [end(method)], "x", 9, `<b>${format.plain(method.name)}</b><br>a run failed`)),
      markers({ colour: "ink" }, rungs, "diamond", 8,
        rungs.map((rung) => `<b>${format.plain(rung.name)}</b><br>${format.exact(rung.bpb)} bpb<br>` +
          `annealed at ${format.flops(rung.flops)} FLOPs`)),
    ];
  };

  const scaled = (scale, value) => (scale === "log" ? Math.log10(value) : value);

  const wholeRange = (x, scale) => {
    const ends = DATA.methods.map((method) => end(method)[x]);
    const last = x === "flops" ? DATA.budget : Math.max(0, ...ends) || 1;
    const first = scale === "log" ? DATA.from * last : 0;
    return [scaled(scale, first), scaled(scale, last) + 0.012 * (scaled(scale, last) - scaled(scale, first))];
  };

  const budgetTicks = (scale, range) => {
    const parts = scale === "log" ? [1 / 8, 1 / 4, 1 / 2, 1] : [1 / 4, 1 / 2, 3 / 4, 1];
    const names = { 0.125: "C*/8", 0.25: "C*/4", 0.5: "C*/2", 0.75: "3C*/4", 1: "C*" };
    const inside = parts.filter((u) => {
      const at = scaled(scale, u * DATA.budget);
      return at >= range[0] && at <= range[1];
    });
    if (inside.length < 2) return {}; // zoomed in: Plotly's own ticks
    return {
      tickvals: inside.map((u) => u * DATA.budget),
      ticktext: inside.map((u) => `${names[u]}<br>${format.flops(u * DATA.budget)}`),
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
      text: `${format.bpb(at.bpb).slice(0, -1)}  ${format.plain(at.method.name)}`,
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
    const widths = labels ? visible().map((method) => textWidth(`0.000  ${method.name}`)) : [];
    return { l: 58, r: labels ? Math.min(Math.max(60, ...widths) + 40, chart.clientWidth / 3) : 14, t: 12, b: 62 };
  };

  const layout = () => {
    const x = option("x").value;
    const scales = { x: option("xscale").value, y: option("yscale").value };
    labels = wide.matches && visible().length <= 60;
    const height = labels ? Math.max(500, 74 + LABEL_GAP * visible().length) : 380;
    const ranges = {
      x: zoom.x ?? wholeRange(x, scales.x),
      y: zoom.y ?? DATA.limits.map((value) => scaled(scales.y, value)),
    };
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
        range: ranges.y,
        tickformat: ".2f",
        title: { text: "bits per byte, validation slice", standoff: 6 },
        type: scales.y,
      },
    };
  };

  const config = { displayModeBar: false, doubleClick: "reset", responsive: true, scrollZoom: false };
  const draw = async () => {
    await library;
    return Plotly.react(chart, traces(), layout(), config);
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
    if (["x", "xscale"].includes(target.name)) delete zoom.x;
    if (target.name === "yscale") delete zoom.y;
    draw();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("zoom-out").addEventListener("click", () => {
    zoom = {};
    draw();
  });
  document.getElementById("save").addEventListener("click", () => {
    const { clientWidth: width, clientHeight: height } = chart;
    Plotly.downloadImage(chart, { format: "svg", filename: "curves", width, height });
  });
  document.documentElement.addEventListener("themechange", draw);
  wide.addEventListener("change", draw);

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
      if (run) document.dispatchEvent(new CustomEvent("openrun", { detail: run }));
    });
    requestAnimationFrame(() =>
      requestAnimationFrame(() => {
        document.documentElement.dataset.drawn = String(Math.round(performance.now()));
      }),
    );
  });
})();
