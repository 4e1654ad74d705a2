"use strict";
(() => {
  const $ = (selector, from = document) => from.querySelector(selector);
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const make = (tag, text, attributes = {}) => {
    const node = document.createElement(tag);
    node.textContent = text;
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  };
  // Colours: remembered where the browser lets a file remember.
  const store = {
    get: () => { try { return localStorage.getItem("onnx-esn-theme"); } catch { return null; } },
    set: (value) => { try { localStorage.setItem("onnx-esn-theme", value); } catch { /* a file */ } },
  };
  const remembered = all("#theme input").find((x) => x.id === `theme-${store.get()}`);
  if (remembered) remembered.checked = true;
  all("#theme input").forEach((input) =>
    input.addEventListener("change", () => store.set(input.id.replace("theme-", ""))));

  // Tables that sort: largest first, smallest first, as in the graph.
  const status = make("p", "", { class: "unseen", role: "status" });
  document.body.append(status);
  const sortable = (table) => {
    const body = table.tBodies[0];
    const original = [...body.rows];
    const heads = all("thead th", table);
    heads.forEach((head, column) => {
      const label = head.textContent;
      const button = make("button", label, { type: "button" });
      head.replaceChildren(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const next = { none: "descending", descending: "ascending", ascending: "none" };
        const order = next[head.getAttribute("aria-sort")];
        heads.forEach((other) => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", order);
        let rows = original;
        if (order !== "none") {
          const text = (row) => row.cells[0].textContent;
          const number = (row) => Number(row.cells[column].dataset.v ?? "-1e9");
          const sign = order === "ascending" ? 1 : -1;
          rows = [...original].sort((a, b) => sign * (column
            ? number(a) - number(b)
            : text(b).localeCompare(text(a), "en", { numeric: true })));
        }
        body.append(...rows);
        status.textContent = order === "none" ? "in the order of the graph" : `${label}, ${order}`;
      });
    });
  };
  const layers = $("#layer-table");
  if (layers) {
    sortable(layers);
    const rows = [...layers.tBodies[0].rows];
    if (rows.length > 20) {
      const tools = make("div", "", { class: "tools" });
      const found = make("span", `${rows.length.toLocaleString("en")} layers`, { role: "status" });
      const input = make("input", "", { type: "search", placeholder: "Find layers", "aria-label": "Find layers by name" });
      input.addEventListener("input", () => {
        const wanted = input.value.toLowerCase();
        let count = 0;
        for (const row of rows) {
          const hit = row.cells[0].textContent.toLowerCase().includes(wanted);
          row.hidden = !hit;
          count += hit;
        }
        found.textContent = `${count.toLocaleString("en")} of ${rows.length.toLocaleString("en")} layers`;
      });
      tools.append(input, found);
      layers.parentElement.before(tools);
    }
  }

  // Commands that can be copied.
  const copyable = (block) => {
    const button = make("button", "Copy", { type: "button", class: "copy" });
    button.addEventListener("click", async () => {
      const code = $("code", block);
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 1600);
    });
    block.append(button);
  };
  all(".command").forEach(copyable);

  // The points of a sweep: figures beside the pointer, and the command of the one that is picked.
  const chart = $("#front-chart");
  if (chart) {
    const tip = make("div", "", { id: "tip", hidden: "" });
    document.body.append(tip);
    const points = all(".point", chart);
    const told = new Map(points.map((point) => [point, point.getAttribute("aria-label")]));
    points.forEach((point) => $("title", point)?.remove());
    const show = (point) => {
      const [name, rest] = told.get(point).split(/: (.*)/s);
      tip.replaceChildren(make("b", name), ...rest.split(", ").map((line) => make("div", line)));
      tip.hidden = false;
      const box = $(".mark", point).getBoundingClientRect();
      const left = Math.min(box.right + 12, document.documentElement.clientWidth - tip.offsetWidth - 8);
      tip.style.left = `${Math.max(left, 8) + scrollX}px`;
      tip.style.top = `${Math.max(box.top - tip.offsetHeight - 8, 8) + scrollY}px`;
    };
    const hide = () => { tip.hidden = true; };
    const ring = $(".ring", chart);
    const pick = (point) => {
      const index = Number(point.dataset.point);
      points.forEach((other) => other.classList.toggle("chosen", other === point));
      if (ring) $("svg", point).prepend(ring);
      all("#points tr").forEach((row) => row.classList.toggle("chosen", row.id === `point-${index}`));
      const code = $("#point-command");
      if (!code) return;
      code.textContent = $(`#command-${index}`).textContent;
      $("#point-detail b").textContent = told.get(point).split(/: /)[0];
    };
    points.forEach((point) => {
      point.addEventListener("pointerenter", () => show(point));
      point.addEventListener("pointerleave", hide);
      point.addEventListener("focus", () => show(point));
      point.addEventListener("blur", hide);
      point.addEventListener("click", (event) => { event.preventDefault(); pick(point); });
      point.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (event.key === "Escape") hide();
        if (!step) return;
        event.preventDefault();
        points[(points.indexOf(point) + step + points.length) % points.length].focus();
      });
    });
  }

  // The figures as a file, for those who were sent the page alone.
  const data = $("#data");
  if (data) {
    const save = make("button", "Save the figures as JSON", { type: "button", id: "save" });
    save.addEventListener("click", () => {
      const text = JSON.stringify(JSON.parse(data.textContent), null, 1);
      const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
      make("a", "", { href: url, download: "report.json" }).click();
      setTimeout(() => URL.revokeObjectURL(url), 1000);
    });
    $("#reproduce").append(save);
  }

  // What is folded away is printed too.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = all("details:not([open])");
    opened.forEach((x) => { x.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach((x) => { x.open = false; }));
})();
