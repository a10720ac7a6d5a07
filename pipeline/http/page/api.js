// Requests documents, with the token if one is needed, and knows how old the data are.

const KEY = "pipeline-token";

export class Refused extends Error {} // the token is missing or wrong
export class Gone extends Error {} // nothing answers at this address
/** The server says why it has no document, and the next step. */
export class Failed extends Error {
  constructor(message, hint) {
    super(message);
    this.hint = hint;
  }
}

/** The server's clock, relative to ours: times in documents are those of the server. */
let skewMs = 0;
export const now = () => Date.now() + skewMs;

export const token = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

/**
 * The document at a path, and when it was read from Kafka.
 * Throws Refused, Gone or Failed.
 */
export async function get(path) {
  const headers = token.get() ? { Authorization: `Bearer ${token.get()}` } : {};
  let answer;
  try {
    answer = await fetch(path, { headers, cache: "no-store", signal: AbortSignal.timeout(20_000) });
  } catch {
    throw new Gone(`No answer from ${location.host}`);
  }
  const date = Date.parse(answer.headers.get("Date"));
  if (date) {
    const difference = date - Date.now();
    skewMs = Math.abs(difference) < 2000 ? 0 : difference;
  }
  let document;
  try {
    document = await answer.json();
  } catch {
    throw new Gone(`${location.host} did not answer with JSON`);
  }
  if (answer.status === 401) throw new Refused(document.error);
  if (!answer.ok) throw new Failed(document.error, document.hint);
  return { document, atMs: now() - 1000 * Number(answer.headers.get("Age") ?? 0) };
}
