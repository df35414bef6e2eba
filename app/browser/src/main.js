/** Entry point: replaces the call queue `window.segue` with the library and runs the queued calls. */

// From the bottom layer up. Import cycles are not allowed.
import { options } from './settings.js';
import { attempt, setItem, store } from './storage.js';
import { on } from './listeners.js';
import { isString } from './redaction.js';
import { forgetVisitor, visitor } from './identity.js';
import { consent, initialConsent } from './consent.js';
import { personalization, setBatchSender, setVisitorToken } from './personalization.js';
import { flush } from './delivery.js';
import { recordMessage, separateHeldMessages } from './messages.js';
import { applyConsent } from './consent_changes.js';
import { recordPage } from './views.js';
import { startCapture } from './capture.js';

setBatchSender(flush);

const methods = {
  load(writeKey, given) {
    if (options.writeKey) return;
    options.writeKey = writeKey;
    Object.assign(options, given);
    applyConsent(initialConsent());
    setTimeout(startCapture); // after the queued calls: one of them may be page()
  },
  page(...values) {
    const names = values.filter(isString);
    recordPage(
      names.pop(),
      names.pop(),
      values.find((value) => !isString(value)),
    );
  },
  track: (event, properties) => recordMessage('track', { event, properties }),
  identify(userId, traits, given) {
    if (typeof userId == 'object') return methods.identify(store.segue_u, userId, traits);
    if ((store.segue_u || userId) != userId) methods.reset(); // another user in this browser
    setVisitorToken(given?.visitorToken);
    setItem('segue_u', userId);
    recordMessage('identify', { userId, traits });
  },
  group: (groupId, traits) => recordMessage('group', { groupId, traits }),
  alias: (userId, previousId) =>
    recordMessage('alias', { userId, previousId: previousId || store.segue_u || visitor._id }),
  reset() {
    separateHeldMessages();
    forgetVisitor(/^segue_[vusm]/);
    applyConsent(consent);
  },
  ready: async (handler) => handler(await visitor._idReady),
  user: () => ({ anonymousId: visitor._id, userId: store.segue_u, sessionId: parseInt(store.segue_s) }),
  flush,
  on,
  personalization: () => personalization,
  consent: (choice) => applyConsent(choice, true),
  optOut: () => methods.consent(false),
  optIn: () => methods.consent(true),
};

const segue = (window.segue ||= []);

if (segue.push) {
  const calls = segue.splice(0);
  segue.push = null; // calls now run at once
  for (const name in methods)
    // Errors of the library must not reach the page.
    segue[name] = (...values) => attempt(() => methods[name](...values), console.warn);
  for (const [name, values, time] of calls) {
    options._now = time;
    segue[name](...values);
  }
  options._now = 0;
}
