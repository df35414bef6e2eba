/**
 * Sessions. A session begins after 30 minutes without a message, or when the visitor arrives from another campaign or
 * site than the one that began the session. Midnight does not matter. Stored as "start last source", times in ms.
 */

import { setItem, store } from './storage.js';

let isFirstMessage = true; // of this document; only that one can be an arrival

/** Return what brought the visitor here from outside, as text without spaces; false if nothing did. */
function arrivalSource({ campaign, clickIds, page }) {
  const site = new URL(page?.referrer || location).host;
  return campaign || clickIds ? escape(JSON.stringify([campaign, clickIds])) : site != location.host && site;
}

/** Add the session to the context of a message. */
export function addSession({ timestamp, context }) {
  const time = Date.parse(timestamp);
  const newSource = isFirstMessage && arrivalSource(context);
  let [start, last, source] = (store.segue_s || '').split(' ');
  if (!(time - last < 18e5) || (newSource && newSource != source)) {
    start = time;
    source = newSource;
    context.sessionStart = true;
  }
  isFirstMessage = false;
  setItem('segue_s', start + ' ' + time + ' ' + source);
  context.sessionId = +start;
}
