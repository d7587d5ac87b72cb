// Tables: a click on a header sorts by it, numbers from the largest, empty cells last.

function sortable(table) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    header.querySelector("button").addEventListener("click", () => {
      const numeric = header.classList.contains("number");
      const first = numeric ? "descending" : "ascending";
      const other = numeric ? "ascending" : "descending";
      const order = header.getAttribute("aria-sort") === first ? other : first;
      for (const each of headers) each.setAttribute("aria-sort", each === header ? order : "none");
      sort(table.tBodies[0], column, numeric, order === "ascending" ? 1 : -1);
    });
  });
}

function sort(body, column, numeric, sign) {
  const value = (row) => {
    const text = row.cells[column].dataset.value;
    if (text === undefined || text === "") return null;
    return numeric ? Number(text) : text;
  };
  const rows = [...body.rows].map((row) => [value(row), row]);
  rows.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (numeric ? a - b : a.localeCompare(b, "en", { numeric: true }));
  });
  body.append(...rows.map(([, row]) => row));
}
