/**
 * Hides: how a call becomes a message. It is made, with its id, time and page, when the call is made; who says it is
 * put in when that is allowed and known. Until it is allowed, messages are held in memory.
 */

import { granted, isOn } from './consent.js';
import { enqueue } from './delivery.js';
import { meet, random } from './identity.js';
import { emit } from './listeners.js';
import { clean } from './redact.js';
import { putSession } from './session.js';
import { options } from './settings.js';
import { attempt, store } from './storage.js';
import { pageContext } from './views.js';

let held = [];
let count = 1e6; // of the messages; in front of an id, it keeps those of one instant in their order

export const say = (type, fields) => {
  const message = clean(
    {
      type,
      messageId: count++ + random(),
      timestamp: new Date(options._now || Date.now()),
      ...fields,
      context: pageContext(),
    },
    options.redact === true && 'properties' in fields, // never of ids: all would become one
  );
  message.userId ??= store.segue_u; // of now: before consent somebody else may follow
  emit(type, message);
  held.push(message);
  release();
};

export const captures = (kind) => options.capture === true || options.capture?.[kind];

/** Something that the page did not say itself. */
export const auto = (kind, event, properties) => captures(kind) && say('track', { event, properties });

/** What is held was said by another visitor than what follows, of whom nothing else is known. */
export const part = () => {
  const id = random();
  for (const message of held) message.anonymousId ??= id;
};

/** Sends or drops what was held, once the visitor has decided. */
export const release = () =>
  granted != null &&
  held.splice(0).forEach(async (message) => {
    if (!isOn()) return;
    const visitor = meet();
    (message.context ||= {}).consent = granted.analytics && { categoryPreferences: granted };
    putSession(message);
    if (!visitor._id) await visitor._known; // else queued at once: a page that goes away waits for nothing
    message.anonymousId ??= visitor._id;
    enqueue(options.redact?.call ? attempt(() => options.redact(message)) : message);
  });
