// The heat map of 15 subsets × 3 regions, and bars of what each modality brings.
import { chart, choosing, colour, data } from "./common.js";

/** Black or white, whichever is read more easily on a colour. */
function ink(r, g, b) {
  const linear = [r, g, b].map((v) => ((v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] > 0.179 ? "#000000" : "#ffffff";
}

/** The colour between stops, at a place from 0 to 1. */
function between(stops, place) {
  const at = Math.min(Math.max(place, 0), 1) * (stops.length - 1), low = Math.min(Math.floor(at), stops.length - 2);
  const rgb = (hex) => [1, 3, 5].map((n) => parseInt(hex.slice(n, n + 2), 16));
  const [one, two] = [rgb(stops[low]), rgb(stops[low + 1])];
  return one.map((value, n) => Math.round(value + (two[n] - value) * (at - low)));
}

const SEQUENCE = ["#fff7d6", "#c7e4c0", "#7cc8c0", "#3b97b8", "#2a5f9e", "#2a2a6c"];
const BOTH_WAYS = ["#a34700", "#f0a868", "#f7f7f7", "#74b4dc", "#00598c"];

function heat(found) {
  const flat = found.values.flat().filter((value) => value !== null);
  const most = Math.max(...flat.map(Math.abs), 0.01);
  const [low, high] = found.difference ? [-most, most] : [Math.min(...flat), Math.max(...flat)];
  const turned = found.better_is === "less";
  const base = found.difference ? BOTH_WAYS : SEQUENCE;
  const stops = turned ? [...base].reverse() : base;
  const cells = found.values.flatMap((line, y) => line.map((value, x) => {
    const rgb = value === null ? null : between(stops, high > low ? (value - low) / (high - low) : 0.5);
    const sign = found.difference && value > 0 ? "+" : "";
    return { value: [x, y, value], itemStyle: { color: rgb ? `rgb(${rgb})` : "transparent" },
      label: { show: true, color: rgb ? ink(...rgb) : colour("text"),
        formatter: value === null ? "–" : sign + value.toFixed(2) } };
  }));
  return {
    grid: { left: 8, right: 8, top: 28, bottom: 8, containLabel: true },
    xAxis: { type: "category", data: found.regions, position: "top", splitLine: { show: false } },
    yAxis: { type: "category", data: found.subsets, inverse: true, splitLine: { show: false },
      axisLabel: { fontFamily: "ui-monospace, monospace" } },
    tooltip: { formatter: (point) => `${found.names[point.value[1]]}, ${found.regions[point.value[0]]}: ` +
      (point.value[2] === null ? "–" : point.value[2].toFixed(2)) },
    series: [{ type: "heatmap", data: cells, itemStyle: { borderColor: colour("ground"), borderWidth: 1 } }],
    visualMap: { show: false, min: low, max: high, seriesIndex: [] },
  };
}

function gains(found) {
  const patterns = [{}, { decal: { symbol: "rect", dashArrayX: [1, 0], dashArrayY: [2, 4], rotation: -0.8 } }];
  return {
    grid: { left: 8, right: 8, top: 60, bottom: 8, containLabel: true },
    legend: { type: "scroll", textStyle: { color: colour("text") } },
    xAxis: { type: "category", data: found.modalities },
    yAxis: { type: "value", name: `change of ${found.metric}` },
    tooltip: { trigger: "item", valueFormatter: (value) => value.toFixed(2) },
    series: found.gains.flatMap((side, which) => found.regions.map((region, place) => ({
      type: "bar", name: found.sides.length > 1 ? `${region}, ${found.sides[which]}` : region,
      data: side.map((line) => line[place]), itemStyle: { color: colour(`region-${region.toLowerCase()}`), ...patterns[which] },
    }))),
  };
}

const form = document.getElementById("choose");
if (form) choosing(form);
if (document.getElementById("data")) {
  const found = data();
  chart(document.getElementById("heat"), () => heat(found));
  chart(document.getElementById("gains"), () => gains(found));
}
