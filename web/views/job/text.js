// @ts-check
/** Text of the API in which `backticks` mark code. */
import { html } from "../../html.js";

/** @param {{text: string}} props */
export const Text = ({ text }) => text.split("`").map((part, index) => (index % 2 ? html`<code>${part}</code>` : part));
