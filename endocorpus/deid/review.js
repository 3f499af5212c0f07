"use strict";
const byId = (id) => document.getElementById(id);
const about = JSON.parse(byId("about").textContent);
const clips = [...document.querySelectorAll("script.clip")].map((script) => JSON.parse(script.textContent));
const decisions = new Map(); // key -> "accepted" or "rejected"
const past = []; // [place, what was decided before], for undo
let place = 0;
let visible = false; // nobody decides on a picture that is not there yet
let saved = true;

function show(where) {
  place = Math.min(Math.max(where, 0), clips.length - 1);
  const clip = clips[place];
  const sheet = byId("sheet");
  const outlines = byId("outlines");
  byId("place").textContent = `${place + 1} of ${clips.length}`;
  byId("key").textContent = clip.key;
  byId("why").textContent = `${clip.why}, score ${clip.score}, ${clip.frames} frames, ${clip.boxes.length} outlines`;
  outlines.setAttribute("viewBox", `0 0 ${clip.width} ${clip.height}`);
  outlines.replaceChildren(...clip.boxes.map(([x, y, width, height]) => {
    const box = document.createElementNS(outlines.namespaceURI, "rect");
    for (const [name, value] of Object.entries({ x, y, width, height })) box.setAttribute(name, value);
    return box;
  }));
  visible = false;
  byId("scroll").scrollTo(0, 0);
  sheet.alt = `Frames of the clip ${clip.key}`;
  sheet.width = clip.width;
  sheet.height = clip.height;
  sheet.src = clip.picture;
  sheet.decode().then(() => { visible = clips[place] === clip; refresh(); }, () => {
    if (clips[place] === clip) say("This picture cannot be shown; reload the page, or have it made again.");
  });
  refresh();
}

function refresh() {
  const decided = decisions.get(clips[place].key);
  const rejected = [...decisions.values()].filter((value) => value === "rejected").length;
  byId("decision").textContent = decided || "";
  byId("decision").className = decided || "";
  byId("progress").textContent = `${decisions.size} of ${clips.length} decided, ${rejected} rejected`;
  byId("save").textContent = decisions.size === clips.length ? "Save the decisions" : "Save a draft";
  byId("scale").textContent = visible ? `shown at ${Math.round(100 * byId("sheet").clientWidth / clips[place].width)} %` : "";
  document.body.dataset.visible = String(visible);
}

function say(text) { byId("message").textContent = text; }

function decide(value) {
  if (!visible) return;
  const key = clips[place].key;
  past.push([place, decisions.get(key)]);
  decisions.set(key, value);
  saved = false;
  const next = clips.findIndex((clip, i) => i > place && !decisions.has(clip.key));
  const open = next < 0 ? clips.findIndex((clip) => !decisions.has(clip.key)) : next;
  say(open < 0 ? "All clips are decided. Enter your name and save." : "");
  if (open < 0) refresh(); else show(open);
}

function undo() {
  if (!past.length) return;
  const [where, before] = past.pop();
  if (before) decisions.set(clips[where].key, before); else decisions.delete(clips[where].key);
  saved = false;
  say("");
  show(where);
}

const actions = {
  a: () => decide("accepted"),
  r: () => decide("rejected"),
  u: undo,
  j: () => show(place + 1),
  k: () => show(place - 1),
  o: () => byId("outlines").classList.toggle("off"),
  z: () => { byId("scroll").classList.toggle("full"); refresh(); },
};

document.addEventListener("keydown", (event) => {
  // A key that is held down, or that the browser means something by, decides nothing.
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "INPUT") return;
  const action = actions[event.key];
  if (!action) return;
  event.preventDefault();
  action();
});
for (const button of document.querySelectorAll("button[data-key]")) {
  button.addEventListener("click", () => { actions[button.dataset.key](); button.blur(); });
}

function today() {
  const now = new Date();
  const two = (number) => String(number).padStart(2, "0");
  return `${now.getFullYear()}-${two(now.getMonth() + 1)}-${two(now.getDate())}`;
}

byId("save").addEventListener("click", () => {
  const reviewer = byId("reviewer").value.trim().replace(/\s+/g, " ");
  const complete = decisions.size === clips.length;
  if (complete && reviewer.length < 2) { say("Enter your name: the decisions are signed with it."); byId("reviewer").focus(); return; }
  const value = { ...about, kind: "endocorpus review 1", complete, reviewer, date: today(), decisions: Object.fromEntries(decisions) };
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(value, null, 1) + "\n"], { type: "application/json" }));
  link.download = `review-${about.corpus}${complete ? "" : "-draft"}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  saved = true;
  say(complete ? "Saved." : `Saved as a draft: ${clips.length - decisions.size} clips have no decision yet.`);
});

byId("load").addEventListener("change", async (event) => {
  try {
    const value = JSON.parse(await event.target.files[0].text());
    if (value.plan !== about.plan) throw new Error("other page");
    for (const clip of clips) {
      const decided = value.decisions[clip.key];
      if (decided === "accepted" || decided === "rejected") decisions.set(clip.key, decided);
    }
    past.length = 0;
    byId("reviewer").value = value.reviewer || byId("reviewer").value;
    say("Going on from the file.");
    show(Math.max(0, clips.findIndex((clip) => !decisions.has(clip.key))));
  } catch { say("That is no file of decisions of this page."); }
  event.target.value = "";
});

window.addEventListener("resize", refresh);
window.addEventListener("beforeunload", (event) => { if (!saved) event.preventDefault(); });
show(0);
