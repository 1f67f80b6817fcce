// Elements are made here, and text only ever becomes text.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Make an element. `props`: `class`, `on` ({click: …}), `data` ({…}), true or false for attributes
 * that are there or not, and every other attribute by its name. Children that are null or false are
 * left out.
 */
export function el(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

/** Put `children` in place of what is in `node`. */
export function show(node, ...children) {
  node.replaceChildren(...kept(children));
  return node;
}

/** Set the text of `node` if it is another, so that screen readers and selections are left alone. */
export function say(node, text) {
  const wanted = String(text);
  if (node.textContent !== wanted) node.textContent = wanted;
}

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    } else if (name === "data") {
      Object.assign(node.dataset, value);
    } else if (name === "value") {
      node.value = value;
    } else {
      node.setAttribute(name, value === true ? "" : value);
    }
  }
  node.append(...kept(children));
  return node;
}

function kept(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}
