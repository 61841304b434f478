// The map: a point a concept, coloured and shaped by category or coloured by confidence.

const SHAPES = ["M0-5A5 5 0 1 0 .01-5Z", "M-4.5-4.5H4.5V4.5H-4.5Z", "M0-5.5L5.2 4.2H-5.2Z"];
const COLOURS = 8;
// In thousandths: where the stages' usual targets lie.
const LIMITS = [400, 700, 850, 950];
const STEPS = ["below 40%", "40% to 70%", "70% to 85%", "85% to 95%", "95% and more", "not measured"];

function swatch(kind, fill) {
  return svg("svg", { viewBox: "-7 -7 14 14", "aria-hidden": "true" }, svg("path", { d: SHAPES[kind], fill: fill, stroke: fill === "none" ? "currentColor" : "none" }));
}

function startMap() {
  const canvas = document.getElementById("map");
  if (!canvas || !data.map.length) return;
  const layer = svg("g", {});
  const mark = svg("path", { class: "mark", d: "M0-9A9 9 0 1 0 .01-9Z", visibility: "hidden" });
  canvas.append(layer, mark);
  const tip = document.getElementById("tip");
  const said = document.getElementById("said");
  const colour = document.getElementById("colour");
  const legend = document.getElementById("legend");
  // The largest categories get a look of their own, the others share the last.
  const sizes = new Map();
  for (const [row] of data.map) sizes.set(all.category[row], (sizes.get(all.category[row]) || 0) + 1);
  const ranked = [...sizes.keys()].sort((a, b) => sizes.get(b) - sizes.get(a) || a - b);
  const own = COLOURS * SHAPES.length - (ranked.length > COLOURS * SHAPES.length ? 1 : 0);
  const look = new Map(ranked.map((category, place) => [category, Math.min(place, own)]));
  const points = data.map.map(([row, x, y]) => {
    const node = svg("path", { stroke: "var(--card)", "stroke-width": 0.6 });
    layer.append(node);
    return { row, x: x / 1000, y: 1 - y / 1000, node };
  });
  const view = { k: 1, x: 0, y: 0 };
  let chosen = -1;
  let only = null;

  function step(row) {
    const figure = all[colour.value][row];
    return figure === null ? 5 : LIMITS.filter((limit) => figure >= limit).length;
  }

  function group(row) {
    return colour.value === "category" ? look.get(all.category[row]) : step(row);
  }

  function paint() {
    for (const { row, node } of points) {
      const place = group(row);
      const named = colour.value === "category";
      node.setAttribute("d", SHAPES[named ? Math.floor(place / COLOURS) : 0]);
      node.setAttribute("fill", named ? "var(--k" + (place % COLOURS) + ")" : place === 5 ? "none" : "var(--c" + place + ")");
      node.setAttribute("stroke", !named && place === 5 ? "var(--soft)" : "var(--card)");
      node.setAttribute("class", only !== null && only !== place ? "dim" : "");
    }
  }

  function explain() {
    const named = colour.value === "category";
    const places = [...new Set(points.map(({ row }) => group(row)))].sort((a, b) => a - b);
    legend.replaceChildren(
      ...places.map((place) => {
        const shared = named && ranked.length > own + 1 && place === own;
        const label = named ? (shared ? "other categories" : data.categories[ranked[place]]) : STEPS[place];
        const fill = named ? "var(--k" + (place % COLOURS) + ")" : place === 5 ? "none" : "var(--c" + place + ")";
        const button = el("button", { type: "button", "aria-pressed": String(only === place) }, swatch(named ? Math.floor(place / COLOURS) : 0, fill), el("bdi", {}, label));
        button.addEventListener("click", () => {
          only = only === place ? null : place;
          for (const other of legend.querySelectorAll("button")) other.setAttribute("aria-pressed", String(only !== null && other === button));
          paint();
        });
        return el("li", {}, button);
      }),
    );
  }

  function box() {
    const { width, height } = canvas.getBoundingClientRect();
    return { width, height, pad: 16 };
  }

  function onScreen(point) {
    const { width, height, pad } = box();
    return [
      (pad + point.x * (width - 2 * pad)) * view.k + view.x,
      (pad + point.y * (height - 2 * pad)) * view.k + view.y,
    ];
  }

  function place() {
    const { width, height } = box();
    if (!width) return;
    view.x = Math.min(0, Math.max(width * (1 - view.k), view.x));
    view.y = Math.min(0, Math.max(height * (1 - view.k), view.y));
    const size = Math.min(2, Math.max(0.6, (0.55 + 12 / Math.sqrt(points.length)) * Math.sqrt((view.k * width) / 1000)));
    for (const point of points) {
      const [x, y] = onScreen(point);
      point.node.setAttribute("transform", "translate(" + x.toFixed(1) + " " + y.toFixed(1) + ") scale(" + size.toFixed(2) + ")");
    }
    canvas.style.touchAction = view.k > 1 ? "none" : "pan-y";
    choose(chosen, false);
  }

  function zoom(by, x, y) {
    const { width, height } = box();
    const at = [x ?? width / 2, y ?? height / 2];
    const k = Math.min(40, Math.max(1, view.k * by));
    view.x = at[0] - ((at[0] - view.x) * k) / view.k;
    view.y = at[1] - ((at[1] - view.y) * k) / view.k;
    view.k = k;
    place();
  }

  function choose(index, say) {
    chosen = index;
    mark.setAttribute("visibility", index < 0 ? "hidden" : "visible");
    tip.hidden = index < 0;
    if (index < 0) return;
    const { row } = points[index];
    const [x, y] = onScreen(points[index]);
    const { width, height } = box();
    mark.setAttribute("transform", "translate(" + x + " " + y + ")");
    const words = () => [nameOf(row), " ", el("small", {}, el("bdi", {}, data.categories[all.category[row]]), ", confidence " + all.trust[row])];
    tip.replaceChildren(...words());
    tip.style.left = Math.max(0, Math.min(x + 12, width - tip.offsetWidth - 4)) + "px";
    tip.style.top = Math.max(0, y + 14 + tip.offsetHeight > height ? y - tip.offsetHeight - 12 : y + 14) + "px";
    if (x < 0 || y < 0 || x > width || y > height) tip.hidden = true;
    if (say) said.replaceChildren(...words(), " ", el("a", { href: "#entry-" + row }, "Open its entry"));
  }

  function nearestTo(x, y, within) {
    let best = -1;
    let least = within * within;
    points.forEach((point, index) => {
      if (only !== null && group(point.row) !== only) return;
      const [px, py] = onScreen(point);
      const distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance < least) [best, least] = [index, distance];
    });
    return best;
  }

  // The next point to one side: the nearest of those that lie more that way than across.
  function towards(dx, dy) {
    const { width, height } = box();
    const [x, y] = chosen < 0 ? [width / 2, height / 2] : onScreen(points[chosen]);
    if (chosen < 0) return choose(nearestTo(x, y, 1e6), true);
    let best = -1;
    let least = Infinity;
    points.forEach((point, index) => {
      if (index === chosen || (only !== null && group(point.row) !== only)) return;
      const [px, py] = onScreen(point);
      const along = (px - x) * dx + (py - y) * dy;
      const across = Math.abs((px - x) * dy) + Math.abs((py - y) * dx);
      if (along > 0 && across <= along && along + 2 * across < least) [best, least] = [index, along + 2 * across];
    });
    if (best < 0) return;
    choose(best, true);
    const [px, py] = onScreen(points[best]);
    if (px < 20 || py < 20 || px > width - 20 || py > height - 20) {
      view.x += width / 2 - px;
      view.y += height / 2 - py;
      place();
    }
  }

  function open() {
    if (chosen >= 0) location.hash = "#entry-" + points[chosen].row;
  }

  function locate(event) {
    const { left, top } = canvas.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top];
  }

  const fingers = new Map();
  let moved = false;
  canvas.addEventListener("pointerdown", (event) => {
    fingers.set(event.pointerId, locate(event));
    moved = false;
  });
  canvas.addEventListener("pointermove", (event) => {
    const now = locate(event);
    const before = fingers.get(event.pointerId);
    if (!before) return choose(nearestTo(...now, 24), true);
    if (fingers.size === 2) {
      const [other] = [...fingers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
      const apart = (at) => Math.hypot(at[0] - other[0], at[1] - other[1]);
      zoom(apart(now) / Math.max(1, apart(before)), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    } else if (view.k > 1) {
      view.x += now[0] - before[0];
      view.y += now[1] - before[1];
      place();
    }
    if (Math.hypot(now[0] - before[0], now[1] - before[1]) > 2) {
      moved = true;
      canvas.setPointerCapture(event.pointerId);
    }
    fingers.set(event.pointerId, now);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, (event) => fingers.delete(event.pointerId));
  }
  canvas.addEventListener("pointerleave", () => choose(-1, false));
  canvas.addEventListener("click", (event) => {
    if (!moved) choose(nearestTo(...locate(event), 28), true);
  });
  canvas.addEventListener("dblclick", (event) => zoom(2, ...locate(event)));
  canvas.addEventListener("wheel", (event) => {
    // A page is scrolled past the map; who has clicked into it, or holds Ctrl, zooms.
    if (!event.ctrlKey && document.activeElement !== canvas) return;
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 300), ...locate(event));
  }, { passive: false });
  const keys = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    if (event.key in keys) towards(...keys[event.key]);
    else if (event.key === "+" || event.key === "=") zoom(1.5, ...(chosen < 0 ? [] : onScreen(points[chosen])));
    else if (event.key === "-") zoom(1 / 1.5);
    else if (event.key === "0") zoom(1e-9);
    else if (event.key === "Enter") open();
    else if (event.key === "Escape") choose(-1, false);
    else return;
    event.preventDefault();
  });
  document.getElementById("nearer").addEventListener("click", () => zoom(1.5));
  document.getElementById("farther").addEventListener("click", () => zoom(1 / 1.5));
  document.getElementById("whole").addEventListener("click", () => zoom(1e-9));
  colour.addEventListener("input", () => {
    only = null;
    paint();
    explain();
  });
  new ResizeObserver(place).observe(canvas);
  document.getElementById("mapped").hidden = false;
  paint();
  explain();
  place();
}

startList();
startMap();
