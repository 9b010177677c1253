// Where the resolution levels, bands, precincts and code-blocks of a tile lie, and in which order its packets come.
// T.800 Annex B.5 to B.7, B.12. Coordinates may exceed 31 bits: no bit operations on them.

import { ceilDiv } from "./htj2k_headers.js";

export const width = (area) => Math.max(0, area.x1 - area.x0);
export const height = (area) => Math.max(0, area.y1 - area.y0);

const divided = (area, by) => ({
  x0: ceilDiv(area.x0, by), y0: ceilDiv(area.y0, by), x1: ceilDiv(area.x1, by), y1: ceilDiv(area.y1, by),
});

// The image or a tile at a resolution level that has `dropped` levels above it.
export const reduced = (area, dropped) => divided(area, 2 ** dropped);

// The cells of 2^x by 2^y that an area touches, counted from the origin.
function cells(area, x, y) {
  if (!width(area) || !height(area)) return { column: 0, row: 0, columns: 0, rows: 0 };
  const [column, row] = [Math.floor(area.x0 / 2 ** x), Math.floor(area.y0 / 2 ** y)];
  return { column, row, columns: ceilDiv(area.x1, 2 ** x) - column, rows: ceilDiv(area.y1, 2 ** y) - row };
}

const BANDS = [[0, 0], [1, 0], [0, 1], [1, 1]]; // LL, HL, LH, HH: high-pass across, down. T.800 Table B.1

function bandArea(tile, kind, depth) {
  const [across, down] = BANDS[kind].map((high) => (high ? 2 ** (depth - 1) : 0));
  return divided({ x0: tile.x0 - across, y0: tile.y0 - down, x1: tile.x1 - across, y1: tile.y1 - down }, 2 ** depth);
}

// Resolution level r of a component of a tile. T.800 B.5 to B.7
export function resolution(tile, coding, r) {
  const dropped = coding.levels - r;
  const area = reduced(tile, dropped);
  const [ppx, ppy] = coding.precincts[r];
  const halved = r ? 1 : 0;
  const [depth, kinds] = r ? [dropped + 1, [1, 2, 3]] : [coding.levels, [0]];
  const bands = kinds.map((kind) => ({
    kind,
    index: r ? 3 * (r - 1) + kind : 0,
    depth,
    area: bandArea(tile, kind, depth),
    xcb: Math.min(coding.xcb, ppx - halved),
    ycb: Math.min(coding.ycb, ppy - halved),
    px: ppx - halved,
    py: ppy - halved,
    blocks: [],
  }));
  return { area, bands, ppx, ppy, scale: 2 ** dropped, precincts: cells(area, ppx, ppy), states: new Map() };
}

// The code-blocks of precinct k of a band: cells of the band's grid, and the part of the band that they cover.
export function blocksOf(resolution, band, k) {
  const { column, row, columns } = resolution.precincts;
  const [x, y] = [(column + (k % columns)) * 2 ** band.px, (row + Math.floor(k / columns)) * 2 ** band.py];
  const inside = {
    x0: Math.max(band.area.x0, x), y0: Math.max(band.area.y0, y),
    x1: Math.min(band.area.x1, x + 2 ** band.px), y1: Math.min(band.area.y1, y + 2 ** band.py),
  };
  return { inside, ...cells(inside, band.xcb, band.ycb) };
}

// Where on the reference grid a precinct has its turn in progressions by position. T.800 B.12.1.3 to B.12.1.5
function place(resolution, tile, k) {
  const { column, row, columns } = resolution.precincts;
  const [x, y] = [(column + (k % columns)) * 2 ** resolution.ppx, (row + Math.floor(k / columns)) * 2 ** resolution.ppy];
  return [y >= resolution.area.y0 ? y * resolution.scale : tile.y0, x >= resolution.area.x0 ? x * resolution.scale : tile.x0];
}

const count = (resolution) => resolution.precincts.columns * resolution.precincts.rows;

// Places of all precincts of some resolution levels of some components, sorted by `key`.
function sorted(tile, components, levels, key, spend) {
  const places = [];
  for (const c of components) {
    for (const r of levels) {
      const resolution = tile.components[c].resolutions[r];
      spend(count(resolution));
      for (let k = 0; k < count(resolution); k++) {
        const [y, x] = place(resolution, tile.area, k);
        places.push({ c, r, k, key: key(y, x, c, r, k) });
      }
    }
  }
  return places.sort((a, b) => {
    for (let i = 0; ; i++) if (a.key[i] !== b.key[i] || i === 4) return a.key[i] - b.key[i];
  });
}

// The packets of a tile in their order: component c, resolution level r, precinct k, layer. `spend` is told how many
// precincts are about to be listed, and may throw. T.800 B.12.1
export function* packets(tile, { order, layers }, spend) {
  const components = tile.components.map((_, c) => c);
  const levels = tile.components[0].resolutions.map((_, r) => r);
  const precincts = function* (r, layer) {
    for (const c of components) {
      for (let k = 0; k < count(tile.components[c].resolutions[r]); k++) yield { c, r, k, layer };
    }
  };
  const layersOf = function* (places) {
    for (const { c, r, k } of places) for (let layer = 0; layer < layers; layer++) yield { c, r, k, layer };
  };
  if (order === 0) {
    for (let layer = 0; layer < layers; layer++) for (const r of levels) yield* precincts(r, layer);
  } else if (order === 1) {
    for (const r of levels) for (let layer = 0; layer < layers; layer++) yield* precincts(r, layer);
  } else if (order === 2) {
    for (const r of levels) yield* layersOf(sorted(tile, components, [r], (y, x, c, _, k) => [y, x, c, k, 0], spend));
  } else if (order === 3) {
    yield* layersOf(sorted(tile, components, levels, (y, x, c, r, k) => [y, x, c, r, k], spend));
  } else {
    for (const c of components) yield* layersOf(sorted(tile, [c], levels, (y, x, _, r, k) => [y, x, r, k, 0], spend));
  }
}
