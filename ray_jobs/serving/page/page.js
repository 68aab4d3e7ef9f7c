// The page around the picture: the token, the X-rays and what was found in each. Pictures and findings are kept in this
// tab's memory alone; the token in sessionStorage, which goes with the tab.
import { colourOf, setZoom, showFindings, showNothing, showPicture, zoomBy } from "./viewer.js";

const AT_ONCE = 3; // X-rays on their way at the same time
const MOST = 200; // X-rays in one drop
const TRIES = 8; // when the server has too much to do

const byId = (id) => document.getElementById(id);
const studies = []; // {name, file, state, answer, problem, address, row}
const hidden = new Set(); // classes that are switched off
let labels = [], current = null, chosen = null, busy = 0;

// ---- who is reading

async function enter(token) {
  const response = await fetch("v1/model", { headers: { Authorization: `Bearer ${token}` } });
  if (response.status === 401) return "This token is not the right one.";
  if (!response.ok) return `The server answered ${response.status}; try again.`;
  sessionStorage.setItem("token", token);
  describeModel(await response.json());
  byId("login").hidden = true;
  byId("desk").hidden = false;
  byId("files").focus();
  return "";
}

function leave(words) {
  sessionStorage.removeItem("token");
  byId("desk").hidden = true;
  byId("login").hidden = false;
  byId("token-problem").textContent = words;
  byId("token").focus();
}

byId("token-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  byId("token-problem").textContent = "";
  const words = await enter(byId("token").value).catch(() => "The server does not answer.");
  byId("token").value = "";
  byId("token-problem").textContent = words;
});

function describeModel({ model, thresholds }) {
  byId("model").textContent = `${model.name}, version ${model.version}`;
  if (labels.join() === Object.keys(thresholds).join()) return;
  labels = Object.keys(thresholds);
  byId("classes").replaceChildren(...labels.map((label) => {
    const row = document.createElement("label");
    row.className = "check";
    row.style.setProperty("--colour", colourOf(label, labels));
    const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: !hidden.has(label) });
    box.addEventListener("change", () => {
      hidden[box.checked ? "delete" : "add"](label);
      render();
    });
    row.append(box, element("span", "dot"), ` ${label}`, element("span", "own", thresholds[label].toFixed(2)));
    return row;
  }));
}

// ---- X-rays come in

function take(files) {
  const all = [...files];
  for (const file of all.slice(0, MOST)) {
    const study = { name: file.name, file, state: "waiting" };
    study.row = element("li");
    const button = document.createElement("button");
    button.type = "button";
    button.append(element("span", "name", file.name), element("span", "state"));
    button.title = file.name;
    button.addEventListener("click", () => select(study));
    study.row.append(button);
    byId("studies").append(study.row);
    studies.push(study);
  }
  if (all.length > MOST) say(`${all.length - MOST} X-rays were left out: at most ${MOST} at a time.`);
  if (!current && studies.length) select(studies[0]);
  work();
}

function work() {
  while (busy < AT_ONCE) {
    const study = studies.find((one) => one.state === "waiting");
    if (!study) return;
    busy += 1;
    study.state = "reading";
    describeState(study);
    read(study).catch(() => { study.problem = "The server does not answer."; }).finally(() => {
      busy -= 1;
      study.state = "done";
      describeState(study);
      if (study === current) select(study);
      say(`${study.name}: ${study.problem || inWords(study)}`);
      work();
    });
  }
}

async function read(study) {
  const head = new Uint8Array(await study.file.slice(0, 132).arrayBuffer());
  const kind = kindOf(head);
  if (!kind) { study.problem = "This is no PNG, JPEG or DICOM file."; return; }
  // A browser cuts 16 bits down to 8; the server windows them, and sends what it has read.
  const deep = kind === "application/dicom" || (kind === "image/png" && head[24] > 8);
  for (let attempt = 1; ; attempt++) {
    const response = await fetch(`v1/findings?candidates=true&picture=${deep}`, {
      method: "POST",
      headers: { Authorization: `Bearer ${sessionStorage.getItem("token")}`, "Content-Type": kind },
      body: study.file,
    });
    if (response.status === 401) { leave("The token is no longer accepted."); }
    if ([429, 503].includes(response.status) && attempt < TRIES) {
      await new Promise((done) => setTimeout(done, 1000 * (Number(response.headers.get("Retry-After")) || 1)));
      continue;
    }
    const answer = await response.json().catch(() => ({ detail: `The server answered ${response.status}.` }));
    if (!response.ok) { study.problem = answer.detail; return; }
    study.answer = answer;
    study.address = answer.picture || URL.createObjectURL(study.file);
    describeModel(answer);
    return;
  }
}

function kindOf(head) {
  const starts = (...bytes) => bytes.every((byte, at) => head[at] === byte);
  if (starts(0x89, 0x50, 0x4e, 0x47)) return "image/png";
  if (starts(0xff, 0xd8, 0xff)) return "image/jpeg";
  return String.fromCharCode(...head.slice(128, 132)) === "DICM" ? "application/dicom" : null;
}

// ---- what is shown

function visible(study) {
  if (!study.answer) return [];
  const own = byId("own-threshold").checked, least = Number(byId("threshold").value);
  const found = own ? study.answer.findings : study.answer.candidates.filter((one) => one.score > least);
  return found.filter((one) => !hidden.has(one.label));
}

function inWords(study) {
  const count = visible(study).length;
  return count === 0 ? "No findings" : count === 1 ? "1 finding" : `${count} findings`;
}

function describeState(study) {
  const state = study.row.querySelector(".state");
  state.classList.toggle("wrong", Boolean(study.problem));
  state.textContent = study.problem || (study.answer ? inWords(study) : study.state === "reading" ? "reading…" : "waiting");
  study.row.querySelector("button").setAttribute("aria-current", study === current);
}

function select(study) {
  const before = current;
  current = study;
  chosen = null;
  if (before) describeState(before);
  if (study.answer) showPicture(study.address, study.answer.width, study.answer.height);
  else showNothing(study.problem || "Reading…");
  render();
}

function render() {
  studies.forEach(describeState);
  const found = current ? visible(current) : [];
  const colours = Object.fromEntries(labels.map((label) => [label, colourOf(label, labels)]));
  byId("verdict").textContent = current?.answer ? inWords(current) : current?.problem || "";
  byId("list").replaceChildren(...found.map((finding) => {
    const row = element("li"), button = document.createElement("button");
    const [left, top, right, bottom] = finding.box.map(Math.round);
    button.type = "button";
    button.style.setProperty("--colour", colours[finding.label]);
    button.setAttribute("aria-pressed", finding === chosen);
    button.append(element("span", "dot"), finding.label, element("span", "score", finding.score.toFixed(2)));
    button.append(element("span", "unseen", `, from ${left}, ${top} to ${right}, ${bottom} pixels`));
    button.addEventListener("click", () => {
      chosen = finding === chosen ? null : finding;
      render();
      byId("list").children[found.indexOf(finding)]?.firstChild.focus();
    });
    row.append(button);
    return row;
  }));
  showFindings(byId("show-boxes").checked ? found : [], colours, chosen);
  if (current?.answer) {
    const words = found.map((one) => `${one.label} ${one.score.toFixed(2)}`).join(", ");
    byId("stage").setAttribute("aria-label", `X-ray ${current.name}: ${words || "No findings"}`);
  }
}

function say(words) {
  byId("live").textContent = words;
}

function element(kind, name = "", text = "") {
  return Object.assign(document.createElement(kind), { className: name, textContent: text });
}

// ---- controls

byId("files").addEventListener("change", (event) => { take(event.target.files); event.target.value = ""; });
byId("show-boxes").addEventListener("change", render);
byId("own-threshold").addEventListener("change", changeThreshold);
byId("threshold").addEventListener("input", () => { byId("own-threshold").checked = false; changeThreshold(); });
function changeThreshold() {
  byId("threshold-value").textContent = byId("own-threshold").checked ? "by class" : Number(byId("threshold").value).toFixed(2);
  render();
  if (current?.answer) say(inWords(current));
}

for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => { event.preventDefault(); document.body.classList.add("dragging"); });
}
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dragging"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  if (!byId("desk").hidden) take(event.dataTransfer.files);
});

document.addEventListener("keydown", (event) => {
  if (byId("desk").hidden || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input[type=range]")) return;
  const step = (by) => { const next = studies[studies.indexOf(current) + by]; if (next) { select(next); say(`${next.name}: ${next.problem || inWords(next)}`); } };
  const act = {
    b: () => { byId("show-boxes").checked = !byId("show-boxes").checked; render(); },
    "+": () => zoomBy(1), "=": () => zoomBy(1), "-": () => zoomBy(-1), 0: () => setZoom(1), j: () => step(1), k: () => step(-1),
  }[event.key.toLowerCase()];
  if (act) { event.preventDefault(); act(); }
});

changeThreshold();
const token = sessionStorage.getItem("token");
if (token) enter(token).then((words) => words && leave(words), () => leave("The server does not answer."));
else byId("token").focus();
