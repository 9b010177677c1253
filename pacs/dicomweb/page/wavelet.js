// One level of the inverse wavelet transforms of JPEG 2000. T.800 Annex F
//
// A resolution level of `area` comes from the one below (LL) and three bands, all of them row by row. Rows are put
// together from their low and high halves one by one, and the vertical steps follow as soon as their rows are there,
// while those are in the cache. Rows and columns with even coordinates are low-pass ones. Edges are mirrored.

// 5-3, reversible: Int32Array from four of them. T.800 F.3.8.2.1
export function reversible(area, ll, hl, lh, hh) {
  const [columns, rows] = [area.x1 - area.x0, area.y1 - area.y0];
  const out = new Int32Array(columns * rows);
  const [oddColumn, oddRow] = [area.x0 % 2, area.y0 % 2];
  const low = (columns + 1 - oddColumn) >> 1;
  const high = columns - low;
  const join = oddColumn ? joinOddRow : joinRow;
  const step = (row) => {
    if (row < 0) return;
    const before = (row > 0 ? row - 1 : row + 1) * columns;
    const after = (row + 1 < rows ? row + 1 : row - 1) * columns;
    if ((row + oddRow) % 2) predict(out, row * columns, before, after, columns);
    else update(out, row * columns, before, after, columns);
  };
  for (let row = 0; row < rows; row++) {
    const isHigh = (row + oddRow) % 2;
    const half = row >> 1;
    join(out, row * columns, columns, isHigh ? lh : ll, half * low, isHigh ? hh : hl, half * high);
    if (!isHigh) continue;
    if (row < 3) for (let n = 1; n <= 2; n++) step(row - n);
    else updateAndPredict(out, row * columns, columns);
  }
  if (rows === 1) {
    if (oddRow) for (let i = 0; i < columns; i++) out[i] >>= 1;
  } else if ((rows - 1 + oddRow) % 2) {
    step(rows - 1);
  } else {
    step(rows - 1);
    step(rows - 2);
  }
  return out;
}

function update(out, at, before, after, columns) {
  for (let i = 0; i < columns; i++) out[at + i] -= (out[before + i] + out[after + i] + 2) >> 2;
}

function predict(out, at, before, after, columns) {
  for (let i = 0; i < columns; i++) out[at + i] += (out[before + i] + out[after + i]) >> 1;
}

// The two steps that the high-pass row at `at` brings, for the rows before it.
function updateAndPredict(out, at, columns) {
  for (let i = at; i < at + columns; i++) {
    const detail = out[i - 2 * columns];
    const even = out[i - columns] - ((detail + out[i] + 2) >> 2);
    out[i - columns] = even;
    out[i - 2 * columns] = detail + ((out[i - 3 * columns] + even) >> 1);
  }
}

// A row whose first column is a low-pass one: low `l` at `a`, high `h` at `b`, both steps at once.
function joinRow(out, at, columns, l, a, h, b) {
  if (columns === 1) {
    out[at] = l[a];
    return;
  }
  const pairs = columns >> 1;
  let detail = h[b];
  let even = l[a] - ((2 * detail + 2) >> 2);
  out[at] = even;
  for (let i = 1; i < pairs; i++) {
    const next = h[b + i];
    const later = l[a + i] - ((detail + next + 2) >> 2);
    out[at + 2 * i - 1] = detail + ((even + later) >> 1);
    out[at + 2 * i] = later;
    detail = next;
    even = later;
  }
  if (columns & 1) {
    const later = l[a + pairs] - ((2 * detail + 2) >> 2);
    out[at + columns - 2] = detail + ((even + later) >> 1);
    out[at + columns - 1] = later;
  } else {
    out[at + columns - 1] = detail + even;
  }
}

// A row whose first column is a high-pass one.
function joinOddRow(out, at, columns, l, a, h, b) {
  if (columns === 1) {
    out[at] = h[b] >> 1;
    return;
  }
  const pairs = columns >> 1;
  let detail = h[b];
  let even = 0;
  for (let i = 0; i < pairs; i++) {
    const next = 2 * i + 2 < columns ? h[b + i + 1] : detail;
    const later = l[a + i] - ((detail + next + 2) >> 2);
    out[at + 2 * i] = detail + (((i > 0 ? even : later) + later) >> 1);
    out[at + 2 * i + 1] = later;
    detail = next;
    even = later;
  }
  if (columns & 1) out[at + columns - 1] = detail + even;
}

// 9-7, irreversible. T.800 Table F.4
const LIFTING = [0.443506852043971, 0.882911075530934, -0.052980118572961, -1.586134342059924];
const [D, C, B, A] = LIFTING;
const K = 1.230174104914001;

// Float32Array from four arrays, the samples of which are multiplied by `factors` first. T.800 F.3.8.2
export function irreversible(area, ll, hl, lh, hh, factors) {
  const [columns, rows] = [area.x1 - area.x0, area.y1 - area.y0];
  const out = new Float32Array(columns * rows);
  const [oddColumn, oddRow] = [area.x0 % 2, area.y0 % 2];
  const low = (columns + 1 - oddColumn) >> 1;
  const high = columns - low;
  // Low-pass rows and columns are scaled by K, high-pass ones by its inverse; a single one is not, or halved if high.
  const across = columns > 1 ? [K, 1 / K] : [1, 0.5];
  const down = rows > 1 ? [K, 1 / K] : [1, 0.5];
  const scaled = factors.map((factor, kind) => factor * across[kind % 2] * down[kind >> 1]);
  const step = (row, n) => {
    if (row < 0) return;
    const before = (row > 0 ? row - 1 : row + 1) * columns;
    const after = (row + 1 < rows ? row + 1 : row - 1) * columns;
    lift(out, row * columns, before, after, columns, LIFTING[n]);
  };
  for (let row = 0; row < rows; row++) {
    const isHigh = (row + oddRow) % 2;
    const half = row >> 1;
    const at = row * columns;
    const kind = isHigh ? 2 : 0;
    spread(out, at + oddColumn, low, isHigh ? lh : ll, half * low, scaled[kind]);
    spread(out, at + 1 - oddColumn, high, isHigh ? hh : hl, half * high, scaled[kind + 1]);
    if (columns > 1) liftRow(out, at, columns, oddColumn);
    if (!isHigh) continue;
    if (row < 5) for (let n = 0; n < 4; n++) step(row - 1 - n, n);
    else liftRows(out, at, columns);
  }
  if (rows > 1) finish(rows, oddRow, step);
  return out;
}

function spread(out, at, count, from, start, factor) {
  for (let i = 0; i < count; i++) out[at + 2 * i] = from[start + i] * factor;
}

// What is left to do at the end of `count` rows or columns, when each high-pass one has brought the steps of those
// up to four before it.
function finish(count, odd, step) {
  if ((count - 1 + odd) % 2) {
    for (let n = 1; n < 4; n++) step(count - n, n);
    step(count - 1, 3);
  } else {
    for (let n = 0; n < 4; n++) step(count - 1 - n, n);
    step(count - 1, 2);
    step(count - 2, 3);
  }
}

function lift(out, at, before, after, columns, factor) {
  for (let i = 0; i < columns; i++) out[at + i] -= factor * (out[before + i] + out[after + i]);
}

// The four steps that the high-pass row at `at` brings, for the rows before it.
function liftRows(out, at, columns) {
  for (let i = at; i < at + columns; i++) {
    const first = out[i - columns] - D * (out[i - 2 * columns] + out[i]);
    const second = out[i - 2 * columns] - C * (out[i - 3 * columns] + first);
    const third = out[i - 3 * columns] - B * (out[i - 4 * columns] + second);
    out[i - 4 * columns] -= A * (out[i - 5 * columns] + third);
    out[i - 3 * columns] = third;
    out[i - 2 * columns] = second;
    out[i - columns] = first;
  }
}

// The same within a row, whose first column is a high-pass one if `odd`.
function liftRow(out, at, columns, odd) {
  const step = (column, n) => {
    if (column < 0) return;
    const before = at + (column > 0 ? column - 1 : column + 1);
    const after = at + (column + 1 < columns ? column + 1 : column - 1);
    out[at + column] -= LIFTING[n] * (out[before] + out[after]);
  };
  let column = 1 - odd;
  for (; column < columns && column < 5; column += 2) for (let n = 0; n < 4; n++) step(column - 1 - n, n);
  if (column < columns) {
    const end = at + columns;
    let i = at + column;
    let [detail, first, second, third] = [out[i - 2], out[i - 3], out[i - 4], out[i - 5]];
    for (; i < end; i += 2) {
      const next = out[i];
      const one = out[i - 1] - D * (detail + next);
      const two = detail - C * (first + one);
      const three = first - B * (second + two);
      out[i - 4] = second - A * (third + three);
      out[i - 3] = three;
      detail = next;
      first = one;
      second = two;
      third = three;
    }
    out[i - 3] = first;
    out[i - 4] = second;
  }
  finish(columns, odd, step);
}
