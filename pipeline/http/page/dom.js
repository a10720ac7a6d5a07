// Builds and updates elements. All text becomes text nodes: nothing that comes from data is ever parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else attr(node, name, value);
  }
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === "") continue;
    node.append(child);
  }
  return node;
}

/** An HTML element. A property that begins with "on" is a listener, any other one an attribute. */
export const h = (tag, props, ...children) => fill(document.createElement(tag), props, children);

/** An SVG element. */
export const s = (tag, props, ...children) => fill(document.createElementNS(SVG, tag), props, children);

/** Set or remove an attribute, only if it changes. */
export function attr(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

/** Set the text, only if it changes: so a selection of the reader is kept. */
export function text(node, value) {
  if (node.textContent !== value) node.textContent = value;
}

/**
 * Make the children of `parent` show `items`, with one child for each key. Children are kept, and moved only if their
 * order has changed: so focus, selection and scroll positions are kept.
 */
export function keyed(parent, items, keyOf, create, update) {
  const known = new Map();
  for (const child of [...parent.children]) {
    if (child.shownKey === undefined) child.remove();
    else known.set(child.shownKey, child);
  }
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    let child = known.get(key);
    if (child === undefined) {
      child = create(item);
      child.shownKey = key;
    } else known.delete(key);
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
    update?.(child, item);
  }
  for (const child of known.values()) child.remove();
}

/** Call `build` and put its result into `parent`, only if `value` differs from the last time. */
export function rebuilt(parent, value, build) {
  const mark = JSON.stringify(value);
  if (parent.shownValue === mark) return;
  parent.shownValue = mark;
  parent.replaceChildren(...[build()].flat());
}

/** A paragraph for a list without entries. */
export const empty = (...children) => h("p", { class: "empty" }, ...children);

/** A command that can be copied. */
export function command(words) {
  const button = h("button", { type: "button", class: "copy", "aria-label": `Copy: ${words}` }, "Copy");
  const line = h("span", { class: "command" }, h("code", {}, words));
  if (navigator.clipboard) {
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(words);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    line.append(button);
  }
  return line;
}
