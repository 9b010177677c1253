// Decodes codestreams away from the page: { id, bytes, level, most } in, { id, samples } or { id, error } out.

import { decode } from "./htj2k.js";

const MOST = 2 ** 26; // samples

/** The smallest array that holds what the precision allows. */
function compact(component, precision, signed) {
  const Narrow = precision <= 8 ? (signed ? Int8Array : Uint8Array) : precision <= 16 ? (signed ? Int16Array : Uint16Array) : Int32Array;
  return new Narrow(component);
}

function limits(values) {
  let low = values[0], high = values[0];
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return { low, high };
}

addEventListener("message", ({ data: { id, bytes, level, most } }) => {
  try {
    const { columns, rows, components, precision, signed } = decode(bytes, { level, maxSamples: Math.min(most, MOST) });
    const planes = components.map((component) => compact(component, precision, signed));
    const size = planes.reduce((sum, plane) => sum + plane.byteLength, 0);
    const samples = { columns, rows, planes, precision, signed, size, ...limits(planes[0]) };
    postMessage({ id, samples }, planes.map((plane) => plane.buffer));
  } catch (error) {
    postMessage({ id, error: error.message });
  }
});
