// The loop of the page: asks for the documents one after the other, shows them, and says when they are old.

import { Failed, Gone, Refused, get, now, token } from "./api.js";
import { attr, h, text } from "./dom.js";
import { clock, seconds } from "./format.js";
import { showDrills } from "./drills.js";
import { TaskPanel } from "./task.js";
import { TaskGrid, taskKey } from "./tasks.js";
import { showTimeline } from "./timeline.js";
import { showTopology } from "./topology.js";
import { showVerdict } from "./verdict.js";
import { introduce, showWorkers } from "./workers.js";

const EVERY_MS = 2000;
const OLD_MS = 12_000; // from this age on, the age of the data is shown: Kafka or the server is slow
const SELDOM = 5; // topology and drills are asked for in every fifth round

const at = (id) => document.getElementById(id);
const state = { page: null, status: null, reports: [], selected: "", round: 0, readMs: 0, failure: null, failedMs: 0 };

const panel = new TaskPanel(at("task-body"), at("task-lead"));
const grid = new TaskGrid(at("groups"), at("legend"), at("detail"), (task) => {
  state.selected = taskKey(task);
  history.replaceState(null, "", `#task=${encodeURIComponent(state.selected)}`);
  showSelected();
  at("task").scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth", block: "start" });
  round();
});

function chosenTask() {
  const tasks = state.status?.tasks ?? [];
  const wanted = tasks.find((task) => taskKey(task) === state.selected);
  const rank = (task) => (task.phase === "failed" ? 0 : task.database ? 2 : 1);
  return wanted ?? tasks.toSorted((a, b) => rank(a) - rank(b) || b.lag - a.lag || a.task - b.task)[0] ?? null;
}

function showSelected() {
  const task = chosenTask();
  if (!task) {
    at("task-body").replaceChildren(h("p", { class: "empty" }, "The app has no tasks yet."));
    return;
  }
  state.selected = taskKey(task);
  grid.show(state.status, state.selected, now());
  panel.begin(task, now());
}

async function showStatus() {
  const { document: status, atMs } = await get("api/status");
  state.status = status;
  state.readMs = atMs;
  introduce(status);
  showVerdict(at("verdict"), status, now(), atMs);
  showSelected();
  attr(document.querySelector("link[rel=icon]"), "data-problems", status.causes.length || null);
  document.title = `${status.causes.length ? `(${status.causes.length}) ` : ""}${status.app} · pipeline`;
}

async function showRest() {
  const task = chosenTask();
  if (task) {
    await showPart("task", `api/task/${encodeURIComponent(task.group)}/${task.task}`, (found) => {
      if (state.selected === taskKey(task)) panel.show(found, now());
    });
  }
  await showPart("ring", "api/ring", (ring) => showWorkers(at("ring-body"), state.status, ring, now()));
  if (state.round % SELDOM === 0) {
    await showPart("drills", "api/drills", (drills) => {
      state.reports = drills.reports;
      showDrills(at("drills-body"), drills, now());
    });
    await showPart("topology", "api/topology", (graph) => showTopology(at("topology-body"), at("topology-lead"), graph, state.status));
  }
  await showPart("timeline", "api/timeline", (timeline) => showTimeline(at("timeline-body"), at("timeline-lead"), timeline, state.reports));
}

/** Show one document. If the server cannot read it, the section says so, and the others are shown all the same. */
async function showPart(id, path, show) {
  const head = at(id).querySelector(".head");
  let note = head.querySelector(".note");
  try {
    show((await get(path)).document);
    note?.remove();
  } catch (error) {
    if (!(error instanceof Failed)) throw error;
    if (!note) head.append((note = h("p", { class: "note" })));
    text(note, `not read at ${clock(now())}: ${error.message}`);
  }
}

async function showPage() {
  state.page = (await get("api/page")).document;
  text(at("app"), state.page.app);
  const place = state.page.source ? `worker ${state.page.source}` : "pipeline ui";
  text(at("footer"), `Read only. Served by ${place} at ${location.host}; everything is read from Kafka${state.page.options ? ` at ${state.page.options.replace(" --kafka ", "")}` : ""}.`);
}

/** What is wrong with the data that are shown, if anything. */
function showFreshness() {
  const age = now() - state.readMs;
  const failure = state.failure;
  const fresh = at("fresh");
  const old = state.status !== null && age > OLD_MS;
  attr(fresh, "data-state", failure ? "failed" : state.status === null ? "waiting" : old ? "old" : "good");
  text(fresh, state.status === null ? (failure ? "no data" : "reading Kafka") : failure ? `data of ${clock(state.readMs)}` : old ? `${seconds(age / 1000)} old` : "live");
  attr(fresh, "title", state.readMs ? `read from Kafka ${Math.max(0, Math.round(age / 1000))} s ago; requested again every 2 s` : null);
  const alert = at("alert");
  alert.hidden = !failure;
  document.body.classList.toggle("stale", state.status !== null && failure !== null);
  if (!failure) return;
  const since = `since ${clock(state.failedMs)}`;
  const seen = state.status ? ` The page shows data of ${clock(state.readMs)}.` : "";
  const message = failure instanceof Gone ? `${failure.message} ${since}. The process that served this page has ended, or the network is down.` : `${failure.message} (${since}).`;
  const hint = failure.hint ? ` Next: ${failure.hint}.` : "";
  text(alert, `${message}${hint}${seen} Trying again.`);
}

function askForToken(error) {
  const dialog = at("token");
  text(at("token-error"), token.get() ? "The token is wrong." : "");
  token.forget();
  if (!dialog.open) dialog.showModal();
  state.failure = state.status ? error : null;
}

let running = null;

/** One round. Of two at once, the second one waits for the first. */
async function round() {
  if (running) return running;
  running = (async () => {
    try {
      if (!state.page) await showPage();
      await showStatus();
      await showRest();
      state.round += 1;
      state.failure = null;
    } catch (error) {
      if (error instanceof Refused) askForToken(error);
      else {
        // A single slow read is not worth an alarm: the age of the data is shown.
        const patient = state.status && now() - state.readMs < OLD_MS && !(error instanceof Gone);
        if (!state.failure) state.failedMs = now();
        state.failure = patient ? state.failure : error;
        if (!(error instanceof Gone || error instanceof Failed)) console.error(error);
      }
    } finally {
      running = null;
      showFreshness();
    }
  })();
  return running;
}

async function loop() {
  for (;;) {
    if (!document.hidden && !at("token").open) await round();
    await new Promise((resolve) => { setTimeout(resolve, EVERY_MS); });
  }
}

at("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token.set(at("token-value").value.trim());
  at("token-value").value = "";
  at("token").close();
  round();
});
at("token").addEventListener("cancel", (event) => event.preventDefault());
document.addEventListener("visibilitychange", () => { if (!document.hidden && !at("token").open) round(); });
setInterval(showFreshness, 1000);

const linked = new URLSearchParams(location.hash.slice(1)).get("task");
if (linked) state.selected = linked;
loop();
