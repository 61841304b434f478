// The list of entries. In data: entries has a column a figure, in thousandths where it is a share; trust is
// the confidence in words, own the number of held-out readings, empty if not known; bars says whether confidences
// differ enough to draw them; details[row] is [nearest [row, cosine %], confused [row, times, margin], readings, right, held out,
// prompts [text, family], samples, raw, centred], the last two by halves of 1, 2, 4 … samples.

const data = read("data");
const all = data.entries;
const AT_FIRST = 12;
const AT_ONCE = 50;

function nameOf(row) {
  return el("bdi", {}, all.name[row]);
}

function link(row) {
  return el("a", { href: "#entry-" + row }, nameOf(row));
}

function bar(row) {
  if (!data.bars || all.confidence[row] === null || all.low[row] === null || all.high[row] === null) return null;
  const node = el("span", { class: "bar", "aria-hidden": "true" });
  for (const [key, column] of [["--at", "confidence"], ["--low", "low"], ["--high", "high"]]) {
    node.style.setProperty(key, all[column][row] / 10 + "%");
  }
  return node;
}

function counted(row) {
  return all.own.length > 0 && all.confidence[row] !== null;
}

// An entry without a reading of its own is marked: its confidence is borrowed.
function trustOf(row) {
  const count = counted(row) ? "n\u00a0=\u00a0" + all.own[row].toLocaleString("en") : null;
  return [all.trust[row], ...(count === null ? [] : [", ", all.own[row] ? count : el("b", { class: "borrowed" }, count)])];
}

function part(title, ...children) {
  return el("div", {}, el("h4", {}, title), ...children);
}

function layersOf(row) {
  const rows = data.layers.map((layer, place) => {
    const share = all.carried[row][place];
    const meter = el("span", { class: "meter", "aria-hidden": "true" });
    meter.style.setProperty("--at", (share || 0) / 10 + "%");
    return el("tr", {}, el("th", { scope: "row" }, layer), el("td", {}, meter), el("td", { class: "n" }, percent(share)));
  });
  return part("Carried by layer: the concept's own share of a sample", el("table", {}, el("tbody", {}, ...rows)));
}

function curveOf(raw, centred) {
  const title = "Convergence: difference of halves by samples in a half";
  if (!raw.length) return part(title, el("p", { class: "unmeasured" }, "Not measured: too few samples mention it."));
  const top = Math.max(100, ...raw, ...centred) * 1.08;
  const x = (step) => (raw.length === 1 ? 150 : 38 + (step * 222) / (raw.length - 1));
  const y = (figure) => 122 - (figure / top) * 112;
  const words = raw.map((figure, step) => 2 ** step + ": raw " + percent(figure, 1) + ", centred " + percent(centred[step], 1));
  const drawing = svg("svg", { class: "curve", viewBox: "0 0 280 142", role: "img", "aria-label": title + ". " + words.join("; ") });
  drawing.append(svg("path", { class: "axis", d: "M38 10V122H265" }), svg("path", { class: "line", d: "M38 " + y(50) + "H265" }));
  for (const [kind, series] of [["raw", raw], ["centred", centred]]) {
    drawing.append(svg("path", { class: kind, d: series.map((f, s) => (s ? "L" : "M") + x(s) + " " + y(f)).join("") }));
    series.forEach((f, s) => drawing.append(svg("circle", { class: "dot " + kind, cx: x(s), cy: y(f), r: 3 })));
  }
  raw.forEach((_, step) => drawing.append(svg("text", { x: x(step), y: 137, "text-anchor": "middle" }, String(2 ** step))));
  for (const figure of [50, Math.round(top / 1.08)]) {
    drawing.append(svg("text", { x: 34, y: y(figure) + 4, "text-anchor": "end" }, percent(figure)));
  }
  const last = raw.length - 1;
  const key = "Raw (solid) " + percent(raw[last], 1) + ", centred (dashed) " + percent(centred[last], 1) + " at " + 2 ** last + " samples a half; the level line is 5%.";
  return part(title, drawing, el("small", {}, key));
}

function listOf(title, items, none) {
  return part(title, items.length ? el("ul", {}, ...items.map((item) => el("li", {}, ...item))) : el("p", { class: "unmeasured" }, none));
}

function confusedOf(confused, readings, right, held) {
  const kind = held ? " held-out samples" : " samples";
  const title = "Most confused: " + right + " of " + readings + kind + " read right";
  const items = confused.map(([other, times, margin]) => {
    const said = times ? "read instead " + times + " of " + readings + " times" : margin < 0 ? "scores higher on average" : "scores next";
    return [link(other), " ", el("small", {}, said)];
  });
  return listOf(readings ? title : "Most confused", items, "Not measured: no sample mentions it.");
}

function insideOf(row) {
  const inside = el("div", { class: "inside" });
  const definition = all.definition[row];
  inside.append(el("p", {}, definition ? el("bdi", {}, definition) : el("small", {}, "No definition.")));
  const state = (all.settled[row] ? "settled in stage " : "not settled after stage ") + all.stage[row];
  const lines = [["Confidence ", ...trustOf(row)], all.samples[row].toLocaleString("en") + " samples, " + (all.converged[row] ? "converged" : "not converged"), state];
  if (counted(row) && !all.own[row]) lines.splice(1, 0, "no held-out reading of its own: the confidence is that of the other concepts");
  inside.append(part("How far to trust it", el("ul", {}, ...lines.map((line) => el("li", {}, ...[line].flat())))), layersOf(row));
  const detail = data.details[row];
  if (!detail) {
    inside.append(el("p", { class: "unmeasured" }, "Its neighbours, prompts and curve are not on this page; encyclo show prints them."));
    return inside;
  }
  const [nearest, confused, readings, right, held, prompts, samples, raw, centred] = detail;
  inside.append(
    listOf("Nearest (cosine)", nearest.map(([other, cosine]) => [link(other), " ", el("small", {}, (cosine / 100).toFixed(2).replace("-", "−"))]), "None: no signature is similar, or too few samples mention it."),
    confusedOf(confused, readings, right, held),
    curveOf(raw, centred),
  );
  const texts = prompts.map(([text, family]) => [el("bdi", {}, text), " ", el("small", {}, "[", el("bdi", {}, data.families[family]), "]")]);
  const more = samples - prompts.length;
  const list = listOf("Prompts: " + prompts.length + " of " + samples.toLocaleString("en"), texts, "None.");
  if (more > 0) list.append(el("small", {}, "And " + more.toLocaleString("en") + " more."));
  list.className = "wide";
  inside.append(list);
  return inside;
}

function entryOf(row) {
  const head = el("span", {}, el("b", {}, nameOf(row)), " ", el("small", {}, el("bdi", {}, data.categories[all.category[row]])));
  const trust = el("span", {}, el("small", {}, ...trustOf(row)), bar(row));
  const node = el("details", { class: "entry", id: "entry-" + row }, el("summary", {}, head, trust));
  node.addEventListener("toggle", () => {
    if (node.open && node.children.length === 1) node.append(insideOf(row));
  });
  return node;
}

class EntryList {
  constructor() {
    this.find = document.getElementById("find");
    this.category = document.getElementById("category");
    this.order = document.getElementById("order");
    this.list = document.getElementById("list");
    this.more = document.getElementById("more");
    this.text = all.name.map((name, row) => plain(name + "\n" + all.definition[row]));
    this.names = all.name.map(plain);
    this.shown = AT_FIRST;
    this.pinned = null;
    const { names } = this;
    const own = (row) => all.own[row] ?? 0;
    this.orders = {
      run: () => 0,
      least: (a, b) => (all.confidence[a] ?? 2000) - (all.confidence[b] ?? 2000) || own(a) - own(b),
      most: (a, b) => (all.confidence[b] ?? -1) - (all.confidence[a] ?? -1) || own(b) - own(a),
      own: (a, b) => own(a) - own(b),
      name: (a, b) => (names[a] < names[b] ? -1 : names[a] > names[b] ? 1 : 0),
    };
  }

  // Matches in the name come first, then matches in the definition.
  matches() {
    const query = plain(this.find.value).trim();
    const category = this.category.value;
    const { names, text } = this;
    const rows = [...text.keys()].filter((row) => text[row].includes(query) && (category === "" || all.category[row] === Number(category)));
    const rank = (row) => (query === "" || names[row] === query ? 0 : names[row].startsWith(query) ? 1 : names[row].includes(query) ? 2 : 3);
    const order = this.orders[this.order.value];
    return rows.sort((a, b) => rank(a) - rank(b) || order(a, b) || a - b);
  }

  draw() {
    const rows = this.matches();
    const first = this.pinned === null ? rows : [this.pinned, ...rows.filter((row) => row !== this.pinned)];
    const shown = first.slice(0, this.shown);
    this.list.replaceChildren(...shown.map(entryOf));
    this.more.hidden = shown.length >= first.length;
    document.getElementById("count").textContent =
      rows.length.toLocaleString("en") + (rows.length === 1 ? " entry" : " entries") + (shown.length < first.length ? ", " + shown.length + " of them listed" : "");
  }

  fresh() {
    this.shown = AT_FIRST;
    this.pinned = null;
    this.draw();
    if (this.list.children.length === 1) this.list.firstElementChild.open = true;
  }

  listMore() {
    const before = this.shown;
    this.shown += AT_ONCE;
    this.draw();
    this.list.children[before].firstElementChild.focus();
  }

  // Open the entry in the address; if the search hides it, list it first.
  reveal() {
    const row = Number((location.hash.match(/^#entry-(\d+)$/) || [])[1] ?? -1);
    if (row < 0 || row >= all.name.length) return;
    if (!document.getElementById("entry-" + row)) {
      this.pinned = row;
      this.draw();
    }
    const node = document.getElementById("entry-" + row);
    node.open = true;
    node.scrollIntoView({ block: "start" });
    node.firstElementChild.focus({ preventScroll: true });
  }

  start() {
    data.categories.forEach((name, place) => this.category.append(el("option", { value: place }, name)));
    for (const control of [this.find, this.category, this.order]) control.addEventListener("input", () => this.fresh());
    this.more.addEventListener("click", () => this.listMore());
    addEventListener("hashchange", () => this.reveal());
    // A second click on the same link doesn't change the address.
    addEventListener("click", (event) => {
      const target = event.target.closest && event.target.closest("a[href^='#entry-']");
      if (target && target.getAttribute("href") === location.hash) this.reveal();
    });
    if (all.own.length) this.order.append(el("option", { value: "own" }, "fewest own readings first"));
    document.getElementById("static").remove();
    document.getElementById("finder").hidden = false;
    this.draw();
    this.reveal();
  }
}
