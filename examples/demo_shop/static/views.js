// Pages of the shop. Each is a function of (shop, {id, url}) that returns nodes and tracks what the visitor does.

import * as cart from './cart.js'
import { euros, h, ownPath, picture, replace } from './dom.js'

/** Return the properties of a product in e-commerce events. */
const eventProperties = (product, quantity = 1) => ({
  product_id: product.id,
  name: product.name,
  category: product.category,
  price: product.price,
  currency: 'EUR',
  quantity,
})

const cartProducts = (shop) => cart.content(shop.products).map(({ product, quantity }) => eventProperties(product, quantity))

// -------------------------------------------------------------------------------------------- home page

export function home(shop) {
  const favourites = ['kettle', 'mug', 'toaster'].map((id) => shop.products.find((product) => product.id === id))
  return [
    h('section', { class: 'hero', id: 'hero' }, heroContent(shop)),
    h('h2', { class: 'shelf-title' }, 'Favourites'),
    shelf(favourites.filter(Boolean), 'three'),
  ]
}

/** Show the content of the current stage. */
export function refreshHero(shop) {
  const hero = document.getElementById('hero')
  if (hero) replace(hero, heroContent(shop))
}

function heroContent(shop) {
  const stage = shop.personalization()?.stages?.[shop.journey]
  const { headline = 'Slow mornings, well equipped', text = 'Nine products for the first hour of the day.', action = 'See all products', href = '/products' } =
    stage?.content ?? {}
  const name = shop.personalization()?.traits?.first_name
  return [
    h(
      'div',
      { class: 'hero-text' },
      name ? h('p', { class: 'hero-hello', id: 'hello' }, `Good morning, ${name}`) : null,
      h('h1', {}, headline),
      h('p', {}, text),
      h('a', { class: 'button', href: ownPath(href), id: 'hero-action' }, action),
    ),
    h('div', { class: 'hero-picture' }, picture('dripper')),
  ]
}

// ---------------------------------------------------------------------------------------------- products

function shelf(products, modifier = '') {
  return h('ul', { class: `shelf ${modifier}` }, products.map(card))
}

function card(product) {
  return h(
    'li',
    {},
    h(
      'a',
      { class: 'card', href: `/products/${encodeURIComponent(product.id)}` },
      h('span', { class: `tile tone-${product.tone}` }, picture(product.id)),
      h('span', { class: 'card-name' }, product.name),
      h('span', { class: 'card-price' }, euros(product.price)),
    ),
  )
}

export function products(shop) {
  shop.segue.track('Product List Viewed', { list_id: 'all', products: shop.products.map((product) => eventProperties(product)) })
  return [h('h1', {}, 'Products'), shelf(shop.products)]
}

export function search(shop, { url }) {
  const query = url.searchParams.get('q') ?? ''
  const needle = query.trim().toLowerCase()
  const matches = shop.products.filter(({ name, category, text }) => `${name} ${category} ${text}`.toLowerCase().includes(needle))
  shop.segue.track('Products Searched', { query, results: matches.length })
  return [
    h('h1', {}, 'Search'),
    h('p', { class: 'lead', id: 'search-result' }, `${matches.length || 'No'} ${matches.length === 1 ? 'result' : 'results'} for “${query}”`),
    matches.length ? shelf(matches) : h('p', {}, h('a', { class: 'button', href: '/products' }, 'See all products')),
  ]
}

export function product(shop, { id }) {
  const shown = shop.products.find((product) => product.id === id)
  if (!shown) return notFound()
  shop.segue.track('Product Viewed', eventProperties(shown))
  const others = shop.products.filter((product) => product !== shown && product.category === shown.category).slice(0, 3)
  document.title = `${shown.name} · Morrow`
  return [
    h(
      'article',
      { class: 'product' },
      h('div', { class: `tile tone-${shown.tone}` }, picture(shown.id)),
      h(
        'div',
        { class: 'product-text' },
        h('p', { class: 'eyebrow' }, shown.category),
        h('h1', {}, shown.name),
        h('p', { class: 'lead' }, shown.text),
        h('p', { class: 'price' }, euros(shown.price)),
        h('button', { type: 'button', class: 'button', id: 'add', click: () => add(shop, shown) }, 'Add to cart'),
        h('p', { class: 'added', role: 'status', id: 'added' }),
      ),
    ),
    others.length ? [h('h2', { class: 'shelf-title' }, 'More like this'), shelf(others, 'three')] : null,
  ].flat()
}

function add(shop, added) {
  cart.change(added.id, 1)
  shop.segue.track('Product Added', eventProperties(added))
  replace(document.getElementById('added'), 'Added. ', h('a', { href: '/cart' }, 'View cart'))
}

// ----------------------------------------------------------------------------------------- cart and order

export function cartPage(shop) {
  shop.segue.track('Cart Viewed', { products: cartProducts(shop) })
  const content = h('div', { id: 'cart' })
  const draw = () => replace(content, cartContent(shop, draw))
  draw()
  return [h('h1', {}, 'Your cart'), content]
}

function cartContent(shop, redraw) {
  const lines = cart.content(shop.products)
  if (!lines.length) return [h('p', { class: 'lead' }, 'Your cart is empty.'), h('p', {}, h('a', { class: 'button', href: '/products' }, 'Browse products'))]
  const changeQuantity = (product, by) => {
    cart.change(product.id, by)
    shop.segue.track(by > 0 ? 'Product Added' : 'Product Removed', eventProperties(product))
    redraw()
  }
  return [
    h('ul', { class: 'lines' }, lines.map((line) => cartLine(line, changeQuantity))),
    h('p', { class: 'sum' }, 'Total ', h('strong', {}, euros(cart.total(shop.products)))),
    h('a', { class: 'button', href: '/checkout', id: 'to-checkout' }, 'Check out'),
  ]
}

function cartLine({ product, quantity }, changeQuantity) {
  const button = (sign, label, by) =>
    h('button', { type: 'button', class: 'step', id: `${label}-${product.id}`, 'aria-label': `One ${label}: ${product.name}`, click: () => changeQuantity(product, by) }, sign)
  return h(
    'li',
    {},
    h('span', { class: `tile small tone-${product.tone}` }, picture(product.id)),
    h('a', { href: `/products/${encodeURIComponent(product.id)}` }, product.name),
    h('span', { class: 'steps' }, button('−', 'less', -1), h('span', {}, quantity), button('+', 'more', 1)),
    h('span', { class: 'line-price' }, euros(product.price * quantity)),
  )
}

export function checkout(shop) {
  const total = cart.total(shop.products)
  if (!total) return cartPage(shop)
  shop.segue.track('Checkout Started', { value: total, currency: 'EUR', products: cartProducts(shop) })
  return [
    h('h1', {}, 'Checkout'),
    h(
      'form',
      { class: 'form', id: 'order', submit: (event) => order(shop, event) },
      h('p', { class: 'lead' }, `${cart.count()} ${cart.count() === 1 ? 'item' : 'items'}, ${euros(total)}. This is a demo: no payment, no delivery.`),
      h(
        'fieldset',
        {},
        h('legend', {}, 'Delivery'),
        choice('delivery', 'bike', 'Bicycle courier, tomorrow', true),
        choice('delivery', 'pickup', 'Pick up in store', false),
      ),
      h('button', { type: 'submit', class: 'button', id: 'place-order' }, `Order for ${euros(total)}`),
    ),
  ]
}

function choice(name, value, label, checked) {
  return h('label', { class: 'choice' }, h('input', { type: 'radio', name, value, checked }), ` ${label}`)
}

function order(shop, event) {
  event.preventDefault()
  const total = cart.total(shop.products)
  shop.segue.track('Order Completed', {
    order_id: `M-${Date.now().toString(36).toUpperCase()}`,
    total,
    currency: 'EUR',
    delivery: event.target.elements.delivery.value,
    products: cartProducts(shop),
  })
  cart.empty()
  shop.go('/thanks')
}

export function thanks() {
  return [
    h('h1', {}, 'Thank you'),
    h('p', { class: 'lead' }, 'We have received your order. The panel now shows the stage Purchase.'),
    h('p', { class: 'actions' }, h('a', { class: 'button', href: '/products' }, 'Continue shopping'), h('a', { href: '/support' }, 'Contact support')),
  ]
}

// ------------------------------------------------------------------------------------- support and login

export function support(shop) {
  const status = h('div', { id: 'ticket', role: 'status' })
  return [
    h('h1', {}, 'How can we help?'),
    h('p', { class: 'lead' }, 'In this demo the help desk is a separate system. It reports your ticket to Segue, and Segue updates this page.'),
    h(
      'form',
      { class: 'form', id: 'support', submit: (event) => openTicket(shop, event, status) },
      field('subject', 'Subject', { maxlength: 100 }),
      h('label', { for: 'text' }, 'Your question'),
      h('textarea', { id: 'text', name: 'text', rows: 4, required: true, maxlength: 2000 }),
      h('button', { type: 'submit', class: 'button' }, 'Send'),
    ),
    status,
  ]
}

async function openTicket(shop, event, status) {
  event.preventDefault()
  const { subject, text } = Object.fromEntries(new FormData(event.target))
  await showResult(status, async () => {
    const { ticket } = await post(shop, '/api/tickets', { subject, text })
    event.target.reset()
    return [h('p', { class: 'result' }, `Ticket ${ticket}: `, h('q', {}, text), ' We will reply by e-mail.')]
  })
}

export function login(shop) {
  const status = h('div', { role: 'status' })
  if (shop.person) {
    return [
      h('h1', {}, `Hello, ${shop.person.first_name}`),
      h('p', { class: 'lead' }, `You are logged in with ${shop.person.email}.`),
      h('button', { type: 'button', class: 'button', id: 'log-out', click: () => showResult(status, () => logOut(shop)) }, 'Log out'),
      status,
    ]
  }
  return [
    h('h1', {}, 'Log in'),
    h('p', { class: 'lead' }, 'This is a demo: enter any name, there is no password.'),
    h(
      'form',
      { class: 'form', id: 'login', submit: (event) => logIn(shop, event, status) },
      field('first_name', 'First name', { autocomplete: 'given-name', maxlength: 100 }),
      field('email', 'E-mail', { type: 'email', autocomplete: 'email', maxlength: 100 }),
      h('button', { type: 'submit', class: 'button' }, 'Log in'),
    ),
    status,
  ]
}

async function logIn(shop, event, status) {
  event.preventDefault()
  const fields = Object.fromEntries(new FormData(event.target))
  await showResult(status, async () => {
    const { person, visitor_token: visitorToken } = await post(shop, '/api/session', fields)
    shop.setPerson(person)
    shop.segue.identify(person.user_id, { first_name: person.first_name, email: person.email }, { visitorToken })
    shop.go('/')
    return []
  })
}

async function logOut(shop) {
  await shop.request('/api/session', { method: 'DELETE' })
  shop.setPerson(null)
  shop.segue.reset()
  shop.go('/')
  return []
}

export function notFound() {
  return [h('h1', {}, 'Page not found'), h('p', {}, h('a', { class: 'button', href: '/' }, 'Go to the home page'))]
}

// ------------------------------------------------------------------------------------------------- forms

function field(name, label, attributes = {}) {
  return [h('label', { for: name }, label), h('input', { id: name, name, type: 'text', required: true, ...attributes })]
}

function post(shop, path, body) {
  return shop.request(path, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) })
}

/** Run the action and show its result, or the error message, in `element`. */
async function showResult(element, action) {
  try {
    replace(element, await action())
  } catch (error) {
    replace(element, h('p', { class: 'result' }, error.message))
  }
}
