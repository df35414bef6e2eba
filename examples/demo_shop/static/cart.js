// What lies in the cart: {product id: quantity}, kept in this browser.

const PLACE = 'shop_cart'

let lines = read()

function read() {
  try {
    return new Map(Object.entries(JSON.parse(localStorage.getItem(PLACE) ?? '{}')))
  } catch {
    return new Map() // storage is blocked or holds something else: the cart lasts as long as the page
  }
}

function write() {
  try {
    localStorage.setItem(PLACE, JSON.stringify(Object.fromEntries(lines)))
  } catch {
    // as above
  }
  document.getElementById('cart-count').textContent = count()
}

export function count() {
  return [...lines.values()].reduce((sum, quantity) => sum + quantity, 0)
}

export function change(id, by) {
  const quantity = (lines.get(id) ?? 0) + by
  if (quantity > 0) lines.set(id, quantity)
  else lines.delete(id)
  write()
}

export function empty() {
  lines = new Map()
  write()
}

/** [{product, quantity}] of the products that there are. */
export function content(products) {
  return products.filter((product) => lines.has(product.id)).map((product) => ({ product, quantity: lines.get(product.id) }))
}

export function total(products) {
  return content(products).reduce((sum, { product, quantity }) => sum + product.price * quantity, 0)
}

write()
