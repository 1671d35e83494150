// @ts-check
/** Charts by ECharts, which is loaded with the first one. `.ci/echarts.js` lists the chart types and components that are there. */
import { html, useEffect, useRef, useState } from "../html.js";
import { isDark } from "../theme.js";

/** Colours that colour-blind readers can tell apart (Okabe and Ito); the roles have the same ones in every picture. */
export const COLOURS = { teacher: "#7a7a7a", baseline: "#d55e00", student: "#0072b2", gain: "#009e73" };
export const PALETTE = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d00", "#7a7a7a"];

/**
 * A chart. `option` is one of ECharts (https://echarts.apache.org/en/option.html); `label` says what a reader who cannot
 * see it should know. `onReady` receives ECharts' instance, e.g. to save it as a picture.
 * @param {{option: any, label: string, height?: number, onReady?: (chart: any) => void}} props
 */
export function Chart({ option, label, height = 280, onReady }) {
  const element = useRef(/** @type {any} */ (null));
  const chart = useRef(/** @type {any} */ (null));
  const latest = useRef(option);
  latest.current = option;
  const [failure, setFailure] = useState("");
  const dark = isDark.value;

  useEffect(() => {
    let observer = /** @type {ResizeObserver | null} */ (null);
    let gone = false;
    import("../vendor/echarts.js").then((echarts) => {
      if (gone) return;
      chart.current = /** @type {any} */ (echarts).init(element.current, dark ? "dark" : null);
      chart.current.setOption(complete(latest.current), true);
      onReady?.(chart.current);
      observer = new ResizeObserver(() => chart.current?.resize());
      observer.observe(element.current);
    }).catch((error) => { if (!gone) setFailure(String(error)); });
    return () => {
      gone = true;
      observer?.disconnect();
      chart.current?.dispose();
      chart.current = null;
    };
  }, [dark]);
  useEffect(() => { chart.current?.setOption(complete(option), { replaceMerge: ["series"] }); }, [option]);

  if (failure) return html`<p class="problem" role="alert">The chart cannot be drawn: ${failure}. Reload the page.</p>`;
  return html`<div class="chart" ref=${element} role="img" aria-label=${label} style=${{ height: `${height}px` }}></div>`;
}

/** Add what all charts share. Tooltips are drawn, not made of HTML: the content security policy allows no inline style. @param {any} option */
function complete(option) {
  return {
    animation: false,
    backgroundColor: "transparent",
    color: PALETTE,
    textStyle: { fontFamily: "system-ui, sans-serif" },
    ...option,
    grid: { left: 8, right: 16, top: 34, bottom: 8, outerBoundsMode: "same", outerBoundsContain: "axisLabel", ...option.grid },
    tooltip: { renderMode: "richText", confine: true, ...option.tooltip },
  };
}
