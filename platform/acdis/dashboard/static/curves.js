// A chart for each loss term and validation figure: a line per row, its seeds as a band.
import { chart, colour, data, SERIES, SYMBOLS } from "./common.js";

const DASHES = ["solid", "dashed", "dotted", [8, 3, 2, 3]];

/** The band of a curve: forth along its upper edge, back along the lower one. */
function band(curve, paint) {
  const there = curve.epochs.map((epoch, at) => [epoch, curve.low[at], curve.high[at]])
    .filter(([, low, high]) => low !== null && high !== null);
  if (curve.seeds < 2 || !there.length) return [];
  return [{
    type: "custom", name: curve.label, silent: true, z: 1, data: there, encode: { x: 0, y: [1, 2] }, clip: true,
    tooltip: { show: false },
    renderItem: (params, api) => {
      if (params.dataIndexInside) return null;
      const forth = there.map(([epoch, , high]) => api.coord([epoch, high]));
      const back = there.map(([epoch, low]) => api.coord([epoch, low])).reverse();
      return { type: "polygon", shape: { points: [...forth, ...back] }, style: { fill: paint, opacity: 0.2 } };
    },
  }];
}

/** A number of an axis in few characters. */
function brief(value) {
  return value && Math.abs(value) < 1e-3 ? value.toExponential(0) : String(Number(value.toPrecision(4)));
}

function option(found) {
  const series = found.curves.flatMap((curve) => {
    const paint = SERIES[curve.row % SERIES.length];
    const line = {
      type: "line", name: curve.label, z: 2, data: curve.epochs.map((epoch, at) => [epoch, curve.mean[at]]),
      symbol: SYMBOLS[curve.row % SYMBOLS.length], symbolSize: 6, showSymbol: curve.epochs.length < 40,
      lineStyle: { color: paint, width: 2, type: DASHES[curve.row % DASHES.length] }, itemStyle: { color: paint },
    };
    return [line, ...band(curve, paint)]; // the legend shows the first of a name
  });
  return {
    grid: { left: 8, right: 16, top: 44, bottom: 28, containLabel: true },
    legend: { type: "scroll", top: 0, textStyle: { color: colour("text") }, pageTextStyle: { color: colour("text") } },
    xAxis: { type: "value", name: "epoch", nameLocation: "middle", nameGap: 24, min: "dataMin", max: "dataMax",
      minInterval: 1 },
    yAxis: { type: "value", scale: true, axisLabel: { formatter: brief } },
    tooltip: { trigger: "axis", valueFormatter: (value) => (typeof value === "number" ? value.toPrecision(4) : "–") },
    series,
  };
}

const form = document.getElementById("choose");
if (form) form.addEventListener("change", (event) => { if (event.target.type !== "checkbox") form.requestSubmit(); });
if (document.getElementById("data")) {
  data().forEach((found, at) => chart(document.getElementById(`chart-${at}`), () => option(found)));
}
