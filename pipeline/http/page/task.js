// One task: its facts, last entries, rows by key, and dead letters with the command that replays each.

import { get } from "./api.js";
import { attr, command, h, keyed, rebuilt, text } from "./dom.js";
import { NONE, ago, bytes, number, plural, when } from "./format.js";
import { factList, taskKey } from "./tasks.js";
import { named, owned } from "./workers.js";

const table = (name, ...titles) => h("div", { class: "scroll" }, h("table", { class: name }, h("thead", {}, h("tr", {}, titles.map(([title, kind]) => h("th", { class: kind ?? null }, title)))), h("tbody", {})));

export class TaskPanel {
  constructor(body, lead) {
    this.body = body;
    this.lead = lead;
    this.task = null;
    this.tableName = "";
    this.filter = "";
    this.found = null; // the answer to the last search for a key
  }

  /** Show the facts that the status has; the rest follows with `show`. */
  begin(task, nowMs) {
    if (taskKey(task) !== (this.task && taskKey(this.task))) {
      this.task = task;
      this.filter = "";
      this.found = null;
      this.document = null;
      this.build();
    }
    this.task = task;
    rebuilt(this.lead, [taskKey(task), task.phase, task.worker], () => [h("b", {}, taskKey(task)), `  ${task.phase}${task.worker && !owned(task) ? ", last: " : " "}`, task.worker ? named(task.worker) : ""]);
    rebuilt(this.body.querySelector(".task-facts"), [task, ago(task.last_entry_ms, nowMs), ago(task.last_checkpoint_ms, nowMs)], () => factList(task, nowMs));
    const positions = Object.entries(task.positions).filter(([topic, position]) => position || !topic.endsWith(".replays"));
    rebuilt(this.body.querySelector(".positions"), positions, () => positions.map(([topic, position]) => h("div", {}, h("dt", {}, topic), h("dd", {}, number(position)))));
  }

  build() {
    const input = h("input", { type: "search", id: "row-key", placeholder: "key", autocomplete: "off", spellcheck: "false", "aria-label": "Key of a row" });
    input.addEventListener("input", () => { this.filter = input.value; this.found = null; this.rows(); });
    const search = h("form", { class: "search" }, input, h("button", { type: "submit" }, "Search the journal"));
    search.addEventListener("submit", (event) => { event.preventDefault(); this.find(); });
    this.body.replaceChildren(
      h("div", { class: "two" },
        h("div", {}, h("h3", {}, "State"), h("div", { class: "task-facts" })),
        h("div", {}, h("h3", {}, "Next input offsets"), h("dl", { class: "facts positions" }))),
      h("h3", {}, "Dead letters"), h("div", { class: "letters-place" }, h("p", { class: "empty" }, "Reading …")),
      h("div", { class: "two wide" },
        h("div", {}, h("h3", {}, "Rows"), h("div", { class: "tabs", role: "group", "aria-label": "Tables" }), search, h("div", { class: "rows-place" })),
        h("div", {}, h("h3", {}, "Last entries"), table("entries", ["Seq", "n"], ["Kind"], ["When"], ["Worker"], ["Records", "n"], ["Rows", "n"], ["Size", "n"]))),
    );
  }

  show(document, nowMs) {
    this.document = document;
    this.nowMs = nowMs;
    keyed(
      this.body.querySelector(".entries tbody"), document.entries, (entry) => entry.seq,
      (entry) => h("tr", { "data-kind": entry.kind }, h("td", { class: "n" }, number(entry.seq)), h("td", {}, entry.kind), h("td", {}), h("td", {}, named(entry.owner)),
        h("td", { class: "n" }), h("td", { class: "n" }, number(entry.writes)), h("td", { class: "n" }, bytes(entry.bytes))),
      (row, entry) => {
        text(row.children[2], when(entry.at_ms, nowMs));
        text(row.children[4], entry.kind === "commit" ? number(entry.records) : NONE);
      },
    );
    const names = document.tables.map((each) => each.name);
    if (!names.includes(this.tableName)) this.tableName = names[0] ?? "";
    keyed(
      this.body.querySelector(".tabs"), names, (name) => name,
      (name) => h("button", { type: "button", class: "chip", onclick: () => { this.tableName = name; this.found = null; this.show(this.document, this.nowMs); } }, name),
      (button, name) => attr(button, "aria-pressed", name === this.tableName ? "true" : "false"),
    );
    attr(this.body.querySelector(".search"), "hidden", names.length ? null : "");
    this.rows();
    this.letters();
  }

  rows() {
    if (!this.document) return;
    const place = this.body.querySelector(".rows-place");
    const chosen = this.document.tables.find((each) => each.name === this.tableName);
    if (!chosen) {
      rebuilt(place, ["none"], () => h("p", { class: "empty" }, "The group has no tables."));
      return;
    }
    const matching = chosen.rows.filter((row) => row.key.includes(this.filter));
    const rows = this.found?.row ? [this.found.row] : matching;
    const note = this.note(chosen, rows);
    const several = this.task.partitions.length > 1;
    rebuilt(place, [this.tableName, rows, note], () => [
      rows.length ? h("div", { class: "scroll rows-scroll" }, h("table", { class: "rows" },
        h("thead", {}, h("tr", {}, several ? h("th", { class: "n" }, "Partition") : "", h("th", {}, "Key"), h("th", {}, "Value"), h("th", { class: "n" }, "Seq"), h("th", {}, "Written"))),
        h("tbody", {}, rows.map((row) => h("tr", {}, several ? h("td", { class: "n" }, String(row.partition)) : "", h("td", { class: "data" }, row.key), h("td", { class: "data" }, row.value ?? h("em", {}, "deleted")),
          h("td", { class: "n" }, number(row.seq)), h("td", {}, when(row.at_ms, this.nowMs))))))) : "",
      h("p", { class: "soft small" }, note.text, note.command ? command(note.command) : ""),
    ]);
  }

  note(chosen, rows) {
    if (this.found?.error) return { text: this.found.error };
    if (this.found && !this.found.row) {
      return this.found.complete
        ? { text: "The row does not exist: no entry of this task has written it." }
        : { text: `No entry since ${number(this.found.searched_to_seq)} has written this row. If the row exists, the state of the task contains it: `, command: this.found.command };
    }
    if (this.found?.command) return { text: `The newest value of this key, in partition ${this.found.row.partition}. Other partitions may have a row with this key, too: `, command: this.found.command };
    if (this.found) return { text: "The newest value of this row." };
    if (!rows.length) return { text: this.filter ? "No row of the last entries has this key. Search the journal for it." : "The last entries have written no row." };
    return { text: chosen.more ? `The newest ${rows.length} of the rows that the last entries have written.` : "The rows that the last entries have written, the newest first." };
  }

  async find() {
    const { group, task } = this.task;
    const asked = [group, task, this.tableName, this.filter].join();
    try {
      const path = `api/task/${encodeURIComponent(group)}/${task}?table=${encodeURIComponent(this.tableName)}&key=${encodeURIComponent(this.filter)}`;
      this.found = (await get(path)).document;
    } catch (error) {
      this.found = { row: null, error: error.message };
    }
    if (asked === [this.task.group, this.task.task, this.tableName, this.filter].join()) this.rows();
  }

  letters() {
    const found = this.document.dead_letters;
    const place = this.body.querySelector(".letters-place");
    const shown = (found?.letters ?? []).toSorted((a, b) => (b.state === "open") - (a.state === "open"));
    if (!shown.length) {
      rebuilt(place, [found === null], () => h("p", { class: "empty" }, found ? "No record of this task has failed." : "The group has no dead-letter topic: no handler has on_error=\"dead_letter\"."));
      return;
    }
    rebuilt(place, found, () => [
      h("ul", { class: "letters" }, shown.map((letter) =>
        h("li", { "data-state": letter.state },
          h("p", {}, h("span", { class: "state" }, letter.state), h("b", {}, letter.error)),
          h("p", { class: "soft small" }, `${letter.topic}[${letter.partition}] offset ${number(letter.offset)}, ${letter.handler}, ${plural(letter.tries, "attempt")}${letter.failed_ms ? `, ${when(letter.failed_ms, this.nowMs)}` : ""}`),
          h("p", { class: "data small" }, h("b", {}, letter.key ?? "(no key)"), " ", letter.value ?? "(null)"),
          letter.state === "open" ? command(letter.command) : ""))),
      found.complete ? "" : h("p", { class: "soft small" }, "Only the newest dead letters are shown: pipeline deadletters list shows all."),
    ]);
  }
}
