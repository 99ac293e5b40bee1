const SAMPLES = 60;

const bytes = (n) => (n === null ? "" : n >= 1e9 ? `${(n / 1e9).toFixed(1)} GB` : `${Math.round(n / 1e6)} MB`);

/** The last minute's throughput as a line, the highest value at the top. */
function plot(values) {
  const namespace = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(namespace, "svg");
  const line = document.createElementNS(namespace, "polyline");
  const highest = Math.max(1, ...values);
  const points = values.map((value, i) => `${(100 * i) / (SAMPLES - 1)},${(22 - (20 * value) / highest).toFixed(1)}`);
  line.setAttribute("points", points.join(" "));
  line.setAttribute("fill", "none");
  line.setAttribute("stroke", "currentColor");
  line.setAttribute("vector-effect", "non-scaling-stroke");
  svg.setAttribute("class", "sgl-plot");
  svg.setAttribute("viewBox", "0 0 100 24");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `tokens per second, up to ${highest.toFixed(0)} in the last minute`);
  svg.append(line);
  return svg;
}

function render({ model, el }) {
  const choices = element("datalist", { id: `sgl-models-${Math.random().toString(36).slice(2)}` });
  const name = element("input", { list: choices.id, placeholder: "tiny-chat, a folder, or a hub id", size: 36 });
  const body = element("tbody");
  const headings = ["engine", "model", "state", "memory", "requests", "tokens/s", "", "used by", ""].map((words) => element("th", {}, words));
  const table = element("table", { hidden: true }, element("thead", {}, element("tr", {}, ...headings)), body);
  const note = element("div", { class: "sgl-note", role: "status" }, "No engine is running.");
  const log = element("pre", { class: "sgl-log", tabindex: 0, "aria-label": "log", hidden: true });
  const speeds = new Map();
  const rows = new Map();

  const say = (words, failed = false) => {
    note.textContent = words;
    note.classList.toggle("sgl-error", failed);
  };
  const ask = (kind, { id, name }) => element("button", { type: "button", "aria-label": `${kind} ${name}`, click: () => model.send({ kind, id }) }, kind);

  function launch() {
    say(`launching ${name.value}`);
    model.send({ kind: "launch", model: name.value });
  }

  /** One row for each engine, whose buttons stay the same elements, so that the focus does too. */
  function row(engine) {
    if (!rows.has(engine.id)) {
      const cells = Array.from({ length: 8 }, () => element("td"));
      const buttons = element("td", { class: "sgl-actions" }, ...["use", "log", "stop", "terminate"].flatMap((kind) => [ask(kind, engine), " "]));
      rows.set(engine.id, { cells, line: element("tr", {}, ...cells, buttons) });
      speeds.set(engine.id, []);
    }
    return rows.get(engine.id);
  }

  const quit = converse(model, {
    models: ({ models }) => choices.replaceChildren(...models.map((each) => element("option", { value: each.name }))),
    engines: ({ engines }) => {
      for (const engine of engines) {
        const { cells } = row(engine);
        const history = speeds.get(engine.id);
        history.push(engine.requests ? (engine.tokens_per_second ?? 0) : 0);
        if (history.length > SAMPLES) history.shift();
        const words = [engine.name, engine.model, engine.state, bytes(engine.memory), engine.requests ?? "", history.at(-1).toFixed(0)];
        words.forEach((text, i) => (cells[i].textContent = text));
        cells[6].replaceChildren(plot(history));
        cells[7].textContent = engine.users;
      }
      const known = new Set(engines.map((engine) => engine.id));
      [...rows.keys()].filter((id) => !known.has(id)).forEach((id) => rows.delete(id));
      const lines = engines.map((engine) => rows.get(engine.id).line);
      if (lines.length !== body.children.length || lines.some((line, i) => body.children[i] !== line)) body.replaceChildren(...lines);
      table.hidden = engines.length === 0;
      if (!note.classList.contains("sgl-error")) say(engines.length ? "" : "No engine is running.");
    },
    log: ({ name: engine, text }) => {
      const follow = log.scrollTop + log.clientHeight >= log.scrollHeight - 4;
      log.hidden = text === "";
      if (log.textContent !== text) log.textContent = text;
      log.setAttribute("aria-label", `log of ${engine}`);
      if (follow) log.scrollTop = log.scrollHeight;
    },
    error: ({ message }) => say(message, true),
  });

  const keys = (event) => {
    event.stopPropagation(); // what is typed here is no command of the notebook's
    if (event.key === "Enter" && event.target === name) launch();
  };
  el.append(
    element(
      "div",
      { class: "sgl-tool", keydown: keys },
      element("div", { class: "sgl-row" }, labelled("model", name), choices, element("button", { type: "button", class: "sgl-main", click: launch }, "Launch"), note),
      table,
      log,
    ),
  );
  return quit;
}

export default { render };
