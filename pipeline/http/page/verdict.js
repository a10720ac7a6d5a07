// Whether the app is healthy, its figures, and each problem with its next step.

import { command, h, keyed, rebuilt } from "./dom.js";
import { NONE, ago, number, plural, rate, seconds } from "./format.js";

const COMMANDS = "worker|status|table|journal|debug|checkpoints|deadletters|reset|migrate|drill|doctor|acls|topics|produce|loads|consume|broker|ring|runbook";
const PARTS = new RegExp(`(pipeline (?:${COMMANDS})\\b[^;]*?)(?=;|: runbooks/|$)|(runbooks/[a-z0-9-]+\\.md)`);

/** A hint as text, with commands that can be copied and links to runbooks. */
export function hinted(hint) {
  const found = [];
  let rest = hint;
  for (let match = PARTS.exec(rest); match; match = PARTS.exec(rest)) {
    found.push(rest.slice(0, match.index));
    if (match[1]) found.push(command(match[1].trim()));
    else {
      const name = match[2].slice("runbooks/".length, -".md".length);
      found.push(h("a", { href: match[2], target: "_blank", rel: "noopener", class: "runbook" }, `Runbook: ${name}`));
    }
    rest = rest.slice(match.index + match[0].length);
  }
  found.push(rest);
  return found.map((part) => (typeof part === "string" ? part.replace(/^[:;,\s]+$/, " ").replace(/^;\s*/, " ") : part));
}

function figures(status, nowMs, readMs) {
  const groups = status.groups;
  const total = (of) => groups.reduce((sum, group) => sum + (of(group) ?? 0), 0);
  const live = total((group) => (group.phases.live ?? 0) + (group.phases.moving ?? 0));
  const tasks = total((group) => group.task_count);
  // A rate is that of a task's last commit; a task that has not committed for a while has none.
  const active = status.tasks.filter((task) => task.records_per_s !== null);
  const recent = active.filter((task) => readMs - task.last_entry_ms < 10_000);
  const letters = status.dead_letters.length ? total((group) => group.open_dead_letters) : null;
  const newest = Math.max(0, ...status.tasks.map((task) => task.last_entry_ms));
  return [
    ["Tasks live", `${number(live)} of ${number(tasks)}`, live < tasks],
    ["Workers", number(status.workers.length), status.workers.length === 0],
    ["Lag", plural(total((group) => group.lag), "record"), false],
    ["Throughput", active.length ? `${rate(recent.reduce((sum, task) => sum + task.records_per_s, 0))} /s` : NONE, false],
    ["Last commit", ago(newest, nowMs), false],
    ["Restore on an empty disk", groups.length ? `≤ ${seconds(Math.max(...groups.map((group) => group.restore_s)))}` : NONE, false],
    ["Open dead letters", letters === null ? "none" : number(letters), Boolean(letters)],
  ];
}

export function showVerdict(section, status, nowMs, readMs) {
  const causes = status.causes;
  const tasks = status.tasks.length;
  const state = causes.length ? "bad" : "good";
  section.dataset.state = state;
  if (!section.querySelector(".figures")) {
    section.replaceChildren(
      h("div", { class: "lead" }, h("span", { class: "sign", "aria-hidden": "true" }), h("div", {}, h("h2", {}), h("p", { class: "soft" }))),
      h("dl", { class: "figures" }),
      h("ul", { class: "problems" }),
    );
  }
  const [sign, title, lead] = [".sign", "h2", ".lead p"].map((each) => section.querySelector(each));
  const workers = plural(status.workers.length, "worker");
  const set = (node, value) => { if (node.textContent !== value) node.textContent = value; };
  set(sign, causes.length ? "!" : "✓");
  set(title, causes.length ? plural(causes.length, "problem") : "Healthy");
  set(lead, causes.length ? "The most urgent one is first." : `${plural(tasks, "task")} on ${workers}. No problem was found.`);
  keyed(
    section.querySelector(".figures"), figures(status, nowMs, readMs), ([name]) => name,
    ([name]) => h("div", {}, h("dt", {}, name), h("dd", {})),
    (node, [, value, bad]) => {
      set(node.lastChild, value);
      node.lastChild.classList.toggle("bad", bad);
    },
  );
  keyed(
    section.querySelector(".problems"), causes, (cause) => `${cause.message}\n${cause.hint}`,
    () => h("li", {}, h("p", { class: "message" }), h("p", { class: "hint" })),
    (node, cause) => {
      set(node.firstChild, cause.message);
      rebuilt(node.lastChild, cause.hint, () => hinted(cause.hint));
    },
  );
}
