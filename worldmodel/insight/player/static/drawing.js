// Elements, pictures and plots. Joined in front of player.js: a notebook takes one module.

const BLUE = "#0072B2", ORANGE = "#E69F00", HEAT = [204, 121, 167]; // of Okabe and Ito
const SHOWN = 200; // steps in a plot, at most
const NAMES = { ArrowLeft: "\u2190", ArrowRight: "\u2192", ArrowUp: "\u2191", ArrowDown: "\u2193", " ": "space" };

function make(tag, properties = {}, ...children) {
  const { data, style, ...rest } = properties, element = Object.assign(document.createElement(tag), rest);
  Object.assign(element.dataset, data);
  Object.assign(element.style, style);
  element.append(...children);
  return element;
}
const kbd = (key) => make("kbd", {}, NAMES[key] ?? key.toUpperCase());
const row = (...children) => make("div", { className: "wm-row" }, ...children);
const title = (text, ...notes) => make("h3", { className: "wm-title" }, text, make("small", {}, ...notes));
const part = (name, ...children) => make("section", { className: name }, ...children);
const number = (x, digits = 2) => (x === null ? "\u2013" : x.toFixed(digits).replace("-", "\u2212"));
const signed = (x) => (x > 0 ? "+" : "") + number(x);

/** Pixels (height, width, 3), or (height, width) as heat, onto a canvas of that size. */
function paint(canvas, view, [height, width], heat = false) {
  const from = new Uint8Array(view.buffer, view.byteOffset, view.byteLength), image = new ImageData(width, height);
  for (let i = 0; i < height * width; i++) {
    image.data.set(heat ? [...HEAT, 0.9 * from[i]] : [from[3 * i], from[3 * i + 1], from[3 * i + 2], 255], 4 * i);
  }
  Object.assign(canvas, { width, height });
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** Lines {values, colour, dash} over steps from `first` on; null leaves a gap. A level may be marked by a name. */
function plot(canvas, lines, first, mark) {
  const ratio = window.devicePixelRatio || 1, { clientWidth: width, clientHeight: height } = canvas;
  Object.assign(canvas, { width: width * ratio, height: height * ratio });
  const pen = canvas.getContext("2d"), left = 46, right = width - 6, top = 6, bottom = height - 18;
  const known = lines.flatMap((line) => line.values).filter((v) => v !== null);
  const low = Math.min(0, ...known), high = Math.max(mark ? 1.5 * mark.level : 0, ...known, low + 1e-3) * 1.06;
  const last = Math.max(49, lines[0].values.length - 1), every = last < 100 ? 10 : 50;
  const x = (i) => left + (i / last) * (right - left);
  const y = (v) => bottom - ((v - low) / (high - low)) * (bottom - top);
  const path = (strokeStyle, dash, lineWidth, points) => {
    Object.assign(pen, { strokeStyle, lineWidth });
    pen.setLineDash(dash);
    pen.beginPath();
    points.forEach(([i, v], n) => {
      if (v !== null) (n && points[n - 1][1] !== null ? pen.lineTo : pen.moveTo).call(pen, x(i), y(v));
    });
    pen.stroke();
  };
  const write = (words, at, line, textAlign) => (Object.assign(pen, { textAlign }), pen.fillText(words, at, line));
  pen.scale(ratio, ratio);
  Object.assign(pen, { font: "12px system-ui, 'DejaVu Sans', sans-serif", fillStyle: "#444" });
  const rough = (high - low) / 3, power = 10 ** Math.floor(Math.log10(rough));
  const between = power * [1, 2, 5, 10].find((m) => m * power >= rough);
  const digits = Math.max(0, -Math.floor(Math.log10(between) + 1e-9));
  for (let v = Math.ceil(low / between) * between; v <= high; v += between) {
    path("#e0e0e0", [], 1, [[0, v], [last, v]]);
    write(number(v, digits), left - 6, y(v) + 4, "right");
  }
  for (let i = 0; i < 0.9 * last; i += every) write(String(first + i), x(i), height - 4, i ? "center" : "left");
  write("step", right, height - 4, "right");
  if (mark) path("#444", [2, 3], 1, [[0, mark.level], [last, mark.level]]);
  if (mark) write(mark.name, right, y(mark.level) - 4, "right");
  for (const { values, colour, dash = [] } of lines) path(colour, dash, 2, values.map((v, i) => [i, v]));
}
