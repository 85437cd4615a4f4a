// How numbers, times and names are shown. Everything returns text; nothing here touches the page.

const digitsFor = (magnitude) => {
  if (magnitude >= 1000) return 2;
  if (magnitude >= 1) return magnitude >= 100 ? 2 : 4;
  if (magnitude === 0) return 2;
  return Math.min(12, (magnitude < 1e-4 ? 3 : 4) - Math.floor(Math.log10(magnitude)));
};

const formats = new Map();

/** A number with a fixed count of decimals, grouped; the same count gives columns that line up. */
export function fixed(value, digits) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (!formats.has(digits)) {
    formats.set(digits, new Intl.NumberFormat("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits }));
  }
  return formats.get(digits).format(value);
}

/** A price, with decimals that suit its size, or the size of `like`. */
export function price(value, like = value) {
  return fixed(value, digitsFor(Math.abs(like ?? 0)));
}

/** A count or an amount, shortened from ten thousand on. */
export function amount(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  for (const [unit, letter] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e4, "k"]]) {
    if (size >= unit) return `${fixed(value / (unit === 1e4 ? 1e3 : unit), 2)}${letter}`;
  }
  return fixed(value, Number.isInteger(value) ? 0 : size >= 100 ? 1 : size >= 1 ? 2 : 4);
}

/** A duration in milliseconds, in its largest fitting unit. */
export function duration(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 0) return "0 s";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 100_000) return `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`;
  if (ms < 7_200_000) return `${Math.round(ms / 60_000)} min`;
  if (ms < 172_800_000) return `${Math.round(ms / 3_600_000)} h`;
  return `${Math.round(ms / 86_400_000)} d`;
}

const two = (number) => String(number).padStart(2, "0");

/** Hours, minutes and seconds of a time, UTC. */
export function clock(ms) {
  const time = new Date(ms);
  return `${two(time.getUTCHours())}:${two(time.getUTCMinutes())}:${two(time.getUTCSeconds())}`;
}

/** Hours and minutes, UTC. */
export const minute = (ms) => clock(ms).slice(0, 5);

/** Month and day, UTC. */
export function day(ms) {
  const time = new Date(ms);
  return `${two(time.getUTCMonth() + 1)}-${two(time.getUTCDate())}`;
}

/** The length of a window, as people say it. */
export function span(ms) {
  if (ms % 86_400_000 === 0) return `${ms / 86_400_000}d`;
  if (ms % 3_600_000 === 0) return `${ms / 3_600_000}h`;
  if (ms % 60_000 === 0) return `${ms / 60_000}m`;
  return `${ms / 1000}s`;
}

/** A key's venue and instrument: what stands before and after its first colon. */
export function split(key) {
  const at = key.indexOf(":");
  return at < 0 ? ["", key] : [key.slice(0, at), key.slice(at + 1)];
}
