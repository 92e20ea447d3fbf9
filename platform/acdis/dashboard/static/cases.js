// Boxes and points of rows, and the scatter of two rows; a click on a point leads to its run.
import { chart, colour, data, SERIES, SYMBOLS } from "./common.js";

const form = document.getElementById("choose");
const place = document.getElementById("spread");

/** Rows are ticked one after the other: only the other choices load the page at once. */
function choose() {
  form.addEventListener("change", (event) => { if (event.target.type !== "checkbox") form.requestSubmit(); });
}

/** The run in MLflow; our page of it where MLflow has none. */
function visit(run) {
  const ours = `${place.dataset.root}/run?${new URLSearchParams({ cell: run.cell, spec: place.dataset.spec })}`;
  location.assign(run.page ? place.dataset.mlflow + run.page : ours);
}

/** Where a point stands beside the middle of its row: always the same for the same point. */
function beside(number) {
  return (((number * 0.618034) % 1) - 0.5) * 0.5;
}

function spread(found) {
  const points = found.rows.map((row, at) => ({
    type: "scatter", name: row.label, yAxisIndex: 1, symbol: SYMBOLS[at % SYMBOLS.length], symbolSize: 7,
    itemStyle: { color: SERIES[at % SERIES.length], opacity: 0.9 },
    data: row.points.map(([value, name, seed], number) => ({ value: [value, at + beside(number)], name, seed, row: at })),
  }));
  const boxes = {
    type: "boxplot", itemStyle: { color: "transparent", borderColor: colour("text"), borderWidth: 1.5 }, silent: true,
    data: found.rows.map((row) => row.box), boxWidth: [8, 34], z: 3,
  };
  return {
    grid: { left: 8, right: 20, top: 8, bottom: 30, containLabel: true },
    xAxis: { type: "value", name: found.axis, nameLocation: "middle", nameGap: 28, scale: true,
      axisLine: { onZero: false, lineStyle: { color: colour("quiet") } } },
    yAxis: [{ type: "category", data: found.rows.map((row) => row.label), inverse: true,
      axisLabel: { width: 150, overflow: "break", lineHeight: 14, interval: 0 } },
    { type: "value", min: -0.5, max: found.rows.length - 0.5, inverse: true, show: false }],
    tooltip: { formatter: ({ data: point, value }) => `${point.name}\n${found.rows[point.row].label}, seed ` +
      `${found.rows[point.row].seeds[point.seed].seed}: ${value[0].toFixed(2)}` },
    series: [boxes, ...points],
  };
}

function scatter(found) {
  const every = found.pair.points.flatMap((point) => [point.x, point.y]);
  const room = (Math.max(...every) - Math.min(...every)) * 0.05 || 1;
  const [low, high] = [Math.min(...every) - room, Math.max(...every) + room];
  const axis = (name) => ({ type: "value", name, nameLocation: "middle", min: low, max: high,
    axisLabel: { formatter: (value) => value.toFixed(0) } });
  return {
    grid: { left: 30, right: 16, top: 12, bottom: 34, containLabel: true },
    xAxis: { ...axis(found.pair.x), nameGap: 26 }, yAxis: { ...axis(found.pair.y), nameGap: 36 },
    tooltip: { formatter: ({ data: point }) => `${point.name}\n${found.pair.x}: ${point.value[0].toFixed(2)}\n` +
      `${found.pair.y}: ${point.value[1].toFixed(2)}` },
    series: [
      { type: "scatter", symbolSize: 9, data: found.pair.points.map((point, at) => (
        { value: [point.x, point.y], name: point.case, at })), itemStyle: { color: SERIES[0], opacity: 0.9 } },
      { type: "line", data: [[low, low], [high, high]], symbol: "none", silent: true,
        lineStyle: { color: colour("quiet"), type: "dashed", width: 1 } },
    ],
  };
}

if (form) choose();
if (place) {
  const found = data();
  place.style.height = `${90 + 46 * found.rows.length}px`;
  const first = chart(place, () => spread(found));
  first.on("click", ({ data: point }) => visit(found.rows[point.row].seeds[point.seed]));
  const second = document.getElementById("scatter");
  if (second) chart(second, () => scatter(found)).on("click", ({ data: point }) => visit(found.pair.points[point.at]));
}
for (const picture of document.querySelectorAll("img.small")) {
  picture.addEventListener("error", () => picture.closest("td").replaceChildren("gone meanwhile"));
}
