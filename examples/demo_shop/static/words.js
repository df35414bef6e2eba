// Rules in words: for the part of the language that people meet in the panel; anything else is shown as it is written.

const UNITS = { ms: 'millisecond', s: 'second', m: 'minute', h: 'hour', d: 'day', w: 'week', mo: 'month', y: 'year' }
const COUNTS = {
  at_least: (n) => `at least ${times(n)}`,
  at_most: (n) => `at most ${times(n)}`,
  exactly: (n) => `exactly ${times(n)}`,
  between: ([low, high]) => `${low} to ${high} times`,
}
const COMPARISONS = {
  eq: 'is', ne: 'is not', gt: 'more than', gte: 'at least', lt: 'less than', lte: 'at most', contains: 'contains',
  in: 'is one of', not_in: 'is none of', starts_with: 'starts with', ends_with: 'ends with', exists: 'is there:',
}
const AGGREGATES = {
  sum: 'sum', avg: 'average', min: 'least', max: 'greatest', distinct: 'number of different values',
  first_value: 'first value', last_value: 'latest value', most_frequent: 'most frequent value',
}
const SILENT = new Set(['ignore_case', 'within', 'before', 'of', 'where', ...Object.keys(COUNTS), ...Object.keys(COMPARISONS)])

const times = (n) => (n === 1 ? 'once' : n === 2 ? 'twice' : `${n} times`)
const shown = (value) => (typeof value === 'string' ? value : JSON.stringify(value))

/** '90s' -> '90 seconds', '1m' -> 'minute' */
export function duration(text) {
  const found = /^(\d+)(ms|mo|s|m|h|d|w|y)$/.exec(text)
  if (!found) return shown(text)
  return found[1] === '1' ? UNITS[found[2]] : `${found[1]} ${UNITS[found[2]]}s`
}

/** What a node asks for. Of a node that has others below it, how these go together. */
export function words(rule) {
  if (!rule || typeof rule !== 'object') return shown(rule)
  const said = sentence(rule)
  return said ?? JSON.stringify(rule)
}

function sentence(rule) {
  if ('all' in rule) return 'all of these'
  if ('any' in rule) return 'any of these'
  if ('not' in rule) return 'not this'
  if ('everyone' in rule) return 'everyone'
  if (Object.keys(rule).some((key) => !HEADS[key] && !SILENT.has(key) && !AGGREGATES[key])) return null
  const head = Object.keys(rule).find((key) => HEADS[key] ?? AGGREGATES[key])
  if (!head) return null
  const said = HEADS[head] ? HEADS[head](rule) : `${AGGREGATES[head]} of ${rule[head]} in ${events(rule.of)}`
  return [said, filter(rule.where), counted(rule), compared(rule), span(rule)].filter(Boolean).join(' ')
}

const HEADS = {
  did: (rule) => events(rule.did),
  first: (rule) => (rule.first === '*' ? 'first touchpoint of all' : `first ${events(rule.first)}`),
  last: (rule) => (rule.last === '*' ? 'latest touchpoint' : `latest ${events(rule.last)}`),
  trait: (rule) => `trait ${shown(rule.trait)}`,
  segment: (rule) => `in segment ${shown(rule.segment)}`,
  stage: (rule) => `at stage ${[rule.stage].flat().map(shown).join(' or ')}`,
}

function events(names) {
  if (names === '*') return 'any touchpoint'
  const list = [names].flat().map(shown)
  if (list.length <= 3) return list.join(' or ')
  return `${list.slice(0, 2).join(', ')} or ${list.length - 2} others`
}

const counted = (rule) => Object.keys(COUNTS).filter((key) => key in rule).map((key) => COUNTS[key](rule[key])).join(', ')

const compared = (rule) =>
  Object.keys(COMPARISONS).filter((key) => key in rule).map((key) => `${COMPARISONS[key]} ${shown(rule[key])}`).join(' and ')

const span = (rule) =>
  [rule.within && `in the last ${duration(rule.within)}`, rule.before && `more than ${duration(rule.before)} ago`]
    .filter(Boolean)
    .join(' and ')

function filter(where) {
  if (!where) return ''
  const parts = Object.entries(where).map(([path, wanted]) =>
    wanted && typeof wanted === 'object' ? `${path} ${compared(wanted) || JSON.stringify(wanted)}` : `${path} is ${shown(wanted)}`,
  )
  return `where ${parts.join(' and ')}`
}

/** What was found, and with `wanted` against what is needed; or ''. */
export function evidence(node, wanted = true) {
  const need = wanted ? needed(node.needed) : ''
  if ('value' in node) return `${node.value === null ? 'no value' : shown(node.value)}${need}`
  if (typeof node.counted === 'number') return `${node.counted} counted${need}`
  return 'current' in node ? `now ${shown(node.current)}` : ''
}

function needed(need) {
  const [key, value] = Object.entries(need ?? {})[0] ?? []
  if (!key) return ''
  return `, ${key === 'at_least' ? '' : `${COMPARISONS[key] ?? key.replace('_', ' ')} `}${shown(value)} needed`
}
