// Puts the board together: one stream in, a repaint per frame out.

import { CandlePanel } from "./candles.js";
import { Sparkline } from "./chart.js";
import { byId, make, setText, show } from "./dom.js";
import { clock, duration } from "./format.js";
import { LatestPanel, renderFeeds, renderTables, renderWorker, SignalPanel } from "./panels.js";
import { read, session, Stream } from "./stream.js";

const TABLES_EVERY_MS = 15_000;
const KEYS_AT_FIRST = 1_000;
const POLL_EVERY_MS = 2_000;

let tables = [];
let status = null;
let serverAhead = 0; // the server's clock minus this one's
let lastHeard = null;
let painting = false;
let polling = false; // the candles' key lives on another worker: a read is forwarded there, a stream is not

const now = () => Date.now() + serverAhead;
const has = (name) => tables.some((table) => table.name === name);

const candles = new CandlePanel(() => {
  latest.select(candles.key);
  follow();
  candles.load();
});
const pick = (key) => candles.choose(candles.table, key);
const latest = new LatestPanel(pick);
const signals = new SignalPanel(pick);
const spark = new Sparkline(byId("spark"));

const stream = new Stream({
  open() {
    polling = false;
    candles.load();
  },
  refused: () => (polling = true),
  reading(kind, reading) {
    if (reading.table === "latest") {
      latest.take(reading);
      candles.addKeys([reading.key]);
    } else if (reading.table === "signals") signals.take(reading);
    candles.take(reading);
    paint();
  },
  status(document) {
    status = document;
    serverAhead = document.as_of - Date.now();
    lastHeard = document.as_of;
    spark.push(document.worker.records_per_s);
    paint();
  },
  state: showConnection,
  denied: showLogin,
});

/** Follow what the board shows, in one connection. */
function follow() {
  const wanted = ["latest", "signals"].filter(has);
  if (candles.subscription) wanted.push(candles.subscription);
  if (wanted.length) stream.follow(wanted);
  else if (tables.length) stream.follow([tables[0].name]);
}

function paint() {
  if (painting) return;
  painting = true;
  requestAnimationFrame(() => {
    painting = false;
    const feeds = new Map((status?.feeds ?? []).map((feed) => [feed.venue, feed]));
    latest.render(now(), feeds);
    signals.render();
    if (candles.dirty) candles.render();
    if (status) {
      renderWorker(status.worker);
      renderFeeds(status.feeds, now());
      setText(byId("updated"), lastHeard === null ? "–" : `${clock(lastHeard)} UTC`);
    }
    renderBanners();
  });
}

function showConnection(word, since) {
  document.body.dataset.connection = word;
  const texts = { connecting: "Connecting", live: "Live", stale: "Stale" };
  setText(byId("connection-text"), texts[word]);
  if (word === "stale") {
    setText(byId("connection-text"), `Stale for ${duration(Date.now() - since)}`);
    renderBanners();
  }
}

function renderBanners() {
  const lines = [];
  if (document.body.dataset.connection === "stale") {
    const since = lastHeard === null ? "" : ` Everything below is as of ${clock(lastHeard)} UTC.`;
    lines.push(["bad", "stale-page", `This page has lost its worker and is trying to reach it again.${since}`]);
  }
  if (status && !status.worker.ready) {
    const { restoring, detail } = status.worker;
    const what = restoring.length ? `restoring ${restoring.length} partition(s): ${restoring.slice(0, 6).join(", ")}` : detail || "starting";
    lines.push(["warn", "restoring", `The worker is not ready: ${what}. What is shown may be incomplete.`]);
  }
  for (const feed of status?.feeds ?? []) {
    if (!feed.connected) lines.push(["warn", `feed-${feed.venue}`, `The feed ${feed.venue} is disconnected; its prices stand still.`]);
  }
  const box = byId("banners");
  const wanted = JSON.stringify(lines);
  if (box.dataset.lines === wanted) return;
  box.dataset.lines = wanted;
  box.replaceChildren(...lines.map(([kind, name, text]) => make("p", { className: `banner ${kind}`, "data-banner": name, text })));
}

async function loadTables() {
  tables = (await read("/v1/tables")).tables;
  renderTables(tables);
  return tables;
}

async function start() {
  try {
    const { login_required: needed, allowed } = await session();
    if (!allowed) return showLogin();
    show(byId("login-view"), false);
    show(byId("board"), true);
    show(byId("logout"), needed);
    await loadTables();
    candles.setTables(tables);
    if (candles.table) {
      const path = `/v1/tables/${encodeURIComponent(candles.table.name)}/keys?limit=${KEYS_AT_FIRST}`;
      candles.addKeys((await read(path).catch(() => ({ items: [] }))).items);
    }
    follow();
    latest.arrange();
  } catch {
    setTimeout(start, 1_500);
  }
  return undefined;
}

function showLogin() {
  stream.stop();
  show(byId("board"), false);
  show(byId("login-view"), true);
  show(byId("logout"), false);
  document.body.dataset.connection = "connecting";
  setText(byId("connection-text"), "Locked");
  byId("token").focus();
}

byId("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  setText(byId("login-error"), "");
  try {
    const response = await fetch("/login", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ token: byId("token").value }),
    });
    byId("token").value = "";
    if (response.ok) start();
    else {
      const wait = response.headers.get("Retry-After");
      const problem = await response.json();
      setText(byId("login-error"), response.status === 429 ? `Too many attempts; try again in ${wait} s.` : problem.detail);
    }
  } catch {
    setText(byId("login-error"), "The worker does not answer.");
  }
});

byId("logout").addEventListener("click", async () => {
  await fetch("/logout", { method: "POST" }).catch(() => undefined);
  showLogin();
});

byId("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = getComputedStyle(root).colorScheme === "dark";
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
  candles.chart.draw();
  spark.paint();
});
document.documentElement.dataset.theme = localStorage.getItem("theme") ?? "auto";
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => candles.chart.draw());

setInterval(paint, 1_000);
setInterval(() => polling && candles.load(), POLL_EVERY_MS);
setInterval(() => {
  if (document.body.dataset.connection === "live") loadTables().catch(() => undefined);
}, TABLES_EVERY_MS);
start();
