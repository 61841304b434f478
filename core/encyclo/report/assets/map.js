// The map: a point a concept, coloured and shaped by category or coloured by confidence.

const SHAPES = ["M0-5A5 5 0 1 0 .01-5Z", "M-4.5-4.5H4.5V4.5H-4.5Z", "M0-5.5L5.2 4.2H-5.2Z"];
const COLOURS = 8;
// In thousandths: where the stages' usual targets lie.
const LIMITS = [400, 700, 850, 900];
const STEPS = ["below 40%", "40% to 70%", "70% to 85%", "85% to 90%", "90% and more", "not measured"];

function swatch(kind, fill) {
  return svg("svg", { viewBox: "-7 -7 14 14", "aria-hidden": "true" }, svg("path", { d: SHAPES[kind], fill: fill, stroke: fill === "none" ? "currentColor" : "none" }));
}

class ConceptMap {
  constructor(canvas) {
    this.canvas = canvas;
    this.tip = document.getElementById("tip");
    this.said = document.getElementById("said");
    this.colour = document.getElementById("colour");
    this.legend = document.getElementById("legend");
    this.mark = svg("path", { class: "mark", d: "M0-9A9 9 0 1 0 .01-9Z", visibility: "hidden" });
    const layer = svg("g", {});
    this.points = data.map.map(([row, x, y]) => {
      const node = svg("path", { stroke: "var(--card)", "stroke-width": 0.6 });
      layer.append(node);
      return { row, x: x / 1000, y: 1 - y / 1000, node };
    });
    canvas.append(layer, this.mark);
    this.view = { k: 1, x: 0, y: 0 };
    this.chosen = -1;
    this.only = null;
    this.rankCategories();
  }

  // The largest categories have a colour and shape of their own; the others share the last one.
  rankCategories() {
    const sizes = new Map();
    for (const { row } of this.points) sizes.set(all.category[row], (sizes.get(all.category[row]) || 0) + 1);
    this.ranked = [...sizes.keys()].sort((a, b) => sizes.get(b) - sizes.get(a) || a - b);
    const looks = COLOURS * SHAPES.length;
    this.shared = this.ranked.length > looks ? looks - 1 : null;
    this.look = new Map(this.ranked.map((category, place) => [category, Math.min(place, looks - 1)]));
  }

  // Which look a concept has: of its category, or of its confidence.
  group(row) {
    if (this.colour.value === "category") return this.look.get(all.category[row]);
    const figure = all[this.colour.value][row];
    return figure === null ? STEPS.length - 1 : LIMITS.filter((limit) => figure >= limit).length;
  }

  style(place) {
    if (this.colour.value === "category") {
      return { shape: Math.floor(place / COLOURS), fill: "var(--k" + (place % COLOURS) + ")", stroke: "var(--card)" };
    }
    const unknown = place === STEPS.length - 1;
    return { shape: 0, fill: unknown ? "none" : "var(--c" + place + ")", stroke: unknown ? "var(--soft)" : "var(--card)" };
  }

  paint() {
    for (const { row, node } of this.points) {
      const place = this.group(row);
      const { shape, fill, stroke } = this.style(place);
      dress(node, { d: SHAPES[shape], fill, stroke, class: this.only !== null && this.only !== place ? "dim" : "" }, []);
    }
  }

  explain() {
    const places = [...new Set(this.points.map(({ row }) => this.group(row)))].sort((a, b) => a - b);
    this.legend.replaceChildren(...places.map((place) => el("li", {}, this.legendButton(place))));
  }

  legendButton(place) {
    const named = this.colour.value === "category";
    const label = !named ? STEPS[place] : place === this.shared ? "other categories" : data.categories[this.ranked[place]];
    const { shape, fill } = this.style(place);
    const button = el("button", { type: "button", "aria-pressed": "false" }, swatch(shape, fill), el("bdi", {}, label));
    button.addEventListener("click", () => {
      this.only = this.only === place ? null : place;
      for (const other of this.legend.querySelectorAll("button")) {
        other.setAttribute("aria-pressed", String(this.only !== null && other === button));
      }
      this.paint();
    });
    return button;
  }

  box() {
    const { width, height } = this.canvas.getBoundingClientRect();
    return { width, height, pad: 16 };
  }

  onScreen(point) {
    const { width, height, pad } = this.box();
    return [
      (pad + point.x * (width - 2 * pad)) * this.view.k + this.view.x,
      (pad + point.y * (height - 2 * pad)) * this.view.k + this.view.y,
    ];
  }

  // Move every point to its place in the view.
  place() {
    const { width, height } = this.box();
    if (!width) return;
    const { view, points } = this;
    view.x = Math.min(0, Math.max(width * (1 - view.k), view.x));
    view.y = Math.min(0, Math.max(height * (1 - view.k), view.y));
    const size = Math.min(2, Math.max(0.6, (0.55 + 12 / Math.sqrt(points.length)) * Math.sqrt((view.k * width) / 1000)));
    for (const point of points) {
      const [x, y] = this.onScreen(point);
      point.node.setAttribute("transform", "translate(" + x.toFixed(1) + " " + y.toFixed(1) + ") scale(" + size.toFixed(2) + ")");
    }
    // One finger scrolls past the whole map; it moves a map that is larger than its frame.
    this.canvas.style.touchAction = view.k > 1 ? "none" : "pan-y";
    this.choose(this.chosen, false);
  }

  zoom(by, at) {
    const { width, height } = this.box();
    const [x, y] = at || [width / 2, height / 2];
    const { view } = this;
    const k = Math.min(40, Math.max(1, view.k * by));
    view.x = x - ((x - view.x) * k) / view.k;
    view.y = y - ((y - view.y) * k) / view.k;
    view.k = k;
    this.place();
  }

  // Name a concept next to its point and, if `say`, under the map, where a screen reader announces it.
  choose(index, say) {
    this.chosen = index;
    this.mark.setAttribute("visibility", index < 0 ? "hidden" : "visible");
    this.tip.hidden = index < 0;
    if (index < 0) return;
    const { row } = this.points[index];
    const [x, y] = this.onScreen(this.points[index]);
    const { width, height } = this.box();
    const { tip } = this;
    this.mark.setAttribute("transform", "translate(" + x + " " + y + ")");
    const words = () => [nameOf(row), " ", el("small", {}, el("bdi", {}, data.categories[all.category[row]]), ", confidence " + all.trust[row])];
    tip.replaceChildren(...words());
    tip.style.left = Math.max(0, Math.min(x + 12, width - tip.offsetWidth - 4)) + "px";
    tip.style.top = Math.max(0, y + 14 + tip.offsetHeight > height ? y - tip.offsetHeight - 12 : y + 14) + "px";
    if (x < 0 || y < 0 || x > width || y > height) tip.hidden = true;
    if (say) this.said.replaceChildren(...words(), " ", el("a", { href: "#entry-" + row }, "Open its entry"));
  }

  // The places on the screen of the points that are not dimmed, except `without`.
  *candidates(without) {
    for (const [index, point] of this.points.entries()) {
      if (index !== without && (this.only === null || this.group(point.row) === this.only)) yield [index, ...this.onScreen(point)];
    }
  }

  nearestTo([x, y], within) {
    let [best, least] = [-1, within * within];
    for (const [index, px, py] of this.candidates(-1)) {
      const distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance < least) [best, least] = [index, distance];
    }
    return best;
  }

  // Go to the nearest point in one direction.
  towards(dx, dy) {
    const { width, height } = this.box();
    if (this.chosen < 0) return this.choose(this.nearestTo([width / 2, height / 2], 1e6), true);
    const [x, y] = this.onScreen(this.points[this.chosen]);
    let [best, least] = [-1, Infinity];
    for (const [index, px, py] of this.candidates(this.chosen)) {
      const along = (px - x) * dx + (py - y) * dy;
      const across = Math.abs((px - x) * dy) + Math.abs((py - y) * dx);
      if (along > 0 && across <= along && along + 2 * across < least) [best, least] = [index, along + 2 * across];
    }
    if (best < 0) return;
    this.choose(best, true);
    const [px, py] = this.onScreen(this.points[best]);
    if (px < 20 || py < 20 || px > width - 20 || py > height - 20) {
      this.view.x += width / 2 - px;
      this.view.y += height / 2 - py;
      this.place();
    }
  }

  locate(event) {
    const { left, top } = this.canvas.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top];
  }

  followPointer() {
    const fingers = new Map();
    let moved = false;
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => {
      fingers.set(event.pointerId, this.locate(event));
      moved = false;
    });
    canvas.addEventListener("pointermove", (event) => {
      const now = this.locate(event);
      const before = fingers.get(event.pointerId);
      if (!before) return this.choose(this.nearestTo(now, 24), true);
      const other = [...fingers].find(([id]) => id !== event.pointerId);
      this.drag(before, now, other && other[1]);
      if (Math.hypot(now[0] - before[0], now[1] - before[1]) > 2) {
        moved = true;
        canvas.setPointerCapture(event.pointerId);
      }
      fingers.set(event.pointerId, now);
    });
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => fingers.delete(event.pointerId));
    }
    canvas.addEventListener("pointerleave", () => this.choose(-1, false));
    canvas.addEventListener("click", (event) => {
      if (!moved) this.choose(this.nearestTo(this.locate(event), 28), true);
    });
    canvas.addEventListener("dblclick", (event) => this.zoom(2, this.locate(event)));
  }

  // A pointer moved while down: two fingers zoom, one moves the view.
  drag(before, now, other) {
    if (other) {
      const apart = (at) => Math.hypot(at[0] - other[0], at[1] - other[1]);
      this.zoom(apart(now) / Math.max(1, apart(before)), [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2]);
    } else if (this.view.k > 1) {
      this.view.x += now[0] - before[0];
      this.view.y += now[1] - before[1];
      this.place();
    }
  }

  followWheelAndKeys() {
    this.canvas.addEventListener("wheel", (event) => {
      // The wheel scrolls the page; after a click into the map, or with Ctrl, it zooms.
      if (!event.ctrlKey && document.activeElement !== this.canvas) return;
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY / 300), this.locate(event));
    }, { passive: false });
    const here = () => (this.chosen < 0 ? null : this.onScreen(this.points[this.chosen]));
    const keys = {
      ArrowLeft: () => this.towards(-1, 0),
      ArrowRight: () => this.towards(1, 0),
      ArrowUp: () => this.towards(0, -1),
      ArrowDown: () => this.towards(0, 1),
      "+": () => this.zoom(1.5, here()),
      "=": () => this.zoom(1.5, here()),
      "-": () => this.zoom(1 / 1.5, here()),
      0: () => this.zoom(0),
      Enter: () => this.chosen >= 0 && location.assign("#entry-" + this.points[this.chosen].row),
      Escape: () => this.choose(-1, false),
    };
    this.canvas.addEventListener("keydown", (event) => {
      if (!(event.key in keys) || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      keys[event.key]();
    });
  }

  start() {
    this.followPointer();
    this.followWheelAndKeys();
    document.getElementById("nearer").addEventListener("click", () => this.zoom(1.5));
    document.getElementById("farther").addEventListener("click", () => this.zoom(1 / 1.5));
    document.getElementById("whole").addEventListener("click", () => this.zoom(0));
    this.colour.addEventListener("input", () => {
      this.only = null;
      this.paint();
      this.explain();
    });
    document.getElementById("mapped").hidden = false;
    this.paint();
    this.explain();
    this.place();
    new ResizeObserver(() => this.place()).observe(this.canvas);
  }
}

new EntryList().start();
if (data.map.length) new ConceptMap(document.getElementById("map")).start();
