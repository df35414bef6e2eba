/**
 * Applies a consent choice. Undecided: messages are held in memory. Granted: they are sent. Refused: they are dropped,
 * and stored data is erased.
 */

import { consent, isAnalyticsAllowed, setConsent, storeConsent } from './consent.js';
import { adoptStoredMessages, flush } from './delivery.js';
import { forgetVisitor } from './identity.js';
import { releaseMessages } from './messages.js';
import { resetPersonalization } from './personalization.js';
import { closeStore, openStore } from './storage.js';

/** Set the visitor's choice, or the initial one, and act on it. `persist` stores it. */
export const applyConsent = (choice, persist) => {
  setConsent(choice);
  if (persist) storeConsent(); // first, so that other tabs see the choice before the erasure
  if (isAnalyticsAllowed()) {
    openStore();
    adoptStoredMessages();
  } else if (consent != null) {
    forgetVisitor(/^segue_(?!c)/);
    closeStore();
    flush(); // drops the queue
  }
  resetPersonalization();
  releaseMessages();
};
