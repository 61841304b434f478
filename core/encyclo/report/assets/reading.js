// A text that was read. In data: names[concept]; own[concept], its held-out readings, empty if not known; tokens are
// [concepts [concept, confidence in thousandths], familiarity in thousandths, read (1 where the reader answers)], in
// the order of the text's spans.

const data = read("data");
const spans = [...document.querySelectorAll("#text span")];
const panel = document.getElementById("panel");
const chooser = document.getElementById("found");
let at = -1;
let only = null;
const resting = document.getElementById("shown").textContent;

function heatOf(token) {
  const [concepts] = data.tokens[token];
  const found = only === null ? concepts[0] : concepts.find(([concept]) => concept === only);
  return found ? (found[1] ?? 0) / 1000 : 0;
}

function paint() {
  spans.forEach((span, token) => {
    span.style.setProperty("--h", heatOf(token));
    const [concepts, , read] = data.tokens[token];
    span.classList.toggle("sure", only === null ? read === 1 : concepts.some(([concept]) => concept === only));
  });
}

function show(token) {
  if (at >= 0) spans[at].classList.remove("on");
  at = token;
  spans[token].classList.add("on");
  const [concepts, familiarity, read] = data.tokens[token];
  const known = data.own.length > 0;
  const rows = concepts.map(([concept, confidence]) =>
    el("tr", {}, el("th", { scope: "row" }, el("bdi", {}, data.names[concept])), el("td", { class: "n" }, percent(confidence, 1)), known ? el("td", { class: "n" }, data.own[concept].toLocaleString("en")) : null),
  );
  const answer = read ? "read as " : data.calibrated ? "below the threshold; likeliest " : "likeliest ";
  panel.replaceChildren(
    el("p", {}, "“", el("b", {}, el("bdi", {}, spans[token].textContent)), "” ", answer, el("bdi", {}, data.names[concepts[0][0]]), familiarity === null ? null : ", familiarity " + percent(familiarity)),
    el("table", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Concept"), el("th", { scope: "col", class: "n" }, "Confidence"), known ? el("th", { scope: "col", class: "n" }, "Own held-out readings") : null)), el("tbody", {}, ...rows)),
  );
}

function choose(concept) {
  only = only === concept ? null : concept;
  for (const button of chooser.querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(only !== null && Number(button.dataset.concept) === only));
  }
  document.getElementById("shown").replaceChildren(
    ...(only === null ? [resting] : ["Heat: the confidence of ", el("b", {}, el("bdi", {}, data.names[only])), " at each token; underlined where it is among the likeliest."]),
  );
  paint();
}

function rankings() {
  const sums = new Map();
  data.tokens.forEach(([concepts]) =>
    concepts.forEach(([concept, confidence]) => {
      const [best, times] = sums.get(concept) || [0, 0];
      sums.set(concept, [Math.max(best, confidence ?? 0), times + 1]);
    }),
  );
  return [...sums].sort((a, b) => b[1][0] - a[1][0] || b[1][1] - a[1][1] || a[0] - b[0]);
}

function list(query) {
  const wanted = plain(query).trim();
  // A concept that is hardly active anywhere is listed only if it is searched for.
  const active = ([concept, [best]]) => wanted !== "" || !data.calibrated || best >= 10 || concept === only;
  const rows = rankings().filter((ranked) => plain(data.names[ranked[0]]).includes(wanted) && active(ranked));
  chooser.replaceChildren(
    ...rows.slice(0, 60).map(([concept, [best, times]]) => {
      const said = (data.calibrated ? "up to " + percent(best) + ", " : "") + times + (times === 1 ? " token" : " tokens");
      const button = el("button", { type: "button", "aria-pressed": String(only === concept), "data-concept": concept }, el("bdi", {}, data.names[concept]), " ", el("small", {}, said));
      button.addEventListener("click", () => choose(concept));
      return el("li", {}, button);
    }),
  );
  document.getElementById("count").textContent = Math.min(60, rows.length) + " concepts listed" + (rows.length > 60 ? " of " + rows.length.toLocaleString("en") + ", those of highest confidence" : wanted || !data.calibrated ? "" : ": those that reach 1%; the search finds the others");
}

function start() {
  const text = document.getElementById("text");
  text.addEventListener("pointerover", (event) => {
    const token = spans.indexOf(event.target);
    if (token >= 0) show(token);
  });
  text.addEventListener("click", (event) => {
    const token = spans.indexOf(event.target);
    if (token >= 0) show(token);
  });
  // One stop for the Tab key; arrows go from token to token.
  text.addEventListener("focus", () => show(Math.max(at, 0)));
  text.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowDown: 10, ArrowLeft: -1, ArrowUp: -10, Home: -spans.length, End: spans.length };
    if (!(event.key in steps)) return;
    event.preventDefault();
    show(Math.min(spans.length - 1, Math.max(0, at + steps[event.key])));
    spans[at].scrollIntoView({ block: "nearest" });
  });
  const find = document.getElementById("find");
  find.addEventListener("input", () => list(find.value));
  document.getElementById("choice").hidden = false;
  list("");
  paint();
}

start();
