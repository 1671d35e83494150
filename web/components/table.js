// @ts-check
/** A table whose columns can be sorted and whose rows can be selected. */
import { html } from "../html.js";

/**
 * @template T
 * @typedef {{name: string, title: any, cell: (row: T) => any, numeric?: boolean, sort?: (row: T) => any}} Column
 * `sort` returns the value that the column is sorted by; a column without it is not sortable.
 */

/**
 * @param {{label: string, columns: Column<any>[], rows: any[], rowKey: (row: any) => string, order?: string,
 *   onOrder?: (order: string) => void, selected?: Set<string>, onSelect?: (selected: Set<string>) => void, empty?: any}} props
 * `order` is the name of a column, with a leading "-" for descending order.
 */
export function Table({ label, columns, rows, rowKey, order = "", onOrder, selected, onSelect, empty = "Nothing here yet." }) {
  const name = order.replace(/^-/, "");
  const column = columns.find((item) => item.name === name);
  const sorted = column?.sort ? sortRows(rows, column.sort, order.startsWith("-")) : rows;
  const keys = rows.map(rowKey);
  const all = keys.length > 0 && keys.every((key) => selected?.has(key));

  /** @param {string} key */
  const toggle = (key) => {
    const next = new Set(selected);
    if (!next.delete(key)) next.add(key);
    onSelect?.(next);
  };
  if (!rows.length) return html`<p class="empty">${empty}</p>`;
  return html`
    <div class="scroll" tabindex="0" role="region" aria-label=${label}>
      <table>
        <caption class="visually-hidden">${label}</caption>
        <thead><tr>
          ${selected && html`<th class="select"><input type="checkbox" aria-label="Select all" checked=${all}
            onChange=${() => onSelect?.(new Set(all ? [] : keys))} /></th>`}
          ${columns.map((item) => html`<th key=${item.name} class=${item.numeric ? "numeric" : ""}
            aria-sort=${item.name !== name ? undefined : order.startsWith("-") ? "descending" : "ascending"}>
            ${item.sort && onOrder
              ? html`<button class="sort" onClick=${() => onOrder(order === item.name ? `-${item.name}` : item.name)}>${item.title}<span aria-hidden="true">${item.name !== name ? "" : order.startsWith("-") ? " ↓" : " ↑"}</span></button>`
              : item.title}</th>`)}
        </tr></thead>
        <tbody>${sorted.map((row) => html`
          <tr key=${rowKey(row)} class=${selected?.has(rowKey(row)) ? "selected" : ""}>
            ${selected && html`<td class="select"><input type="checkbox" aria-label=${`Select ${rowKey(row)}`} checked=${selected.has(rowKey(row))} onChange=${() => toggle(rowKey(row))} /></td>`}
            ${columns.map((item) => html`<td key=${item.name} class=${item.numeric ? "numeric" : ""}>${item.cell(row)}</td>`)}
          </tr>`)}</tbody>
      </table>
    </div>`;
}

/** Sort rows; missing values come last. @param {any[]} rows @param {(row: any) => any} value @param {boolean} descending */
function sortRows(rows, value, descending) {
  const direction = descending ? -1 : 1;
  return [...rows].sort((a, b) => {
    const [left, right] = [value(a), value(b)];
    if (left === right) return 0;
    if (left === null || left === undefined) return 1;
    if (right === null || right === undefined) return -1;
    return direction * (typeof left === "string" ? left.localeCompare(right, "en", { numeric: true }) : left - right);
  });
}
