"use strict";
// Text of the page's data is put into the page by textContent alone: names of classes and files are a stranger's.
const data = JSON.parse(document.getElementById("data").textContent);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const made = (tag, text = "", attributes = {}) => {
    const element = document.createElement(tag);
    element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
};
const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
const darkScheme = matchMedia("(prefers-color-scheme: dark)");
const redraws = []; // of what is drawn in pixels, after a change of colours

function theme() {
    const root = document.documentElement,
        button = document.getElementById("theme");
    // Storage of a file:// page may be forbidden.
    try {
        const stored = localStorage.getItem("videogn-theme");
        if (stored) root.dataset.theme = stored;
    } catch {
        /* not kept */
    }
    const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : darkScheme.matches);
    const show = () => {
        button.textContent = isDark() ? "Light" : "Dark";
        button.setAttribute("aria-label", `Use ${isDark() ? "light" : "dark"} colours`);
        redraws.forEach((redraw) => redraw());
    };
    button.addEventListener("click", () => {
        root.dataset.theme = isDark() ? "light" : "dark";
        try {
            localStorage.setItem("videogn-theme", root.dataset.theme);
        } catch {
            /* not kept */
        }
        show();
    });
    darkScheme.addEventListener("change", show);
    button.hidden = false;
    show();
}

function copyButtons() {
    for (const button of all(".copy")) {
        button.hidden = false;
        button.addEventListener("click", async () => {
            const source = document.getElementById(button.dataset.copy);
            try {
                await navigator.clipboard.writeText(source.textContent);
                button.textContent = "Copied";
            } catch {
                // a page of file:// may have no clipboard: the text is selected instead
                getSelection().selectAllChildren(source);
                button.textContent = "Selected";
            }
            setTimeout(() => {
                button.textContent = "Copy";
            }, 2000);
        });
    }
}

function sortableTables() {
    const names = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
    for (const table of all("table.sortable")) {
        const heads = all("thead th", table),
            body = table.tBodies[0];
        heads.forEach((head, column) =>
            head.querySelector("button").addEventListener("click", () => {
                const isNumber = head.classList.contains("n");
                // The first press shows what one looks for: the largest numbers, the first names.
                const first = isNumber ? "descending" : "ascending",
                    second = isNumber ? "ascending" : "descending";
                const way = head.getAttribute("aria-sort") === first ? second : first;
                const sign = way === "ascending" ? 1 : -1;
                const keyed = [...body.rows].map((row) => {
                    const cell = row.cells[column],
                        text = isNumber ? (cell.dataset.v ?? cell.textContent) : cell.textContent;
                    return { row, missing: text.trim() === "", key: isNumber ? Number(text) : text };
                });
                keyed.sort((a, b) => a.missing - b.missing || sign * (isNumber ? a.key - b.key : names.compare(a.key, b.key)));
                heads.forEach((other) => other.setAttribute("aria-sort", other === head ? way : "none"));
                body.append(...keyed.map((entry) => entry.row));
            }),
        );
    }
}

function rowFilters() {
    const apply = (table) => {
        const text = document.querySelector(`input.rows[data-table="${table.id}"]`)?.value.trim().toLowerCase() ?? "";
        const onlyNorms = document.querySelector(`input.only[data-table="${table.id}"]`)?.checked ?? false;
        for (const row of table.tBodies[0].rows) {
            const words = `${row.cells[0].textContent} ${row.cells[1].textContent}`.toLowerCase();
            row.hidden = !words.includes(text) || (onlyNorms && !row.classList.contains("norm"));
        }
    };
    for (const input of all("input.rows, input.only")) {
        input.closest("label").hidden = false;
        input.addEventListener("input", () => apply(document.getElementById(input.dataset.table)));
    }
}

function plots() {
    const svgElement = (tag, attributes) => {
        const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
        for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
        return element;
    };
    for (const [id, plot] of Object.entries(data.plots)) {
        const figure = document.getElementById(id);
        if (!figure || !plot.at || !plot.at.length) continue;
        const svg = figure.querySelector("svg"),
            readout = figure.querySelector(".readout");
        let place = -1,
            marks = null;
        const show = (index) => {
            place = Math.max(0, Math.min(plot.at.length - 1, index));
            marks?.remove();
            const x = plot.at[place];
            marks = svgElement("g", { "aria-hidden": "true" });
            marks.append(svgElement("path", { class: "cursor", d: `M${x},${plot.top} V${plot.bottom}` }));
            const words = [];
            plot.lines.forEach((line, number) => {
                if (line.y[place] === null) return;
                const group = svgElement("g", { class: `s${number % 8}` });
                group.append(svgElement("circle", { class: "spot", cx: x, cy: line.y[place], r: 4.5 }));
                marks.append(group);
                words.push(line.name && plot.lines.length > 1 ? `${line.name} ${line.text[place]}` : line.text[place]);
            });
            svg.append(marks);
            readout.textContent = `${plot.names[place]}: ${words.join(", ")}`;
        };
        const hide = () => {
            marks?.remove();
            marks = null;
            readout.textContent = "";
        };
        svg.addEventListener("pointermove", (event) => {
            const x = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse()).x;
            show(plot.at.reduce((best, at, index) => (Math.abs(at - x) < Math.abs(plot.at[best] - x) ? index : best), 0));
        });
        svg.addEventListener("pointerleave", () => {
            if (document.activeElement !== svg) hide();
        });
        svg.addEventListener("focus", () => {
            if (svg.matches(":focus-visible")) show(place < 0 ? plot.at.length - 1 : place);
        });
        svg.addEventListener("blur", hide);
        svg.addEventListener("keydown", (event) => {
            const moves = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: plot.at.length - 1 };
            if (!(event.key in moves)) return;
            event.preventDefault();
            show(moves[event.key]);
        });
    }
}

function protocolTabs() {
    const panels = all(".protocol");
    if (panels.length < 2) return;
    const list = made("div", "", { class: "tabs", role: "tablist", "aria-label": "Protocol" });
    const tabs = panels.map((panel, index) => {
        const tab = made("button", panel.dataset.name, {
            type: "button",
            role: "tab",
            id: `tab-${index}`,
            "aria-controls": panel.id,
        });
        panel.setAttribute("role", "tabpanel");
        panel.setAttribute("aria-labelledby", tab.id);
        list.append(tab);
        return tab;
    });
    const links = all(".contents a").map((link) => [
        link,
        /^#(confusion|classes|calibration|dead)-\d+(.*)$/.exec(link.getAttribute("href")),
    ]);
    const choose = (chosen) => {
        tabs.forEach((tab, index) => {
            tab.setAttribute("aria-selected", String(index === chosen));
            tab.tabIndex = index === chosen ? 0 : -1;
            panels[index].hidden = index !== chosen;
        });
        for (const [link, parts] of links) {
            if (!parts) continue;
            link.setAttribute("href", `#${parts[1]}-${chosen}${parts[2]}`);
            link.parentElement.hidden = !document.getElementById(`${parts[1]}-${chosen}${parts[2]}`);
        }
        redraws.forEach((redraw) => redraw());
    };
    tabs.forEach((tab, index) => {
        tab.addEventListener("click", () => choose(index));
        tab.addEventListener("keydown", (event) => {
            const moves = { ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: tabs.length - 1 };
            if (!(event.key in moves)) return;
            event.preventDefault();
            const next = (moves[event.key] + tabs.length) % tabs.length;
            choose(next);
            tabs[next].focus();
        });
    });
    document.getElementById("protocols").prepend(list);
    choose(0);
}

function clips() {
    for (const video of all("video")) {
        const play = () => {
            if (!reducedMotion.matches) video.play().catch(() => {});
        };
        const around = video.closest(".example") ?? video;
        around.addEventListener("pointerenter", play);
        around.addEventListener("pointerleave", () => {
            if (document.activeElement !== video) video.pause();
        });
        video.addEventListener("focus", play);
        video.addEventListener("blur", () => video.pause());
    }
}

function currentSection() {
    const links = new Map(all(".contents a").map((link) => [link, null]));
    const mark = () => {
        let current = null;
        for (const link of links.keys()) {
            const section = document.getElementById(link.getAttribute("href").slice(1));
            if (section && section.offsetParent && section.getBoundingClientRect().top < 160) current = link;
        }
        for (const link of links.keys())
            link === current ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current");
    };
    addEventListener("scroll", () => requestAnimationFrame(mark), { passive: true });
    mark();
}
