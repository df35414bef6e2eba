/**
 * The visitor's stages and segments, in the form of /v1/me. The receipt of a batch contains them if they changed. When
 * they are due to change by time, an empty batch requests them. With the option `stream`, a stream delivers them at
 * once.
 */

import { isAllowed } from './consent.js';
import { visitor } from './identity.js';
import { emit } from './listeners.js';
import { options } from './settings.js';
import { attempt, setItem, store } from './storage.js';

export let personalization; // the latest response
export let isUpdateDue; // whether to send a batch even if it is empty
let stream;
let sendBatch;

/** Set the function that sends a batch. It is passed in because delivery.js imports this module. */
export function setBatchSender(sender) {
  sendBatch = sender;
}

export const isPersonalized = () => options.personalize && isAllowed('personalization');

export function setVisitorToken(token) {
  if (token) {
    closeStream(); // an open stream uses its first token, which does not authenticate the login
    visitor._token = token;
    personalization = { ...personalization }; // a new object: delivery.js ignores the receipt of an earlier batch
  }
}

/** Show or hide elements by the segments and stages in their data attributes. */
export const updateElements = () => {
  const keys = {
    segueSegment: personalization.segments.map(({ key }) => key),
    segueStage: Object.entries(personalization.stages).flatMap(([journey, { stage }]) => [
      stage,
      journey + ':' + stage,
    ]),
  };
  for (const element of document.querySelectorAll('[data-segue-segment],[data-segue-stage]'))
    element.hidden = Object.entries(keys).some(([attribute, current]) =>
      element.dataset[attribute]
        ?.split(' ')
        .every((word) => current.includes(word.replace('!', '')) == (word[0] == '!')),
    );
};

const requestUpdate = () => {
  isUpdateDue = true;
  sendBatch();
};

const applyAnswer = (answer) => {
  personalization = answer;
  setItem('segue_me', JSON.stringify(personalization));
  updateElements();
  emit('change', personalization);
  // Both times are from the server's clock.
  const delay = Date.parse(personalization.valid_until) - Date.parse(personalization.as_of);
  if (delay < 2e9) setTimeout(requestUpdate, delay); // browsers run a timer of more than 2^31 ms at once
};

/** Apply the visitor part of a receipt. An invalid token is dropped; the next batch uses the proof. */
export function applyReceipt({ visitor: claim, me }) {
  isUpdateDue = visitor._token && claim?.error;
  visitor._token = claim?.token;
  if (me) applyAnswer(me);
  openStream();
}

/** Open the stream if the page asked for one and is visible; close it if the page is hidden. */
export const openStream = () => {
  if (document.hidden) return closeStream();
  if (!options.stream || !visitor._token || stream) return;
  stream = new EventSource(options.host + '/v1/me/stream?writeKey=' + options.writeKey + '&token=' + visitor._token);
  stream.addEventListener('me', ({ data }) => applyAnswer(JSON.parse(data)));
  stream.onerror = () => {
    closeStream();
    setTimeout(requestUpdate, 1e4); // the receipt contains a new token and reopens the stream
  };
};

const closeStream = () => (stream = stream?.close());

/** Reset for another visitor or after a new consent choice. */
export function resetPersonalization() {
  closeStream();
  isPersonalized() || setItem('segue_me');
  // Without an etag the first receipt contains the whole personalization, with its valid_until.
  personalization = { segments: [], stages: {}, ...attempt(() => JSON.parse(store.segue_me)), etag: null };
  isUpdateDue = isPersonalized();
  updateElements();
}
