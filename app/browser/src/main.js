/** Hides: how `window.segue` turns from a queue of calls into the library. */

import * as capture from './capture.js';
import { begin, consent, isOn, optIn, optOut } from './consent.js';
import { adopt, flush } from './delivery.js';
import { forget, who } from './identity.js';
import { on } from './listeners.js';
import { callsOf, say } from './messages.js';
import { personalization, turn, vouch } from './personalize.js';
import { isText } from './redact.js';
import { options } from './settings.js';
import { put, store } from './storage.js';

const methods = {
  load(writeKey, given) {
    if (options.writeKey) return;
    Object.assign(options, given, { writeKey });
    begin();
    setTimeout(capture.begin); // after the calls that waited: they may hold a page() of their own
  },
  page(...values) {
    const names = values.filter(isText);
    capture.page(
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
    put('segue_u', userId && '' + userId);
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
  personalization,
  consent,
  optOut,
  optIn,
};

const segue = (window.segue ||= []);

if (segue.push) {
  const calls = segue.splice(0);
  segue.push = null; // no queue any more
  for (const name in methods)
    // Whatever goes wrong in here must not reach the page.
    segue[name] = (...values) => {
      try {
        return methods[name](...values);
      } catch (error) {
        console.warn('segue', error);
      }
    };
  for (const [name, values, time] of calls) {
    callsOf(time);
    segue[name](...values);
  }
  callsOf();
}
