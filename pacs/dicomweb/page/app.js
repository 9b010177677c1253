// The built-in page: studies, series, and a stack of images. It uses nothing but what any viewer can ask for.
//
//   app.js               which section an address shows
//   document.js          elements
//   dicom.js             requests, DICOM JSON and its texts
//   silence.js           when a server that sends nothing is given up
//   studies.js           the list of studies, and the series of one
//   terms.js             what is typed into the search
//   thumbnails.js        the pictures of these series
//   viewer.js            a series: what the reader does, and what the page says of it
//   stage.js             what is painted of the frame that is looked at, and what it is called
//   shades.js, tables.js stored values to gray levels and colours
//   attributes.js        the attributes that a picture takes
//   server_pictures.js   pictures that the server paints, of what is not painted here
//   reading.js           which rungs of which frames are asked for, in which order
//   frames.js            frames, and what is held of them
//   stream.js, link.js   the series in one response; parts of codestreams, and how fast the line is
//   decoding.js          decoders in workers (worker.js)
//   htj2k.js             the decoder, with htj2k_….js and wavelet.js

import { ROOT, Refused } from "./dicom.js";
import { $, complain, visits } from "./document.js";
import { showStudies, showStudy } from "./studies.js";
import { leaveThumbnails } from "./thumbnails.js";
import { closeViewer, showViewer } from "./viewer.js";

async function route() {
  const current = visits.begin();
  closeViewer();
  leaveThumbnails();
  const [path, query] = location.hash.replace(/^#/, "").split("?");
  const uid = "([0-9.]{1,64})";
  try {
    let found;
    if ((found = path.match(new RegExp(`^/study/${uid}/series/${uid}$`)))) await showViewer(found[1], found[2]);
    else if ((found = path.match(new RegExp(`^/study/${uid}$`)))) await showStudy(found[1]);
    else {
      await showStudies(new URLSearchParams(query ?? ""));
      if (path.length > 1 && current()) complain("This link leads to no study or series. Here are all studies.", false);
    }
  } catch (error) {
    if (!current()) return;
    for (const name of ["study", "viewer"]) $(name).hidden = true; // there is nothing in it
    complain(error.message, !(error instanceof Refused));
  }
  if (!$("viewer").hidden) $("stage").focus({ preventScroll: true });
  else if (visits.count > 1 && document.activeElement === document.body) $("main").focus({ preventScroll: true }); // what had it is gone
}

$("root").textContent = location.origin + ROOT;
$("again").addEventListener("click", route);
addEventListener("hashchange", route);
// Not a page of its own: its address is that of what is shown.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  $("main").focus();
});
route();
