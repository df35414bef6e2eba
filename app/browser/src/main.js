/** Hides: how `window.segue` turns from a queue of calls into the library. */

import { listen } from './capture.js';
import { decide, isOn } from './consent.js';
import { adopt, flush } from './delivery.js';
import { forget, who } from './identity.js';
import { on } from './listeners.js';
import { callsOf, say } from './messages.js';
import { me, turn, vouch } from './personalize.js';
import { isText } from './redact.js';
import { options } from './settings.js';
import { attempt, put, store } from './storage.js';
import { page } from './views.js';

const methods = {
  load(writeKey, given) {
    if (options.writeKey) return;
    Object.assign(options, given, { writeKey });
    // The visitor's earlier word counts, else the browser's, else the page's rule.
    const refuses =
      (options.respectDnt && navigator.doNotTrack == 1) || (options.respectGpc && navigator.globalPrivacyControl);
    const first = !refuses && (!options.consent?.required || undefined);
    const word = attempt(() => JSON.parse(localStorage.segue_c));
    decide(word ?? first, word != null);
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
    if (store.segue_u && store.segue_u != userId) methods.reset(); // somebody else at this browser
    vouch(given?.visitorToken);
    put('segue_u', userId);
    say('identify', { userId: store.segue_u, traits });
  },
  group: (groupId, traits) => say('group', { groupId, traits }),
  alias: (userId, previousId) => say('alias', { userId, previousId: previousId || store.segue_u || who._id }),
  reset() {
    forget(/^segue_[vusm]/);
    turn();
    if (isOn()) adopt();
  },
  async ready(handler) {
    await who._known;
    handler();
  },
  user: () => ({ anonymousId: who._id, userId: store.segue_u, sessionId: parseInt(store.segue_s) || undefined }),
  flush: () => flush(),
  on,
  personalization: () => me,
  consent: (choice) => decide(choice, choice),
  optOut: () => decide(false, true),
  optIn: () => decide(true, true),
};

const segue = (window.segue ||= []);

if (segue.push) {
  const calls = segue.splice(0);
  segue.push = null; // no queue any more
  for (const name in methods)
    // Whatever goes wrong in here must not reach the page.
    segue[name] = (...values) => attempt(() => methods[name](...values), console.warn);
  for (const [name, values, time] of calls) {
    callsOf(time);
    segue[name](...values);
  }
  callsOf();
}
