"use strict";
// What the pages share: the arrays they carry, the library's kernels, bars, heat maps and curves.

const at = id => document.getElementById(id);
const data = JSON.parse(at("data").textContent);

const bytesOf = base64 => Uint8Array.from(atob(base64), c => c.charCodeAt(0));

/** An array of the page as {shape, numbers}: float32, halves of such (bfloat16), or bytes with a scale for each row. */
function array({ shape, dtype, base64, scale }) {
  const bytes = bytesOf(base64).buffer;
  if (dtype === "float32") return { shape, numbers: new Float32Array(bytes) };
  if (dtype === "uint16") {
    const wide = Uint32Array.from(new Uint16Array(bytes), b => b << 16);
    return { shape, numbers: new Float32Array(wide.buffer) };
  }
  const scales = array(scale).numbers, columns = shape[1];
  return { shape, numbers: Float32Array.from(new Int8Array(bytes), (n, k) => n * scales[Math.floor(k / columns)]) };
}

const arrays = Object.fromEntries(Object.entries(data.arrays).map(([name, a]) => [name, array(a)]));
const row = ({ shape, numbers }, k) => numbers.subarray(k * shape[1], (k + 1) * shape[1]);

let library;  // the functions of csrc/web/module.cpp, once `ready`; what they read and write lies in their memory
const ready = (async () => {
  const packed = new Blob([bytesOf(data.library)]).stream().pipeThrough(new DecompressionStream("deflate"));
  library = (await WebAssembly.instantiate(await new Response(packed).arrayBuffer())).instance.exports;
})();

/** Numbers to that memory; `taken` brings them back, and `placed` an array of the page, which stays there. */
function put(numbers, Type = Float32Array) {
  const place = library.take(numbers.length * Type.BYTES_PER_ELEMENT);
  new Type(library.memory.buffer, place, numbers.length).set(numbers);
  return place;
}
function taken(place, count, Type = Float32Array) {
  const numbers = new Type(library.memory.buffer, place, count).slice();
  library.give_back(place);
  return numbers;
}
const placed = array => array ? array.place ??= put(array.numbers) : 0;

/** x W^T + b of so many rows of x. */
function product(x, rows, matrix, bias) {
  const [outputs, inputs] = matrix.shape, from = put(x), to = library.take(4 * rows * outputs);
  library.linear(rows, inputs, outputs, from, placed(matrix), placed(bias), to);
  library.give_back(from);
  return taken(to, rows * outputs);
}

function softmax(scores) {
  const most = Math.max(...scores), e = scores.map(s => Math.exp(s - most)), sum = e.reduce((a, b) => a + b, 0);
  return e.map(p => p / sum);
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const visible = c => ({ " ": "␣", "\n": "↵", "\t": "⇥" })[c] ?? c;

/** Red, green and blue of a colour of shared.css. */
function colour(name) {
  const value = getComputedStyle(document.documentElement).getPropertyValue(name);
  return value.match(/\w\w/g).map(digits => parseInt(digits, 16));
}

/** A pixel for each number, in the colour of its sign, as strong as its size; `most` is the strongest. */
function heat(canvas, rows, columns, value, most, width, height) {
  canvas.width = Math.max(columns, 1);
  canvas.height = rows;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, rows);
  const plus = colour("--plus"), minus = colour("--minus");
  for (let r = 0; r < rows; r++)
    for (let c = 0; c < columns; c++) {
      const v = value(r, c);
      image.data.set([...(v < 0 ? minus : plus), 255 * Math.min(Math.abs(v) / most, 1)], 4 * (r * canvas.width + c));
    }
  context.putImageData(image, 0, 0);
}

/** [what stands before it, number, what stands behind it] as bars from 0 to `most`. */
function bars(place, rows, most) {
  place.replaceChildren(...rows.flatMap(([before, number, after]) => {
    const bar = element("i", { className: number < 0 ? "minus" : "" });
    bar.style.width = `${100 * Math.min(Math.abs(number) / most, 1)}%`;
    return [before, element("div", {}, bar), element("span", {}, after)];
  }));
}

/** A curve through numbers between low and high, with a line at one of them. */
function curve(numbers, low, high, here, height = 18) {
  const x = k => 1 + 98 * k / Math.max(numbers.length - 1, 1);
  const y = v => 1 + (height - 2) * (high - v) / (high - low || 1);
  const drawn = Array.from(numbers, (v, k) => `${k ? "L" : "M"}${x(k).toFixed(2)} ${y(v).toFixed(2)}`).join("");
  return `<svg viewBox="0 0 100 ${height}" preserveAspectRatio="none" aria-hidden="true">` +
    `<line x1="${x(here)}" x2="${x(here)}" y1="0" y2="${height}"/><path d="${drawn}"/></svg>`;
}

const short = v => (v < 0 ? "−" : "") + Math.abs(v).toFixed(Math.abs(v) < 99.995 ? 2 : 0);

// In a frame: the page around it is told how high this one is, whenever that changes.
if (parent !== window) {
  const root = document.documentElement;
  new ResizeObserver(() => parent.postMessage({ height: root.offsetHeight }, "*")).observe(root);
}
