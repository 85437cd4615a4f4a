// The parts of the board beside the chart: prices, signals, feeds, the worker. Each takes what the server said and shows it.

import { byId, make, setNumber, setText, show } from "./dom.js";
import { amount, clock, duration, fixed, price, span, split } from "./format.js";

const ROWS_MAX = 300;
const FEED_LATE_MS = 15_000;

/** The newest price of every key; a click chooses the key for the chart. */
export class LatestPanel {
  constructor(onPick) {
    this.onPick = onPick;
    this.rows = new Map(); // key -> row
    this.readings = new Map();
    this.selected = null;
    this.dirty = new Set();
    byId("filter").addEventListener("input", () => this.arrange());
  }

  take(reading) {
    this.readings.set(reading.key, reading);
    this.dirty.add(reading.key);
  }

  select(key) {
    this.selected = key;
    for (const [name, row] of this.rows) row.line.setAttribute("aria-selected", String(name === key));
  }

  /** Draw what has changed; `now` is the server's time, `feeds` the state of each venue. */
  render(now, feeds) {
    let added = false;
    for (const key of this.dirty) {
      if (!this.rows.has(key)) {
        this.rows.set(key, this.build(key));
        added = true;
      }
      this.update(this.rows.get(key), this.readings.get(key));
    }
    this.dirty.clear();
    if (added) this.arrange();
    for (const [key, row] of this.rows) {
      if (!row.line.isConnected) continue;
      const { value, freshness } = this.readings.get(key);
      const newest = Math.max(value.trade_time ?? 0, value.quote_time ?? 0);
      setText(row.age, newest ? duration(now - newest) : "–");
      const feed = feeds.get(split(key)[0]) ?? freshness.feed;
      row.line.classList.toggle("off", feed ? !feed.connected : false);
      row.line.title = feed && !feed.connected ? "the feed is disconnected: this price may be old" : "";
    }
  }

  build(key) {
    const [venue, symbol] = split(key);
    const pick = make("button", { className: "pick", type: "button", text: symbol });
    if (venue) pick.append(make("span", { className: "venue", text: venue }));
    const cell = (field, tag = "td") => make(tag, { className: `num ${field}`, "data-field": field });
    const row = { key, last: null, price: cell("price"), spread: cell("spread"), age: cell("age") };
    [row.bid, row.ask] = [cell("bid", "span"), cell("ask", "span")];
    row.line = make("tr", { "data-key": key, "aria-selected": String(key === this.selected) }, make("td", {}, pick));
    row.line.append(row.price, make("td", { className: "num quote" }, row.bid, row.ask), row.spread, row.age);
    row.line.addEventListener("click", () => this.onPick(key));
    return row;
  }

  update(row, { value }) {
    const like = value.price ?? value.mid ?? 1;
    if (row.last !== null && value.price !== null && value.price !== row.last) {
      row.price.classList.toggle("rise", value.price > row.last);
      row.price.classList.toggle("fall", value.price < row.last);
    }
    row.last = value.price ?? row.last;
    for (const field of ["price", "bid", "ask"]) setNumber(row[field], value[field], price(value[field], like));
    // a spread may lie below the decimals that suit the price
    const narrow = value.spread > 0 && value.spread < like / 1e5;
    setNumber(row.spread, value.spread, price(value.spread, narrow ? value.spread : like));
  }

  /** Put the rows that fit the filter in order; a table without bounds would stop the browser. */
  arrange() {
    const wanted = byId("filter").value.trim().toLowerCase();
    const fitting = [...this.rows.keys()].filter((key) => key.toLowerCase().includes(wanted)).sort();
    const shown = fitting.slice(0, ROWS_MAX);
    byId("latest-rows").replaceChildren(...shown.map((key) => this.rows.get(key).line));
    const empty = byId("latest-empty");
    show(empty, shown.length === 0);
    if (this.rows.size && !shown.length) setText(empty, "No instrument fits the filter.");
    const more = byId("latest-more");
    show(more, fitting.length > shown.length);
    setText(more, `Showing ${shown.length} of ${fitting.length}; filter to see others.`);
  }
}

/** The newest anomaly per key, newest first. */
export class SignalPanel {
  constructor(onPick) {
    this.onPick = onPick;
    this.readings = new Map();
    this.dirty = false;
  }

  take(reading) {
    this.readings.set(reading.key, reading);
    this.dirty = true;
  }

  render() {
    if (!this.dirty) return;
    this.dirty = false;
    const newest = [...this.readings.values()].sort((one, other) => other.value.window_start - one.value.window_start);
    setText(byId("signals-count"), String(newest.length));
    show(byId("signals-empty"), newest.length === 0);
    byId("signal-rows").replaceChildren(...newest.slice(0, 50).map((reading) => this.row(reading)));
  }

  row({ key, value }) {
    const [venue, symbol] = split(key);
    const up = value.z >= 0;
    const z = make("span", { className: `value ${up ? "up" : "down"}`, "data-field": "z" });
    setNumber(z, value.z, `${up ? "▲" : "▼"} z ${up ? "+" : "−"}${fixed(Math.abs(value.z), 2)}`);
    const kind = String(value.kind).replaceAll("_", " ");
    const row = make("li", { "data-key": key });
    row.append(make("span", { className: "name", text: symbol }), make("span", { className: "tag", text: kind }), z);
    row.append(make("span", { className: "note", text: `${venue ? `${venue} · ` : ""}window ${clock(value.window_start)} UTC` }));
    row.addEventListener("click", () => this.onPick(key));
    return row;
  }
}

/** Each venue's feed: whether it is live, its last heartbeat, its gaps. */
export function renderFeeds(feeds, now) {
  setText(byId("feeds-count"), String(feeds.length));
  show(byId("feeds-empty"), feeds.length === 0);
  const rows = feeds.map((feed) => {
    const beat = feed.last_heartbeat === null ? null : now - feed.last_heartbeat;
    const late = beat !== null && beat > FEED_LATE_MS;
    const good = feed.connected && !late;
    const gaps = make("span", { className: `value ${feed.gaps ? "down" : ""}`, "data-field": "gaps" });
    setNumber(gaps, feed.gaps, `${amount(feed.gaps)} ${feed.gaps === 1 ? "gap" : "gaps"}`);
    const word = late && feed.connected ? "silent" : feed.connected ? "connected" : feed.state || "disconnected";
    const row = make("li", { "data-venue": feed.venue, "data-connected": String(feed.connected) });
    row.append(
      make("span", { className: `li-dot ${good ? "good" : "bad"}`, "aria-hidden": "true" }),
      make("span", { className: "name", text: feed.venue }),
      make("span", { className: `tag ${good ? "good" : "bad"}`, text: word }),
      gaps,
    );
    const worst = Object.entries(feed.symbols).filter(([, count]) => count > 0).sort((one, other) => other[1] - one[1]);
    const notes = [beat === null ? "no heartbeat yet" : `heartbeat ${duration(beat)} ago`];
    if (feed.detail) notes.push(feed.detail);
    if (worst.length) notes.push(`gaps in ${worst.slice(0, 4).map(([name, count]) => `${name} (${count})`).join(", ")}${worst.length > 4 ? "…" : ""}`);
    row.append(make("span", { className: "note", text: notes.join(" · ") }));
    return row;
  });
  byId("feed-rows").replaceChildren(...rows);
}

/** Throughput, lag and what is being restored. */
export function renderWorker(worker) {
  const lag = Object.values(worker.lag).reduce((sum, one) => sum + one, 0);
  setNumber(byId("rate"), worker.records_per_s, worker.records_per_s === null ? "–" : amount(Math.round(worker.records_per_s)));
  setNumber(byId("lag"), lag, amount(lag));
  setNumber(byId("applied"), worker.records_applied, amount(worker.records_applied));
  const state = byId("worker-state");
  setText(state, worker.ready ? "ready" : "restoring");
  state.className = `tag ${worker.ready ? "good" : "warn"}`;
  const rows = Object.entries(worker.lag).map(([topic, count]) => {
    const value = make("span", { className: "value", "data-field": "lag" });
    setNumber(value, count, `lag ${amount(count)}`);
    const partitions = worker.assigned[topic]?.length ?? 0;
    const row = make("li", { "data-topic": topic }, make("span", { className: "name", text: topic }), value);
    row.append(make("span", { className: "note", text: `${partitions} ${partitions === 1 ? "partition" : "partitions"} here` }));
    return row;
  });
  byId("lag-rows").replaceChildren(...rows);
}

/** What tables there are. */
export function renderTables(tables) {
  const rows = tables.map((table) => {
    const keys = make("td", { className: "num", "data-field": "keys" });
    setNumber(keys, table.keys, table.keys === null ? "–" : amount(table.keys));
    const kind = table.window?.size_ms ? `${table.kind} ${span(table.window.size_ms)}` : table.kind;
    return make("tr", { "data-table": table.name }, make("td", { text: table.name }), make("td", { text: kind }), keys);
  });
  byId("table-rows").replaceChildren(...rows);
}
