// Candles with volume on one canvas: drag or use the wheel to look back, move to inspect, arrow keys to step.

import { amount, clock, day, minute, price } from "./format.js";

const AXIS_WIDTH = 78;
const TIME_HEIGHT = 24;
const MIN_SHOWN = 15;

/** Steps of 1, 2 or 5 times a power of ten, so that about `count` of them fit into a range. */
function niceStep(range, count) {
  const rough = range / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const factor = rough / power;
  return power * (factor > 5 ? 10 : factor > 2 ? 5 : factor > 1 ? 2 : 1);
}

export class CandleChart {
  /** `onInspect(candle or null)` hears which candle is under the cursor. Candles are readings of a window table. */
  constructor(canvas, onInspect) {
    this.canvas = canvas;
    this.onInspect = onInspect;
    this.candles = [];
    this.shown = MIN_SHOWN;
    this.zoomed = false; // until somebody zooms, as many are shown as look good in the width there is
    this.offset = 0; // candles between the right edge and the newest one
    this.inspected = null; // index into candles
    this.pointerY = null;
    this.drag = null;
    this.requested = false;
    new ResizeObserver(() => this.draw()).observe(canvas);
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", () => (this.drag = null));
    canvas.addEventListener("pointerleave", () => this.leave());
    canvas.addEventListener("pointercancel", () => this.leave());
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => this.leave());
  }

  /** Show these candles, in order of start. */
  set(candles) {
    const following = this.offset === 0;
    const grown = candles.length - this.candles.length;
    this.candles = candles;
    // whoever looks back keeps looking at the same candles while new ones arrive
    if (!following && grown > 0 && grown < 5) this.offset += grown;
    this.clamp();
    this.draw();
  }

  /** Back to the newest candles. */
  reset() {
    this.offset = 0;
    this.inspected = null;
    this.candles = [];
    this.draw();
  }

  clamp() {
    if (!this.canvas.clientWidth) return; // not on the screen yet
    if (!this.zoomed) {
      this.shown = Math.min((this.canvas.clientWidth - AXIS_WIDTH) / 9, Math.max(2 * MIN_SHOWN, this.candles.length + 2));
    }
    this.shown = Math.round(Math.min(Math.max(this.shown, MIN_SHOWN), 600));
    this.offset = Math.round(Math.min(Math.max(this.offset, 0), Math.max(0, this.candles.length - MIN_SHOWN)));
    if (this.inspected !== null && this.inspected >= this.candles.length) this.inspected = null;
  }

  wheel(event) {
    event.preventDefault();
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) this.offset -= event.deltaX / this.step();
    else this.zoom(event.deltaY > 0 ? 1.12 : 1 / 1.12);
    this.clamp();
    this.draw();
  }

  zoom(factor) {
    this.zoomed = true;
    this.shown *= factor;
  }

  press(event) {
    this.drag = { x: event.clientX, offset: this.offset };
    this.canvas.setPointerCapture(event.pointerId);
  }

  move(event) {
    const box = this.canvas.getBoundingClientRect();
    if (this.drag) {
      this.offset = this.drag.offset + (event.clientX - this.drag.x) / this.step();
      this.clamp();
    }
    const slot = Math.floor((event.clientX - box.left) / this.step());
    const index = this.first() + slot;
    this.pointerY = event.clientY - box.top;
    this.inspect(event.clientX - box.left < box.width - AXIS_WIDTH && this.candles[index] ? index : null);
  }

  leave() {
    this.drag = null;
    this.pointerY = null;
    this.inspect(null);
  }

  key(event) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 };
    if (event.key in steps && this.candles.length) {
      const at = this.inspected ?? this.candles.length;
      const next = Math.min(Math.max(at + steps[event.key], 0), this.candles.length - 1);
      if (next < this.first()) this.offset += this.first() - next;
      if (next > this.last()) this.offset -= next - this.last();
      this.clamp();
      this.inspect(next);
    } else if (event.key === "+" || event.key === "-") {
      this.zoom(event.key === "-" ? 1.25 : 0.8);
      this.clamp();
      this.draw();
    } else if (event.key === "End" || event.key === "Escape") {
      this.offset = 0;
      this.inspect(null);
    } else return;
    event.preventDefault();
  }

  inspect(index) {
    this.inspected = index;
    this.onInspect(index === null ? null : this.candles[index]);
    this.draw();
  }

  step() {
    return Math.max(1, (this.canvas.clientWidth - AXIS_WIDTH) / this.shown);
  }

  last() {
    return this.candles.length - 1 - this.offset;
  }

  /** The index in the leftmost slot; fewer candles than slots stand at the right, with one slot left free beside them. */
  first() {
    return this.last() - this.shown + 2;
  }

  draw() {
    if (this.requested) return;
    this.requested = true;
    requestAnimationFrame(() => {
      this.requested = false;
      this.paint();
    });
  }

  paint() {
    const { canvas } = this;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width || !height) return;
    this.clamp();
    const scale = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    const from = Math.max(0, this.first());
    const visible = this.candles.slice(from, this.last() + 1);
    if (!visible.length) return;

    const style = getComputedStyle(canvas);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const right = width - AXIS_WIDTH;
    const bottom = height - TIME_HEIGHT;
    const volumeTop = bottom - Math.round((bottom - 8) * 0.2);
    const priceBottom = volumeTop - 12;
    let low = Math.min(...visible.map((one) => one.value.low));
    let high = Math.max(...visible.map((one) => one.value.high));
    const margin = (high - low || Math.abs(high) * 0.001 || 1) * 0.08;
    [low, high] = [low - margin, high + margin];
    const y = (value) => 8 + ((high - value) / (high - low)) * (priceBottom - 8);
    const step = this.step();
    const x = (index) => (index - this.first() + 0.5) * step;
    const most = Math.max(...visible.map((one) => one.value.volume ?? 0)) || 1;
    const font = style.getPropertyValue("--mono");

    pen.font = `11px ${font}`;
    pen.textBaseline = "middle";
    pen.lineWidth = 1;
    const line = (x1, y1, x2, y2) => {
      pen.beginPath();
      pen.moveTo(x1, y1);
      pen.lineTo(x2, y2);
      pen.stroke();
    };

    // the grid and its labels
    const newest = this.candles[this.candles.length - 1].value.close;
    const priceStep = niceStep(high - low, Math.min(8, priceBottom / 55));
    pen.textAlign = "left";
    for (let value = Math.ceil(low / priceStep) * priceStep; value < high; value += priceStep) {
      pen.strokeStyle = colour("grid");
      line(0, Math.round(y(value)) + 0.5, right, Math.round(y(value)) + 0.5);
      pen.fillStyle = colour("muted");
      // the badge of the newest price covers what would stand behind it
      if (Math.abs(y(value) - y(newest)) > 15) pen.fillText(price(value, newest), right + 8, y(value));
    }
    pen.strokeStyle = colour("line");
    line(0, bottom + 0.5, width, bottom + 0.5);
    pen.textAlign = "center";
    const each = Math.max(1, Math.ceil(86 / step));
    let shownDay = null;
    for (let index = from; index <= this.last(); index += 1) {
      const start = this.candles[index].window.start;
      const size = this.candles[index].window.end - start;
      if (Math.floor(start / size) % each !== 0 || x(index) < 24 || x(index) > right - 20) continue;
      pen.strokeStyle = colour("grid");
      line(Math.round(x(index)) + 0.5, 0, Math.round(x(index)) + 0.5, bottom);
      pen.fillStyle = colour("muted");
      const label = shownDay !== null && day(start) !== shownDay ? day(start) : minute(start);
      pen.fillText(label, x(index), bottom + 13);
      shownDay = day(start);
    }
    if (shownDay === null) pen.fillText(minute(visible[0].window.start), Math.max(24, x(from)), bottom + 13);
    pen.textAlign = "left";
    pen.fillStyle = colour("muted");
    pen.fillText(amount(most), right + 8, volumeTop + 5);
    pen.fillText("vol", right + 8, bottom - 8);

    // candles and volume
    const body = Math.max(1, Math.min(18, Math.floor(step * 0.7)));
    visible.forEach((one, position) => {
      const { open, close, high: top, low: base, volume } = one.value;
      const middle = Math.round(x(from + position));
      pen.fillStyle = colour(close >= open ? "up" : "down");
      pen.globalAlpha = 0.38;
      const tall = Math.max(1, ((volume ?? 0) / most) * (bottom - volumeTop));
      pen.fillRect(middle - Math.floor(body / 2), bottom - tall, body, tall);
      pen.globalAlpha = 1;
      pen.fillRect(middle - (body > 1 ? 0.5 : 0), y(top), 1, Math.max(1, y(base) - y(top)));
      const upper = y(Math.max(open, close));
      pen.fillRect(middle - Math.floor(body / 2), upper, body, Math.max(1, y(Math.min(open, close)) - upper));
    });

    // the newest price
    const badge = (at, text, back, ink) => {
      const middle = Math.min(Math.max(at, 9), bottom - 9);
      pen.fillStyle = back;
      pen.fillRect(right + 1, middle - 9, AXIS_WIDTH - 1, 18);
      pen.fillStyle = ink;
      pen.textAlign = "left";
      pen.fillText(text, right + 8, middle + 0.5);
    };
    const rising = newest >= this.candles[this.candles.length - 1].value.open;
    if (newest > low && newest < high) {
      pen.setLineDash([3, 3]);
      pen.strokeStyle = colour(rising ? "up" : "down");
      line(0, Math.round(y(newest)) + 0.5, right, Math.round(y(newest)) + 0.5);
      pen.setLineDash([]);
      badge(y(newest), price(newest), colour(rising ? "up" : "down"), colour("page"));
    }

    // the crosshair
    if (this.inspected !== null && this.inspected >= from && this.inspected <= this.last()) {
      const one = this.candles[this.inspected];
      const middle = Math.round(x(this.inspected)) + 0.5;
      const level = this.pointerY !== null && this.pointerY < priceBottom ? this.pointerY : y(one.value.close);
      pen.setLineDash([4, 4]);
      pen.strokeStyle = colour("muted");
      line(middle, 0, middle, bottom);
      line(0, Math.round(level) + 0.5, right, Math.round(level) + 0.5);
      pen.setLineDash([]);
      badge(level, price(high - ((level - 8) / (priceBottom - 8)) * (high - low), newest), colour("text"), colour("page"));
      const label = `${day(one.window.start)} ${clock(one.window.start)}`;
      const wide = pen.measureText(label).width + 14;
      const left = Math.min(Math.max(0, middle - wide / 2), right - wide);
      pen.fillStyle = colour("text");
      pen.fillRect(left, bottom + 2, wide, TIME_HEIGHT - 4);
      pen.fillStyle = colour("page");
      pen.fillText(label, left + 7, bottom + TIME_HEIGHT / 2 + 1);
    }
  }
}

/** A small line of one figure over time. */
export class Sparkline {
  constructor(canvas, length = 120) {
    this.canvas = canvas;
    this.length = length;
    this.values = [];
    new ResizeObserver(() => this.paint()).observe(canvas);
  }

  push(value) {
    this.values.push(value ?? 0);
    if (this.values.length > this.length) this.values.shift();
    this.paint();
  }

  paint() {
    const { canvas, values } = this;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width || !height) return;
    const scale = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const pen = canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    const style = getComputedStyle(canvas);
    pen.strokeStyle = style.getPropertyValue("--line").trim();
    pen.beginPath();
    pen.moveTo(0, height - 0.5);
    pen.lineTo(width, height - 0.5);
    pen.stroke();
    if (values.length < 2) return;
    const most = Math.max(...values) || 1;
    const x = (index) => width - ((values.length - 1 - index) * width) / (this.length - 1);
    const y = (value) => height - 2 - (value / most) * (height - 8);
    pen.beginPath();
    values.forEach((value, index) => pen.lineTo(x(index), y(value)));
    pen.strokeStyle = style.getPropertyValue("--accent").trim();
    pen.lineWidth = 1.5;
    pen.stroke();
    pen.lineTo(width, height);
    pen.lineTo(x(0), height);
    pen.globalAlpha = 0.13;
    pen.fillStyle = pen.strokeStyle;
    pen.fill();
    pen.globalAlpha = 1;
  }
}
