/**
 * Hides: how the answer of /v1/me gets into the page. It comes with the receipt of the batch that changed it; when it
 * is due to change by itself, an empty batch asks for it; a stream, where wanted, brings it at once.
 */

import { allows } from './consent.js';
import { flush } from './delivery.js';
import { who } from './identity.js';
import { emit } from './listeners.js';
import { options } from './settings.js';
import { attempt, put, store } from './storage.js';

export let me;
export let asking; // whether even an empty batch is worth sending
let stream;

export const wanted = () => options.personalize && allows('personalization');

export const vouch = (siteToken) => {
  if (siteToken) {
    unfollow(); // an open stream answers by the token it began with, by which a login is withheld
    who._token = siteToken;
    me = { ...me }; // what is under way knows nothing of it
  }
};

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
  const wait = Date.parse(me.valid_until) - Date.parse(me.as_of); // by the server's clock alone
  if (wait < 2e9) setTimeout(ask, wait); // more than 2^31 ms would be at once; to ask too often costs little
};

/** Takes what a receipt says of the visitor. A token that is worth nothing is dropped: the proof remains. */
export const receive = ({ visitor, me }) => {
  asking = who._token && visitor?.error;
  who._token = visitor?.token;
  if (me) learn(me);
  follow();
};

/** Follows the stream, where one is wanted and can be seen. */
export const follow = () => {
  if (document.hidden) return unfollow();
  if (!options.stream || !who._token || stream) return;
  stream = new EventSource(options.host + '/v1/me/stream?writeKey=' + options.writeKey + '&token=' + who._token);
  stream.addEventListener('me', ({ data }) => learn(JSON.parse(data)));
  stream.onerror = () => {
    unfollow();
    setTimeout(ask, 1e4); // brings a new token, and follows again
  };
};

export const unfollow = () => (stream = stream?.close());

/** Somebody else is here, or may be asked for. */
export const turn = () => {
  unfollow();
  wanted() || put('segue_me');
  // Without its etag, so that the first receipt brings it anew and its end is watched here too.
  me = { segments: [], stages: {}, ...attempt(() => JSON.parse(store.segue_me)), etag: null };
  asking = wanted();
  dress();
};
