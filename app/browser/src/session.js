/**
 * Hides: when a session begins: after 30 minutes without a touchpoint, or on arrival from another campaign or site than
 * the one it began with. Midnight does not count. Stored as "start last arrival", in ms.
 */

import { arrival } from './page.js';
import { put, store } from './storage.js';

let arrived = arrival(); // counts for the first touchpoint of this page

/** Puts the session into the context of a message. */
export const putSession = ({ type, timestamp, context }) => {
  const at = Date.parse(timestamp);
  let [start, last, from] = (store.segue_s || '').split(' ');
  if (isTouchpoint(type)) {
    if (!(at - last < 18e5) || (arrived && arrived != from)) {
      start = at;
      from = arrived;
      context.sessionStart = true;
    }
    arrived = '';
    put('segue_s', `${start} ${at} ${from}`);
  }
  context.sessionId = +start || undefined;
};

export const isTouchpoint = (type) => /^[tp]/.test(type); // track, page
