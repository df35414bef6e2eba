/** Handlers that the page registers with `segue.on()`. */

const handlers = {};

export const on = (name, handler) => {
  (handlers[name] ||= []).push(handler);
};

/** Run each handler in a separate task, so that an error stops neither other handlers nor the library. */
export const emit = (name, value) => handlers[name]?.forEach((handler) => setTimeout(handler, 0, value));
