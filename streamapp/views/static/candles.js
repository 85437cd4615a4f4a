// The chart's card: which key, which candle length, the candles themselves, and how fresh they are.

import { CandleChart } from "./chart.js";
import { byId, make, setNumber, setText, show } from "./dom.js";
import { amount, clock, day, duration, price, span, split } from "./format.js";
import { read } from "./stream.js";

const HISTORY = 300; // candles that are loaded at first
const KEPT = 2_000;
const KEYS_MAX = 1_000;
const TABLE_ROWS = 20;
const NEEDED = ["open", "high", "low", "close"];

/** Whether a table holds candles. */
export const isCandles = (table) =>
  table.kind === "tumbling" && NEEDED.every((name) => table.fields.some((field) => field.name === name));

export class CandlePanel {
  /** `onChange()` hears when another key or table is to be followed. */
  constructor(onChange) {
    this.onChange = onChange;
    this.tables = [];
    this.table = null;
    this.key = null;
    this.keys = new Set();
    this.candles = new Map(); // start -> reading
    this.hovered = null;
    this.dirty = false;
    this.chart = new CandleChart(byId("chart"), (candle) => {
      this.hovered = candle;
      this.renderLegend();
    });
    byId("key").addEventListener("change", (event) => this.choose(this.table, event.target.value));
  }

  /** The subscription of what is shown, or nothing. */
  get subscription() {
    return this.table && this.key ? `${this.table.name}/${this.key}` : null;
  }

  setTables(tables) {
    this.tables = tables.filter(isCandles);
    this.table = this.tables.find((one) => one.name === this.table?.name) ?? this.tables[0] ?? null;
    byId("intervals").replaceChildren(
      ...this.tables.map((table) => {
        const button = make("button", { type: "button", text: span(table.window.size_ms), title: table.name });
        button.dataset.table = table.name;
        button.setAttribute("aria-pressed", String(table === this.table));
        button.addEventListener("click", () => this.choose(table, this.key));
        return button;
      }),
    );
    if (!this.tables.length) setText(byId("chart-empty"), "This application declares no table of candles.");
  }

  /** Offer these keys too; the first one that ever comes is chosen. */
  addKeys(keys) {
    const before = this.keys.size;
    for (const key of keys) if (this.keys.size < KEYS_MAX) this.keys.add(key);
    if (this.keys.size === before) return;
    const options = [...this.keys].sort().map((key) => make("option", { value: key, text: key }));
    byId("key").replaceChildren(...options);
    if (this.key === null) this.choose(this.table, options[0].value);
    else byId("key").value = this.key;
  }

  choose(table, key) {
    if (!table || (table === this.table && key === this.key)) return;
    this.table = table;
    this.key = key;
    this.keys.add(key);
    this.candles.clear();
    this.hovered = null;
    this.chart.reset();
    const picker = byId("key");
    if (![...picker.options].some((one) => one.value === key)) picker.append(make("option", { value: key, text: key }));
    picker.value = key;
    for (const button of byId("intervals").children) {
      button.setAttribute("aria-pressed", String(button.dataset.table === table.name));
    }
    const [venue, symbol] = split(key);
    byId("chart-title").replaceChildren(symbol, " ", make("span", { className: "muted", text: venue }));
    document.title = `${symbol} · streamapp`;
    setText(byId("chart-empty"), "Waiting for the first candle…");
    this.render();
    this.onChange();
  }

  take(reading) {
    if (reading.table !== this.table?.name || reading.key !== this.key) return;
    this.candles.set(reading.window.start, reading);
    this.dirty = true;
  }

  /** Load the windows up to the newest one; those that came over the stream in the meantime are newer and stay. */
  async load() {
    const { table, key } = this;
    if (!table || !key) return;
    const base = `/v1/tables/${encodeURIComponent(table.name)}/keys/${encodeURIComponent(key)}`;
    try {
      const newest = await read(base);
      const from = newest.window.end - HISTORY * table.window.size_ms;
      const page = await read(`${base}/windows?from=${Math.max(0, from)}&limit=${HISTORY}`);
      if (table !== this.table || key !== this.key) return;
      for (const item of [...page.items, newest]) {
        const known = this.candles.get(item.window.start);
        if (!known || known.freshness.as_of <= item.freshness.as_of) this.candles.set(item.window.start, item);
      }
      this.dirty = true;
    } catch (problem) {
      if (problem.code === "unknown_key") setText(byId("chart-empty"), "No candle of this instrument yet.");
      else setText(byId("chart-empty"), `The candles could not be loaded: ${problem.message}`);
    }
  }

  sorted() {
    const all = [...this.candles.values()].sort((one, other) => one.window.start - other.window.start);
    if (all.length > KEPT) for (const old of all.splice(0, all.length - KEPT)) this.candles.delete(old.window.start);
    return all;
  }

  render() {
    this.dirty = false;
    const all = this.sorted();
    this.chart.set(all);
    show(byId("chart-empty"), all.length === 0);
    this.newest = all[all.length - 1] ?? null;
    this.renderLegend();
    this.renderRows(all.slice(-TABLE_ROWS).reverse());
    this.renderFreshness();
    const words = this.newest && `${this.key}: newest candle ${clock(this.newest.window.start)} UTC, close ${this.newest.value.close}`;
    byId("chart").setAttribute("aria-label", words ? `Candles and volume. ${words}` : "Candles and volume: none yet");
  }

  renderLegend() {
    const shown = this.hovered ? (this.candles.get(this.hovered.window.start) ?? this.hovered) : this.newest;
    const legend = byId("legend");
    if (!shown) return legend.replaceChildren();
    const { open, high, low, close, volume, vwap, count } = shown.value;
    const direction = close >= open ? "up" : "down";
    const part = (label, field, value, text, className = "") => {
      const number = make("dd", { className, "data-field": field });
      setNumber(number, value, text);
      return make("div", {}, make("dt", { text: label }), number);
    };
    legend.dataset.start = String(shown.window.start);
    legend.replaceChildren(
      part("O", "open", open, price(open, close), direction),
      part("H", "high", high, price(high, close), direction),
      part("L", "low", low, price(low, close), direction),
      part("C", "close", close, price(close), direction),
      part("Volume", "volume", volume, amount(volume)),
    );
    if (vwap !== undefined) legend.append(part("VWAP", "vwap", vwap, price(vwap, close)));
    if (count !== undefined) legend.append(part("Trades", "count", count, amount(count)));
    const final = byId("chart-final");
    show(final, true);
    setText(final, `${minuteOf(shown)} ${shown.window.final ? "final" : "building"}`);
    final.dataset.final = String(shown.window.final);
    return undefined;
  }

  renderFreshness() {
    const tag = byId("chart-behind");
    show(tag, this.newest !== null);
    if (this.newest === null) return show(byId("chart-final"), false);
    const { staleness_ms: behind, restoring } = this.newest.freshness;
    setNumber(tag, behind, restoring ? "restoring" : `${duration(behind)} behind`);
    tag.dataset.field = "staleness_ms";
    tag.className = `tag ${behind > 15_000 ? "bad" : behind > 5_000 ? "warn" : "good"}`;
    return undefined;
  }

  renderRows(newestFirst) {
    const rows = newestFirst.map((one) => {
      const { open, high, low, close, volume, count } = one.value;
      const row = make("tr", { "data-start": one.window.start }, make("td", { text: `${day(one.window.start)} ${clock(one.window.start)}` }));
      for (const [field, value] of Object.entries({ open, high, low, close })) {
        const cell = make("td", { "data-field": field });
        setNumber(cell, value, price(value, close));
        row.append(cell);
      }
      for (const [field, value] of Object.entries({ volume, count })) {
        const cell = make("td", { "data-field": field });
        setNumber(cell, value, amount(value));
        row.append(cell);
      }
      row.append(make("td", { text: one.window.final ? "final" : "building" }));
      return row;
    });
    byId("candle-rows").replaceChildren(...rows);
  }
}

const minuteOf = (candle) => clock(candle.window.start).slice(0, 5);
