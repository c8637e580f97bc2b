// Keeps the page up to date: the event stream has the whole state first, and then what changes. Ages and times left go on
// here. What is shown goes through textContent, so no name and no reason can be more than text.
"use strict";

const shown = document.querySelector("pre");
const state = document.getElementById("state");
const ENDS_KEPT = 512;
const ENDS_SHOWN = 40;
const FINISHED = ["scope ended", "response ended"];

// By id, parents before children; times are on the page's own clock.
const live = new Map();
let ends = [];
let liveInAll = 0;
let listing = true;

const now = () => performance.now();
const plain = (seconds, digits) => String(Number(seconds.toFixed(digits)));

function brief(ms) {
  if (ms < 1000) return `${Math.max(0, Math.round(ms))}ms`;
  const minutes = Math.floor(ms / 60_000);
  if (minutes === 0) return `${plain(ms / 1000, 1)}s`;
  const hours = Math.floor(minutes / 60);
  return `${hours ? `${hours}h` : ""}${minutes % 60}m${Math.floor(ms / 1000) % 60}s`;
}

function take({ data }) {
  const change = JSON.parse(data);
  const at = now();
  for (const id of change.gone ?? []) live.delete(id);
  for (const row of change.live) {
    live.set(row.id, {
      ...row,
      born: at - row.age_ms,
      until: row.budget_left_ms === null ? null : at + row.budget_left_ms,
      over: at - row.ended_ago_ms,
    });
  }
  ends = [...change.ended.map((end) => ({ ...end, at: at - end.ago_ms })), ...ends].slice(0, ENDS_KEPT);
  liveInAll = change.live_in_all;
  draw();
}

function lineOf(row, at) {
  const parts = [`${row.name ?? row.made_at} ${row.id}  age ${brief(at - row.born)}`];
  if (row.until !== null) parts.push(`${brief(row.until - at)} left${row.owns_deadline ? "" : " (inherited)"}`);
  if (row.waiting > 0) parts.push(`${row.waiting} waiting`);
  if (row.ended !== null) parts.push(`ENDED ${brief(at - row.over)} ago, still ${row.holders} holders: ${row.ended}`);
  return parts.join("  ");
}

function tree(at) {
  const below = new Map();
  for (const row of live.values()) {
    const parent = row.parents.find((id) => live.has(id)) ?? null;
    if (!below.has(parent)) below.set(parent, []);
    below.get(parent).push(row);
  }
  const lines = [];
  const open = (below.get(null) ?? []).map((row) => [0, row]).reverse();
  while (open.length > 0) {
    const [depth, row] = open.pop();
    lines.push(" ".repeat(2 * Math.min(depth, 40)) + lineOf(row, at));
    for (const child of (below.get(row.id) ?? []).reverse()) open.push([depth + 1, child]);
  }
  return lines;
}

function draw() {
  // Somebody who marks a line wants to copy it.
  if (document.hidden || !getSelection().isCollapsed) return;
  const at = now();
  const lines = listing ? [] : ["listing is switched off"];
  lines.push(`${liveInAll} live`, ...tree(at));
  if (liveInAll > live.size) lines.push(`… and ${liveInAll - live.size} more`);
  const news = ends.filter((end) => !FINISHED.includes(end.reason));
  lines.push("", `last ends, newest first (${ends.length - news.length} of finished work left out)`);
  for (const end of news.slice(0, ENDS_SHOWN)) {
    lines.push(`${brief(at - end.at)} ago  ${end.name ?? "scope"} ${end.id} after ${brief(end.age_ms)}: ${end.why}`);
  }
  shown.textContent = `${lines.join("\n")}\n`;
}

function follow() {
  const events = new EventSource("/debug/contexts.events");
  events.addEventListener("contexts", (event) => {
    live.clear();
    ends = [];
    ({ listing } = JSON.parse(event.data));
    state.textContent = "Following.";
    take(event);
  });
  events.addEventListener("change", take);
  events.addEventListener("end", (event) => {
    state.textContent = `Ended: ${JSON.parse(event.data).reason}.`;
  });
  events.addEventListener("error", () => {
    // It comes again by itself unless it was refused, as where too many follow.
    if (events.readyState !== EventSource.CLOSED) return;
    state.textContent = "Not followed; loaded anew every second.";
    setTimeout(() => location.reload(), 1000);
  });
}

follow();
setInterval(draw, 250);
