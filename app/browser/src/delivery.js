/**
 * Hides: how messages reach the server once each, whatever happens to the page, the network and the server. A message
 * stays in memory and in storage until the server has answered for it; its id makes a second sending harmless. Each
 * document writes a key of its own and takes over what others have left: so no two ever write the same one.
 */

import { isOn } from './consent.js';
import { encode, meet, random, who } from './identity.js';
import { asking, me, receive, wanted } from './personalize.js';
import { options } from './settings.js';
import { attempt, put, store } from './storage.js';

let queue = []; // messages as JSON, oldest first
let underway; // the batch whose answer is being waited for
let place; // the key of this document
let shared; // what all messages say; looked up when the first batch leaves, for by then the page is laid out
let saving; // timers
let timer;
let failures = 0;
let silent; // the server will not have this page

const bytes = (text) => encode(text).length;

export const save = () => {
  saving = 0;
  queue.splice(0, queue.length - 500);
  put(place, queue.join('\n'));
};

const later = (delay) => {
  saving ||= setTimeout(save);
  timer ||= underway || setTimeout(flush, delay); // while an answer is waited for, it decides when to go on
};

export const enqueue = (message) => {
  const text = JSON.stringify(message);
  if (bytes(text) > 32e3) console.warn('segue', message);
  else if (message) queue.push(text);
  later(100); // calls gather to a batch
};

/** Takes over what earlier pages have left (where they still live it is a copy), and sends it once the id is known. */
export const adopt = async () => {
  const prefix = 'segue_q.' + options.writeKey;
  place ||= prefix + random();
  for (const name in store)
    if (name.includes(prefix) && name != place) {
      queue.push(...store[name].split('\n'));
      put(name);
    }
  save();
  await meet()._known;
  later(100);
};

/** Sends a batch. A page that may be `leaving` sends a beacon: nobody sees its answer, so everything stays stored. */
export const flush = async (leaving) => {
  if (!isOn()) queue = [];
  save();
  clearTimeout(timer);
  timer = 0;
  if (silent || !who._id || (underway && !leaving)) return;
  let size = 0;
  // Browsers let 64 KiB go on when the page goes away.
  const batch = queue.filter((text) => (size += bytes(text)) < 6e4);
  if (!batch[0] && !asking) return;
  const envelope = {
    writeKey: options.writeKey,
    sentAt: new Date(),
    context: (shared ||= {
      library: { name: 'segue.js', version: VERSION },
      locale: navigator.language,
      // The first DateTimeFormat of a process takes 15 ms and more, Temporal nothing.
      timezone: attempt(() => Temporal.Now.timeZoneId()) || Intl.DateTimeFormat().resolvedOptions().timeZone,
      screen: { innerWidth, innerHeight },
    }),
    // Proves the id, and says which answer the page has.
    visitor: wanted() ? { id: who._id, proof: who._proof, token: who._token, me: me.etag || '' } : undefined,
  };
  const body = JSON.stringify(envelope).slice(0, -1) + `,"batch":[${batch}]}`;
  if (leaving) return navigator.sendBeacon(options.host + '/v1/b', body);

  const mine = me;
  underway = batch;
  let receipt;
  let wait;
  try {
    const answer = await fetch(options.host + '/v1/b', {
      method: 'POST',
      body,
      keepalive: true,
      signal: AbortSignal.timeout?.(3e4),
    });
    const { status } = answer;
    if (/^5|408|429/.test(status)) wait = +answer.headers.get('retry-after');
    else receipt = answer.ok ? await answer.json() : console.warn('segue', status) || {};
    silent = /401|403/.test(status);
  } catch {
    // No network, no answer or somebody else's: the same as a busy server.
  }
  underway = timer = false;
  if (receipt) {
    failures = 0;
    queue = queue.filter((text) => !batch.includes(text));
    save();
    mine == me && receive(receipt); // else it speaks of what was before a login, a reset or a refusal
    if (queue[0] || asking) later();
  } else later(1e3 * ((wait || 2 ** Math.min(failures++, 8)) + Math.random()));
};
