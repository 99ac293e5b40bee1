const percent = (p) => (p === null ? "" : `${(100 * p).toFixed(1)} %`);

function render({ model, el }) {
  const tokens = model.get("tokens");
  const details = element("div", { class: "sgl-note sgl-details", "aria-live": "polite" }, "Arrow keys go from token to token.");
  const spans = tokens.map((token, index) =>
    element(
      "span",
      {
        class: "sgl-token",
        role: "option",
        tabindex: index === 0 ? 0 : -1,
        "data-origin": token.origin,
        "data-cached": token.cached,
        "aria-selected": "false",
        style: `--sgl-doubt: ${token.probability === null ? 0 : 55 * (1 - token.probability)}%`,
        click: () => select(index),
        focus: () => show(index),
        keydown: (event) => move(event, index),
      },
      token.text,
    ),
  );

  function show(index) {
    const token = tokens[index];
    spans.forEach((span, other) => {
      span.setAttribute("aria-selected", String(other === index));
      span.tabIndex = other === index ? 0 : -1;
    });
    const facts = [
      JSON.stringify(token.text),
      percent(token.probability),
      token.cached ? "from the cache" : token.origin,
      token.milliseconds === null ? "" : `${token.milliseconds.toFixed(1)} ms`,
    ].filter(Boolean);
    const rows = token.alternatives.map(([text, p]) =>
      element("tr", { style: `--sgl-share: ${100 * p}%` }, element("td", {}, element("code", {}, JSON.stringify(text))), element("td", {}, percent(p))),
    );
    details.replaceChildren(element("div", {}, facts.join(" · ")), element("table", { class: "sgl-alternatives" }, ...rows));
  }

  function select(index) {
    spans[index]?.focus();
  }

  function move(event, index) {
    const target = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: spans.length - 1 }[event.key];
    if (target === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    select(Math.max(0, Math.min(spans.length - 1, target)));
  }

  const list = element("div", { class: "sgl-tokens", role: "listbox", "aria-label": "Tokens" }, ...spans);
  el.append(element("div", { class: "sgl-tool sgl-inspector" }, list, details));
}

export default { render };
