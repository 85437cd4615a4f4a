// One connection for everything that is live, which comes back by itself and knows when it has gone quiet.

const STALE_AFTER_MS = 4_000; // the server sends its status every second
const BACKOFF_MAX_MS = 10_000;

/** Whether this browser may read: {login_required, allowed}; throws when no server answers. */
export async function session() {
  const response = await fetch("/session", { cache: "no-store", signal: AbortSignal.timeout(5_000) });
  if (!response.ok) throw new Error(`the server answers ${response.status}`);
  return response.json();
}

/** JSON from the server; throws an Error whose `status` and `code` are the problem's. */
export async function read(path) {
  const response = await fetch(path, { signal: AbortSignal.timeout(10_000) });
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  throw Object.assign(new Error(body.detail || `the server answers ${response.status}`), { status: response.status, code: body.code });
}

/**
 * Follows `/v1/changes`. `handlers`: `open()`, `reading(kind, reading)`, `status(document)`, `state(word, since)` with `connecting`,
 * `live` or `stale`, `refused(subscription)` for what this worker cannot stream, and `denied()` when a login is needed.
 */
export class Stream {
  constructor(handlers) {
    this.handlers = handlers;
    this.source = null;
    this.path = null;
    this.failures = 0;
    this.lastMessage = null;
    this.timer = null;
    this.word = null;
    setInterval(() => this.watch(), 500);
  }

  /** Follow these subscriptions (TABLE or TABLE/KEY) instead of the earlier ones. */
  follow(subscriptions) {
    const query = new URLSearchParams({ status: "true", interval_ms: "200" });
    for (const one of subscriptions) query.append("of", one);
    this.path = `/v1/changes?${query}`;
    this.failures = 0;
    this.connect();
  }

  stop() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
    this.path = null;
  }

  connect() {
    clearTimeout(this.timer);
    this.source?.close();
    const source = new EventSource(this.path);
    this.source = source;
    const heard = (action) => (event) => {
      if (source !== this.source) return;
      this.lastMessage = Date.now();
      this.failures = 0;
      this.say("live");
      action(JSON.parse(event.data));
    };
    source.onopen = () => source === this.source && this.handlers.open();
    source.onerror = () => source === this.source && this.retry();
    source.addEventListener("snapshot", heard((reading) => this.handlers.reading("snapshot", reading)));
    source.addEventListener("change", heard((reading) => this.handlers.reading("change", reading)));
    source.addEventListener("status", heard((status) => this.handlers.status(status)));
    source.addEventListener("refused", heard(({ of }) => this.handlers.refused(of)));
    source.addEventListener("problem", () => source === this.source && this.retry());
  }

  /** Connect again after a growing, jittered pause; ask first whether a login is what is missing. */
  retry() {
    this.source?.close();
    this.source = null;
    clearTimeout(this.timer);
    this.failures += 1;
    const pause = Math.min(BACKOFF_MAX_MS, 250 * 2 ** Math.min(this.failures, 6)) * (0.5 + Math.random() / 2);
    if (this.lastMessage === null) this.say("connecting");
    this.timer = setTimeout(async () => {
      if (this.path === null) return;
      try {
        const { allowed } = await session();
        if (!allowed) this.handlers.denied();
        else if (this.path !== null) this.connect();
      } catch {
        if (this.path !== null) this.retry();
      }
    }, pause);
  }

  watch() {
    if (this.path === null || this.lastMessage === null) return;
    const silent = Date.now() - this.lastMessage;
    if (silent > STALE_AFTER_MS) {
      this.say("stale", true);
      // a connection that is open but says nothing is as good as lost
      if (this.source !== null && silent > 3 * STALE_AFTER_MS) this.retry();
    }
  }

  say(word, again = false) {
    if (word === this.word && !again) return;
    this.word = word;
    this.handlers.state(word, this.lastMessage);
  }
}
