// Rules as English text. Rules outside the supported part of the language are shown as JSON.

const UNITS = { ms: 'millisecond', s: 'second', m: 'minute', h: 'hour', d: 'day', w: 'week', mo: 'month', y: 'year' }
const COUNTS = {
  at_least: (n) => `at least ${times(n)}`,
  at_most: (n) => `at most ${times(n)}`,
  exactly: (n) => `exactly ${times(n)}`,
  between: ([low, high]) => `${low} to ${high} times`,
}
const COMPARISONS = {
  eq: 'is', ne: 'is not', gt: 'more than', gte: 'at least', lt: 'less than', lte: 'at most', contains: 'contains',
  in: 'is one of', not_in: 'is none of', starts_with: 'starts with', ends_with: 'ends with', exists: 'exists:',
}
const AGGREGATES = {
  sum: 'sum', avg: 'average', min: 'minimum', max: 'maximum', distinct: 'number of different values',
  first_value: 'first value', last_value: 'latest value', most_frequent: 'most frequent value',
}
const MODIFIERS = new Set(['ignore_case', 'within', 'before', 'of', 'where', ...Object.keys(COUNTS), ...Object.keys(COMPARISONS)])

const times = (n) => (n === 1 ? 'once' : n === 2 ? 'twice' : `${n} times`)
const format = (value) => (typeof value === 'string' ? value : JSON.stringify(value))

/** '90s' -> '90 seconds', '1m' -> 'minute' */
export function duration(text) {
  const match = /^(\d+)(ms|mo|s|m|h|d|w|y)$/.exec(text)
  if (!match) return format(text)
  return match[1] === '1' ? UNITS[match[2]] : `${match[1]} ${UNITS[match[2]]}s`
}

/** Describe a rule. For a group, describe only how its parts combine. */
export function ruleText(rule) {
  if (!rule || typeof rule !== 'object') return format(rule)
  return sentence(rule) ?? JSON.stringify(rule)
}

function sentence(rule) {
  if ('all' in rule) return 'all of these'
  if ('any' in rule) return 'any of these'
  if ('not' in rule) return 'not'
  if ('everyone' in rule) return 'everyone'
  if (Object.keys(rule).some((key) => !HEADS[key] && !MODIFIERS.has(key) && !AGGREGATES[key])) return null
  const head = Object.keys(rule).find((key) => HEADS[key] ?? AGGREGATES[key])
  if (!head) return null
  const subject = HEADS[head] ? HEADS[head](rule) : `${AGGREGATES[head]} of ${rule[head]} in ${events(rule.of)}`
  return [subject, filter(rule.where), counted(rule), compared(rule), span(rule)].filter(Boolean).join(' ')
}

const HEADS = {
  did: (rule) => events(rule.did),
  first: (rule) => (rule.first === '*' ? 'first touchpoint' : `first ${events(rule.first)}`),
  last: (rule) => (rule.last === '*' ? 'latest touchpoint' : `latest ${events(rule.last)}`),
  trait: (rule) => `trait ${format(rule.trait)}`,
  segment: (rule) => `in segment ${format(rule.segment)}`,
  stage: (rule) => `at stage ${[rule.stage].flat().map(format).join(' or ')}`,
}

function events(names) {
  if (names === '*') return 'any touchpoint'
  const list = [names].flat().map(format)
  if (list.length <= 3) return list.join(' or ')
  return `${list.slice(0, 2).join(', ')} or ${list.length - 2} others`
}

const counted = (rule) => Object.keys(COUNTS).filter((key) => key in rule).map((key) => COUNTS[key](rule[key])).join(', ')

const compared = (rule) =>
  Object.keys(COMPARISONS).filter((key) => key in rule).map((key) => `${COMPARISONS[key]} ${format(rule[key])}`).join(' and ')

const span = (rule) =>
  [rule.within && `in the last ${duration(rule.within)}`, rule.before && `more than ${duration(rule.before)} ago`]
    .filter(Boolean)
    .join(' and ')

function filter(where) {
  if (!where) return ''
  const parts = Object.entries(where).map(([path, condition]) =>
    condition && typeof condition === 'object' ? `${path} ${compared(condition) || JSON.stringify(condition)}` : `${path} is ${format(condition)}`,
  )
  return `where ${parts.join(' and ')}`
}

/** Return the measured value or count, followed by the required one unless `withNeeded` is false; or ''. */
export function evidence(node, withNeeded = true) {
  const need = withNeeded ? needed(node.needed) : ''
  if ('value' in node) return `${node.value === null ? 'no value' : format(node.value)}${need}`
  if (typeof node.counted === 'number') return `${node.counted} counted${need}`
  return 'current' in node ? `currently ${format(node.current)}` : ''
}

function needed(need) {
  const [key, value] = Object.entries(need ?? {})[0] ?? []
  if (!key) return ''
  return `, ${key === 'at_least' ? '' : `${COMPARISONS[key] ?? key.replace('_', ' ')} `}${format(value)} needed`
}
