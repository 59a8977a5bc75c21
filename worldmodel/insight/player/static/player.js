// A dream to drive: one component for page and notebook. `model` is anywidget's, or what the page gives for it.
// Every message that is sent gets one answer, in order; messages.py says which.

const HELP = "A dream begins in a real frame and is shown no image after it. Every member predicts the next state from "
  + "the dreamt one: where their pictures differ, the dream is coloured. Uncertainty above 1 is more than usual.";
const DRIVER_KEYS = ["m", "n", "p"], FASTEST = 60, USUAL = 10, ME = "me"; // frames/s

class Player {
  constructor(model, el) {
    this.model = model;
    this.view = Math.random().toString(36).slice(2); // a widget may be shown twice
    this.root = make("div", { className: "wm-player", tabIndex: 0 }, "Waiting for the world model \u2026");
    el.append(this.root);
    Object.assign(this, { waiting: 0, due: 0, playing: false, touched: false, who: ME });
    Object.assign(this, { times: [], start: [0, 0], groups: [] });
    this.receive = (content, buffers) => this.take(content, buffers);
    model.on("msg:custom", this.receive);
    this.ask({ type: "hello" });
  }

  leave() {
    clearTimeout(this.timer);
    this.model.off("msg:custom", this.receive);
  }

  ask(content) {
    this.waiting += 1;
    this.model.send({ ...content, view: this.view });
  }

  take(content, buffers) {
    if (content.view !== undefined && content.view !== this.view) return;
    this.waiting -= 1;
    const { setup, strip, frame, error, end } = this;
    ({ setup, strip, frame, error, refused: end, closed: end })[content.type].call(this, content, buffers);
    this.tick();
  }

  error({ text }) {
    this.play(false);
    this.alert.textContent = text;
  }

  end({ text }) {
    if (this.over) return;
    this.over = true;
    this.root.prepend(make("p", { className: "wm-error", role: "alert" }, text));
  }

  // what there is to see

  setup({ action, drivers, episodes, strong, name }) {
    this.keys = new Keys(action.discrete ? 0 : action.size);
    Object.assign(this, { spec: action, episodes, action: this.keys.action });
    if (action.discrete) this.action = [1, ...Array(action.size - 1).fill(0)];
    this.root.dataset.step = 0;
    const canvas = (name, ariaLabel) =>
      (this[name] = make("canvas", { className: `wm-${name}`, ariaLabel, role: "img" }));
    const curve = (name) => make("div", { className: "wm-curve" }, canvas(name, `${name} by step`));
    const picture = (...children) => make("div", { className: "wm-picture" }, ...children);
    const scale = make("i", { style: { background: `linear-gradient(to right, #777, rgb(${HEAT}))` } });
    this.legend = make("div", { className: "wm-legend wm-note" },
      "members agree", scale, `they differ by ${+(100 * strong).toPrecision(2)} % or more`);
    this.gone = make("p", { className: "wm-gone" });
    this.status = make("span", { className: "wm-status" });
    this.alert = make("span", { className: "wm-error", role: "alert" });
    const key = (color, text) => make("span", { style: { color } }, text);
    const colours = [key(BLUE, "\u2501 imagined"), " ", key("#8f6300", "\u254d real")];
    this.root.replaceChildren(
      make("div", { className: "wm-head" }, make("strong", {}, name || "A dream to drive"), this.status, this.alert),
      make("div", { className: "wm-main" },
        part("", title("Dream", "what the model imagines"),
          picture(canvas("dream", "dream"), canvas("heat", "spread of the members")), this.legend),
        part("", title("Truth", "the simulator under the same actions"),
          picture(canvas("truth", "truth"), this.gone), this.trust = make("p", { className: "wm-trust" })),
        this.controls(drivers),
        part("wm-wide wm-curves",
          part("", title("Uncertainty of the step", "\u00d7 usual"), curve("uncertainty")),
          part("", title("Reward of the step", ...colours), curve("reward")),
          part("", title("Error", "% of a pixel ", key(BLUE, "\u2501 expected"), " ", key("#8f6300", "\u254d true")),
            curve("drift"))),
        this.starts()));
    if (name && this.root.closest(".wm-page")) document.title = `${name} \u2013 a dream to drive`;
    this.listen();
    this.choose(0);
  }

  controls(drivers) {
    const button = (does, key, text, onclick) =>
      make("button", { onclick, data: { does } }, text, " ", key ? kbd(key) : "");
    this.pause = button("pause", " ", "play", () => this.play(!this.playing));
    this.single = button("single", ".", "one step", () => (this.play(false), this.step()));
    this.again = button("again", "r", "again", () => this.reset(...this.start));
    this.real = button("real", "e", "show it the real frame again", () => this.ask({ type: "show" }));
    this.overlay = button("overlay", "o", "where members differ", () => this.show(this.heat.hidden));
    this.drivers = drivers.map((who, i) => button(who, DRIVER_KEYS[i], who, () => this.hand(who)));
    this.rate = make("input", { type: "range", min: 1, max: FASTEST, oninput: () => this.pace(+this.rate.value) });
    this.rates = make("output");
    const names = ["imagined", "real", "difference"], line = (...cells) => make("tr", {}, ...cells);
    const cells = (of) => names.map((name) => make("td", { data: { number: `${of}-${name}` } }));
    this.cells = [cells("now"), cells("sum")];
    this.facts = make("div", { className: "wm-note" });
    const side = make("aside", { className: "wm-side" },
      part("", title("Who drives"), row(...this.drivers)),
      part("", title("Action", this.spec.discrete ? "one of these" : "from \u22121 to 1"), this.actions()),
      part("", title("Time"),
        row(this.pause, this.single, this.again), row(this.real),
        row(make("label", {}, "speed", kbd("-"), this.rate, kbd("+"), this.rates))),
      part("", title("Show"), row(this.overlay)),
      make("table", {}, line(make("th", {}, "reward"), ...names.map((name) => make("th", {}, name))),
        line(make("th", {}, "this step"), ...this.cells[0]), line(make("th", {}, "so far"), ...this.cells[1])),
      this.facts, make("p", { className: "wm-note" }, HELP));
    this.hand(ME);
    this.pace(USUAL);
    this.show(true);
    return side;
  }

  actions() {
    const { size, discrete } = this.spec, each = (what) => Array.from({ length: size }, (_, i) => what(i));
    const keys = (i, end) => make("span", {}, ...(AXES[i]?.[end] ?? []).map(kbd));
    if (discrete) {
      this.inputs = each((i) => make("button", { ariaLabel: `action ${i}`, onclick: () => this.choice(i, 1),
        data: { action: i } }, i < 10 ? kbd(`${i}`) : `${i}`));
      return row(...this.inputs);
    }
    this.inputs = each((i) => make("input", { type: "range", min: -1, max: 1, step: 0.01, ariaLabel: `action ${i + 1}`,
      data: { action: i }, oninput: ({ target }) => this.choice(i, +target.value) }));
    const lines = this.inputs.map((input, i) => make("label", { className: "wm-action" },
      `${i + 1}`, keys(i % AXES.length, 0), input, keys(i % AXES.length, 1), make("output")));
    if (this.keys.groups < 2) return make("div", {}, ...lines);
    const part = (i) => [i * AXES.length + 1, Math.min(size, (i + 1) * AXES.length)];
    this.groups = Array.from({ length: this.keys.groups }, (_, i) => make("button", { className: "wm-group",
      onclick: () => this.group(i), data: { group: i } }, part(i).join("\u2013")));
    const zero = make("button", { className: "wm-group", onclick: () => this.zero() }, "all 0 ", kbd("0"));
    this.group(0);
    return make("div", {}, row(kbd("["), ...this.groups, kbd("]"), zero), ...lines);
  }

  /** Keys move these numbers, and their sliders are shown; the others stay as they are. */
  group(i) {
    this.keys.choose(i);
    const chosen = this.keys.group, of = (i) => Math.floor(i / AXES.length);
    this.groups.forEach((button, i) => button.setAttribute("aria-pressed", i === chosen));
    this.inputs.forEach((input, i) => (input.parentElement.hidden = of(i) !== chosen));
    if (this.who === ME) this.showAction(this.action);
  }

  zero() {
    this.keys.zero();
    this.acts();
  }

  starts() {
    const options = this.episodes.map(({ name, records, return: sum }, value) =>
      make("option", { value }, `${name}: ${records} records, return ${number(sum, 1)}`));
    const onchange = () => this.choose(+this.chooser.value);
    this.chooser = make("select", { ariaLabel: "episode", onchange }, ...options);
    this.record = make("input", { type: "range", min: 0, ariaLabel: "record",
      oninput: () => (this.records.textContent = this.record.value),
      onchange: () => this.reset(+this.chooser.value, +this.record.value) });
    this.records = make("output");
    this.frames = make("div", { className: "wm-strip" });
    const label = make("label", {}, "record", this.record, this.records);
    return part("wm-wide", row(make("strong", {}, "Begin in a real frame"), this.chooser, label), this.frames);
  }

  strip({ records, size, episode }, buffers) {
    this.frames.replaceChildren(...records.map((record, i) => {
      const canvas = make("canvas"), onclick = () => this.reset(episode, record), title = `begin at record ${record}`;
      paint(canvas, buffers[i], size);
      return make("button", { onclick, title, data: { record } }, canvas, make("span", {}, record));
    }));
    this.mark();
  }

  frame(frame, buffers) {
    const { step, truth, uncertainty, reward, real, cont } = frame;
    paint(this.dream, buffers[0], frame.size);
    paint(this.heat, buffers[1], frame.size, true);
    if (truth) paint(this.truth, buffers[2], truth);
    this.gone.hidden = truth !== null;
    this.real.disabled = truth === null || frame.ended;
    this.gone.textContent = frame.ended ? "The real episode is over. The dream goes on." : "No simulator runs here.";
    if (step === 0) this.curves = { uncertainty: [], imagined: [], real: [], low: [], high: [], median: [], true: [] };
    const curves = this.curves, first = Math.max(0, step + 1 - SHOWN);
    curves.uncertainty.push(uncertainty), curves.imagined.push(reward), curves.real.push(real);
    const percent = (x) => (x === null ? null : 100 * x);
    for (const name of ["low", "high", "median"]) curves[name].push(percent(frame.judged && frame.judged[name]));
    curves.true.push(percent(frame.error));
    this.trusted(frame);
    const line = (name, colour, dash) => ({ values: curves[name].slice(first), colour, dash });
    plot(this.uncertainty, [line("uncertainty", BLUE)], first, { level: 1, name: "usual" });
    plot(this.reward, [line("imagined", BLUE), line("real", ORANGE, [6, 4])], first);
    const band = [line("low", "#9ac3dd"), line("high", "#9ac3dd")];
    plot(this.drift, [...band, line("median", BLUE), line("true", ORANGE, [6, 4])], first);
    const sum = (values) => (values.includes(null) ? null : values.slice(1).reduce((a, b) => a + b, 0));
    [[reward, real], [sum(curves.imagined), sum(curves.real)]].forEach(([a, b], line) =>
      [number(a), number(b), a === null || b === null ? number(null) : signed(a - b)].forEach((text, i) =>
        (this.cells[line][i].textContent = text)));
    this.facts.textContent = `Uncertainty ${number(uncertainty)} \u00d7 usual. The dream goes on with probability ${number(cont)}.`;
    this.alert.textContent = "";
    if (step) this.showAction(frame.who === ME && this.who === ME ? this.action : frame.action);
    this.times = this.playing ? [...this.times, performance.now()].slice(-20) : [];
    this.tell(step, frame.who);
  }

  /** The frame turns red where the dream is likely worse than the last picture that was seen. */
  trusted({ step, judged, lost, behind }) {
    this.root.dataset.trusted = lost ? false : judged === null ? "unknown" : judged.trusted;
    this.dream.parentElement.style.outline = lost ? "4px solid #c62828" : "";
    this.trust.dataset.lost = lost || Boolean(behind);
    this.trust.textContent = step === 0 ? "A dream begins."
      : behind ? "Dream and truth have parted: the last picture that was seen is nearer to the truth."
        : lost ? "The dream is likely no better by now than the last picture that was seen."
          : judged ? "The dream is likely better than the last picture that was seen."
            : "How wrong the dream is by now is not known: there is no calibration of these weights, or it ends here.";
  }

  tell(step, who) {
    const n = this.times.length - 1, fps = n > 3 ? (1000 * n) / (this.times[n] - this.times[0]) : 0;
    const pace = fps ? `${fps.toFixed(1)} frames/s` : "playing";
    Object.assign(this.root.dataset, { step, who, fps: fps.toFixed(2) });
    this.status.textContent = `step ${step}, ${this.playing ? pace : "paused"}`;
  }

  showAction(action) {
    this.inputs.forEach((input, i) => {
      if (this.spec.discrete) return input.setAttribute("aria-pressed", action[i] === 1);
      input.value = action[i];
      input.parentElement.lastChild.textContent = number(action[i]);
    });
    const moved = (i) => action.slice(i * AXES.length, (i + 1) * AXES.length).some((x) => x !== 0);
    this.groups.forEach((button, i) => (button.dataset.moved = moved(i)));
  }

  show(on) {
    this.heat.hidden = this.legend.hidden = !on;
    this.overlay.setAttribute("aria-pressed", on);
  }

  // what can be done

  choose(episode) {
    this.record.max = this.episodes[episode].records - 2;
    this.ask({ type: "strip", episode });
    this.reset(episode, 0);
  }

  reset(episode, record) {
    this.start = [episode, record];
    this.record.value = this.records.textContent = record;
    this.mark();
    this.ask({ type: "reset", episode, record });
  }

  mark() {
    const here = ({ dataset }) => +dataset.record === this.start[1];
    for (const button of this.frames.children) button.setAttribute("aria-pressed", here(button));
  }

  hand(who) {
    if (who !== ME) this.keys.sent(); // a tap does not wait until one drives again
    this.who = who;
    if (who === ME) this.showAction(this.action); // not what another has done last
    this.drivers.forEach((button) => button.setAttribute("aria-pressed", button.dataset.does === who));
  }

  /** The person acts: that takes over, and sets a new page going. */
  choice(i, value) {
    if (this.spec.discrete) this.action.fill(0)[i] = value;
    else this.keys.set(i, value);
    this.acts();
  }

  acts() {
    this.hand(ME);
    this.showAction(this.action);
    if (!this.touched) this.play(true);
  }

  play(on) {
    Object.assign(this, { playing: on, touched: true, times: [] });
    this.pause.firstChild.data = on ? "pause" : "play";
    this.tell(this.root.dataset.step, this.root.dataset.who);
    this.tick();
  }

  pace(speed) {
    this.speed = Math.min(FASTEST, Math.max(1, speed));
    this.rate.value = this.speed;
    this.rates.textContent = `${this.speed} frames/s`;
  }

  /** One step at a time, and the next one in time: a slow model is never asked for more than it can do. */
  tick() {
    clearTimeout(this.timer);
    const wait = this.due - performance.now();
    if (this.playing && !this.waiting && !this.over) this.timer = setTimeout(() => this.step(), wait);
  }

  step() {
    if (this.waiting || this.over) return;
    const now = performance.now(), every = 1000 / this.speed;
    this.due = (now - this.due < every ? this.due : now) + every;
    this.ask({ type: "step", who: this.who, action: [...this.action] });
    if (this.who === ME) this.keys.sent();
  }

  listen() {
    const faster = () => this.pace(this.speed + 1), slower = () => this.pace(this.speed - 1);
    const orders = { "-": slower, "+": faster, "=": faster }, keys = this.keys;
    const click = (key, button) => (orders[key] = () => button.click());
    click(" ", this.pause), click(".", this.single), click("r", this.again);
    click("o", this.overlay), click("e", this.real);
    this.drivers.forEach((button, i) => click(DRIVER_KEYS[i], button));
    if (this.spec.discrete) this.inputs.slice(0, 10).forEach((button, i) => click(i, button));
    if (this.groups.length) {
      const beside = (step) => () => this.group(keys.group + step);
      Object.assign(orders, { 0: () => this.zero(), "[": beside(-1), "]": beside(1) });
    }
    const name = ({ key }) => (key.length === 1 ? key.toLowerCase() : key);
    const release = (key) => keys.release(key) && this.who === ME && this.showAction(this.action);
    const press = (event) => {
      const key = name(event); // what has the focus keeps its own keys
      const own = { SELECT: true, INPUT: key.startsWith("Arrow"), BUTTON: key === " " }[event.target.tagName];
      if (own || event.ctrlKey || event.metaKey || event.altKey || !(key in orders || keys.move(key))) return;
      event.preventDefault();
      event.stopPropagation(); // a notebook has keys of its own
      if (key in orders && (!event.repeat || key === ".")) orders[key]();
      else if (keys.move(key) && !event.repeat) keys.press(key), this.acts();
    };
    const on = (event, act) => this.root.addEventListener(event, act);
    on("keydown", press);
    on("keyup", (event) => release(name(event)));
    on("focusout", ({ relatedTarget: to }) => this.root.contains(to) || keys.drop());
    on("pointerup", ({ target }) => { // keys drive again after a click
      if (target.tagName !== "SELECT") this.root.focus({ preventScroll: true });
    });
  }
}

export default {
  render({ model, el }) {
    const player = new Player(model, el);
    return () => player.leave();
  },
};
