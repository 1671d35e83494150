// @ts-check
/** Text of the API in which `code` is set in backticks. */
import { html } from "../html.js";

/** @param {{text: string | null | undefined}} props */
export function Prose({ text }) {
  const parts = (text ?? "").split(/`([^`]+)`/);
  return parts.map((part, index) => (index % 2 ? html`<code>${part}</code>` : part));
}
