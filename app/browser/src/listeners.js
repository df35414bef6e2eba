/** The handlers that page code registers with `segue.on()`. */

const handlers = {};

export const on = (name, handler) => {
  (handlers[name] ||= []).push(handler);
};

/** Run each handler in a task of its own, so that an error in one stops neither the others nor the library. */
export const emit = (name, value) => handlers[name]?.forEach((handler) => setTimeout(handler, 0, value));
