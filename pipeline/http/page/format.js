// Numbers, sizes and times as people read them.

const NUMBER = new Intl.NumberFormat("en");
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const MINUTE = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

export const NONE = "–";

export const number = (value) => (value === null || value === undefined ? NONE : NUMBER.format(value));

/** A number in at most four characters, or as it is below `plain`: for cells of a grid. */
export function short(value, plain = 1000) {
  if (value < plain) return NUMBER.format(value);
  for (const [unit, size] of [["k", 1e3], ["M", 1e6], ["G", 1e9]]) {
    const scaled = value / size;
    if (scaled < 999.5) return `${scaled < 9.95 ? scaled.toFixed(1) : Math.round(scaled)}${unit}`;
  }
  return "1T+";
}

export function rate(value) {
  if (value === null || value === undefined) return NONE;
  return value > 0 && value < 10 ? value.toFixed(1) : NUMBER.format(Math.round(value));
}

export function bytes(value) {
  if (!value) return "0 B";
  const units = ["B", "kB", "MB", "GB", "TB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log10(value) / 3));
  const scaled = value / 1000 ** power;
  return `${power && scaled < 10 ? scaled.toFixed(1) : Math.round(scaled)} ${units[power]}`;
}

export function seconds(value) {
  if (value === null || value === undefined) return NONE;
  if (value < 10) return `${value.toFixed(1)} s`;
  if (value < 120) return `${Math.round(value)} s`;
  if (value < 7200) return `${Math.round(value / 60)} min`;
  return value < 172_800 ? `${Math.round(value / 3600)} h` : `${Math.round(value / 86_400)} d`;
}

/** How long ago a time is; without decimals, so that it does not flicker. */
export function ago(atMs, nowMs) {
  if (!atMs) return NONE;
  const passed = Math.max(0, Math.round((nowMs - atMs) / 1000));
  return passed < 1 ? "now" : `${passed < 120 ? `${passed} s` : seconds(passed)} ago`;
}

export const clock = (atMs) => (atMs ? CLOCK.format(atMs) : NONE);
export const minute = (atMs) => MINUTE.format(atMs);

/** The time of today, or the day and the time. */
export function when(atMs, nowMs) {
  if (!atMs) return NONE;
  return nowMs - atMs < 43_200_000 ? CLOCK.format(atMs) : DAY.format(atMs);
}

export const plural = (count, noun, many = `${noun}s`) => `${number(count)} ${count === 1 ? noun : many}`;
