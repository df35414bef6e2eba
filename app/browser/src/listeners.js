/** Hides: which page code listens to what. */

const handlers = {};

export const on = (name, handler) => {
  (handlers[name] ||= []).push(handler);
};

/** Each handler runs in a task of its own: what it throws is its own. */
export const emit = (name, value) => handlers[name]?.forEach((handler) => setTimeout(handler, 0, value));
