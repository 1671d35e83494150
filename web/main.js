// @ts-check
/** Start the page. */
import { html, render } from "./html.js";
import { App } from "./app.js";

render(html`<${App} />`, /** @type {Element} */ (document.getElementById("app")));
