// @ts-check
/** The frame of the page: sign-in, navigation, and the view of the address. */
import { apiKey, signOut } from "./api.js";
import { Toasts } from "./components/toast.js";
import { Loading } from "./components/basics.js";
import { html, useEffect } from "./html.js";
import { useResource } from "./resource.js";
import { href, route } from "./router.js";
import { toggleTheme } from "./theme.js";
import { SignIn } from "./views/sign_in.js";

/** Views by the first part of the address. Each is loaded when it is first shown. */
const VIEWS = {
  "": { load: () => import("./views/overview.js"), title: "Overview" },
  jobs: { load: () => import("./views/jobs.js"), title: "Jobs" },
  new: { load: () => import("./views/new_job.js"), title: "New job" },
  datasets: { load: () => import("./views/datasets.js"), title: "Data sets" },
  detectors: { load: () => import("./views/detectors.js"), title: "Detectors" },
  compare: { load: () => import("./views/compare.js"), title: "Compare" },
  sweeps: { load: () => import("./views/sweeps.js"), title: "Sweeps" },
  recipes: { load: () => import("./views/recipes.js"), title: "Recipes" },
  keys: { load: () => import("./views/keys.js"), title: "Keys and owners" },
};

export function App() {
  if (!apiKey.value) return html`<${SignIn} /><${Toasts} />`;
  return html`
    <a class="skip" href="#main" onClick=${focusMain}>Skip to the content</a>
    <div class="frame">
      <${Navigation} />
      <main id="main" tabindex="-1"><${View} key=${apiKey.value} /></main>
    </div>
    <${Toasts} />`;
}

/** @param {Event} event */
function focusMain(event) {
  event.preventDefault();
  document.getElementById("main")?.focus();
}

function Navigation() {
  const current = route.value.path[0] ?? "";
  return html`
    <nav class="navigation" aria-label="Views">
      <a class="brand" href="#/" aria-label="FRS distillation, overview"><img src="web/icon.svg" alt="" width="22" height="22" /> <span>FRS distillation</span></a>
      ${Object.entries(VIEWS).map(([name, view]) => html`
        <a href=${href(name ? [name] : [])} aria-current=${name === current ? "page" : undefined}>${view.title}</a>`)}
      <span class="grow"></span>
      <a href="docs" target="_blank" rel="noreferrer">REST API</a>
      <button class="quiet" onClick=${toggleTheme}>Light / dark</button>
      <button class="quiet" onClick=${() => signOut()}>Sign out</button>
    </nav>`;
}

function View() {
  const name = route.value.path[0] ?? "";
  const view = Object.hasOwn(VIEWS, name) ? VIEWS[/** @type {keyof typeof VIEWS} */ (name)] : null;
  const title = [...route.value.path.slice(1, 2), view?.title ?? "Not found"].join(" · ");
  useEffect(() => { document.title = `${title} · FRS`; }, [title]);
  if (!view) return html`<h1>Not found</h1><p>There is no view at this address. <a href="#/">Overview</a></p>`;
  return html`<${Loaded} key=${name} load=${view.load} />`;
}

/** A view, whose module is loaded when it is first shown. @param {{load: () => Promise<any>}} props */
function Loaded({ load }) {
  const module = useResource(load, []);
  return html`<${Loading} resource=${module}>${(/** @type {any} */ { View }) => html`<${View} />`}<//>`;
}
