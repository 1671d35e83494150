// What the page uses of ECharts. `.ci/vendor.py` bundles it into web/vendor/echarts.js; anything else of ECharts is not drawn.
import { BarChart, CustomChart, LineChart, ScatterChart } from "echarts/charts";
import { GridComponent, LegendComponent, MarkLineComponent, TooltipComponent } from "echarts/components";
import { init, use } from "echarts/core";
import { LabelLayout } from "echarts/features";
import { CanvasRenderer } from "echarts/renderers";

use([BarChart, CanvasRenderer, CustomChart, GridComponent, LabelLayout, LegendComponent, LineChart, MarkLineComponent, ScatterChart, TooltipComponent]);
export { init };
