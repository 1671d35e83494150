// @ts-check
/** Form fields that are generated from a JSON schema. A field that is empty is absent from the spec. */
import { Prose } from "../../components/prose.js";
import { html, useState } from "../../html.js";
import { plural, words } from "../../format.js";
import { firstSentence, formOf, initialValue, variantOf } from "./schema.js";

/** @typedef {import("./schema.js").Form} Form */
/**
 * @typedef {{definitions: import("./schema.js").Definitions, errors: {field: string, message: string, hint?: string}[],
 *   suggestions: Record<string, {value: string, label: string}[]>, yaml: any, titles?: Record<string, string>}} FormContext
 * `suggestions` are values for fields by their name, such as the names of the data sets for `dataset`, and texts for them; `titles` replace names.
 */
/** @typedef {{name: string, path: string, schema: any, value: any, required: boolean, onChange: (value: any) => void, context: FormContext}} FieldProps */

/**
 * The fields of an object, all or those of `names`.
 * @param {{schema: any, path?: string, value: any, onChange: (value: any) => void, context: FormContext, names?: string[]}} props
 */
export function ObjectFields({ schema, path = "", value, onChange, context, names = Object.keys(schema.properties) }) {
  const change = (/** @type {string} */ name, /** @type {any} */ item) => {
    const { [name]: _, ...others } = value ?? {};
    onChange(item === undefined ? others : { ...value, [name]: item });
  };
  return html`<div class="fields">${names.filter((name) => schema.properties[name]).map((name) => html`
    <${Field} key=${name} name=${name} path=${path ? `${path}.${name}` : name} schema=${schema.properties[name]} value=${value?.[name]}
      required=${schema.required?.includes(name) ?? false} onChange=${(/** @type {any} */ item) => change(name, item)} context=${context} />`)}</div>`;
}

/** @param {FieldProps} props */
function Field(props) {
  const form = formOf(props.schema, props.context.definitions);
  if (form.kind === "object") return html`<${Group} ...${props} form=${form} />`;
  if (form.kind === "variants") return html`<${Variants} ...${props} form=${form} />`;
  const errors = errorsOf(props.context, props.path, true);
  const id = fieldId(props.path);
  const input = { ...props, form, id, invalid: errors.length > 0 };
  const isLong = form.kind === "text" && props.path.includes("."); // names of files, configs and jobs
  const isListed = form.kind === "text" && props.context.suggestions[props.name]?.length > 0;
  const control = { boolean: Checkbox, choice: Choice }[/** @type {"boolean" | "choice"} */ (form.kind)] ?? (isListed ? Picker : TextInput);
  return html`
    <div class=${isLong ? "field long" : "field"}>
      <label for=${id}><${FieldName} name=${props.name} />${props.required && html` <span class="muted">(required)</span>`}</label>
      <${control} ...${input} />
      <${Notes} id=${id} description=${form.schema.description} errors=${errors} />
    </div>`;
}

/** The name of a field as text, and as it is in the YAML where that differs. @param {{name: string, title?: string}} props */
function FieldName({ name, title = words(name) }) {
  const text = title[0].toUpperCase() + title.slice(1);
  return html`${text}${text.toLowerCase() !== name && html` <small class="muted"><code>${name}</code></small>`}`;
}

/** @param {string} path */
const fieldId = (path) => `field-${path.replaceAll(".", "-")}`;

/** Return the errors of a field, and those below it if it has no fields of its own. @param {FormContext} context @param {string} path @param {boolean} below */
const errorsOf = (context, path, below = false) => context.errors.filter(({ field }) => field === path || (below && field.startsWith(`${path}.`)));

/** Description and errors of a field. @param {{id: string, description?: string, errors: {message: string, hint?: string}[]}} props */
function Notes({ id, description = "", errors }) {
  const [first, rest] = firstSentence(description);
  return html`
    <div id=${`${id}-notes`}>
      ${errors.map((error) => html`<div class="bad"><${Prose} text=${error.message} /></div>`)}
      ${rest ? html`<details class="hint"><summary><${Prose} text=${first} /></summary><${Prose} text=${rest} /></details>` : html`<div class="hint"><${Prose} text=${first} /></div>`}
    </div>`;
}

/** An object whose fields are all optional. @param {FieldProps & {form: Form}} props */
function Group({ name, path, value, onChange, context, form }) {
  const change = (/** @type {any} */ next) => onChange(Object.keys(next).length ? next : undefined);
  return html`
    <fieldset class="group"><legend><${FieldName} name=${name} /></legend>
      <${Notes} id=${fieldId(path)} errors=${errorsOf(context, path)} />
      <${ObjectFields} schema=${form.schema} path=${path} value=${value} onChange=${change} context=${context} />
    </fieldset>`;
}

/** A field with alternatives, such as a detector: a choice, then the fields of the chosen one. @param {FieldProps & {form: Form}} props */
function Variants({ name, path, value, required, onChange, context, form }) {
  const current = variantOf(form.variants, value ?? (form.nullable ? undefined : form.schema.default));
  const chosen = form.variants[current];
  const errors = errorsOf(context, path);
  const id = fieldId(path);
  const title = context.titles?.[path] ?? words(name);
  const choose = (/** @type {any} */ event) => onChange(event.target.value === "" ? undefined : initialValue(form.variants[event.target.value]));
  return html`
    <fieldset class="group"><legend><${FieldName} name=${name} title=${title} />${required && html` <span class="muted">(required)</span>`}</legend>
      <div class="field">
        <label for=${id} class="visually-hidden">${title}</label>
        <select id=${id} onChange=${choose} aria-invalid=${errors.length > 0} aria-describedby=${`${id}-notes`}>
          ${(current < 0 || !required) && form.schema.default === undefined && html`<option value="" selected=${current < 0}>${required ? "choose" : "none"}</option>`}
          ${form.variants.map((variant, index) => html`<option key=${index} value=${index} selected=${index === current}>${variant.label}</option>`)}
        </select>
        <${Notes} id=${id} description=${form.schema.description} errors=${errors} />
      </div>
      ${chosen?.schema && html`<${ObjectFields} key=${current} schema=${chosen.schema} path=${path} value=${value} onChange=${onChange} context=${context} names=${ownFields(chosen.schema)} />`}
    </fieldset>`;
}

/** Return the fields of a variant without a type that has one value only. @param {any} schema */
const ownFields = (schema) => Object.keys(schema.properties).filter((name) => schema.properties[name].const === undefined);

/** @typedef {FieldProps & {form: Form, id: string, invalid: boolean}} InputProps */

/** @param {InputProps} props */
function Checkbox({ id, value, form, onChange, invalid }) {
  return html`<input type="checkbox" id=${id} checked=${value ?? form.schema.default ?? false} aria-invalid=${invalid} aria-describedby=${`${id}-notes`}
    onChange=${(/** @type {any} */ event) => onChange(event.target.checked === (form.schema.default ?? false) ? undefined : event.target.checked)} />`;
}

/** @param {InputProps} props */
function Choice({ id, value, required, form, onChange, invalid }) {
  const { default: initial } = form.schema;
  return html`
    <select id=${id} aria-invalid=${invalid} aria-describedby=${`${id}-notes`} onChange=${(/** @type {any} */ event) => onChange(event.target.value || undefined)}>
      ${!(required && value) && html`<option value="" selected=${!value}>${initial ? `${initial} (default)` : required ? "choose" : "default"}</option>`}
      ${form.options.map((option) => html`<option key=${option} value=${option} selected=${option === value}>${option}</option>`)}
    </select>`;
}

/** A choice among what the service has, such as its data sets, or another name or id as text. @param {InputProps} props */
function Picker(props) {
  const { id, name, path, value, required, onChange, context, invalid } = props;
  const items = context.suggestions[name];
  const [isText, setText] = useState(Boolean(value) && !items.some((item) => item.value === value));
  if (isText) return html`<${TextInput} ...${props} /> <button type="button" class="quiet" onClick=${() => { setText(false); onChange(required ? "" : undefined); }}>Choose from the list</button>`;
  const choose = (/** @type {any} */ event) => (event.target.selectedIndex > items.length ? setText(true) : onChange(event.target.value || (required ? "" : undefined)));
  return html`
    <select id=${id} aria-invalid=${invalid} aria-describedby=${`${id}-notes`} onChange=${choose}>
      <option value="" selected=${!value}>${required ? `choose a ${words(path.split(".")[0])}` : "none"}</option>
      ${items.map((item) => html`<option key=${item.value} value=${item.value} selected=${item.value === value}>${item.label}</option>`)}
      <option>another, by its id</option>
    </select>`;
}

/** A number, a text, a list or YAML as text. @param {InputProps} props */
function TextInput({ id, value, required, form, onChange, context, invalid }) {
  const [draft, setDraft] = useState(/** @type {string | null} */ (null));
  const [problem, setProblem] = useState("");
  const { default: initial } = form.schema;
  const input = (/** @type {any} */ event) => {
    setDraft(event.target.value);
    try {
      onChange(parse(event.target.value, form, required, context.yaml));
      setProblem("");
    } catch (/** @type {any} */ error) {
      setProblem(error.reason ?? error.message);
    }
  };
  return html`
    <input id=${id} value=${draft ?? write(value, form, context.yaml)} placeholder=${isMissing(initial) ? "" : `${write(initial, form, context.yaml)} (default)`}
      inputmode=${form.kind === "number" ? "decimal" : undefined} list=${form.options.length ? `${id}-list` : undefined} autocomplete="off"
      aria-invalid=${invalid || problem !== ""} aria-describedby=${`${id}-notes`} onInput=${input} onBlur=${() => !problem && setDraft(null)} />
    ${problem && html`<div class="bad">This is not YAML: ${problem}</div>`}
    ${form.options.length > 0 && html`<datalist id=${`${id}-list`}>${form.options.map((option) => html`<option key=${option} value=${option} />`)}</datalist>`}`;
}

/** @param {any} value */
const isMissing = (value) => value === undefined || value === null || (typeof value === "object" && Object.keys(value).length === 0);

/** Return a value as the text of its input. @param {any} value @param {Form} form @param {any} yaml @returns {string} */
function write(value, form, yaml) {
  if (value === undefined) return "";
  if (value !== null && typeof value === "object") return form.kind === "list" && Array.isArray(value) ? value.join(", ") : yaml.dump(value, { flowLevel: 0, lineWidth: -1 }).trim();
  return String(value);
}

/** Return the value of an input's text. Throws if it is not YAML. @param {string} text @param {Form} form @param {boolean} required @param {any} yaml @returns {any} */
function parse(text, form, required, yaml) {
  const trimmed = text.trim();
  if (trimmed === "") return required ? "" : undefined;
  if (trimmed === "null" && form.nullable && form.kind !== "text") return null;
  if (form.kind === "yaml") return yaml.load(trimmed);
  if (form.kind === "list") return trimmed.split(/,|(?<=\d)\s*[x×]\s*(?=\d)/).map((item) => item.trim()).filter(Boolean).map((item) => ((form.schema.items ?? form.schema.prefixItems?.[0])?.type === "string" ? item : numberOrText(item)));
  return form.kind === "text" ? text : numberOrText(trimmed);
}

/** @param {string} text */
const numberOrText = (text) => (Number.isFinite(Number(text)) ? Number(text) : text);

/** Fields that most jobs leave as they are, folded away. @param {{title: string, names: string[], schema: any, path?: string, value: any, onChange: (value: any) => void, context: FormContext}} props */
export function Folded({ title, ...props }) {
  const { names, path, value, context } = props;
  const set = names.filter((name) => value?.[name] !== undefined).length;
  const errors = context.errors.filter(({ field }) => names.some((name) => `${field}.`.startsWith(`${path ? `${path}.` : ""}${name}.`))).length;
  const [isOpen, setOpen] = useState(false);
  if (!names.length) return null;
  return html`
    <details class="folded" open=${isOpen || errors > 0} onToggle=${(/** @type {any} */ event) => setOpen(event.currentTarget.open)}>
      <summary>${title}${set > 0 && html` <span class="muted">${plural(set, "field")} set</span>`}${errors > 0 && html` <span class="bad">${plural(errors, "error")}</span>`}</summary>
      <${ObjectFields} ...${props} />
    </details>`;
}
