"use strict";
// Draws the charts of the page, in the colours of its light or dark look, and again when that changes or the page is printed.
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const plots = [...document.querySelectorAll(".plot")];
  const coarse = matchMedia("(pointer: coarse)").matches;
  const narrow = () => matchMedia("(max-width: 40rem)").matches;
  const PRINTED = { whole: 680, half: 325, height: 480 }; // pixels on paper

  const config = {
    responsive: true,
    displaylogo: false,
    scrollZoom: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d"],
    toImageButtonOptions: { format: "svg" },
  };

  // Colours are written as var(--name) in the figures, with two hexadecimal digits behind it where they are to shine through.
  function coloured(value, style) {
    if (typeof value === "string") return value.replace(/^var\((--[a-z]+)\)/, (_, name) => style.getPropertyValue(name).trim());
    if (Array.isArray(value)) return typeof value[0] === "number" || value[0] === null ? value : value.map((v) => coloured(v, style));
    if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, coloured(v, style)]));
    return value;
  }

  function figureOf(plot) {
    const { data, layout } = coloured(figures[plot.dataset.figure], getComputedStyle(document.documentElement));
    layout.height = Number(plot.dataset.height);
    // A finger that scrolls the page must not be caught by a chart; the buttons and the bar of the chart still zoom.
    layout.dragmode = coarse ? false : "zoom";
    if (narrow()) {
      layout.font.size = 11;
      layout.margin = { ...layout.margin, l: 52, r: 6 };
      for (const name of ["xaxis", "yaxis", "yaxis2"]) if (layout[name]) layout[name].nticks = 5;
    }
    if (layout.showlegend) layout.margin = { ...layout.margin, t: Math.max(layout.margin.t, narrow() ? 56 : 34) };
    const shown = plot.layout; // what the reader has zoomed to stays
    for (const name of ["xaxis", "yaxis", "yaxis2"]) {
      if (layout[name] && layout[name].range) layout[name].range = [...layout[name].range];
      if (layout[name] && shown && shown[name] && shown[name].range && plot.dataset.zoomed) {
        layout[name].range = [...shown[name].range];
        layout[name].autorange = false;
      }
    }
    return { data, layout };
  }

  function draw(plot, width) {
    const { data, layout } = figureOf(plot);
    if (width) Object.assign(layout, { width, height: Math.min(layout.height, PRINTED.height), autosize: false });
    return Plotly.react(plot, data, layout, { ...config, displayModeBar: coarse ? false : "hover" });
  }

  const drawAll = () => Promise.all(plots.map((plot) => draw(plot)));

  function zoom(plot, low, high) {
    const flipped = plot.dataset.flipped === "yes";
    const xs = [low, high], curve = figures[plot.dataset.figure].data;
    let top = 0;
    for (const trace of curve) {
      if (trace.yaxis || trace.mode !== "lines") continue;
      trace.x.forEach((x, i) => { if (x >= low && x <= high && trace.y[i] > top) top = trace.y[i]; });
    }
    plot.dataset.zoomed = "yes";
    const change = { "xaxis.range": flipped ? [xs[1], xs[0]] : xs };
    if (top > 0) change["yaxis.range"] = [-0.02 * top, 1.18 * top];
    return Plotly.relayout(plot, change);
  }

  function whole(plot) {
    delete plot.dataset.zoomed;
    const { xaxis, yaxis } = figures[plot.dataset.figure].layout;
    const range = plot.dataset.flipped === "yes" ? [...xaxis.range].reverse() : xaxis.range;
    const change = { "xaxis.range": [...range] };
    if (yaxis.range) change["yaxis.range"] = [...yaxis.range]; else change["yaxis.autorange"] = true;
    return Plotly.relayout(plot, change);
  }

  function flip(plot, button) {
    const flipped = plot.dataset.flipped !== "yes";
    plot.dataset.flipped = flipped ? "yes" : "no";
    button.setAttribute("aria-pressed", String(flipped));
    plot.dataset.zoomed = "yes";
    return Plotly.relayout(plot, { "xaxis.range": [...plot.layout.xaxis.range].reverse() });
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-chart]");
    if (!button) return;
    const plot = document.getElementById(`plot-${button.dataset.chart}`);
    if (button.dataset.view === "all") whole(plot);
    else if (button.dataset.view === "flip") flip(plot, button);
    else zoom(plot, Number(button.dataset.low), Number(button.dataset.high));
  });

  drawAll().then(() => {
    for (const plot of plots) {
      plot.on("plotly_relayout", (change) => {
        if (Object.keys(change).some((key) => /range(\[|$)/.test(key) && !/autorange/.test(key))) plot.dataset.zoomed = "yes";
        if (change["xaxis.autorange"]) delete plot.dataset.zoomed;
      });
      plot.on("plotly_doubleclick", () => { if (figures[plot.dataset.figure].layout.xaxis.range) { whole(plot); return false; } });
    }
    document.documentElement.dataset.drawn = "yes";
  }).catch((error) => {
    const fault = document.getElementById("fault");
    fault.textContent = `A chart could not be drawn (${error.message}). The tables hold the same numbers.`;
    fault.hidden = false;
  });

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  matchMedia("(max-width: 40rem)").addEventListener("change", drawAll);
  let unfolded = [];
  addEventListener("beforeprint", () => {
    for (const plot of plots) draw(plot, plot.closest(".charts") ? PRINTED.half : PRINTED.whole);
    unfolded = [...document.querySelectorAll("details:not([open])")];
    for (const fold of unfolded) fold.open = true;
  });
  addEventListener("afterprint", () => {
    for (const fold of unfolded) fold.open = false;
    drawAll();
  });
})();
