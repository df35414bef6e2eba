/**
 * Message delivery. A message stays in memory and in storage until the server acknowledges it; its id makes retries
 * harmless. Each document writes its own storage key and takes over the keys of earlier pages, so no two documents
 * write the same key.
 */

import { isAnalyticsAllowed } from './consent.js';
import { encodeUtf8, loadVisitor, randomHex, visitor } from './identity.js';
import { applyReceipt, isPersonalized, isUpdateDue, personalization } from './personalization.js';
import { options } from './settings.js';
import { attempt, setItem, store } from './storage.js';

let queue = []; // messages as JSON, oldest first
let sentBatch; // the batch that waits for its response
let queueKey; // the storage key of this document
let sharedContext; // context of all messages; read for the first batch, when the page is laid out
let saveTimer;
let flushTimer;
let failureCount = 0;
let isRefused; // true after the server has refused the key or the origin of this page

const byteLength = (text) => encodeUtf8(text).length;

export const saveQueue = () => {
  saveTimer = 0;
  queue.splice(0, queue.length - 500);
  setItem(queueKey, queue.join('\n'));
};

const scheduleFlush = (delay) => {
  saveTimer ||= setTimeout(saveQueue);
  flushTimer ||= sentBatch || setTimeout(flush, delay); // the response to a sent batch schedules the next flush
};

export function enqueue(message) {
  const text = JSON.stringify(message);
  if (byteLength(text) > 32e3) console.warn('segue', message);
  else if (message) queue.push(text);
  scheduleFlush(100); // collects calls into one batch
}

/**
 * Take over stored messages of earlier pages (copies, if those pages are still open). Send them once the id is known.
 */
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
 * Send a batch. With `isLeaving`, send it as a beacon; its response cannot be read, so the messages stay stored.
 */
export const flush = async (isLeaving) => {
  if (!isAnalyticsAllowed()) queue = [];
  saveQueue();
  clearTimeout(flushTimer);
  flushTimer = 0;
  if (isRefused || !visitor._id || (sentBatch && !isLeaving)) return;
  let size = 0;
  // Browsers send up to 64 KiB after the page is closed.
  const batch = queue.filter((text) => (size += byteLength(text)) < 6e4);
  if (!batch[0] && !isUpdateDue) return;
  const envelope = {
    writeKey: options.writeKey,
    sentAt: new Date(),
    context: (sharedContext ||= {
      library: { name: 'segue.js', version: VERSION },
      locale: navigator.language,
      // The first DateTimeFormat of a process takes over 15 ms, and Temporal almost no time.
      timezone: attempt(() => Temporal.Now.timeZoneId()) || Intl.DateTimeFormat().resolvedOptions().timeZone,
      screen: { innerWidth, innerHeight },
    }),
    // The proof of the id, and the etag of the personalization that the page has.
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
    // No network, no response, or an invalid one: retry as for a busy server.
  }
  sentBatch = flushTimer = false;
  if (receipt) {
    failureCount = 0;
    queue = queue.filter((text) => !batch.includes(text));
    saveQueue();
    // After a login, a reset or a refusal the receipt belongs to the previous visitor.
    personalizationSent == personalization && applyReceipt(receipt);
    if (queue[0] || isUpdateDue) scheduleFlush();
  } else scheduleFlush(1e3 * ((retryAfter || 2 ** Math.min(failureCount++, 8)) + Math.random()));
};
