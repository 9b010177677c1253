// Decodes codestreams away from the page: { id, bytes, level, most, crc32c } in, { id, samples } or { id, error } out.

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

// CRC-32C, of the lowest bit first. RFC 3720 B.4
const REMAINDERS = Uint32Array.from({ length: 256 }, (_, value) => {
  for (let bit = 0; bit < 8; bit++) value = (value >>> 1) ^ (value & 1 ? 0x82f63b78 : 0);
  return value;
});

function checksum(bytes) {
  let value = -1;
  for (let at = 0; at < bytes.length; at++) value = (value >>> 8) ^ REMAINDERS[(value ^ bytes[at]) & 255];
  return (~value >>> 0).toString(16).padStart(8, "0");
}

addEventListener("message", ({ data: { id, bytes, level, most, crc32c } }) => {
  try {
    // What is damaged may well be decoded, to another image.
    if (crc32c && checksum(bytes) !== crc32c) throw new Error("the bytes are not those of the archive");
    const { columns, rows, components, precision, signed } = decode(bytes, { level, maxSamples: Math.min(most, MOST) });
    const planes = components.map((component) => compact(component, precision, signed));
    const size = planes.reduce((sum, plane) => sum + plane.byteLength, 0);
    const samples = { columns, rows, planes, precision, signed, size, ...limits(planes[0]) };
    postMessage({ id, samples }, planes.map((plane) => plane.buffer));
  } catch (error) {
    postMessage({ id, error: error.message });
  }
});
