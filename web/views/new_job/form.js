// @ts-check
/** The form of a job spec: the fields that every job needs first, the others folded away. */
import { html, useMemo } from "../../html.js";
import { Folded, ObjectFields } from "./fields.js";
import { resolve } from "./schema.js";

/** @typedef {import("./fields.js").FormContext} FormContext */

const FIRST = ["name", "kind", "dataset", "teacher", "student", "baseline", "method"];
const FIRST_OF_SCHEDULE = ["epochs", "batch_size", "image_size", "optimizer"];
const SECTIONS = { distillation: "Distillation", export: "Export", evaluation: "Evaluation", resources: "Devices and limits" };
/** Fields that a kind of job does not use. They are shown if the spec has them. */
const UNUSED = {
  distill: ["export"],
  train: ["teacher", "baseline", "method", "unlabelled", "distillation", "export"],
  quantize: ["baseline", "export"],
  evaluate: ["teacher", "baseline", "method", "unlabelled", "distillation", "export"],
  export: ["teacher", "baseline", "method", "unlabelled", "distillation"],
};

/** @param {{spec: any, onChange: (spec: any) => void, context: FormContext}} props */
export function SpecForm({ spec, onChange, context }) {
  const kind = spec.kind ?? context.definitions.JobSpec.properties.kind.default;
  const isDistilled = kind === "distill";
  const schema = useMemo(() => submittable(context.definitions.JobSpec, isDistilled), [context.definitions, isDistilled]);
  const unused = UNUSED[/** @type {keyof typeof UNUSED} */ (kind)] ?? [];
  const isShown = (/** @type {string} */ name) => spec[name] !== undefined || !unused.includes(name);
  const placed = [...FIRST, "schedule", ...Object.keys(SECTIONS)];
  const others = Object.keys(schema.properties).filter((name) => !placed.includes(name) && isShown(name));
  const props = { schema, value: spec, onChange, context: { ...context, titles: isDistilled ? {} : { student: "detector" } } };
  return html`
    <form onSubmit=${(/** @type {Event} */ event) => event.preventDefault()}>
      <section class="card"><h2>Job</h2><${ObjectFields} ...${props} names=${FIRST.filter(isShown)} /></section>
      <section class="card"><h2>Schedule</h2><${Schedule} ...${props} /></section>
      <section class="card"><h2>More</h2>
        ${Object.entries(SECTIONS).filter(([name]) => isShown(name)).map(([name, title]) => html`<${Section} key=${name} name=${name} title=${title} ...${props} />`)}
        <${Folded} title="Queue, tags and data" ...${props} names=${others} />
      </section>
    </form>`;
}

/** Return the schema without the kind of job that only the service creates, and with the teacher that a distillation requires. @param {any} schema @param {boolean} isDistilled */
function submittable(schema, isDistilled) {
  const { kind } = schema.properties;
  return { ...schema, required: isDistilled ? [...schema.required, "teacher"] : schema.required, properties: { ...schema.properties, kind: { ...kind, enum: kind.enum.filter((/** @type {string} */ name) => name !== "compare") } } };
}

/** @typedef {{schema: any, value: any, onChange: (value: any) => void, context: FormContext}} SpecProps */

/** Return the props of one object of the spec; an empty object is removed. @param {SpecProps} props @param {string} name */
function part({ schema, value, onChange, context }, name) {
  const change = (/** @type {any} */ next) => {
    const { [name]: _, ...others } = value;
    onChange(Object.keys(next).length ? { ...value, [name]: next } : others);
  };
  return { schema: resolve(schema.properties[name], context.definitions), path: name, value: value[name], onChange: change, context };
}

/** @param {SpecProps} props */
function Schedule(props) {
  const schedule = part(props, "schedule");
  const others = Object.keys(schedule.schema.properties).filter((name) => !FIRST_OF_SCHEDULE.includes(name));
  return html`
    <${ObjectFields} ...${schedule} names=${FIRST_OF_SCHEDULE} />
    <${Folded} title="Other fields of the schedule" ...${schedule} names=${others} />`;
}

/** @param {SpecProps & {name: string, title: string}} props */
function Section({ name, title, ...props }) {
  const section = part(props, name);
  return html`<${Folded} title=${title} ...${section} names=${Object.keys(section.schema.properties)} />`;
}
