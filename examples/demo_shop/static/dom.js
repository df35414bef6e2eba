// DOM helpers. All elements of the shop are created here, so that text becomes text nodes and never markup.

const SVG = 'http://www.w3.org/2000/svg'

/**
 * Create an element. A function as attribute value becomes a listener; null, undefined and false omit the attribute.
 * Children that are not nodes become text.
 */
export function h(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children)
}

/** Create a picture from the sprite in index.html. */
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

/** Replace the children of `container`. Focus and open <details> are restored by id. */
export function replace(container, ...children) {
  const focused = container.contains(document.activeElement) ? document.activeElement.id : ''
  const open = [...container.querySelectorAll('details[open]')].map((details) => details.id)
  container.replaceChildren(...children.flat())
  for (const id of open) document.getElementById(id)?.setAttribute('open', '')
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true })
}

/** Return `href` if it is a path of this shop, else the home page. Content must not link to other sites or scripts. */
export function ownPath(href) {
  return typeof href === 'string' && /^\/(?![/\\])/.test(href) ? href : '/'
}

const money = new Intl.NumberFormat('en', { style: 'currency', currency: 'EUR' })

export const euros = (amount) => money.format(amount)
