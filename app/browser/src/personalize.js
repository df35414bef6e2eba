/**
 * Hides: how the answer of /v1/me gets into the page. It comes with the receipt of the batch that changed it; when it
 * is due to change by itself, an empty batch asks for it; a stream, where wanted, brings it at once.
 */

import { allows } from './consent.js';
import { flush } from './delivery.js';
import { proves, who } from './identity.js';
import { emit } from './listeners.js';
import { options } from './settings.js';
import { attempt, put, store } from './storage.js';

const TIMER_MS_MAX = 2e9; // a longer one would go off at once

let me = {};
let token; // proves who the visitor is, as the proof does; one that the site has fetched vouches for a login too
let asking;
let timer;
let stream;

const wanted = () => options.personalize !== false && allows('personalization') && proves();

export const wantsAnswer = () => asking && wanted();

export const personalization = () => me.etag && me;

export const vouch = (siteToken) => {
  token = siteToken || token;
};

/** The batch's member `visitor`: proves the id, and says which answer the page has. */
export const visitorMember = () =>
  proves()
    ? { id: who._id, [token ? 'token' : 'proof']: token || who._proof, me: wanted() ? me.etag || '' : undefined }
    : undefined;

/** Shows and hides the elements that name segments or stages. Who is unknown is in none. */
export const dress = () => {
  const words = {
    segueSegment: me.segments?.map(({ key }) => key),
    segueStage: Object.entries(me.stages || {}).flatMap(([journey, { stage }]) => [stage, journey + ':' + stage]),
  };
  const fails = (kind, asked) =>
    asked && !asked.split(' ').some((word) => !words[kind]?.includes(word.replace('!', '')) == /^!/.test(word));
  for (const element of document.querySelectorAll('[data-segue-segment],[data-segue-stage]'))
    element.hidden = Object.keys(words).some((kind) => fails(kind, element.dataset[kind]));
};

const ask = () => {
  asking = true;
  flush();
};

const learn = (answer) => {
  me = answer;
  put('segue_me', JSON.stringify(me));
  dress();
  emit('change', me);
  clearTimeout(timer);
  const wait = Date.parse(me.valid_until) - Date.parse(me.as_of); // by the server's clock alone
  if (wait < TIMER_MS_MAX) timer = setTimeout(ask, wait + 500);
};

/** Takes what a receipt says of the visitor. A token that is worth nothing gives way to the proof. */
export const receive = ({ visitor, me }) => {
  asking = token && visitor?.error;
  token = visitor?.error ? null : visitor?.token || token;
  if (me && wanted()) learn(me);
  follow();
};

/** Follows the stream, where one is wanted and can be seen. */
export const follow = () => {
  if (!options.stream || !token || !wanted() || stream || document.hidden) return;
  stream = new EventSource(`${options.host}/v1/me/stream?writeKey=${options.writeKey}&token=${token}`);
  stream.addEventListener('me', ({ data }) => learn(JSON.parse(data)));
  stream.onerror = ({ target }) => {
    if (target.readyState == 2) {
      stream = token = null;
      setTimeout(ask, 1e4);
    }
  };
};

export const unfollow = () => {
  stream?.close();
  stream = null;
};

/** Somebody else is here, or may be asked for. */
export const turn = () => {
  unfollow();
  token = null;
  me = attempt(() => JSON.parse(store.segue_me)) || {};
  asking = true;
  dress();
};
