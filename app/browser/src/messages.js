/**
 * Messages. A call becomes a message with its id, time and page at once; the visitor and the session are added when the
 * visitor's consent allows it and the id is known. Until the visitor decides, messages are held in memory.
 */

import { consent, isAnalyticsAllowed } from './consent.js';
import { enqueue } from './delivery.js';
import { loadVisitor, randomHex } from './identity.js';
import { emit } from './listeners.js';
import { pageContext } from './page_context.js';
import { redactMessage } from './redaction.js';
import { addSession } from './session.js';
import { options } from './settings.js';
import { attempt, store } from './storage.js';

let heldMessages = [];
let messageCount = 1e6; // the prefix of each id, which keeps messages of one instant in order

export const recordMessage = (type, fields) => {
  const message = redactMessage(
    {
      type,
      messageId: messageCount++ + randomHex(),
      timestamp: new Date(options._now || Date.now()),
      ...fields,
      context: pageContext(),
    },
    options.redact === true && 'properties' in fields, // never in ids: all of them would become one
  );
  message.userId ??= store.segue_u; // the current one: before consent another user may follow
  emit(type, message);
  heldMessages.push(message);
  releaseMessages();
};

export const isCaptured = (kind) => options.capture === true || options.capture?.[kind];

/** Record an event that the page did not report itself, if the page asked for events of this kind. */
export const captureEvent = (kind, event, properties) =>
  isCaptured(kind) && recordMessage('track', { event, properties });

/** Give the held messages an anonymous id of their own: those that follow belong to another visitor. */
export function separateHeldMessages() {
  const id = randomHex();
  for (const message of heldMessages) message.anonymousId ??= id;
}

/** Send or drop the held messages, if the visitor has decided. */
export const releaseMessages = () =>
  consent != null &&
  heldMessages.splice(0).forEach(async (message) => {
    if (!isAnalyticsAllowed()) return;
    const visitor = loadVisitor();
    (message.context ||= {}).consent = consent.analytics && { categoryPreferences: consent };
    addSession(message);
    if (!visitor._id) await visitor._idReady; // else queued at once: a page that goes away cannot wait
    message.anonymousId ??= visitor._id;
    enqueue(options.redact?.call ? attempt(() => options.redact(message)) : message);
  });
