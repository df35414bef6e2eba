// The pages of the shop: each a function of (shop, {id, url}) that gives nodes and tracks what the visitor does there.

import * as cart from './cart.js'
import { euros, h, ownPath, picture, replace } from './dom.js'

/** A product as the e-commerce events have it. */
const facts = (product, quantity = 1) => ({
  product_id: product.id,
  name: product.name,
  category: product.category,
  price: product.price,
  currency: 'EUR',
  quantity,
})

const inCart = (shop) => cart.content(shop.products).map(({ product, quantity }) => facts(product, quantity))

// ------------------------------------------------------------------------------------------------- front

export function home(shop) {
  const favourites = ['kettle', 'mug', 'toaster'].map((id) => shop.products.find((product) => product.id === id))
  return [
    h('section', { class: 'hero', id: 'hero' }, heroContent(shop)),
    h('h2', { class: 'shelf-title' }, 'Favourites'),
    shelf(favourites.filter(Boolean), 'three'),
  ]
}

/** The stage has changed: what the page says at this one. */
export function refreshHero(shop) {
  const hero = document.getElementById('hero')
  if (hero) replace(hero, heroContent(shop))
}

function heroContent(shop) {
  const place = shop.knows()?.stages?.[shop.journey]
  const { headline = 'Slow mornings, well equipped', text = 'Good things for the first hour of the day.', action = 'See all', href = '/products' } =
    place?.content ?? {}
  const name = shop.knows()?.traits?.first_name
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

function shelf(products, look = '') {
  return h('ul', { class: `shelf ${look}` }, products.map(card))
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
  shop.segue.track('Product List Viewed', { list_id: 'all', products: shop.products.map((product) => facts(product)) })
  return [h('h1', {}, 'Products'), shelf(shop.products)]
}

export function search(shop, { url }) {
  const query = url.searchParams.get('q') ?? ''
  const wanted = query.trim().toLowerCase()
  const found = shop.products.filter(({ name, category, text }) => `${name} ${category} ${text}`.toLowerCase().includes(wanted))
  shop.segue.track('Products Searched', { query, results: found.length })
  return [
    h('h1', {}, 'Search'),
    h('p', { class: 'lead', id: 'search-result' }, `${found.length || 'Nothing'} found for “${query}”`),
    found.length ? shelf(found) : h('p', {}, h('a', { href: '/products' }, 'See all products')),
  ]
}

export function product(shop, { id }) {
  const shown = shop.products.find((each) => each.id === id)
  if (!shown) return notFound()
  shop.segue.track('Product Viewed', facts(shown))
  const others = shop.products.filter((each) => each !== shown && each.category === shown.category).slice(0, 3)
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
    others.length ? [h('h2', { class: 'shelf-title' }, 'Goes well with'), shelf(others, 'three')] : null,
  ].flat()
}

function add(shop, added) {
  cart.change(added.id, 1)
  shop.segue.track('Product Added', facts(added))
  replace(document.getElementById('added'), 'Added. ', h('a', { href: '/cart' }, 'To the cart'))
}

// ----------------------------------------------------------------------------------------- cart and order

export function cartPage(shop) {
  shop.segue.track('Cart Viewed', { products: inCart(shop) })
  const content = h('div', { id: 'cart' })
  const draw = () => replace(content, cartContent(shop, draw))
  draw()
  return [h('h1', {}, 'Your cart'), content]
}

function cartContent(shop, redraw) {
  const lines = cart.content(shop.products)
  if (!lines.length) return [h('p', { class: 'lead' }, 'It is empty. '), h('a', { class: 'button', href: '/products' }, 'Find something')]
  const alter = (product, by) => {
    cart.change(product.id, by)
    shop.segue.track(by > 0 ? 'Product Added' : 'Product Removed', facts(product))
    redraw()
  }
  return [
    h('ul', { class: 'lines' }, lines.map((line) => cartLine(line, alter))),
    h('p', { class: 'sum' }, 'Total ', h('strong', {}, euros(cart.total(shop.products)))),
    h('a', { class: 'button', href: '/checkout', id: 'to-checkout' }, 'Check out'),
  ]
}

function cartLine({ product, quantity }, alter) {
  const button = (sign, label, by) =>
    h('button', { type: 'button', class: 'step', id: `${label}-${product.id}`, 'aria-label': `One ${label}: ${product.name}`, click: () => alter(product, by) }, sign)
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
  shop.segue.track('Checkout Started', { value: total, currency: 'EUR', products: inCart(shop) })
  return [
    h('h1', {}, 'Checkout'),
    h(
      'form',
      { class: 'form', id: 'order', submit: (event) => order(shop, event) },
      h('p', { class: 'lead' }, `${cart.count()} ${cart.count() === 1 ? 'thing' : 'things'}, ${euros(total)}. Nothing is paid and nothing is sent.`),
      h(
        'fieldset',
        {},
        h('legend', {}, 'Delivery'),
        choice('delivery', 'bike', 'By bicycle, tomorrow', true),
        choice('delivery', 'pickup', 'I come and fetch it', false),
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
    products: inCart(shop),
  })
  cart.empty()
  shop.go('/thanks')
}

export function thanks() {
  return [
    h('h1', {}, 'Thank you'),
    h('p', { class: 'lead' }, 'Your order is in good hands. Watch the panel: you have just become a customer.'),
    h('p', {}, h('a', { class: 'button', href: '/products' }, 'Look around'), ' ', h('a', { href: '/support' }, 'A question?')),
  ]
}

// ---------------------------------------------------------------------------------------------- with people

export function support(shop) {
  const told = h('div', { id: 'ticket', role: 'status' })
  return [
    h('h1', {}, 'How can we help?'),
    h('p', { class: 'lead' }, 'The help desk is another system: it tells Segue itself, and this page hears of it from there.'),
    h(
      'form',
      { class: 'form', id: 'support', submit: (event) => openTicket(shop, event, told) },
      field('subject', 'Subject', { maxlength: 100 }),
      h('label', { for: 'text' }, 'Your question'),
      h('textarea', { id: 'text', name: 'text', rows: 4, required: true, maxlength: 2000 }),
      h('button', { type: 'submit', class: 'button' }, 'Send'),
    ),
    told,
  ]
}

async function openTicket(shop, event, told) {
  event.preventDefault()
  const { subject, text } = Object.fromEntries(new FormData(event.target))
  await say(told, async () => {
    const { ticket } = await post(shop, '/api/tickets', { subject, text })
    event.target.reset()
    return [h('p', { class: 'told' }, `Ticket ${ticket}: `, h('q', {}, text), ' Somebody will write to you.')]
  })
}

export function login(shop) {
  const told = h('div', { role: 'status' })
  if (shop.person) {
    return [
      h('h1', {}, `Hello, ${shop.person.first_name}`),
      h('p', { class: 'lead' }, `You are logged in with ${shop.person.email}.`),
      h('button', { type: 'button', class: 'button', id: 'log-out', click: () => say(told, () => logOut(shop)) }, 'Log out'),
      told,
    ]
  }
  return [
    h('h1', {}, 'Log in'),
    h('p', { class: 'lead' }, 'A demo: any name will do, and there is no password.'),
    h(
      'form',
      { class: 'form', id: 'login', submit: (event) => logIn(shop, event, told) },
      field('first_name', 'First name', { autocomplete: 'given-name', maxlength: 100 }),
      field('email', 'E-mail', { type: 'email', autocomplete: 'email', maxlength: 100 }),
      h('button', { type: 'submit', class: 'button' }, 'Log in'),
    ),
    told,
  ]
}

async function logIn(shop, event, told) {
  event.preventDefault()
  const asked = Object.fromEntries(new FormData(event.target))
  await say(told, async () => {
    const { person, visitor_token: visitorToken } = await post(shop, '/api/session', asked)
    shop.setPerson(person)
    shop.segue.identify(person.user_id, { first_name: person.first_name, email: person.email }, { visitorToken })
    shop.go('/')
    return []
  })
}

async function logOut(shop) {
  await shop.answer('/api/session', { method: 'DELETE' })
  shop.setPerson(null)
  shop.segue.reset()
  shop.go('/')
  return []
}

export function notFound() {
  return [h('h1', {}, 'There is no such page'), h('p', {}, h('a', { class: 'button', href: '/' }, 'To the front page'))]
}

// ------------------------------------------------------------------------------------------------- forms

function field(name, label, attributes = {}) {
  return [h('label', { for: name }, label), h('input', { id: name, name, type: 'text', required: true, ...attributes })]
}

function post(shop, path, body) {
  return shop.answer(path, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) })
}

/** Do it, and put what it gives, or why it failed, where people look. */
async function say(place, action) {
  try {
    replace(place, await action())
  } catch (error) {
    replace(place, h('p', { class: 'told' }, error.message))
  }
}
