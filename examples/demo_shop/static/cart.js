// Cart contents as {product id: quantity}, stored in this browser.

const STORAGE_KEY = 'shop_cart'

let lines = read()

function read() {
  try {
    return new Map(Object.entries(JSON.parse(localStorage.getItem(STORAGE_KEY) ?? '{}')))
  } catch {
    return new Map() // storage is blocked or invalid: the cart lasts as long as the page
  }
}

function write() {
  try {
    localStorage.setItem(STORAGE_KEY, JSON.stringify(Object.fromEntries(lines)))
  } catch {
    // as in read()
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

/** Return [{product, quantity}] for the products in the cart. */
export function content(products) {
  return products.filter((product) => lines.has(product.id)).map((product) => ({ product, quantity: lines.get(product.id) }))
}

export function total(products) {
  return content(products).reduce((sum, { product, quantity }) => sum + product.price * quantity, 0)
}

write()
