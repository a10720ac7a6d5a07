// The app as a graph: topics, groups with their tables, and sinks, in layers from the inputs to the outputs.

import { attr, h, rebuilt, s } from "./dom.js";
import { number, rate } from "./format.js";

const WIDE = 204, LINE = 17, GAP = 18, BETWEEN = 30, MARGIN = 8;

/** The layer of each node: one after the last of those that lead to it. A cycle is cut where it is met. */
function layersOf(nodes, edges) {
  const into = new Map(nodes.map((node) => [node.id, []]));
  for (const edge of edges) into.get(edge.to)?.push(edge.from);
  const layer = new Map();
  const visit = (id, path) => {
    if (layer.has(id)) return layer.get(id);
    if (path.has(id)) return 0;
    path.add(id);
    const found = Math.max(-1, ...into.get(id).filter((from) => into.has(from)).map((from) => visit(from, path))) + 1;
    path.delete(id);
    layer.set(id, found);
    return found;
  };
  for (const node of nodes) visit(node.id, new Set());
  const layers = [];
  for (const node of nodes) (layers[layer.get(node.id)] ??= []).push(node);
  // Nodes follow the mean of their neighbours before them, which avoids most crossings.
  for (const [at, here] of layers.entries()) {
    if (!at) continue;
    const before = new Map(layers.slice(0, at).flat().map((node) => [node.id, layers[layer.get(node.id)].indexOf(node)]));
    const mean = (node) => {
      const places = into.get(node.id).map((from) => before.get(from)).filter((place) => place !== undefined);
      return places.length ? places.reduce((sum, place) => sum + place, 0) / places.length : 0;
    };
    here.sort((a, b) => mean(a) - mean(b));
  }
  return layers;
}

const highOf = (node) => 42 + (node.tables.length ? 6 + LINE * node.tables.length : 0);
const cut = (name, characters) => (name.length > characters ? `${name.slice(0, characters - 1)}…` : name);

function nodeOf(node, x, y, about) {
  const high = highOf(node);
  const text = about.get(node.name);
  return s(
    "g", { class: "node", "data-kind": node.kind, transform: `translate(${x} ${y})` },
    s("title", {}, [node.name, node.text].filter(Boolean).join(": ")),
    s("rect", { width: WIDE, height: high, rx: node.kind === "group" ? 8 : node.kind === "sink" ? 4 : 21 }),
    s("text", { x: 14, y: 18, class: "node-name" }, cut(node.name, 25)),
    s("text", { x: 14, y: 33, class: "node-kind" }, cut([node.kind, node.kind === "group" ? text : node.text].filter(Boolean).join(", "), 31)),
    node.tables.flatMap((name, index) => [
      s("rect", { x: 10, y: 42 + LINE * index, width: WIDE - 20, height: LINE - 2, rx: 3, class: "table-row" }),
      s("text", { x: 17, y: 54 + LINE * index, class: "node-kind" }, `▤ ${cut(name, 25)}`),
    ]),
  );
}

function draw(document, about, upright) {
  const { nodes, edges } = document;
  const layers = layersOf(nodes, edges);
  const place = new Map();
  let along = MARGIN, across = 0;
  for (const layer of layers) {
    let at = MARGIN, deepest = 0;
    for (const node of layer) {
      const high = highOf(node);
      place.set(node.id, upright ? { x: at, y: along, high } : { x: along, y: at, high });
      at += (upright ? WIDE : high) + GAP;
      deepest = Math.max(deepest, upright ? high : WIDE);
    }
    across = Math.max(across, at - GAP + MARGIN);
    along += deepest + BETWEEN;
  }
  along = along - BETWEEN + MARGIN;
  // Short layers are centred.
  for (const layer of layers) {
    const last = place.get(layer.at(-1).id);
    const used = (upright ? last.x + WIDE : last.y + last.high) + MARGIN;
    for (const node of layer) place.get(node.id)[upright ? "x" : "y"] += (across - used) / 2;
  }
  const lines = edges.filter((edge) => place.has(edge.from) && place.has(edge.to)).map((edge) => {
    const from = place.get(edge.from), to = place.get(edge.to);
    const [x1, y1] = upright ? [from.x + WIDE / 2, from.y + from.high] : [from.x + WIDE, from.y + from.high / 2];
    const [x2, y2] = upright ? [to.x + WIDE / 2, to.y - 7] : [to.x - 7, to.y + to.high / 2];
    const bend = upright ? [x1, (y1 + y2) / 2, x2, (y1 + y2) / 2] : [(x1 + x2) / 2, y1, (x1 + x2) / 2, y2];
    return s("path", { class: edge.guess ? "edge guess" : "edge", d: `M ${x1} ${y1} C ${bend.join(" ")} ${x2} ${y2}`, "marker-end": "url(#arrow)" });
  });
  const [wide, high] = upright ? [across, along] : [along, across];
  return s(
    "svg", { viewBox: `0 0 ${wide} ${high}`, width: wide, height: high, role: "img", "aria-label": "Topics, groups, tables and sinks", class: "graph" },
    s("defs", {}, s("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 1, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" }, s("path", { d: "M 0 0 L 8 4 L 0 8 z", class: "head" }))),
    lines, nodes.map((node) => { const { x, y } = place.get(node.id); return nodeOf(node, x, y, about); }),
  );
}

export function showTopology(body, lead, document, status) {
  const about = new Map(status.groups.map((group) => [group.group, `${number(group.task_count)} tasks, ${rate(group.records_per_s)} /s`]));
  const upright = body.clientWidth < 640;
  const guess = document.edges.some((edge) => edge.guess);
  const notes = ["topics, groups, tables and sinks"];
  if (guess) notes.push("a dashed line is a guess");
  if (!document.outputs_known) notes.push("the topics that handlers write are known only with MODULE:APP");
  if (lead.textContent !== notes.join("; ")) lead.textContent = notes.join("; ");
  if (!document.nodes.length) {
    rebuilt(body, [], () => h("p", { class: "empty" }, "The app has no groups yet."));
    return;
  }
  rebuilt(body, [document.nodes, document.edges, upright], () => {
    const place = h("div", { class: "scroll" }, draw(document, about, upright));
    attr(place, "tabindex", "0");
    return place;
  });
}
