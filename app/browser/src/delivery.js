/**
 * Message delivery: each message reaches the server once, whatever happens to the page, the network and the server. A
 * message stays in memory and in storage until the server has answered for it; its id makes a second sending harmless.
 * Each document writes a storage key of its own and takes over the keys of earlier pages, so no two write the same key.
 */

import { isAnalyticsAllowed } from './consent.js';
import { encodeUtf8, loadVisitor, randomHex, visitor } from './identity.js';
import { applyReceipt, isPersonalized, isUpdateDue, personalization } from './personalization.js';
import { options } from './settings.js';
import { attempt, setItem, store } from './storage.js';

let queue = []; // messages as JSON, oldest first
let sentBatch; // the batch that waits for its answer
let queueKey; // the storage key of this document
let sharedContext; // of all messages; read when the first batch leaves, because the page is laid out by then
let saveTimer;
let flushTimer;
let failureCount = 0;
let isRefused; // the server refuses this page

const byteLength = (text) => encodeUtf8(text).length;

export const saveQueue = () => {
  saveTimer = 0;
  queue.splice(0, queue.length - 500);
  setItem(queueKey, queue.join('\n'));
};

const scheduleFlush = (delay) => {
  saveTimer ||= setTimeout(saveQueue);
  flushTimer ||= sentBatch || setTimeout(flush, delay); // while a batch waits, its answer schedules the next flush
};

export function enqueue(message) {
  const text = JSON.stringify(message);
  if (byteLength(text) > 32e3) console.warn('segue', message);
  else if (message) queue.push(text);
  scheduleFlush(100); // collects the calls of this time into one batch
}

/** Take over the messages of earlier pages, as copies if those pages still live. Send them once the id is known. */
export async function adoptStoredMessages() {
  const prefix = 'segue_q.' + options.writeKey;
  queueKey ||= prefix + randomHex();
  for (const name in store)
    if (name.includes(prefix) && name != queueKey) {
      queue.push(...store[name].split('\n'));
      setItem(name);
    }
  saveQueue();
  await loadVisitor()._idReady;
  scheduleFlush(100);
}

/**
 * Send a batch. A page that `isLeaving` sends it as a beacon. The page cannot read the answer to a beacon, so the
 * messages stay stored.
 */
export const flush = async (isLeaving) => {
  if (!isAnalyticsAllowed()) queue = [];
  saveQueue();
  clearTimeout(flushTimer);
  flushTimer = 0;
  if (isRefused || !visitor._id || (sentBatch && !isLeaving)) return;
  let size = 0;
  // Browsers let 64 KiB be sent after the page is gone.
  const batch = queue.filter((text) => (size += byteLength(text)) < 6e4);
  if (!batch[0] && !isUpdateDue) return;
  const envelope = {
    writeKey: options.writeKey,
    sentAt: new Date(),
    context: (sharedContext ||= {
      library: { name: 'segue.js', version: VERSION },
      locale: navigator.language,
      // The first DateTimeFormat of a process takes 15 ms and more, Temporal nothing.
      timezone: attempt(() => Temporal.Now.timeZoneId()) || Intl.DateTimeFormat().resolvedOptions().timeZone,
      screen: { innerWidth, innerHeight },
    }),
    // Proves the id, and names the answer that the page already has.
    visitor: isPersonalized()
      ? { id: visitor._id, proof: visitor._proof, token: visitor._token, me: personalization.etag || '' }
      : undefined,
  };
  const body = JSON.stringify(envelope).slice(0, -1) + `,"batch":[${batch}]}`;
  if (isLeaving) return navigator.sendBeacon(options.host + '/v1/b', body);

  const personalizationSent = personalization;
  sentBatch = batch;
  let receipt;
  let retryAfter;
  try {
    const response = await fetch(options.host + '/v1/b', {
      method: 'POST',
      body,
      keepalive: true,
      signal: AbortSignal.timeout?.(3e4),
    });
    const { status } = response;
    if (/^5|408|429/.test(status)) retryAfter = +response.headers.get('retry-after');
    else receipt = response.ok ? await response.json() : console.warn('segue', status) || {};
    isRefused = /401|403/.test(status);
  } catch {
    // No network, no answer, or one that is not from Segue: treated like a busy server.
  }
  sentBatch = flushTimer = false;
  if (receipt) {
    failureCount = 0;
    queue = queue.filter((text) => !batch.includes(text));
    saveQueue();
    // After a login, a reset or a refusal the receipt is about the visitor before.
    personalizationSent == personalization && applyReceipt(receipt);
    if (queue[0] || isUpdateDue) scheduleFlush();
  } else scheduleFlush(1e3 * ((retryAfter || 2 ** Math.min(failureCount++, 8)) + Math.random()));
};
