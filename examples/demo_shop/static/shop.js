// Entry point of the shop: routes, header, login state and newsletter form.

import * as cart from './cart.js'
import { replace } from './dom.js'
import { start as startPanel } from './panel.js'
import * as views from './views.js'

const segue = window.segue
const main = document.getElementById('main')

const ROUTES = [
  [/^\/$/, 'Slow mornings', views.home],
  [/^\/products$/, 'Products', views.products],
  [/^\/products\/([\w-]+)$/, 'Product', views.product],
  [/^\/search$/, 'Search', views.search],
  [/^\/cart$/, 'Cart', views.cartPage],
  [/^\/checkout$/, 'Checkout', views.checkout],
  [/^\/thanks$/, 'Thank you', views.thanks],
  [/^\/support$/, 'Support', views.support],
  [/^\/login$/, 'Log in', views.login],
]

/** Context passed to every view. */
const shop = {
  products: [],
  journey: '',
  person: null,
  segue,
  go,
  request: (path, options) => fetch(path, options).then(readResponse),
  personalization: () => segue.personalization(),
  setPerson,
}

async function readResponse(response) {
  const body = await response.json()
  if (!response.ok) throw new Error(body.message ?? `The server returned status ${response.status}.`)
  return body
}

// -------------------------------------------------------------------------------------------- navigation

function go(path) {
  history.pushState(null, '', path)
  show()
  main.focus({ preventScroll: true })
  window.scrollTo(0, 0)
}

function show() {
  const url = new URL(location.href)
  const [title, view, id] = route(url.pathname)
  document.title = `${title} · Morrow`
  document.getElementById('search').value = url.pathname === '/search' ? url.searchParams.get('q') : ''
  replace(main, view(shop, { id, url }))
  for (const link of document.querySelectorAll('.top a')) {
    if (link.pathname === url.pathname) link.setAttribute('aria-current', 'page')
    else link.removeAttribute('aria-current')
  }
}

function route(path) {
  for (const [pattern, title, view] of ROUTES) {
    const match = pattern.exec(path)
    if (match) return [title, view, match[1]]
  }
  return ['Not found', views.notFound]
}

document.addEventListener('click', (event) => {
  const link = event.target.closest?.('a[href^="/"]')
  const isPlainClick = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey
  if (!link || !isPlainClick || event.defaultPrevented || 'reload' in link.dataset) return
  event.preventDefault()
  go(link.pathname + link.search)
})

document.querySelector('.search').addEventListener('submit', (event) => {
  event.preventDefault()
  go(`/search?q=${encodeURIComponent(event.target.elements.q.value)}`)
})

window.addEventListener('popstate', show)

// ------------------------------------------------------------------------------------------------ login

function setPerson(person) {
  shop.person = person
  document.getElementById('account').textContent = person ? person.first_name : 'Log in'
}

/** After a reload, get a new visitor token for the logged-in person. */
async function restoreSession() {
  const { person, visitor_token: visitorToken } = await shop.request('/api/session')
  if (!person) return
  setPerson(person)
  segue.identify(person.user_id, {}, { visitorToken })
}

async function startOver() {
  await shop.request('/api/session', { method: 'DELETE' })
  segue.reset()
  cart.empty()
  location.assign('/') // reload as a first-time visitor
}

// ------------------------------------------------------------------------------------------- newsletter

document.getElementById('newsletter').addEventListener('submit', (event) => {
  event.preventDefault()
  // The event contains no address: the segment only needs to know that the visitor subscribed.
  segue.track('Newsletter Subscribed', { list: 'sunday' })
  event.target.reset()
})

// ------------------------------------------------------------------------------------------------ start

async function start() {
  const [products, definitions] = await Promise.all([shop.request('/static/products.json'), shop.request('/api/definitions')])
  shop.products = products
  shop.journey = definitions.journey.key
  startPanel({ segue, definitions, request: shop.request, startOver })
  const refresh = () => views.refreshHero(shop)
  segue.on('change', refresh)
  segue.ready(refresh)
  show()
  await restoreSession()
  if (shop.person && location.pathname === '/login') show() // other pages stay as they are, so that no typed text is lost
}

start()
