// The grid of tasks by group: phase, lag, predicted restore time and owner of each; details at the pointer or the focus.

import { attr, h, keyed, rebuilt, text } from "./dom.js";
import { NONE, ago, bytes, number, plural, rate, seconds, short } from "./format.js";
import { badge, owned } from "./workers.js";

// Each phase has a symbol and a colour, so that none is known by its colour alone.
export const PHASES = {
  live: ["●", "a worker runs it"],
  moving: ["⇄", "another worker prepares to take it over"],
  restoring: ["◔", "a worker restores its state"],
  unowned: ["○", "no worker runs it"],
  failed: ["✕", "it has stopped with an error"],
  new: ["＋", "it has never run"],
  retired: ["▪", "another app has replaced this one"],
};
const ROOMY = 40; // tasks; with more of them, cells show less

export const taskKey = (task) => `${task.group}/${task.task}`;

function cell(chosen) {
  const line = (name) => h("span", { class: name });
  const button = h(
    "button", { type: "button", class: "cell", tabindex: "-1", "aria-describedby": "detail" },
    line("number"), line("phase"), line("lag"), line("restore"), line("owner"),
  );
  button.addEventListener("click", () => chosen(button.shownTask));
  return button;
}

function update(button, task, selected, roomy) {
  const [symbol] = PHASES[task.phase] ?? ["?"];
  button.shownTask = task;
  attr(button, "data-phase", task.phase);
  attr(button, "data-problem", task.problem ? "yes" : null);
  attr(button, "aria-pressed", taskKey(task) === selected ? "true" : "false");
  const taker = task.phase !== "live" ? task.next_worker : "";
  const owner = taker || (owned(task) ? task.worker : "");
  const without = task.worker ? `last: ${task.worker}` : "no worker";
  attr(button, "aria-label", `Task ${taskKey(task)}: ${task.phase}, lag ${number(task.lag)}, ${owner || (task.worker ? `no worker, ${without}` : without)}`);
  const [name, phase, lag, restore, worker] = button.children;
  text(name, String(task.task));
  text(phase, roomy ? `${symbol} ${task.phase}` : symbol);
  text(lag, roomy ? `lag ${short(task.lag, 10_000)}` : task.lag ? short(task.lag) : "");
  text(restore, !roomy ? "" : task.database ? "no state" : `restore ${seconds(task.restore_s)}`);
  rebuilt(worker, [owner, without, roomy], () => (owner ? [badge(owner), roomy ? h("span", {}, owner) : ""] : [roomy ? h("span", {}, without) : ""]));
}

const SHOWN = 8; // partitions; the others continue at the same distance

const partitions = (numbers) => (numbers.length > SHOWN ? `${numbers.slice(0, SHOWN).join(", ")}, … (${numbers.length})` : numbers.join(", "));

function facts(task, nowMs) {
  return [
    ["Phase", `${PHASES[task.phase]?.[0] ?? ""} ${task.phase}: ${PHASES[task.phase]?.[1] ?? ""}`],
    [owned(task) ? "Worker" : "Last worker", task.worker || NONE],
    ...(task.next_worker ? [["Next worker", task.next_worker]] : []),
    ...(task.partitions.length > 1 ? [["Partitions", partitions(task.partitions)]] : []),
    ["Lag", plural(task.lag, "record")],
    ["Throughput", task.records_per_s === null ? NONE : `${rate(task.records_per_s)} records/s`],
    [task.database ? "Epoch" : "Last entry", task.database ? number(task.seq) : `${number(task.seq)}, ${ago(task.last_entry_ms, nowMs)}`],
    ...(task.clock_behind_s == null ? [] : [["Event clock", `${seconds(task.clock_behind_s)} behind at the last entry`]]),
    ...(task.database ? [["Database", task.database]] : stateFacts(task, nowMs)),
  ];
}

function stateFacts(task, nowMs) {
  return [
    ["Checkpoint", task.last_checkpoint_ms ? `${bytes(task.checkpoint_bytes)}, ${ago(task.last_checkpoint_ms, nowMs)}` : "none"],
    ["Journal after it", bytes(task.journal_bytes)],
    ["Restore on an empty disk", `${seconds(task.restore_s)}, predicted`],
  ];
}

/** The facts of a task as a list, and its problem. */
export const factList = (task, nowMs) => [
  h("dl", { class: "facts" }, facts(task, nowMs).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
  task.problem ? h("p", { class: "bad" }, task.problem.split("\n")[0]) : "",
];

/** The detail beside a cell. */
class Detail {
  constructor(node) {
    this.node = node;
    this.cell = null;
  }

  show(button) {
    this.cell = button;
    this.refresh();
    this.place();
  }

  /** Put it beside its cell, which may have moved. */
  place() {
    if (!this.cell) return;
    const at = this.cell.getBoundingClientRect();
    this.node.hidden = at.bottom < 0 || at.top > document.documentElement.clientHeight;
    const { offsetWidth: wide, offsetHeight: high } = this.node;
    const left = Math.max(8, Math.min(at.left, document.documentElement.clientWidth - wide - 8));
    const below = at.bottom + 8 + high < document.documentElement.clientHeight;
    this.node.style.left = `${left}px`;
    this.node.style.top = `${below ? at.bottom + 8 : Math.max(8, at.top - high - 8)}px`;
  }

  hide() {
    this.cell = null;
    this.node.hidden = true;
  }

  refresh(nowMs = Date.now()) {
    if (!this.cell?.isConnected) return this.hide();
    const task = this.cell.shownTask;
    rebuilt(this.node, [task, Math.round(nowMs / 1000)], () => [h("h3", {}, `Task ${taskKey(task)}`), ...factList(task, nowMs)]);
  }
}

export class TaskGrid {
  /** `chosen`: called with the task that the reader selects. */
  constructor(groups, legend, detail, chosen) {
    this.groups = groups;
    this.legend = legend;
    this.detail = new Detail(detail);
    this.chosen = chosen;
    this.roved = ""; // the key of the cell that Tab reaches
    const cellAt = (event) => event.target.closest?.(".cell");
    groups.addEventListener("pointerover", (event) => {
      if (event.pointerType !== "touch" && cellAt(event)) this.detail.show(cellAt(event));
    });
    groups.addEventListener("pointerout", (event) => {
      if (!event.relatedTarget?.closest?.(".cell")) this.detail.hide();
    });
    groups.addEventListener("focusin", (event) => {
      if (!cellAt(event)) return;
      this.rove(cellAt(event));
      if (cellAt(event).matches(":focus-visible")) this.detail.show(cellAt(event));
    });
    groups.addEventListener("focusout", () => this.detail.hide());
    groups.addEventListener("keydown", (event) => this.move(event));
    for (const change of ["scroll", "resize"]) addEventListener(change, () => this.detail.place(), { passive: true });
  }

  rove(button) {
    this.roved = taskKey(button.shownTask);
    for (const each of this.groups.querySelectorAll(".cell")) attr(each, "tabindex", each === button ? "0" : "-1");
  }

  move(event) {
    const cells = [...this.groups.querySelectorAll(".cell")];
    const at = cells.indexOf(event.target);
    if (event.key === "Escape") this.detail.hide();
    if (at < 0) return;
    const to = {
      ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: cells.length - 1,
      ArrowDown: this.beside(cells, at, 1), ArrowUp: this.beside(cells, at, -1),
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    cells[Math.max(0, Math.min(cells.length - 1, to))].focus();
  }

  /** The index of the nearest cell in the next line in this direction. */
  beside(cells, at, direction) {
    const here = cells[at].getBoundingClientRect();
    const others = cells
      .map((each, index) => [each.getBoundingClientRect(), index])
      .filter(([box]) => direction * (box.top - here.top) > here.height / 2)
      .sort(([a], [b]) => direction * (a.top - b.top) || Math.abs(a.left - here.left) - Math.abs(b.left - here.left));
    return others.length ? others[0][1] : at;
  }

  show(status, selected, nowMs) {
    const roomy = status.tasks.length <= ROOMY;
    const byGroup = new Map(status.groups.map((group) => [group.group, []]));
    for (const task of status.tasks) byGroup.get(task.group)?.push(task);
    keyed(
      this.groups, status.groups, (group) => group.group,
      (group) => h("div", { class: "group" }, h("div", { class: "group-head" }, h("h3", {}, group.group), h("p", { class: "soft" })), h("div", { class: "cells" })),
      (node, group) => {
        const phases = Object.entries(group.phases).map(([phase, count]) => `${number(count)} ${phase}`);
        const parts = [phases.join(", "), `lag ${number(group.lag)}`];
        if (group.restore_s) parts.push(`restore ≤ ${seconds(group.restore_s)}`);
        if (group.open_dead_letters) parts.push(plural(group.open_dead_letters, "open dead letter"));
        if (group.retried) parts.push(`${plural(group.retried, "task")} retrying`);
        text(node.querySelector("p"), parts.join("  ·  "));
        node.lastChild.classList.toggle("dense", !roomy);
        node.lastChild.style.setProperty("--count", group.task_count);
        const tasks = byGroup.get(group.group).sort((a, b) => a.task - b.task);
        keyed(node.lastChild, tasks, taskKey, () => cell(this.chosen), (button, task) => update(button, task, selected, roomy));
      },
    );
    if (!status.tasks.length) this.groups.replaceChildren(h("p", { class: "empty" }, "The app has no tasks yet. They exist after the first start of a worker."));
    const cells = [...this.groups.querySelectorAll(".cell")];
    if (cells.length && !cells.some((each) => each.getAttribute("tabindex") === "0")) attr(cells[0], "tabindex", "0");
    const seen = Object.keys(PHASES).filter((phase) => status.tasks.some((task) => task.phase === phase));
    keyed(this.legend, seen, (phase) => phase, (phase) => h("li", { "data-phase": phase, title: PHASES[phase][1] }, `${PHASES[phase][0]} ${phase}`));
    this.detail.refresh(nowMs);
  }
}
