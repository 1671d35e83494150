// @ts-check
/** Light and dark: as the system, unless the user has chosen. */
import { signal } from "./html.js";

const NAME = "frs-theme";
const system = matchMedia("(prefers-color-scheme: dark)");
const initial = localStorage.getItem(NAME) ?? "";

/** Whether the page is dark; charts are drawn again when it changes. */
export const isDark = signal(initial ? initial === "dark" : system.matches);

function apply() {
  document.documentElement.style.colorScheme = isDark.value ? "dark" : "light";
}

export function toggleTheme() {
  isDark.value = !isDark.value;
  localStorage.setItem(NAME, isDark.value ? "dark" : "light");
  apply();
}

system.addEventListener("change", () => {
  if (localStorage.getItem(NAME)) return;
  isDark.value = system.matches;
  apply();
});
apply();
