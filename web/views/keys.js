// @ts-check
/** Keys and owners: API keys, webhooks, disk usage by owner, and the audit trail. */
import { Tabs } from "../components/basics.js";
import { html } from "../html.js";
import { href, route } from "../router.js";
import { Audit } from "./keys/audit.js";
import { Keys } from "./keys/keys.js";
import { Usage } from "./keys/usage.js";
import { Webhooks } from "./keys/webhooks.js";

const PARTS = { "": { title: "API keys", part: Keys }, webhooks: { title: "Webhooks", part: Webhooks }, usage: { title: "Usage by owner", part: Usage }, audit: { title: "Audit trail", part: Audit } };

export function View() {
  const name = route.value.path[1] ?? "";
  const { part } = PARTS[/** @type {keyof typeof PARTS} */ (name)] ?? PARTS[""];
  const items = Object.entries(PARTS).map(([name, { title }]) => ({ name, title, address: href(["keys", ...(name ? [name] : [])]) }));
  return html`
    <h1>Keys and owners</h1>
    <${Tabs} label="Parts" items=${items} current=${name} />
    <${part} />`;
}
