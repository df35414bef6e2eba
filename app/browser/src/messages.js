/**
 * Hides: how a call becomes a message. It is made, with its id, time and page, when the call is made; who says it is
 * put in once that is known and allowed. Until then messages are held in memory, in order.
 */

import { allows, consentContext, undecided } from './consent.js';
import { enqueue } from './delivery.js';
import { meet, random } from './identity.js';
import { emit } from './listeners.js';
import { pageContext } from './page.js';
import { clean } from './redact.js';
import { isTouchpoint, putSession } from './session.js';
import { options } from './settings.js';
import { attempt, store } from './storage.js';

const HELD_MAX = 1000;

let held = [];

let replayed; // when a call was made that waited for this script
export const callsOf = (time) => (replayed = time);

export const say = (type, fields, context) => {
  const message = clean(
    {
      type,
      messageId: random(),
      timestamp: new Date(replayed || Date.now()).toISOString(),
      ...fields,
      context: { ...pageContext(), ...context },
    },
    options.redact === true && isTouchpoint(type),
  );
  emit(type, message);
  held.push(message);
  release();
};

export const track = (event, properties, context) => say('track', { event, properties }, context);

/** Hands to delivery what may go. While the hash of a visitor is worked out, `anonymousId` is the visitor itself. */
export const release = async () => {
  if (undecided()) return held.splice(0, held.length - HELD_MAX);
  if (!allows()) return held.splice(0);
  const visitor = meet();
  for (const message of held)
    if (!message.anonymousId) {
      message.anonymousId = visitor;
      message.userId ??= store.segue_u;
      message.context.consent = consentContext();
      putSession(message);
    }
  await visitor._known;
  const { redact } = options;
  const ready = [];
  while (held[0]?.anonymousId?._id) {
    const message = held.shift();
    message.anonymousId = message.anonymousId._id;
    ready.push(redact?.call ? attempt(() => redact(message)) : message);
  }
  enqueue(ready);
};
