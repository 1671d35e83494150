// @ts-check
/** Data that only some keys may read. */
import { Loading } from "../../components/basics.js";
import { html } from "../../html.js";

/** As `Loading`, with a plain message if the scopes of the key do not suffice. @param {{resource: any, children: (data: any) => any}} props */
export function Allowed({ resource, children }) {
  if (resource.error?.code === "scope_missing") {
    return html`<p class="empty">The key of this tab may not read this: it needs the scope <code>admin</code>. Ask an operator, or sign in with an admin key.</p>`;
  }
  return html`<${Loading} resource=${resource}>${children}<//>`;
}
