// Making elements. Text is only ever put in as text, and attributes as attributes: there is no way here to put in HTML,
// and the page's Content-Security-Policy forbids it besides.

const SVG = "http://www.w3.org/2000/svg";

/** An element: `h("button", {class: "button", onclick: go}, "Go")`. Properties that are null, undefined or false are left out. */
export function h(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** The same for SVG. */
export function s(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" && "value" in element) element.value = value;
    else if (name === "checked" || name === "selected" || name === "open") element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  put(element, ...children);
  return element;
}

/** Add children: elements, texts, and arrays of such; nothing for null, undefined and false. */
export function put(element, ...children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
  return element;
}

/** Put these in place of what was there. */
export function show(element, ...children) {
  element.replaceChildren();
  return put(element, ...children);
}

let counter = 0;

/** An id that no other element has. */
export function unique(word = "id") {
  counter += 1;
  return `${word}-${counter}`;
}
