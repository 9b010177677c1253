"""How the page puts bytes of frames together (pacs/dicomweb/page/{link,reading,stream}.js), in node, over a network
that answers late and in another order, or not at all (silence.js)."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

PAGE = ROOT / "pacs" / "dicomweb" / "page"
NODE = shutil.which("node")

pytestmark = pytest.mark.skipif(NODE is None, reason="no node: install Debian's nodejs")

NETWORK = """
import { Link } from "./page/link.js";
import { Codestream, framesOf } from "./page/frames.js";
import { Reading } from "./page/reading.js";

const SERIES = "/studies/1/series/2";
const LENGTH = 100, FIRST = 50;

// Of frame n all bytes are n, but for one in ten, which tells its place.
const bytesOf = (n) => Uint8Array.from({ length: LENGTH }, (_, at) => (at % 10 ? n : at));
const wrong = ({ held, length }, n) => held.slice(0, length).findIndex((byte, at) => byte !== bytesOf(n)[at]);

const ranges = []; // { n, from, to, send } of requests without an answer
let told = () => {};
const asked = () => new Promise((resolve) => { told = resolve; });
let stream = null; // writes into the body of the stream

globalThis.fetch = (url, { headers, signal }) => {
  if (url.includes("/stream?")) {
    const body = new ReadableStream({ start(controller) { stream = controller; } });
    signal.addEventListener("abort", () => stream.error(signal.reason));
    return Promise.resolve(new Response(body, { headers: { "Content-Type": "multipart/related; boundary=B" } }));
  }
  const n = Number(/instances\\/(\\d+)/.exec(url)[1]);
  const [from, to] = /(\\d+)-(\\d+)/.exec(headers.Range).slice(1).map(Number);
  return new Promise((resolve, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason));
    const send = (start = from, end = to) => resolve(new Response(bytesOf(n).slice(start, end + 1), {
      status: 206, headers: { "Content-Range": `bytes ${start}-${end}/${LENGTH}`, ETag: '"e"' },
    }));
    ranges.push({ n, from, to, send });
    told();
  });
};

function part(n) {
  const range = `bytes 0-${FIRST - 1}/${LENGTH}`;
  const head = `\\r\\n--B\\r\\nContent-Location: instances/${n}/frames/1\\r\\nContent-Range: ${range}\\r\\n\\r\\n`;
  return [...new TextEncoder().encode(n === 10 ? head.slice(2) : head), ...bytesOf(n).slice(0, FIRST)];
}

const shape = {
  rows: 256, columns: 256, samplesPerPixel: 1, bitsAllocated: 16, bitsStored: 12, highBit: 11, pixelRepresentation: 0,
  photometricInterpretation: "MONOCHROME2", floating: false,
};
const indexOf = (numbers, etag = "e") => ({
  shapes: [shape],
  frames: numbers.map((n) => ({
    instance: `${n}`, frame: 1, url: `instances/${n}/frames/1`, etag, transferSyntax: "1.2.840.10008.1.2.4.201",
    shape: 0, ends: [FIRST, LENGTH],
  })),
});
const stage = { improved() {}, needed: (frame) => frame.stored.finest, failed() {} };
"""

PLACES = """
const signal = new AbortController().signal;
const link = new Link();
const prefixed = () => {
  const codestream = new Codestream("/instances/7/frames/1", "", [FIRST, LENGTH], "e");
  return [codestream, () => codestream.append(bytesOf(7).slice(0, FIRST), 0, LENGTH)];
};

// Asked for by itself, and brought by the stream before the answer.
const [late, streamed] = prefixed();
const first = link.fetch(late, () => FIRST, signal, () => {});
streamed();
ranges.pop().send();
await first;
let rest = link.fetch(late, () => LENGTH, signal, () => {});
ranges.pop()?.send();
await rest;

// A cache that answers with other bytes than those asked for.
const [other, streamedToo] = prefixed();
streamedToo();
rest = link.fetch(other, () => LENGTH, signal, () => {});
ranges.pop().send(FIRST - 10, LENGTH - 11);
await Promise.race([asked(), rest]);
ranges.pop()?.send();
await rest;
console.log(JSON.stringify([late, other].map((one) => [one.length, wrong(one, 7)])));
"""

GROWN = """
// A stream waits with parts in its buffer; then the series has an image more, in front.
const reading = new Reading(SERIES, { link: new Link(), stage });
const before = framesOf(SERIES, indexOf([10, 20, 30, 40]));
reading.set(before, "s");
reading.look(0);
reading.look(0); // the reader moves: the stream begins
if (ranges.length) ranges.pop().send();
await new Promise(setImmediate);
stream.enqueue(Uint8Array.from(part(10)));
while (!ranges.some(({ from }) => from === FIRST)) {
  await asked();
  for (const range of ranges) if (range.from < FIRST) range.send();
}
stream.enqueue(Uint8Array.from([...part(20), ...part(30), ...part(40)]));
await new Promise((resolve) => setTimeout(resolve, 20));
const waited = before[2].stored.length === 0;
const after = framesOf(SERIES, indexOf([5, 10, 20, 30, 40]), before);
reading.set(after, "t");
reading.look(1);
await new Promise((resolve) => setTimeout(resolve, 20));
const found = after.map(({ stored }, place) => wrong(stored, [5, 10, 20, 30, 40][place]));
const [other] = framesOf(SERIES, indexOf([10], "f"), before); // was deleted, and sent anew
console.log(JSON.stringify({ waited, found, kept: before[0].stored.length, other: other.stored.length }));
process.exit(0);
"""

CLOCK = """
let tick = null; // of the clock, which beats when it is told to
globalThis.setInterval = (step, milliseconds) => { if (milliseconds === 1000) tick = step; return 1; };
globalThis.clearInterval = () => { tick = null; };
const settled = () => new Promise(setImmediate);
const seconds = async (count) => { for (let second = 0; second < count; second++) { tick?.(); await settled(); } };
"""

SILENT = """
import { answer } from "./page/dicom.js";
import { Silence } from "./page/silence.js";

const bodies = [], signals = [];
globalThis.fetch = (url, { signal }) => {
  signals.push(signal);
  if (url.endsWith("/never")) return new Promise(() => {});
  const body = new ReadableStream({ start(controller) { bodies.push(controller); } });
  return Promise.resolve(new Response(body));
};
const outcome = (promise) => {
  const found = { error: null };
  promise.catch((error) => { found.error = error; });
  return found;
};
const said = {};

// A byte now and then is enough, for as long as it takes.
const slow = await answer("/slow", {});
const whole = slow.arrayBuffer();
await settled();
for (let byte = 0; byte < 40; byte++) {
  await seconds(29);
  bodies[0].enqueue(Uint8Array.of(byte));
  await settled();
}
bodies[0].close();
said.slow = (await whole).byteLength;

// Who does not read waits for nothing.
const paused = (await answer("/paused", {})).body.getReader();
bodies[1].enqueue(Uint8Array.of(1));
await paused.read();
await seconds(600);
said.paused = signals[1].aborted;
bodies[1].enqueue(Uint8Array.of(2));
said.later = (await paused.read()).value[0];

// Nothing comes: in the middle of a body, and at all.
const stuck = outcome(paused.read());
const never = outcome(answer("/never", {}));
await settled();
await seconds(29);
said.early = [stuck, never].map(({ error }) => error);
await seconds(1);
said.late = [stuck, never].map(({ error }) => error instanceof Silence);
said.aborted = signals.slice(1).map((signal) => signal.aborted);

// A request that waits while one before it gets bytes has more time, not all of it; one behind it shows that it hangs.
const reader = (await answer("/other", {})).body.getReader();
const starved = outcome(answer("/never", {}));
const feed = async (count) => {
  for (let second = 0; second < count; second += 10) {
    const read = reader.read();
    await seconds(10);
    bodies.at(-1).enqueue(Uint8Array.of(0));
    await read;
  }
};
await feed(110);
said.patient = starved.error;
await feed(20);
said.starved = starved.error instanceof Silence;
const passed = outcome(answer("/never", {}));
for (let second = 0; second < 30; second += 10) {
  await answer("/poll", {});
  await seconds(10);
}
said.passed = passed.error instanceof Silence;

// What is looked at is not asked for again and again while the server is silent.
const codestream = new Codestream("/never", "", [FIRST, LENGTH], "e");
const looked = outcome(new Link().fetch(codestream, () => FIRST, new AbortController().signal, () => {}));
await seconds(30);
said.looked = [looked.error instanceof Silence, looked.error?.message];
console.log(JSON.stringify(said));
"""

SILENT_STREAM = """
// The reader jumps to the last image: the stream, which is to bring it, begins there, and nothing comes.
const failures = [];
const telling = { ...stage, failed: (...failure) => failures.push(failure) };
const reading = new Reading(SERIES, { link: new Link(), stage: telling });
const frames = framesOf(SERIES, indexOf([10, 20, 30, 40]));
reading.set(frames, "s");
reading.look(0);
reading.look(3);
await settled();
const single = ranges.map(({ n }) => n);
await seconds(29);
const early = failures.length;
await seconds(1);
const said = failures.map(([frame, { message }]) => [frames.indexOf(frame), message]);
console.log(JSON.stringify({ streamed: stream !== null, single, early, said }));
process.exit(0);
"""


def run(folder: Path, script: str) -> Any:
    assert NODE is not None
    (folder / "page").mkdir()
    for source in PAGE.glob("*.js"):
        shutil.copy(source, folder / "page")
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "test.js").write_text(NETWORK + script)
    found = subprocess.run([NODE, "test.js"], cwd=folder, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


def test_bytes_stand_where_they_belong(tmp_path: Path) -> None:
    assert run(tmp_path, PLACES) == [[100, -1], [100, -1]]


def test_a_stream_brings_nothing_to_the_frames_of_a_later_index(tmp_path: Path) -> None:
    assert run(tmp_path, GROWN) == {"waited": True, "found": [-1] * 5, "kept": 50, "other": 0}


def test_a_slow_server_is_waited_for_and_a_silent_one_is_not(tmp_path: Path) -> None:
    assert run(tmp_path, CLOCK + SILENT) == {
        "slow": 40, "paused": False, "later": 2,
        "early": [None, None], "late": [True, True], "aborted": [True, True],
        "patient": None, "starved": True, "passed": True,
        "looked": [True, "the server does not answer"],
    }  # fmt: skip


def test_a_stream_that_is_silent_is_told_of_as_soon_as_a_request(tmp_path: Path) -> None:
    said = [[3, "the server does not answer"]]
    assert run(tmp_path, CLOCK + SILENT_STREAM) == {"streamed": True, "single": [10], "early": 0, "said": said}
