// What pages with charts share: the page's data, colours of the current theme, charts that follow their place.

/** The JSON in `<script type="application/json" id=…>`. */
export function data(id = "data") {
  return JSON.parse(document.getElementById(id).textContent);
}

/** A colour of style.css, as it is in the theme that is shown. */
export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** Okabe and Ito's colours in an order that stays apart, for series: those of report/palette.py. */
export const SERIES = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c8c8c", "#b5a900"];
/** Line styles and symbols beside the colours: nobody must rely on colour alone. */
export const SYMBOLS = ["circle", "triangle", "rect", "diamond", "pin", "arrow", "roundRect", "emptyCircle"];

/** What every chart has: text and lines in the theme's colours, no HTML in tooltips, no animation. */
export function frame(option) {
  const text = colour("text"), quiet = colour("quiet"), line = colour("line");
  const axis = { axisLabel: { color: quiet }, axisLine: { lineStyle: { color: quiet } },
    splitLine: { lineStyle: { color: line } }, nameTextStyle: { color: quiet } };
  const framed = (given) => (Array.isArray(given) ? given.map(framed) : { ...axis, ...given,
    axisLabel: { ...axis.axisLabel, ...given.axisLabel } });
  return { animation: false, backgroundColor: "transparent", color: SERIES, textStyle: { color: text },
    aria: { enabled: true }, ...option,
    ...(option.xAxis && { xAxis: framed(option.xAxis) }), ...(option.yAxis && { yAxis: framed(option.yAxis) }),
    tooltip: { renderMode: "richText", confine: true, backgroundColor: colour("raised"), borderColor: line,
      textStyle: { color: text }, ...option.tooltip } };
}

/** Draw into an element; `option()` is asked again when the theme changes. Returns the chart. */
export function chart(element, option) {
  const made = echarts.init(element, null, { renderer: "canvas" });
  const draw = () => made.setOption(frame(option()), true);
  draw();
  new ResizeObserver(() => made.resize()).observe(element);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  return made;
}

/** A form whose choices are the page's state: loads the page with them in its address. */
export function choosing(form) {
  form.addEventListener("change", () => form.requestSubmit());
}
