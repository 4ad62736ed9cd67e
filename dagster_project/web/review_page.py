"""The page on which people judge episodes and clips: HTML, CSS and JavaScript, as they are sent.

It asks nothing of other servers, and for one subject at a time: the queue is a list of names, and
two video elements take turns, so that the next one loads while a person looks at this one.
"""

REASONS = (
    "hands are wrong",
    "a hand is missing",
    "objects are wrong",
    "the camera is wrong",
    "the words do not fit",
    "nothing worth learning",
    "must not be shown",
)
"""Offered by the keys 1 to 7; a person may write something else."""
_KEYS = (
    ("A", "accept"),
    ("R", "reject, with a reason"),
    ("S", "left and right are mixed up"),
    ("N →", "next"),
    ("B ←", "back"),
    ("Space", "play, pause"),
    (", .", "one frame"),
)
_REASON_BUTTONS = "".join(
    f'<button type="button" data-reason="{words}"><kbd>{number}</kbd> {words}</button>'
    for number, words in enumerate(REASONS, 1)
)
PAGE = f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Review</title><link rel="icon" href="data:,">
<meta name="viewport" content="width=device-width">
<link rel="stylesheet" href="/review/page.css"></head>
<body>
<header>
  <strong>Review</strong>
  <nav><a href="?kind=episode" id="episode">episodes</a>
  <a href="?kind=clip" id="clip">clips</a></nav>
  <span id="progress" role="status">loading</span>
  <label>reviewer <input id="reviewer" maxlength="100" autocomplete="off"></label>
  <a href="/">Dagster</a>
</header>
<main>
  <section>
    <div id="screen"></div>
    <p id="keys">{" ".join(f"<span><kbd>{key}</kbd> {what}</span>" for key, what in _KEYS)}</p>
  </section>
  <aside>
    <h1 id="name"></h1>
    <p id="state"></p>
    <p id="message" role="alert"></p>
    <div id="buttons">
      <button id="accept"><kbd>A</kbd> accept</button>
      <button id="reject"><kbd>R</kbd> reject</button>
      <button id="swap" aria-pressed="false"><kbd>S</kbd> sides swapped</button>
      <button id="next"><kbd>N</kbd> next</button>
    </div>
    <form id="why" hidden>
      <p>Why? <kbd>Enter</kbd> rejects, <kbd>Esc</kbd> does not.</p>
      {_REASON_BUTTONS}
      <input id="reason" maxlength="500" autocomplete="off" placeholder="or in your own words">
    </form>
    <ul id="faults"></ul>
    <dl id="facts"></dl>
  </aside>
</main>
<script src="/review/page.js"></script>
</body>
</html>
"""
STYLE = """
:root { color-scheme: light dark; --line: #8884; --bad: #d55e00; --good: #009e73; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0; }
header { display: flex; gap: 1.5em; align-items: center; padding: 8px 16px;
  border-bottom: 1px solid var(--line); }
header nav a { padding: 2px 8px; border-radius: 4px; }
header nav a[aria-current] { background: var(--line); }
#progress { margin-left: auto; font-variant-numeric: tabular-nums; }
main { display: flex; flex-wrap: wrap; gap: 16px; padding: 16px; }
section { flex: 2 1 640px; } aside { flex: 1 1 320px; min-width: 0; }
#screen { background: #111; min-height: 320px; }
video { display: block; width: 100%; max-height: 78vh; } video[hidden] { display: none; }
#keys span { margin-right: 1.2em; white-space: nowrap; }
kbd { border: 1px solid var(--line); border-radius: 3px; padding: 0 4px; font-size: 85%; }
h1 { font-size: 17px; overflow-wrap: anywhere; margin: 0 0 4px; }
button { font: inherit; margin: 0 4px 6px 0; padding: 4px 10px; }
#why button { display: block; width: 100%; text-align: left; }
#why input { font: inherit; width: 100%; box-sizing: border-box; padding: 4px; }
#swap[aria-pressed=true] { background: var(--bad); color: #fff; }
#state[data-word=accept] { color: var(--good); } #state[data-word=reject] { color: var(--bad); }
#message:not(:empty) { color: var(--bad); font-weight: bold; }
#faults { padding-left: 1.1em; } .error { color: var(--bad); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 12px; }
dt { color: #888; } dd { margin: 0; overflow-wrap: anywhere; }
"""
SCRIPT = """"use strict";
const $ = (id) => document.getElementById(id);
const kind = new URLSearchParams(location.search).get("kind") === "clip" ? "clip" : "episode";
const WORDS = { "": "not judged", accept: "accepted", reject: "rejected",
  "out of date": "was judged, but its result has changed since" };
let queue = [], at = -1, isReadOnly = false, isBusy = false, isSwapped = false;
const known = new Map();  // name -> promise of its facts; of this one and its neighbours
const screens = new Map();  // name -> its video element

const url = (what, name, ...more) =>
  ["/review", what, kind, ...[name, ...more].map(encodeURIComponent)].join("/");
const say = (words) => { $("message").textContent = words; };

async function ask(path, options) {
  const answer = await fetch(path, options);
  const found = await answer.json().catch(() => ({ error: `status ${answer.status}` }));
  if (!answer.ok) throw new Error(found.error || `status ${answer.status}`);
  return found;
}

function factsOf(name) {
  if (!known.has(name)) {
    const asked = ask(url("facts", name));
    asked.catch(() => known.delete(name));
    known.set(name, asked);
  }
  return known.get(name);
}

function screenOf(name, fingerprint) {
  if (!screens.has(name)) {
    const video = document.createElement("video");
    Object.assign(video, { loop: true, muted: true, playsInline: true, preload: "auto" });
    video.hidden = true;
    video.dataset.name = name;
    video.src = url("video", name, fingerprint);
    video.addEventListener("error", async () => {
      if (queue[at]?.[0] !== name) { drop(name); return; }
      try { await ask(video.src); say("this browser cannot play the video"); }
      catch (error) { say(error.message); }
    });
    screens.set(name, video);
    $("screen").append(video);
  }
  return screens.get(name);
}

function drop(name) {
  const video = screens.get(name);
  if (video) {
    video.removeAttribute("src");
    video.load();  // lets go of its connection
    video.remove();
    screens.delete(name);
  }
  known.delete(name);
}

const isOpen = ([, word]) => word === "" || word === "out of date";

function count() {
  const judged = queue.filter((each) => !isOpen(each)).length;
  $("progress").textContent = `${judged} of ${queue.length} judged`;
}

/** The place of the next one to judge after a place, from the begin again at the end; -1: none. */
function nextOpen(from) {
  for (let step = 1; step <= queue.length; step++) {
    const place = (from + step) % queue.length;
    if (isOpen(queue[place])) return place;
  }
  return -1;
}

function entry(parent, tag, text, name) {
  const element = document.createElement(tag);
  element.textContent = text;
  if (name) element.className = name;
  parent.append(element);
}

async function show(place) {
  if (place < 0 || place >= queue.length) return;
  at = place;
  const name = queue[at][0], next = nextOpen(at);
  const kept = new Set([name, next >= 0 ? queue[next][0] : name]);
  for (const other of [...screens.keys(), ...known.keys()]) if (!kept.has(other)) drop(other);
  setSwapped(false);
  closeReason();
  say("");
  $("name").textContent = name;
  document.body.dataset.shown = "";
  let found;
  try { found = await factsOf(name); }
  catch (error) { if (queue[at][0] === name) say(error.message); return; }
  if (queue[at][0] !== name) return;  // a person was quicker
  queue[at][1] = found.word;
  count();
  setSwapped(Boolean(found.review?.side_swap));
  $("state").dataset.word = found.word;
  const by = found.review?.reviewer ? ` by ${found.review.reviewer}` : "";
  const why = found.review?.reason ? `: ${found.review.reason}` : "";
  $("state").textContent = WORDS[found.word] + (found.review ? by + why : "");
  $("facts").replaceChildren();
  for (const [what, value] of found.facts) {
    entry($("facts"), "dt", what);
    entry($("facts"), "dd", value);
  }
  $("faults").replaceChildren();
  for (const fault of found.faults) {
    entry($("faults"), "li", `${fault.check} of ${fault.table}: ${fault.what}`, fault.severity);
  }
  for (const [other, video] of screens) if (other !== name) { video.pause(); video.hidden = true; }
  const video = screenOf(name, found.fingerprint);
  video.hidden = false;
  video.play().catch(() => {});
  document.body.dataset.shown = name;
  if (next >= 0 && next !== at) prefetch(queue[next][0], name);
}

/** Load the next one, once this one can be played. */
async function prefetch(next, current) {
  const video = screens.get(current);
  if (video && video.readyState < 3) {
    await new Promise((done) => {
      video.addEventListener("canplay", done, { once: true });
      video.addEventListener("error", done, { once: true });
    });
  }
  if (queue[at]?.[0] !== current) return;
  try {
    const found = await factsOf(next);
    if (queue[at]?.[0] === current) screenOf(next, found.fingerprint);
  } catch (error) { /* said when it is its turn */ }
}

function setSwapped(value) {
  isSwapped = value;
  $("swap").setAttribute("aria-pressed", String(value));
}

async function judge(verdict, reason) {
  if (at < 0 || isBusy) return;
  if (isReadOnly) { say("this server is read only: nothing can be judged here"); return; }
  const place = at, name = queue[place][0];
  isBusy = true;
  try {
    const { fingerprint } = await factsOf(name);
    const said = { kind, name, verdict, reason, fingerprint, side_swap: isSwapped,
      reviewer: $("reviewer").value };
    const headers = { "content-type": "application/json" };
    const body = JSON.stringify(said);
    const kept = await ask("/review/judge", { method: "POST", headers, body });
    queue[place][1] = kept.word;
    known.delete(name);
    count();
    const next = nextOpen(place);
    if (next >= 0) show(next);
    else { show(place); say("all are judged"); }
  } catch (error) { say(`not kept: ${error.message}`); }
  finally { isBusy = false; }
}

function askReason() {
  if (isReadOnly) { judge(); return; }
  $("why").hidden = false;
  $("reason").value = "";
  $("why").focus();
}
function closeReason() { $("why").hidden = true; $("reason").blur(); }
function reject(reason) {
  if (!reason.trim()) { say("a rejection needs a reason"); return; }
  closeReason();
  judge("reject", reason);
}

function goOn(step) {
  const open = step > 0 ? nextOpen(at) : -1;
  show(open >= 0 ? open : Math.min(queue.length - 1, Math.max(0, at + step)));
}

function turn(step) {
  const video = screens.get(queue[at]?.[0]);
  if (!video) return;
  if (step === 0) { if (video.paused) video.play().catch(() => {}); else video.pause(); return; }
  video.pause();
  video.currentTime = Math.max(0, video.currentTime + step / 30);
}

const KEYS = { a: () => judge("accept", ""), r: askReason, s: () => setSwapped(!isSwapped),
  n: () => goOn(1), arrowright: () => goOn(1), b: () => goOn(-1), arrowleft: () => goOn(-1),
  " ": () => turn(0), ",": () => turn(-1), ".": () => turn(1) };

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (!$("why").hidden) {
    const reasons = [...document.querySelectorAll("[data-reason]")];
    const chosen = event.target !== $("reason") && reasons[Number(event.key) - 1];
    if (event.key === "Escape") { event.preventDefault(); closeReason(); }
    else if (chosen) { event.preventDefault(); reject(chosen.dataset.reason); }
    else if (event.key === "Enter" && event.target !== $("reason")) reject($("reason").value);
    else if (event.key.length === 1 && event.target !== $("reason")) $("reason").focus();
    return;
  }
  if (event.target.tagName === "INPUT") { if (event.key === "Enter") event.target.blur(); return; }
  const act = KEYS[event.key.toLowerCase()];
  if (act && !event.repeat) { event.preventDefault(); act(); }
});
$("why").addEventListener("submit", (event) => {
  event.preventDefault();
  reject($("reason").value);
});
for (const button of document.querySelectorAll("[data-reason]")) {
  button.addEventListener("click", () => reject(button.dataset.reason));
}
$("accept").addEventListener("click", () => judge("accept", ""));
$("reject").addEventListener("click", askReason);
$("swap").addEventListener("click", () => setSwapped(!isSwapped));
$("next").addEventListener("click", () => goOn(1));
for (const button of document.querySelectorAll("#buttons button")) {
  button.addEventListener("click", () => button.blur());  // Space is for the video
}
$("reviewer").addEventListener("change", () => {
  localStorage.setItem("reviewer", $("reviewer").value);
});

async function start() {
  $(kind).setAttribute("aria-current", "page");
  const found = await ask(`/review/queue/${kind}`);
  queue = found.subjects;
  isReadOnly = found.read_only;
  $("reviewer").value = localStorage.getItem("reviewer") || found.reviewer;
  document.title = `Review: ${found.lake}`;
  count();
  if (!queue.length) { say(`the lake has no ${kind}s yet: \\`ego run\\` makes them`); return; }
  if (isReadOnly) for (const id of ["accept", "reject", "swap"]) $(id).disabled = true;
  const first = nextOpen(-1);
  await show(Math.max(first, 0));
  if (first < 0) say("all are judged");
}
start().catch((error) => say(error.message));
"""
