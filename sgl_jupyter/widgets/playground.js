function render({ model, el }) {
  const prompt = element("textarea", { rows: 3, spellcheck: "false" });
  const mode = element("select", {}, element("option", { value: "chat" }, "chat message"), element("option", { value: "text" }, "text to continue"));
  const number = (value, attributes) => element("input", { type: "number", value, ...attributes });
  const temperature = number(1, { min: 0, max: 5, step: 0.1 });
  const maxTokens = number(128, { min: 1, step: 1 });
  const samples = number(1, { min: 1, max: 8, step: 1 });
  const kinds = ["none", "regex", "json_schema", "ebnf"].map((kind) => element("option", { value: kind }, kind));
  const constraint = element("select", { change: () => toggle() }, ...kinds);
  const pattern = element("textarea", { rows: 2, spellcheck: "false" });
  const patternField = labelled("constraint", pattern, { class: "sgl-field sgl-wide", hidden: true });
  const run = element("button", { type: "button", class: "sgl-main", click: () => start() }, "Run");
  const stop = element("button", { type: "button", disabled: true, click: () => model.send({ kind: "stop" }) }, "Stop");
  const copy = element("button", { type: "button", click: () => model.send({ kind: "copy", trial: trial() }) }, "Copy as %%sgl");
  const note = element("div", { class: "sgl-note", role: "status" }, "Ctrl+Enter runs.");
  const results = element("div", { class: "sgl-samples" });
  let outputs = [];

  const toggle = () => (patternField.hidden = constraint.value === "none");
  const trial = () => ({
    prompt: prompt.value,
    chat: mode.value === "chat",
    temperature: Number(temperature.value),
    max_tokens: Number(maxTokens.value),
    samples: Number(samples.value),
    constraint: constraint.value,
    pattern: pattern.value,
  });
  const say = (words, failed = false) => {
    note.textContent = words;
    note.classList.toggle("sgl-error", failed);
  };
  const busy = (running) => {
    run.disabled = running;
    stop.disabled = !running;
  };

  function start() {
    if (run.disabled) return;
    busy(true);
    say("waiting for the engine");
    model.send({ kind: "run", trial: trial() });
  }

  async function hand(text) {
    try {
      await navigator.clipboard.writeText(text);
      say("Copied.");
    } catch {
      const shown = element("textarea", { rows: text.split("\n").length, readonly: true });
      shown.value = text;
      results.replaceChildren(shown);
      shown.select();
      say("The clipboard is out of reach: copy this.");
    }
  }

  const quit = converse(model, {
    started: ({ samples }) => {
      outputs = Array.from({ length: samples }, () => ({ text: element("mark"), end: element("span", { class: "sgl-note" }) }));
      results.replaceChildren(...outputs.map(({ text, end }) => element("div", { class: "sgl-sample" }, element("pre", {}, text), end)));
      say("generating");
    },
    delta: ({ sample, text, outcome }) => {
      outputs[sample]?.text.append(text);
      if (outcome && outcome !== "done") outputs[sample]?.end.append(outcome);
    },
    ended: ({ seconds }) => {
      busy(false);
      say(`done in ${seconds} s`);
    },
    error: ({ message }) => {
      busy(false);
      say(message, true);
    },
    cell: ({ text }) => hand(text),
  });

  const keys = (event) => {
    event.stopPropagation(); // what is typed here is no command of the notebook's
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      start();
    }
  };
  el.append(
    element(
      "div",
      { class: "sgl-tool", keydown: keys },
      element("div", { class: "sgl-row" }, labelled("prompt", prompt, { class: "sgl-field sgl-wide" })),
      element(
        "div",
        { class: "sgl-row" },
        labelled("as", mode),
        labelled("temperature", temperature),
        labelled("max tokens", maxTokens),
        labelled("samples", samples),
        labelled("constraint kind", constraint),
        patternField,
      ),
      element("div", { class: "sgl-row" }, run, stop, copy),
      note,
      results,
    ),
  );
  return quit;
}

export default { render };
