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

let me;
let token; // says who the visitor is to the stream; one that the site has fetched vouches for a login too
let asking;
let timer;
let stream;

const wanted = () => options.personalize && allows('personalization') && proves();

export const wantsAnswer = () => asking && wanted();

export const personalization = () => me;

export const vouch = (siteToken) => {
  token = siteToken || token;
};

/** The batch's member `visitor`: proves the id, and says which answer the page has. */
export const visitorMember = () =>
  wanted() ? { id: who._id, proof: who._proof, token, me: me.etag || '' } : undefined;

/** Shows and hides the elements that name segments or stages. Who is unknown is in none. */
export const dress = () => {
  const words = {
    segueSegment: me.segments.map(({ key }) => key),
    segueStage: Object.entries(me.stages).flatMap(([journey, { stage }]) => [stage, journey + ':' + stage]),
  };
  for (const element of document.querySelectorAll('[data-segue-segment],[data-segue-stage]'))
    element.hidden = Object.keys(words).some((kind) =>
      element.dataset[kind]
        ?.split(' ')
        .every((word) => words[kind].includes(word.replace('!', '')) == (word[0] == '!')),
    );
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
  if (wait < 2e9) timer = setTimeout(ask, wait + 500); // more than 2^31 ms would be at once
};

/** Takes what a receipt says of the visitor. A token that is worth nothing is dropped: the proof remains. */
export const receive = ({ visitor, me }) => {
  asking = token && visitor?.error;
  token = wanted() && visitor?.token;
  if (me && token) learn(me);
  follow();
};

/** Follows the stream, where one is wanted and can be seen. */
export const follow = () => {
  if (!options.stream || !token || stream || document.hidden) return;
  stream = new EventSource(`${options.host}/v1/me/stream?writeKey=${options.writeKey}&token=${token}`);
  stream.addEventListener('me', ({ data }) => learn(JSON.parse(data)));
  stream.onerror = () => {
    unfollow();
    setTimeout(ask, 1e4); // brings a new token, and follows again
  };
};

export const unfollow = () => {
  stream?.close();
  stream = null;
};

/** Somebody else is here, or may be asked for. */
export const turn = () => {
  unfollow();
  token = undefined;
  me = attempt(() => JSON.parse(store.segue_me)) || { segments: [], stages: {} };
  asking = true;
  dress();
};
