/**
 * Messages. A call immediately becomes a message with its id, time and page context. The visitor and the session are
 * added when consent allows it and the id is known. Until the visitor decides, messages are held in memory.
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
let messageCount = 1e6; // prefix of message ids, which keeps messages of one instant in order

export const recordMessage = (type, fields) => {
  const message = redactMessage(
    {
      type,
      messageId: messageCount++ + randomHex(),
      timestamp: new Date(options._now || Date.now()),
      ...fields,
      context: pageContext(),
    },
    // Ids are not redacted, because all e-mail addresses would become one id.
    options.redact === true && 'properties' in fields,
  );
  message.userId ??= store.segue_u; // the user at the time of the call; another user may log in before consent
  emit(type, message);
  heldMessages.push(message);
  releaseMessages();
};

export const isCaptured = (kind) => options.capture === true || options.capture?.[kind];

/** Record an automatic event if the page enabled capture of this kind. */
export const captureEvent = (kind, event, properties) =>
  isCaptured(kind) && recordMessage('track', { event, properties });

/** Give the held messages a separate anonymous id: later messages belong to another visitor. */
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
    if (!visitor._id) await visitor._idReady; // with a known id, queue at once: a closing page cannot wait
    message.anonymousId ??= visitor._id;
    enqueue(options.redact?.call ? attempt(() => options.redact(message)) : message);
  });
