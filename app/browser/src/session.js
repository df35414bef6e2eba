/**
 * Sessions. A session starts after 30 minutes without a message, or when the visitor arrives from another campaign or
 * site than the one that started the current session. Stored as "start last source", times in ms.
 */

import { setItem, store } from './storage.js';

let isFirstMessage = true; // the first message of this document; only it can be an arrival

/** Return the campaign or the site that the visitor came from, as text without spaces, or false. */
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
