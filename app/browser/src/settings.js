/** Hides: what the page has asked for, and where this script came from. */

const script = document.currentScript;

/** The write key of a script that brings it along: `<script data-write-key>` needs no inline script. */
export const keyOfScript = script?.dataset.writeKey;

export let options = {};

export const configure = (writeKey, given) => {
  options = {
    // Where segue.js lies, there Segue answers; also below a path of the site's own host.
    host: script?.src.replace(/\/[^/]*$/, ''),
    capture: { pages: true },
    ...given,
    writeKey,
  };
};
