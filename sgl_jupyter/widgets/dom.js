// What the tools' pages are made with. Everything that is shown is a text node: no text of a model is ever read as markup.

/** An element with attributes (functions become listeners) and children (strings become text). */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children);
  return made;
}

/** A labelled control, the label above it. */
function labelled(words, control, attributes = {}) {
  return element("label", { class: "sgl-field", ...attributes }, element("span", {}, words), control);
}

/** Calls the handler of each message's kind, and tells the kernel that somebody listens. Returns what stops that. */
function converse(model, handlers) {
  const receive = (content) => handlers[content.kind]?.(content);
  model.on("msg:custom", receive);
  model.send({ kind: "ready" });
  return () => model.off("msg:custom", receive);
}
