// The picture with its boxes: zoom, moving, and labels that do not cover each other.

// The colours of ray_jobs/reading/drawing.py, so that a class looks the same here and in drawings.
const PALETTE = ["#e69f00", "#56b4e9", "#00be8c", "#f0e442", "#3c78ff", "#e85e14", "#d682be", "#96dc3c", "#ff5064", "#aa78ff"];
const ZOOMS = [1, 1.25, 1.5, 2, 3, 4, 6, 8];

const byId = (id) => document.getElementById(id);
const stage = byId("stage"), sheet = byId("sheet"), picture = byId("picture"), boxes = byId("boxes");
let zoom = 1;
let shown = null; // {width, height, findings, colours}

export function colourOf(label, labels) {
  const at = labels.indexOf(label);
  return at < PALETTE.length ? PALETTE[Math.max(at, 0)] : `hsl(${(at * 222.5) % 360} 75% 65%)`;
}

export function showPicture(address, width, height) {
  shown = { width, height, findings: [], colours: {} };
  picture.src = address;
  byId("empty").hidden = true;
  sheet.hidden = false;
  setZoom(1);
}

export function showNothing(words) {
  shown = null;
  sheet.hidden = true;
  byId("empty").hidden = false;
  byId("empty").textContent = words;
  stage.setAttribute("aria-label", words);
}

export function showFindings(findings, colours, chosen) {
  if (!shown) return;
  shown.findings = findings;
  shown.colours = colours;
  boxes.replaceChildren();
  const taken = [];
  for (const finding of findings) {
    const [left, top, right, bottom] = finding.box;
    const box = document.createElement("div");
    box.className = finding === chosen ? "box chosen" : "box";
    box.style.setProperty("--colour", colours[finding.label]);
    box.style.left = `${(100 * left) / shown.width}%`;
    box.style.top = `${(100 * top) / shown.height}%`;
    box.style.width = `${(100 * (right - left)) / shown.width}%`;
    box.style.height = `${(100 * (bottom - top)) / shown.height}%`;
    boxes.append(box);
  }
  for (const finding of findings) placeTag(finding, colours[finding.label], taken);
}

// The first place near the box, inside the picture, that covers no other label: above, below, inside, then any row.
function placeTag(finding, colour, taken) {
  const tag = document.createElement("div");
  tag.className = "tag";
  tag.textContent = `${finding.label} ${finding.score.toFixed(2)}`;
  tag.style.setProperty("--colour", colour);
  boxes.append(tag);
  const all = boxes.getBoundingClientRect();
  const { width, height } = tag.getBoundingClientRect();
  const scaleX = all.width / shown.width, scaleY = all.height / shown.height;
  const [left, top, right, bottom] = [finding.box[0] * scaleX, finding.box[1] * scaleY, finding.box[2] * scaleX, finding.box[3] * scaleY];
  const rows = [top - height, bottom, top, bottom - height];
  for (let step = 1; step * height < all.height; step++) rows.push(top + step * height, top - height - step * height);
  let best = null, least = Infinity;
  for (const row of rows) {
    for (const column of [left, right - width]) {
      const x = Math.max(0, Math.min(column, all.width - width)), y = Math.max(0, Math.min(row, all.height - height));
      const place = { x, y, right: x + width, bottom: y + height };
      const covered = taken.reduce((sum, other) => sum + shared(place, other), 0);
      if (covered < least) [best, least] = [place, covered];
      if (least === 0) break;
    }
    if (least === 0) break;
  }
  taken.push(best);
  tag.style.left = `${best.x}px`;
  tag.style.top = `${best.y}px`;
}

function shared(one, other) {
  const width = Math.min(one.right, other.right) - Math.max(one.x, other.x);
  const height = Math.min(one.bottom, other.bottom) - Math.max(one.y, other.y);
  return Math.max(width, 0) * Math.max(height, 0);
}

export function setZoom(value) {
  if (!shown) return;
  const across = stage.scrollWidth ? (stage.scrollLeft + stage.clientWidth / 2) / stage.scrollWidth : 0.5;
  const down = stage.scrollHeight ? (stage.scrollTop + stage.clientHeight / 2) / stage.scrollHeight : 0.5;
  zoom = value;
  const fit = Math.min((stage.clientWidth - 20) / shown.width, (stage.clientHeight - 20) / shown.height);
  sheet.style.width = `${Math.max(1, Math.round(shown.width * fit * zoom))}px`;
  sheet.style.height = `${Math.max(1, Math.round(shown.height * fit * zoom))}px`;
  stage.classList.toggle("grab", zoom > 1);
  byId("zoom-value").textContent = `${Math.round(100 * zoom)} %`;
  byId("zoom-out").disabled = zoom === ZOOMS[0];
  byId("zoom-in").disabled = zoom === ZOOMS.at(-1);
  stage.scrollLeft = across * stage.scrollWidth - stage.clientWidth / 2;
  stage.scrollTop = down * stage.scrollHeight - stage.clientHeight / 2;
  showFindings(shown.findings, shown.colours);
}

export function zoomBy(steps) {
  setZoom(ZOOMS[Math.max(0, Math.min(ZOOMS.length - 1, ZOOMS.indexOf(zoom) + steps))]);
}

byId("zoom-in").addEventListener("click", () => zoomBy(1));
byId("zoom-out").addEventListener("click", () => zoomBy(-1));
byId("zoom-fit").addEventListener("click", () => setZoom(1));
stage.addEventListener("wheel", (event) => {
  if (!event.ctrlKey && !event.metaKey) return;
  event.preventDefault();
  zoomBy(event.deltaY < 0 ? 1 : -1);
}, { passive: false });
stage.addEventListener("pointerdown", (event) => {
  if (event.pointerType !== "mouse" || zoom === 1) return;
  const from = { x: event.clientX + stage.scrollLeft, y: event.clientY + stage.scrollTop };
  const move = (to) => { stage.scrollLeft = from.x - to.clientX; stage.scrollTop = from.y - to.clientY; };
  stage.setPointerCapture(event.pointerId);
  stage.addEventListener("pointermove", move);
  stage.addEventListener("pointerup", () => stage.removeEventListener("pointermove", move), { once: true });
});
picture.addEventListener("dragstart", (event) => event.preventDefault());
new ResizeObserver(() => setZoom(zoom)).observe(stage);
