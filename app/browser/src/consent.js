/**
 * Hides: whether anything may be stored and sent. Undecided: messages wait in memory. Granted: they go out. Refused:
 * they are dropped, and what was stored is forgotten.
 */

import { adopt, flush } from './delivery.js';
import { forget } from './identity.js';
import { release } from './messages.js';
import { turn } from './personalize.js';
import { attempt, close, open } from './storage.js';

/** undefined: undecided; true: everything; false: nothing; else {analytics, personalization, ..} */
export let granted;

export const allows = (category) => granted === true || granted?.[category];

/** Whether things may be stored and sent at all. */
export const isOn = () => allows('analytics');

/** What the visitor chose, or stands for at first; `remember` it for the next page, and for other tabs. */
export const decide = (choice, remember) => {
  granted = choice;
  // First, so that other tabs hear of it before they hear of what is forgotten.
  if (remember) attempt(() => (localStorage.segue_c = JSON.stringify(choice)));
  if (isOn()) {
    open();
    adopt();
  } else if (granted != null) {
    forget(/^segue_(?!c)/);
    close();
    flush(); // drops what waits
  }
  turn();
  release();
};
