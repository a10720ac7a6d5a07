// The workers: who owns what as a ring, and what moved, when and why.
//
// A worker has the same letter and colour everywhere, also on the page of another worker: they depend only on the ids in
// the status. A worker that is neither alive nor the last owner of a task has none.

import { attr, h, keyed, rebuilt, s, text } from "./dom.js";
import { NONE, ago, number, plural, when } from "./format.js";

const COLOURS = 10;
let known = []; // the ids of the live workers and the last owners, sorted

const colour = (worker) => (known.includes(worker) ? known.indexOf(worker) % COLOURS : "none");

function letter(worker) {
  const index = known.indexOf(worker);
  return index < 0 ? "·" : index < 26 ? String.fromCharCode(65 + index) : String(index + 1);
}

/** Give the workers of a status their letters, and correct those that are shown. */
export function introduce(status) {
  const ids = [...status.workers.map((each) => each.worker), ...status.tasks.flatMap((task) => [task.worker, task.next_worker])];
  known = [...new Set(ids.filter(Boolean))].sort((a, b) => a.localeCompare(b, "en", { numeric: true }) || (a < b ? -1 : 1));
  for (const each of document.querySelectorAll(".badge")) {
    attr(each, "data-worker", colour(each.title));
    text(each, letter(each.title));
  }
}

/** A worker's letter, with its colour. */
export const badge = (worker) => h("span", { class: "badge", "data-worker": colour(worker), title: worker, "aria-hidden": "true" }, letter(worker));

/** Whether a worker has the task now; else its worker is the last one. */
export const owned = (task) => running(task) || task.phase === "failed";

const named = (worker) => (worker ? h("span", { class: "worker" }, badge(worker), h("span", {}, worker)) : h("span", { class: "soft" }, "no worker"));

function arc(from, to) {
  const point = (share, radius) => {
    const angle = 2 * Math.PI * share - Math.PI / 2;
    return `${(100 + radius * Math.cos(angle)).toFixed(2)} ${(100 + radius * Math.sin(angle)).toFixed(2)}`;
  };
  const end = Math.min(to, from + 0.99999);
  const large = end - from > 0.5 ? 1 : 0;
  return `M ${point(from, 92)} A 92 92 0 ${large} 1 ${point(end, 92)} L ${point(end, 62)} A 62 62 0 ${large} 0 ${point(from, 62)} Z`;
}

/** One segment for each task, ordered by worker; tasks without one are last. */
function ring(tasks) {
  const rank = (task) => (task.worker && running(task) ? known.indexOf(task.worker) : 1e6);
  const ordered = [...tasks].sort((a, b) => rank(a) - rank(b) || a.group.localeCompare(b.group) || a.task - b.task);
  const gap = ordered.length > 120 ? 0 : 0.0022;
  const count = ordered.length;
  return s(
    "svg", { viewBox: "0 0 200 200", role: "img", "aria-label": `The ring: ${plural(count, "task")}`, class: "ring" },
    ordered.map((task, index) =>
      s(
        "path", { d: arc(index / count + gap, (index + 1) / count - gap), "data-worker": running(task) ? colour(task.worker) : "none" },
        s("title", {}, `${task.group}/${task.task}: ${running(task) ? task.worker : task.phase}`),
      ),
    ),
    s("text", { x: 100, y: 98, class: "ring-count" }, number(count)),
    s("text", { x: 100, y: 118, class: "ring-label" }, count === 1 ? "task" : "tasks"),
  );
}

const running = (task) => task.phase === "live" || task.phase === "moving";

export function showWorkers(body, status, document, nowMs) {
  if (!body.querySelector(".workers")) {
    body.replaceChildren(
      h(
        "div", { class: "owners" },
        h("div", { class: "ring-place" }),
        h("div", { class: "scroll" }, h("table", { class: "workers" },
          h("thead", {}, h("tr", {}, h("th", {}, "Worker"), h("th", { class: "n" }, "Tasks"), h("th", {}, "Which"), h("th", { class: "n" }, "Weight"), h("th", { class: "n" }, "Runs for"))),
          h("tbody", {}))),
      ),
      h("h3", {}, "Moves"),
      h("ol", { class: "events moves" }),
    );
  }
  rebuilt(body.querySelector(".ring-place"), [known, status.tasks.map((task) => [task.group, task.task, running(task) ? task.worker : task.phase])], () => ring(status.tasks));
  const rows = body.querySelector("tbody");
  if (document.workers.length) {
    keyed(
      rows, document.workers, (each) => each.worker,
      (each) => h("tr", {}, h("td", {}, named(each.worker)), h("td", { class: "n" }), h("td", { class: "which" }), h("td", { class: "n" }), h("td", { class: "n" })),
      (node, each) => {
        text(node.children[1], number(each.task_count));
        text(node.children[2], each.waiting ? "waits: it runs another version of the app" : each.tasks || NONE);
        text(node.children[3], number(each.weight));
        text(node.children[4], each.started_ms ? ago(each.started_ms, nowMs).replace(" ago", "") : NONE);
        attr(node, "title", `process ${each.process}`);
      },
    );
  } else rebuilt(rows, [], () => h("tr", {}, h("td", { colspan: 5, class: "empty" }, "No worker is alive. Kafka detects a killed worker after 10 s.")));
  if (document.workers.length) rows.shownValue = undefined;
  const list = body.querySelector(".moves");
  if (document.moves.length) {
    keyed(
      list, document.moves, (move) => `${move.at_ms} ${move.kind} ${move.tasks} ${move.to}`,
      (move) => h("li", { "data-kind": move.kind },
        h("time", {}),
        h("span", { class: "what" }, h("b", {}, move.tasks),
          move.kind === "failure" ? [" failed on ", named(move.to)] : move.from && move.from !== move.to ? [" ", named(move.from), " → ", named(move.to)] : [" → ", named(move.to)]),
        h("span", { class: "why" }, move.why)),
      (node, move) => {
        text(node.firstChild, when(move.at_ms, nowMs));
        attr(node.firstChild, "title", new Date(move.at_ms).toISOString());
      },
    );
    list.shownValue = undefined;
  } else rebuilt(list, [], () => h("li", { class: "empty" }, "No move of a task is recorded."));
}

export { named };
