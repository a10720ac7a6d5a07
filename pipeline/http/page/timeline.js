// The last minutes: commits by lane, with marks for events, and the events as a list.
//
// An app that has done nothing before the last 3, 5 or 10 minutes has a shorter timeline, instead of an empty left half.

import { attr, h, keyed, rebuilt, s, text } from "./dom.js";
import { minute, number, plural, rate, when } from "./format.js";
import { named } from "./workers.js";

const KINDS = {
  acquire: ["▲", "acquired by"],
  claim: ["◔", "claimed by"],
  release: ["▽", "released by"],
  checkpoint: ["◆", "checkpoint by"],
  failure: ["✕", "failed on"],
  reset: ["↺", "reset by"],
  genesis: ["★", "first entry by"],
  retire: ["▪", "retired by"],
  drill: ["⚑", "drill"],
};
const SPANS = [3, 5, 10, 15]; // minutes
const TICKS = 5; // at most
const MINUTE_MS = 60_000;
const hidden = new Set(JSON.parse(sessionStorage.getItem("pipeline-hidden") ?? "[]"));

function bars(values, most) {
  const place = s("svg", { class: "bars", viewBox: `0 0 ${values.length} 20`, preserveAspectRatio: "none", "aria-hidden": "true" });
  values.forEach((value, index) => {
    if (!value) return;
    const high = Math.max(1.5, (19 * value) / most);
    place.append(s("rect", { x: index + 0.08, y: 20 - high, width: 0.84, height: high }));
  });
  return place;
}

function drillEvents(reports, document) {
  return reports
    .filter((report) => report.ended_ms >= document.from_ms)
    .map((report) => ({
      at_ms: report.began_ms, until_ms: report.ended_ms, kind: "drill", tasks: report.drill, task_count: report.tasks_touched,
      lanes: [], worker: "", before: "", text: `${report.verdict}: ${report.target}`,
    }));
}

/** The document without the minutes before its first commit and event, and how many minutes are left. */
function shortened(document, events) {
  const count = document.lanes[0]?.commits.length ?? 90;
  const perMinute = MINUTE_MS / document.bucket_ms;
  const firsts = document.lanes.map((each) => each.commits.findIndex(Boolean)).filter((at) => at >= 0);
  const first = Math.min(count, ...firsts, ...events.map((event) => Math.max(0, Math.floor((event.at_ms - document.from_ms) / document.bucket_ms))));
  const minutes = SPANS.find((each) => each * perMinute >= count - first) ?? SPANS.at(-1);
  const skipped = Math.max(0, count - minutes * perMinute);
  const lanes = document.lanes.map((each) => ({ ...each, commits: each.commits.slice(skipped), records: each.records.slice(skipped) }));
  return { ...document, lanes, minutes, from_ms: document.from_ms + skipped * document.bucket_ms };
}

/** The whole minutes at which the axis has labels; none at the ends, where a label would not fit. */
function ticks(document, share) {
  const step = MINUTE_MS * Math.ceil(document.minutes / TICKS);
  const first = Math.ceil(document.from_ms / step) * step;
  return Array.from({ length: TICKS }, (_, index) => first + index * step).filter((atMs) => share(atMs) > 0.03 && share(atMs) < 0.9);
}

function lane(document, events, most, toMs, share) {
  return (node, each) => {
    const name = each.task === null ? each.group : `${each.group}/${each.task}`;
    const seconds = document.bucket_ms / 1000;
    const [label, track, last] = node.children;
    text(label, name);
    attr(label, "title", name);
    const full = each.commits.slice(0, -1);
    const recent = full.slice(-3).reduce((sum, count) => sum + count, 0) / 3 / seconds;
    text(last, `${rate(recent)} /s`);
    rebuilt(track.children[0], [each.commits, most], () => bars(each.commits, most));
    const own = events.filter((event) => event.lanes.some((key) => (each.task === null ? key.startsWith(`${each.group}/`) : key === name)));
    keyed(
      track.children[1], own, (event) => `${event.at_ms} ${event.kind}`,
      (event) => h("i", { class: "mark", "data-kind": event.kind }, KINDS[event.kind]?.[0] ?? "·"),
      (mark, event) => {
        mark.style.left = `${100 * share(event.at_ms)}%`;
        attr(mark, "title", `${when(event.at_ms, toMs)} ${event.kind} ${event.worker}: ${event.text}`);
      },
    );
    const total = each.commits.reduce((sum, count) => sum + count, 0);
    const records = each.records.reduce((sum, count) => sum + count, 0);
    attr(track, "title", `${name}: ${plural(total, "commit")} and ${plural(records, "record")} in ${document.minutes} minutes`);
  };
}

export function showTimeline(body, lead, read, reports) {
  const all = [...read.events, ...drillEvents(reports, read)].sort((a, b) => a.at_ms - b.at_ms);
  const document = shortened(read, all);
  text(lead, `commits of the last ${document.minutes} minutes, and events`);
  const toMs = document.from_ms + document.bucket_ms * (document.lanes[0]?.commits.length ?? 90);
  const share = (atMs) => Math.max(0, Math.min(1, (atMs - document.from_ms) / (toMs - document.from_ms)));
  const shown = all.filter((event) => !hidden.has(event.kind));
  if (!body.querySelector(".lanes")) {
    body.replaceChildren(
      h("div", { class: "lanes" }, h("div", { class: "lane-list" }), h("div", { class: "lane axis" }, h("span", {}), h("div", { class: "track" }), h("span", {}))),
      h("div", { class: "kinds", role: "group", "aria-label": "Kinds of events that are shown" }),
      h("ol", { class: "events", tabindex: "0", "aria-label": "Events, the newest first" }),
    );
  }
  const most = Math.max(1, ...document.lanes.flatMap((each) => each.commits));
  keyed(
    body.querySelector(".lane-list"), document.lanes, (each) => `${each.group}/${each.task}`,
    () => h("div", { class: "lane" }, h("span", { class: "lane-name" }), h("div", { class: "track" }, h("div", {}), h("div", { class: "marks" }), h("div", { class: "bands" })), h("span", { class: "n" })),
    (node, each) => {
      lane(document, shown, most, toMs, share)(node, each);
      keyed(node.children[1].children[2], shown.filter((event) => event.kind === "drill"), (event) => event.at_ms, () => h("i", { class: "band" }), (band, event) => {
        band.style.left = `${100 * share(event.at_ms)}%`;
        band.style.width = `${Math.max(0.4, 100 * (share(event.until_ms) - share(event.at_ms)))}%`;
        attr(band, "title", `drill ${event.tasks}: ${event.text}`);
      });
    },
  );
  rebuilt(body.querySelector(".axis .track"), [document.from_ms, toMs], () =>
    [...ticks(document, share).map((atMs) => [minute(atMs), share(atMs)]), ["now", 1]].map(([label, place]) => {
      const tick = h("span", {}, label);
      tick.style.left = `${100 * place}%`;
      return tick;
    }),
  );
  const kinds = Object.keys(KINDS).filter((kind) => all.some((event) => event.kind === kind));
  keyed(
    body.querySelector(".kinds"), kinds, (kind) => kind,
    (kind) => h("button", { type: "button", class: "chip", "data-kind": kind, onclick: () => {
      if (!hidden.delete(kind)) hidden.add(kind);
      sessionStorage.setItem("pipeline-hidden", JSON.stringify([...hidden]));
      showTimeline(body, lead, read, reports);
    } }),
    (button, kind) => {
      attr(button, "aria-pressed", hidden.has(kind) ? "false" : "true");
      text(button, `${KINDS[kind][0]} ${kind} ${number(all.filter((event) => event.kind === kind).length)}`);
    },
  );
  const list = body.querySelector(".events");
  if (shown.length) {
    keyed(
      list, [...shown].reverse(), (event) => `${event.at_ms} ${event.kind} ${event.tasks}`,
      (event) => h("li", { "data-kind": event.kind },
        h("time", {}), h("span", { class: "what" }, h("i", { class: "mark", "data-kind": event.kind, "aria-hidden": "true" }, KINDS[event.kind]?.[0] ?? "·"),
          event.kind === "drill" ? ["drill ", h("b", {}, event.tasks)] : [h("b", {}, event.tasks), ` ${KINDS[event.kind]?.[1] ?? event.kind} `, named(event.worker)]),
        h("span", { class: "why" }, event.text)),
      (node, event) => text(node.firstChild, when(event.at_ms, toMs)),
    );
    list.shownValue = undefined;
  } else rebuilt(list, [], () => h("li", { class: "empty" }, "No event in the last 15 minutes."));
}
