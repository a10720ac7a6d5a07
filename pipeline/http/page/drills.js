// The reports of the last drills, each with a link to its page.

import { h, rebuilt } from "./dom.js";
import { number, plural, seconds, when } from "./format.js";

const SIGNS = { held: "✓", deviated: "✕", aborted: "■", "not restored": "!" };

function bar(report) {
  const most = Math.max(report.objective_s, report.measured_s ?? 0, report.predicted_s, 0.1);
  const place = h("div", { class: "recovery", title: `objective ${seconds(report.objective_s)}, predicted ${seconds(report.predicted_s)}, measured ${seconds(report.measured_s)}` },
    h("i", { class: report.measured_s !== null && report.measured_s <= report.objective_s ? "measured" : "measured late" }), h("i", { class: "predicted" }));
  place.children[0].style.width = `${(100 * (report.measured_s ?? 0)) / most}%`;
  place.children[1].style.left = `${(100 * report.predicted_s) / most}%`;
  return place;
}

/** What the drill has measured. One that affects no task has no recovery time. */
function figures(report) {
  const compared = report.states_compared ? `${number(report.states_equal)} of ${number(report.states_compared)} states are equal to a replay` : "";
  if (!report.measures_recovery) return compared || "no task was affected";
  const recovery = [h("b", {}, seconds(report.measured_s)), ` recovery; predicted ${seconds(report.predicted_s)}, objective ${seconds(report.objective_s)}; ${plural(report.tasks_touched, "task")} touched`];
  return compared ? [...recovery, `; ${compared}`] : recovery;
}

export function showDrills(body, document, nowMs) {
  const { reports } = document;
  rebuilt(body, [reports, Math.floor(nowMs / 60_000)], () => {
    if (!document.directory_read) return h("p", { class: "empty" }, "This worker was started by App.run, which does not read reports. pipeline worker and pipeline ui show them.");
    if (!reports.length) return h("p", { class: "empty" }, "This directory has no report of a drill of this app. Rehearse a failure: ", h("code", {}, "pipeline drill list"));
    return h("ul", { class: "reports" }, reports.map((report) =>
      h("li", { "data-verdict": report.verdict.replace(" ", "-") },
        h("p", { class: "report-head" }, h("span", { class: "verdict-badge" }, `${SIGNS[report.verdict] ?? ""} ${report.verdict}`),
          h("a", { href: report.link, target: "_blank", rel: "noopener" }, report.drill), h("time", { class: "soft" }, when(report.began_ms, nowMs))),
        h("p", { class: "soft small" }, report.hypothesis),
        report.deviations.length ? h("p", { class: "bad small" }, report.deviations[0]) : "",
        h("div", { class: "report-figures" }, report.measures_recovery ? bar(report) : "", h("p", { class: "small" }, figures(report))))));
  });
}

