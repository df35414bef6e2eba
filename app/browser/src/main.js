/** Hides: how `window.segue` turns from a queue of calls into the library. */

import { me, vouch } from './personalize.js';
import { options } from './settings.js';
import { page } from './views.js';
import { isText } from './redact.js';
import { part, say } from './messages.js';
import { forget, who } from './identity.js';
import { listen } from './capture.js';
import { on } from './listeners.js';
import { decide, granted } from './consent.js';
import { attempt, put, store } from './storage.js';
import { flush } from './delivery.js';

const methods = {
  load(writeKey, given) {
    if (options.writeKey) return;
    options.writeKey = writeKey;
    Object.assign(options, given);
    // The visitor's earlier word counts, else the browser's, else the page's rule.
    decide(
      attempt(() => JSON.parse(localStorage.segue_c)) ??
        ((options.respectDnt && navigator.doNotTrack == 1) || (options.respectGpc && navigator.globalPrivacyControl)
          ? false
          : !options.consent?.required || null),
    );
    setTimeout(listen); // after the calls that waited: they may hold a page() of their own
  },
  page(...values) {
    const names = values.filter(isText);
    page(
      names.pop(),
      names.pop(),
      values.find((value) => !isText(value)),
    );
  },
  track: (event, properties) => say('track', { event, properties }),
  identify(userId, traits, given) {
    if (typeof userId == 'object') return methods.identify(store.segue_u, userId, traits);
    if ((store.segue_u || userId) != userId) methods.reset(); // somebody else at this browser
    vouch(given?.visitorToken);
    put('segue_u', userId);
    say('identify', { userId, traits });
  },
  group: (groupId, traits) => say('group', { groupId, traits }),
  alias: (userId, previousId) => say('alias', { userId, previousId: previousId || store.segue_u || who._id }),
  reset() {
    part();
    forget(/^segue_[vusm]/);
    decide(granted);
  },
  ready: async (handler) => handler(await who._known),
  user: () => ({ anonymousId: who._id, userId: store.segue_u, sessionId: parseInt(store.segue_s) }),
  flush,
  on,
  personalization: () => me,
  consent: (choice) => decide(choice, true),
  optOut: () => methods.consent(false),
  optIn: () => methods.consent(true),
};

const segue = (window.segue ||= []);

if (segue.push) {
  const calls = segue.splice(0);
  segue.push = null; // no queue any more
  for (const name in methods)
    // Whatever goes wrong in here must not reach the page.
    segue[name] = (...values) => attempt(() => methods[name](...values), console.warn);
  for (const [name, values, time] of calls) {
    options._now = time;
    segue[name](...values);
  }
  options._now = 0;
}
