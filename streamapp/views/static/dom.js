// Small helpers around the page. Text from feeds only ever becomes text: nothing here, or anywhere, sets HTML.

/** The element of that id. */
export const byId = (id) => document.getElementById(id);

/** A new element with a class, text and children. */
export function make(tag, { className = "", text = null, ...attributes } = {}, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== null) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Set text only when it differs, so that an unchanged cell costs no layout. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Show a number: as text for people, and as it came from the server in `data-value`. */
export function setNumber(element, value, text) {
  const raw = value === null || value === undefined ? "" : String(value);
  if (element.dataset.value !== raw) element.dataset.value = raw;
  setText(element, text);
}

/** Show or hide. */
export function show(element, visible) {
  element.hidden = !visible;
}
