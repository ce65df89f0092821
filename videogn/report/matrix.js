function confusionMatrix(box) {
    const facts = data.matrices[Number(box.dataset.matrix)],
        names = data.classes,
        total = names.length;
    const canvas = box.querySelector("canvas"),
        context = canvas.getContext("2d");
    const readout = box.querySelector(".cell"),
        status = box.querySelector(".status"),
        order = box.querySelector(".order"),
        filter = box.querySelector(".filter");
    const cells = new Map(),
        answered = new Array(total).fill(0),
        rowsOf = names.map(() => []);
    for (let at = 0; at < facts.cells.length; at += 3) {
        const [row, column, count] = facts.cells.slice(at, at + 3);
        cells.set(row * total + column, count);
        answered[row] += count;
        rowsOf[row].push([column, count]);
    }
    const smallest = Math.min(6, total),
        gap = 6;
    let shown = [],
        places = new Map(),
        matching = new Set(),
        view = { x: 0, y: 0, size: total },
        cursor = { row: 0, column: 0 },
        area = null,
        drag = null;

    function sorted() {
        const by = {
            name: (a, b) => names[a].localeCompare(names[b], undefined, { numeric: true }),
            videos: (a, b) => facts.videos[b] - facts.videos[a],
            top1: (a, b) => (facts.top1[a] ?? 2) - (facts.top1[b] ?? 2),
        }[order.value];
        return by ? names.map((_, index) => index).sort((a, b) => by(a, b) || a - b) : facts.together;
    }

    function arrange() {
        const kept = shown.length ? { row: shown[cursor.row], column: shown[cursor.column] } : null;
        const text = filter.value.trim().toLowerCase();
        matching = new Set(names.map((_, index) => index).filter((index) => names[index].toLowerCase().includes(text)));
        const beside = new Set(matching);
        if (text)
            names.forEach((_, row) =>
                rowsOf[row].forEach(([column]) => {
                    if (matching.has(row) || matching.has(column)) {
                        beside.add(row);
                        beside.add(column);
                    }
                }),
            );
        shown = sorted().filter((index) => beside.has(index));
        places = new Map(shown.map((index, place) => [index, place]));
        cursor = { row: places.get(kept?.row) ?? 0, column: places.get(kept?.column) ?? places.get(kept?.row) ?? 0 };
        view = { x: 0, y: 0, size: shown.length };
        status.textContent = text
            ? `${matching.size} of ${total} classes match${beside.size > matching.size ? `, shown with ${beside.size - matching.size} that they are confused with` : ""}.`
            : "";
        draw();
        tell();
    }

    function colour(name) {
        const probe = canvas.parentElement.appendChild(made("i", "", { style: `color: var(${name}); display: none` }));
        const found = getComputedStyle(probe).color;
        probe.remove();
        return found;
    }

    function clipped(text, width) {
        if (context.measureText(text).width <= width) return text;
        let low = 0,
            high = text.length;
        while (low < high) {
            const middle = Math.ceil((low + high) / 2);
            if (context.measureText(`${text.slice(0, middle)}\u2026`).width <= width) low = middle;
            else high = middle - 1;
        }
        return `${text.slice(0, low)}\u2026`;
    }

    function draw() {
        const width = Math.min(canvas.parentElement.clientWidth, 860);
        if (!width) return;
        const ink = colour("--ink"),
            mute = colour("--mute"),
            line = colour("--line"),
            paper = colour("--paper"),
            right = colour("--right"),
            wrong = colour("--wrong"),
            accent = colour("--accent");
        const scale = devicePixelRatio || 1;
        // Names need lines of eleven pixels; how wide they may be follows from the widest of those in view.
        context.font = "600 11px system-ui, 'Liberation Sans', sans-serif";
        const first = Math.floor(view.y),
            last = Math.min(shown.length, Math.ceil(view.y + view.size)),
            left = Math.floor(view.x),
            end = Math.min(shown.length, Math.ceil(view.x + view.size));
        const widest = (from, to) =>
            Math.max(0, ...shown.slice(from, to).map((index) => context.measureText(names[index]).width));
        let gutter = Math.min(width * 0.34, 200, 12 + Math.max(widest(first, last), widest(left, end)));
        const labelled = (width - gutter - gap) / Math.max(1, view.size) >= 11;
        if (!labelled) gutter = 22;
        const side = width - gutter - gap;
        area = { left: gutter, top: gutter, side, cell: side / Math.max(1, view.size) };
        const height = gutter + side + gap;
        canvas.width = Math.round(width * scale);
        canvas.height = Math.round(height * scale);
        canvas.style.width = `${width}px`;
        canvas.style.height = `${height}px`;
        context.setTransform(scale, 0, 0, scale, 0, 0);
        context.clearRect(0, 0, width, height);
        context.font = "11px system-ui, 'Liberation Sans', sans-serif";
        const x = (place) => area.left + (place - view.x) * area.cell,
            y = (place) => area.top + (place - view.y) * area.cell;
        context.save();
        context.beginPath();
        context.rect(area.left, area.top, side, side);
        context.clip();
        // A single pale pixel would not be seen among 160,000.
        const sharp = Math.max(area.cell - (area.cell > 6 ? 1 : 0), 2.4),
            faintest = area.cell < 4 ? 0.4 : 0.08;
        for (let row = first; row < last; row++) {
            for (const [index, count] of rowsOf[shown[row]]) {
                const column = places.get(index);
                if (column === undefined || column < left || column >= end) continue;
                const share = count / answered[shown[row]];
                context.globalAlpha = faintest + (1 - faintest) * Math.sqrt(share);
                context.fillStyle = shown[row] === index ? right : wrong;
                context.fillRect(x(column), y(row), sharp, sharp);
                if (area.cell >= 24) {
                    context.globalAlpha = 1;
                    context.fillStyle = share > 0.35 ? paper : ink;
                    context.textAlign = "center";
                    context.textBaseline = "middle";
                    context.fillText(String(count), x(column + 0.5), y(row + 0.5), area.cell - 2);
                }
            }
        }
        context.globalAlpha = 1;
        context.strokeStyle = accent;
        context.lineWidth = 1;
        context.globalAlpha = 0.45;
        context.strokeRect(area.left - 2, y(cursor.row), side + 4, area.cell);
        context.strokeRect(x(cursor.column), area.top - 2, area.cell, side + 4);
        context.globalAlpha = 1;
        context.lineWidth = 2;
        const big = Math.max(area.cell, 7);
        context.strokeRect(x(cursor.column + 0.5) - big / 2, y(cursor.row + 0.5) - big / 2, big, big);
        context.restore();
        context.strokeStyle = line;
        context.lineWidth = 1;
        context.strokeRect(area.left + 0.5, area.top + 0.5, side - 1, side - 1);
        context.textBaseline = "middle";
        if (labelled) {
            const style = (place, own) => {
                context.fillStyle = place === own ? accent : filter.value.trim() && !matching.has(shown[place]) ? mute : ink;
                context.font = `${place === own ? "600 " : ""}11px system-ui, 'Liberation Sans', sans-serif`;
            };
            for (let row = first; row < last; row++) {
                const at = y(row + 0.5);
                if (at < area.top || at > area.top + side) continue;
                style(row, cursor.row);
                context.textAlign = "right";
                context.fillText(clipped(names[shown[row]], gutter - 8), area.left - 6, at);
            }
            for (let column = left; column < end; column++) {
                const at = x(column + 0.5);
                if (at < area.left || at > area.left + side) continue;
                style(column, cursor.column);
                context.save();
                context.translate(at, area.top - 6);
                context.rotate(-Math.PI / 2);
                context.textAlign = "left";
                context.fillText(clipped(names[shown[column]], gutter - 8), 0, 0);
                context.restore();
            }
        } else {
            context.fillStyle = mute;
            context.textAlign = "center";
            context.fillText("answered", area.left + side / 2, 10);
            context.translate(10, area.top + side / 2);
            context.rotate(-Math.PI / 2);
            context.fillText("shows", 0, 0);
        }
        canvas.style.touchAction = view.size < shown.length ? "none" : "pan-y";
    }

    function tell() {
        readout.replaceChildren();
        if (!shown.length) {
            readout.textContent = "No class matches.";
            return;
        }
        const row = shown[cursor.row],
            column = shown[cursor.column],
            count = cells.get(row * total + column) ?? 0;
        const share = answered[row] ? ` (${((100 * count) / answered[row]).toFixed(1)}%)` : "";
        readout.append(
            "shows ",
            made("strong", names[row]),
            ", answered ",
            made("strong", names[column]),
            row === column ? " (right): " : ": ",
            made("b", `${count} of ${answered[row]}`),
            ` answered videos${share}`,
        );
        readout.dataset.row = names[row];
        readout.dataset.column = names[column];
        readout.dataset.count = String(count);
    }

    function bounded() {
        view.size = Math.max(Math.min(smallest, shown.length), Math.min(shown.length, view.size));
        for (const axis of ["x", "y"]) view[axis] = Math.max(0, Math.min(shown.length - view.size, view[axis]));
    }

    function move(row, column) {
        cursor = { row: Math.max(0, Math.min(shown.length - 1, row)), column: Math.max(0, Math.min(shown.length - 1, column)) };
        if (cursor.row < view.y) view.y = cursor.row;
        if (cursor.row + 1 > view.y + view.size) view.y = cursor.row + 1 - view.size;
        if (cursor.column < view.x) view.x = cursor.column;
        if (cursor.column + 1 > view.x + view.size) view.x = cursor.column + 1 - view.size;
        bounded();
        draw();
        tell();
    }

    function zoom(factor, row = cursor.row + 0.5, column = cursor.column + 0.5) {
        // What is under the pointer stays there.
        const across = Math.max(0, Math.min(1, (column - view.x) / view.size)),
            down = Math.max(0, Math.min(1, (row - view.y) / view.size));
        view.size = Math.round(view.size / factor);
        bounded();
        view.x = column - across * view.size;
        view.y = row - down * view.size;
        bounded();
        draw();
    }

    function under(event) {
        const box = canvas.getBoundingClientRect();
        const column = view.x + (event.clientX - box.left - area.left) / area.cell,
            row = view.y + (event.clientY - box.top - area.top) / area.cell;
        return {
            row,
            column,
            inside:
                row >= view.y &&
                column >= view.x &&
                row < Math.min(shown.length, view.y + view.size) &&
                column < Math.min(shown.length, view.x + view.size),
        };
    }

    canvas.addEventListener("pointermove", (event) => {
        if (!area) return;
        if (drag && (drag.moved || Math.hypot(event.clientX - drag.x, event.clientY - drag.y) > 4) && view.size < shown.length) {
            drag.moved = true;
            view.x = drag.view.x - (event.clientX - drag.x) / area.cell;
            view.y = drag.view.y - (event.clientY - drag.y) / area.cell;
            bounded();
            draw();
            return;
        }
        const at = under(event);
        if (at.inside) {
            cursor = { row: Math.floor(at.row), column: Math.floor(at.column) };
            draw();
            tell();
        }
    });
    canvas.addEventListener("pointerdown", (event) => {
        drag = { x: event.clientX, y: event.clientY, view: { ...view }, moved: false };
        canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointerup", () => {
        drag = null;
    });
    canvas.addEventListener("pointercancel", () => {
        drag = null;
    });
    canvas.addEventListener("dblclick", (event) => {
        const at = under(event);
        zoom(2, at.row, at.column);
    });
    // Without Ctrl (which a pinch sends too) the wheel scrolls the page.
    canvas.addEventListener(
        "wheel",
        (event) => {
            if (!event.ctrlKey) return;
            event.preventDefault();
            const at = under(event);
            zoom(event.deltaY < 0 ? 1.25 : 0.8, at.row, at.column);
        },
        { passive: false },
    );
    canvas.addEventListener("keydown", (event) => {
        if (event.ctrlKey || event.altKey || event.metaKey) return;
        const by = event.shiftKey ? 10 : 1,
            { row, column } = cursor;
        const moves = {
            ArrowUp: [row - by, column],
            ArrowDown: [row + by, column],
            ArrowLeft: [row, column - by],
            ArrowRight: [row, column + by],
            Home: [row, 0],
            End: [row, shown.length - 1],
            PageUp: [row - Math.floor(view.size), column],
            PageDown: [row + Math.floor(view.size), column],
        };
        const zooms = { "+": 1.5, "=": 1.5, "-": 1 / 1.5, 0: 1e-9 };
        if (event.key in moves) move(...moves[event.key]);
        else if (event.key in zooms) zoom(zooms[event.key]);
        else return;
        event.preventDefault();
    });
    box.querySelector(".in").addEventListener("click", () => zoom(1.6));
    box.querySelector(".out").addEventListener("click", () => zoom(1 / 1.6));
    box.querySelector(".fit").addEventListener("click", () => zoom(1e-9));
    order.addEventListener("change", arrange);
    filter.addEventListener("input", arrange);
    for (const button of all(`#pairs-${box.dataset.matrix} .find`)) {
        button.addEventListener("click", () => {
            filter.value = "";
            arrange();
            const row = places.get(Number(button.dataset.row)),
                column = places.get(Number(button.dataset.column));
            // As many as have room for their names.
            view.size = Math.min(24, Math.floor((canvas.clientWidth * 0.66 - gap) / 11.5));
            bounded();
            view.x = column - view.size / 2;
            view.y = row - view.size / 2;
            move(row, column);
            canvas.focus({ preventScroll: true });
            canvas.scrollIntoView({ block: "nearest" });
        });
    }
    new ResizeObserver(draw).observe(canvas.parentElement);
    redraws.push(draw);
    arrange();
}

sortableTables();
rowFilters();
copyButtons();
plots();
all(".matrix").forEach(confusionMatrix);
protocolTabs();
clips();
currentSection();
theme();
document.documentElement.dataset.ready = "yes";
