/**
 * Hides: whether anything may be stored and sent. Undecided: messages wait in memory. Granted: they go out. Refused:
 * they are dropped, and what was stored is forgotten.
 */

import { adopt } from './delivery.js';
import { forget } from './identity.js';
import { release } from './messages.js';
import { turn } from './personalize.js';
import { attempt, close, open } from './storage.js';

/** undefined: undecided; true: everything; false: nothing; else {analytics, personalization, ..} */
export let granted;

export const allows = (category) => granted === true || granted?.[category];

/** Whether things may be stored and sent at all. */
export const isOn = () => allows('analytics');

/** What the visitor chose, or stands for at first; `remember` it for the next page, or leave no trace. */
export const decide = (choice, remember) => {
  granted = choice;
  if (granted != null) {
    open();
    if (isOn()) adopt();
    else {
      forget(/^segue_/);
      close();
    }
  }
  if (remember) attempt(() => (localStorage.segue_c = JSON.stringify(choice)));
  turn();
  release();
};
