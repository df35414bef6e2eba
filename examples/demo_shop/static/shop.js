// The shop: which view belongs to which address, what the header shows, and who is logged in.

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

/** What every view is given. */
const shop = {
  products: [],
  journey: '',
  person: null,
  segue,
  go,
  answer: (path, options) => fetch(path, options).then(readAnswer),
  knows: () => segue.personalization(),
  setPerson,
}

async function readAnswer(response) {
  const answer = await response.json()
  if (!response.ok) throw new Error(answer.message ?? `The shop answered ${response.status}.`)
  return answer
}

// ------------------------------------------------------------------------------------------ where we are

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
  replace(main, view(shop, { id, url }))
  for (const link of document.querySelectorAll('.top a')) {
    if (link.pathname === url.pathname) link.setAttribute('aria-current', 'page')
    else link.removeAttribute('aria-current')
  }
}

function route(path) {
  for (const [pattern, title, view] of ROUTES) {
    const found = pattern.exec(path)
    if (found) return [title, view, found[1]]
  }
  return ['Not found', views.notFound]
}

document.addEventListener('click', (event) => {
  const link = event.target.closest?.('a[href^="/"]')
  const plain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey
  if (!link || !plain || event.defaultPrevented || 'reload' in link.dataset) return
  event.preventDefault()
  go(link.pathname + link.search)
})

document.querySelector('.search').addEventListener('submit', (event) => {
  event.preventDefault()
  go(`/search?q=${encodeURIComponent(event.target.elements.q.value)}`)
})

window.addEventListener('popstate', show)

// ----------------------------------------------------------------------------------------------- people

function setPerson(person) {
  shop.person = person
  document.getElementById('account').textContent = person ? person.first_name : 'Log in'
}

/** The page was loaded anew while somebody is logged in: the shop's server vouches for them again. */
async function rememberPerson() {
  const { person, visitor_token: visitorToken } = await shop.answer('/api/session')
  if (!person) return
  setPerson(person)
  segue.identify(person.user_id, {}, { visitorToken })
}

async function startOver() {
  await shop.answer('/api/session', { method: 'DELETE' })
  segue.reset()
  cart.empty()
  location.assign('/') // as somebody who comes for the first time
}

// ------------------------------------------------------------------------------------------- the letter

document.getElementById('newsletter').addEventListener('submit', (event) => {
  event.preventDefault()
  // The address is the shop's business. An event says that somebody subscribed; the page needs no more.
  segue.track('Newsletter Subscribed', { list: 'sunday' })
  event.target.reset()
})

// ------------------------------------------------------------------------------------------------ begin

async function begin() {
  const [products, definitions] = await Promise.all([shop.answer('/static/products.json'), shop.answer('/api/definitions')])
  shop.products = products
  shop.journey = definitions.journey.key
  startPanel({ segue, definitions, answer: shop.answer, startOver })
  const greet = () => views.refreshHero(shop)
  segue.on('change', greet)
  segue.ready(greet)
  show()
  await rememberPerson()
  if (shop.person && location.pathname === '/login') show() // else it would take away what is being typed
}

begin()
