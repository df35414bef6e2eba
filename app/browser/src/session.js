/**
 * Hides: when a session begins: after 30 minutes without a message, or on arrival from another campaign or site than
 * the one it began with. Midnight does not count. Stored as "start last arrival", in ms.
 */

import { put, store } from './storage.js';

let arrives = true; // only the first message of a document does

/** What brought the visitor here from outside, as text without spaces; false if nothing did. */
const arrival = ({ campaign, clickIds, page }) => {
  const site = new URL(page?.referrer || location).host;
  return campaign || clickIds ? escape(JSON.stringify([campaign, clickIds])) : site != location.host && site;
};

/** Puts the session into the context of a message. */
export const putSession = ({ timestamp, context }) => {
  const at = Date.parse(timestamp);
  const arrived = arrives && arrival(context);
  let [start, last, from] = (store.segue_s || '').split(' ');
  if (!(at - last < 18e5) || (arrived && arrived != from)) {
    start = at;
    from = arrived;
    context.sessionStart = true;
  }
  arrives = false;
  put('segue_s', start + ' ' + at + ' ' + from);
  context.sessionId = +start;
};
