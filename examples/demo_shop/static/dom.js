// The only way in which this shop makes elements: text becomes text nodes, never markup.

const SVG = 'http://www.w3.org/2000/svg'

/**
 * An element. An attribute that is a function is a listener, one that is null, undefined or false is left out;
 * a child that is no node becomes text.
 */
export function h(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children)
}

/** A picture of the sprite in index.html. */
export function picture(id) {
  const use = document.createElementNS(SVG, 'use')
  use.setAttribute('href', `#picture-${id}`)
  return fill(document.createElementNS(SVG, 'svg'), { class: 'picture', 'aria-hidden': 'true' }, [use])
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === 'function') element.addEventListener(name, value)
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? '' : value)
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false))
  return element
}

/** Exchange what `container` holds; focus and opened details stay where they were, by their ids. */
export function replace(container, ...children) {
  const focused = container.contains(document.activeElement) ? document.activeElement.id : ''
  const open = [...container.querySelectorAll('details[open]')].map((details) => details.id)
  container.replaceChildren(...children.flat())
  for (const id of open) document.getElementById(id)?.setAttribute('open', '')
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true })
}

/** A path of this shop, or the front page: what comes from data must not lead elsewhere, nor be a script. */
export function ownPath(href) {
  return typeof href === 'string' && /^\/(?![/\\])/.test(href) ? href : '/'
}

const money = new Intl.NumberFormat('en', { style: 'currency', currency: 'EUR' })

export const euros = (amount) => money.format(amount)
