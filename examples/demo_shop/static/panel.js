// The panel: stage and segments as the page itself knows them from Segue, and why, as the shop's server may ask.
// Whatever it shows came from somebody's browser once: it becomes text nodes (dom.js), never markup.

import { h, replace } from './dom.js'
import { evidence, words } from './words.js'

const TICK_MS = 250
const ASK_AGAIN_MS = 5_000 // what other systems report shows without a click
const SENT_MS = 250 // in which a call has usually been sent and answered
const AWAITED_MS = 10_000
const PROOFS_MAX = 4 // the latest

const at = (id) => document.getElementById(id)
const clock = new Intl.DateTimeFormat('en-GB', { timeStyle: 'medium' })
const time = (instant) => clock.format(new Date(instant))

/** How far this machine's clock is behind Segue's, in ms. */
let behind = 0
let given
let why = { known: false }
let drawn = ''
let stage
let pointed = ''
let question = 0 // the timer of the next one
let due = 0 // and when that is, in ms
let asking = false
/** Calls that the timeline does not show yet: message id -> until when they are waited for. */
const awaited = new Map()

/** Begin to show. `given` = {segue, definitions, answer, startOver}. */
export function start(all) {
  given = all
  at('panel-toggle').addEventListener('click', () => toggle(!isOpen()))
  at('start-over').addEventListener('click', given.startOver)
  toggle(window.matchMedia('(min-width: 900px)').matches)
  given.segue.on('change', changed)
  for (const call of ['page', 'track', 'identify']) given.segue.on(call, heard)
  given.segue.ready(changed)
  setInterval(tick, TICK_MS)
  ask(0)
}

function isOpen() {
  return at('panel-toggle').getAttribute('aria-expanded') === 'true'
}

function toggle(open) {
  document.documentElement.dataset.panel = open ? 'open' : 'closed'
  at('panel-toggle').setAttribute('aria-expanded', String(open))
  at('panel-toggle').textContent = open ? 'Hide' : 'Show'
  at('panel-body').hidden = !open
}

// -------------------------------------------------------------------------------------------- what is known

function changed() {
  const known = given.segue.personalization()
  if (known?.as_of) behind = new Date(known.as_of) - Date.now()
  tellCountdowns(known?.segments ?? [])
  draw()
  ask(0)
}

/** The page has made a call: it will be in the log in a moment. */
function heard({ messageId }) {
  awaited.set(messageId, Date.now() + AWAITED_MS)
  ask(SENT_MS)
}

/** Ask the shop's server why, in `delay` ms or when it is to be asked anyhow, whichever is sooner. */
function ask(delay) {
  const wanted = Date.now() + delay
  if (question && due <= wanted) return
  clearTimeout(question)
  due = wanted
  question = setTimeout(askNow, delay)
}

async function askNow() {
  question = 0
  if (asking) return ask(SENT_MS) // one question at a time
  if (document.hidden) return ask(ASK_AGAIN_MS)
  asking = true
  try {
    learn(await given.answer('/api/why'))
  } catch {
    // The server is being stopped, or busy: what is shown stays, and it is asked again.
  }
  asking = false
  ask(awaited.size ? SENT_MS : ASK_AGAIN_MS)
}

function learn(answer) {
  why = answer
  if (why.as_of) behind = new Date(why.as_of) - Date.now()
  for (const { message_id } of why.touchpoints ?? []) awaited.delete(message_id)
  for (const [id, until] of awaited) if (until < Date.now()) awaited.delete(id)
  draw()
}

const now = () => Date.now() + behind

// ---------------------------------------------------------------------------------------------------- draw

function draw() {
  const known = given.segue.personalization() ?? {}
  const same = JSON.stringify([known, why], (name, value) => (name === 'as_of' ? undefined : value))
  if (same === drawn) return
  drawn = same
  drawStage(known.stages?.[given.definitions.journey.key] ?? {}, known)
  drawSegments(known.segments ?? [])
  drawTimeline()
  drawWho(known)
  tick()
}

function drawStage(place, known) {
  const name = given.definitions.journey.stages.find((each) => each.key === place.stage)?.name ?? 'none yet'
  at('stage-note').textContent = known.withheld ? 'withheld: nobody vouches for who this is' : place.since ? `since ${time(place.since)}` : ''
  const reasons = new Map((why.journey?.stages ?? []).map((each) => [each.stage, each.explanation]))
  replace(at('track'), given.definitions.journey.stages.map((each) => station(each, each.key === place.stage, reasons.get(each.key))))
  at('panel-brief').textContent = name
  if (stage !== undefined && stage !== name) at('announcer').textContent = `Stage: ${name}`
  stage = name
}

function station({ key, name }, isCurrent, reason) {
  const look = isCurrent ? 'current' : reason?.truth ? 'held' : 'open'
  return h(
    'li',
    { class: `station ${look}`, 'data-stage': key, 'aria-current': isCurrent ? 'step' : null },
    h(
      'details',
      { id: `why-stage-${key}` },
      h('summary', {}, h('span', { class: 'dot', 'aria-hidden': 'true' }), name, h('span', { class: 'unseen' }, isCurrent ? ', now' : '')),
      reason ? tree(reason) : h('p', { class: 'faint' }, 'Nothing has arrived yet, or this browser keeps no cookies.'),
    ),
  )
}

function drawSegments(memberships) {
  const mine = new Map(memberships.map((each) => [each.key, each]))
  const reasons = new Map((why.segments ?? []).map((each) => [each.segment, each]))
  at('segments-note').textContent = mine.size ? `in ${mine.size} of ${given.definitions.segments.length}` : 'in none'
  replace(
    at('segments'),
    given.definitions.segments.map((segment) => segmentItem(segment, mine.get(segment.key), reasons.get(segment.key))),
  )
}

function segmentItem({ key, name, description }, membership, reason) {
  const until = membership ? membership.valid_until : reason?.member === false ? reason.valid_until : null
  const since = membership ? membership.since : reason?.since
  return h(
    'li',
    { class: membership ? 'segment in' : until ? 'segment soon' : 'segment', 'data-segment': key },
    h(
      'details',
      { id: `why-segment-${key}` },
      h(
        'summary',
        {},
        h('span', { class: 'dot', 'aria-hidden': 'true' }),
        h('span', { class: 'segment-name' }, name),
        h('span', { class: 'state', ...countdown(until, membership ? 'in, % left' : 'joins in %') }, membership ? 'in' : 'not in'),
      ),
      h('p', { class: 'until' }, h('span', { class: 'faint' }, `${description} `), lasting(membership, since, until)),
      reason ? tree(reason.explanation) : null,
    ),
    until ? h('span', { class: 'bar', 'aria-hidden': 'true' }, h('span', { 'data-from': since, 'data-to': until })) : null,
  )
}

function lasting(membership, since, until) {
  const what = membership ? 'A member' : 'Not a member'
  const from = since ? ` since ${time(since)}` : ''
  return `${what}${from}, ${until ? `until ${time(until)} if nothing happens.` : 'until something happens.'}`
}

/** The tree of an explanation: each node's rule in words, what was counted, and the touchpoints it rests on. */
function tree(node) {
  return h('ul', { class: 'why' }, branch(node))
}

function branch(node) {
  const negated = 'not' in node.rule && node.nodes?.length === 1 && !node.nodes[0].nodes?.length ? node.nodes[0] : null
  const counted = negated ?? node
  const known = evidence(counted, !negated)
  return h(
    'li',
    { class: node.truth ? 'yes' : 'no' },
    h('span', { class: 'mark' }, node.truth ? '✓' : '✗', h('span', { class: 'unseen' }, node.truth ? ' holds: ' : ' does not hold: ')),
    h('span', { class: 'rule' }, negated ? `no ${words(negated.rule)}` : words(node.rule)),
    known ? [' ', h('span', { class: 'counted' }, known)] : null,
    ' ',
    node.valid_until ? h('span', { class: 'clock', ...countdown(node.valid_until, 'for another %') }) : null,
    ' ',
    counted.touchpoints?.length ? h('span', { class: 'proofs' }, counted.touchpoints.slice(-PROOFS_MAX).map(proof)) : null,
    node.nodes?.length && !negated ? h('ul', {}, node.nodes.map(branch)) : null,
  )
}

/** A touchpoint that a rule rests on; pressing it shows it in the timeline. */
function proof(messageId) {
  const touchpoint = why.touchpoints?.find((each) => each.message_id === messageId)
  if (!touchpoint) return h('span', { class: 'proof' }, 'earlier')
  const name = `${touchpoint.name} at ${time(touchpoint.occurred_at)}`
  return h('button', { type: 'button', class: 'proof', title: name, 'aria-label': name, click: () => point(messageId) }, time(touchpoint.occurred_at))
}

function point(messageId) {
  pointed = messageId
  for (const item of at('timeline').children) {
    item.classList.toggle('pointed', item.dataset.message === pointed)
    if (item.dataset.message === pointed) item.scrollIntoView({ block: 'nearest' })
  }
}

function drawTimeline() {
  replace(at('timeline'), (why.touchpoints ?? []).map(timelineItem))
}

function timelineItem({ message_id, type, name, channel, occurred_at, properties, traits, context }) {
  const rule = context.channel_rule
  const group = context.acquisition?.group
  return h(
    'li',
    { 'data-message': message_id, class: message_id === pointed ? 'pointed' : null },
    h('time', { datetime: occurred_at }, time(occurred_at)),
    h('span', { class: 'event' }, name ?? type),
    h('span', { class: 'detail' }, detail(properties, traits)),
    h('span', { class: 'channel', 'data-channel': channel }, channel),
    h('span', { class: 'decided' }, [group, rule].filter(Boolean).join(' · ')),
  )
}

function detail(properties, traits) {
  const said = properties.query ?? properties.text ?? properties.path ?? properties.name ?? properties.order_id ?? properties.list ?? traits?.first_name
  return said === undefined || said === null ? '' : String(said)
}

function drawWho(known) {
  const ids = (why.identities ?? []).map(({ kind, value }) => `${kind} ${value.length > 24 ? `${value.slice(0, 8)}…` : value}`)
  at('who').textContent = ids.length ? `You are ${ids.join(', ')}.` : known.withheld ? '' : 'Nobody is known yet.'
}

// --------------------------------------------------------------------------------------------------- time

/** Attributes of an element that tells how long it is until then; `%` stands for that in the text. */
function countdown(until, text) {
  return until ? { 'data-until': until, 'data-text': text } : {}
}

function tick() {
  for (const element of document.querySelectorAll('[data-until]')) {
    const left = Math.max(0, new Date(element.dataset.until) - now())
    element.textContent = element.dataset.text.replace('%', length(left))
  }
  for (const bar of document.querySelectorAll('.bar > [data-to]')) {
    const [from, to] = [new Date(bar.dataset.from), new Date(bar.dataset.to)]
    bar.style.width = `${Math.min(100, Math.max(0, (100 * (to - now())) / (to - from)))}%`
  }
}

/** Milliseconds as 1:05, or in days and hours. */
function length(ms) {
  const seconds = Math.ceil(ms / 1000)
  if (seconds >= 172_800) return `${Math.round(seconds / 86_400)} days`
  const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60]
  const [hours, minutes, rest] = parts.map((part) => String(part).padStart(2, '0'))
  return parts[0] ? `${parts[0]}:${minutes}:${rest}` : `${Number(minutes)}:${rest}`
}

/** Notes of the page that say how much longer they hold. */
function tellCountdowns(memberships) {
  for (const note of document.querySelectorAll('[data-countdown]')) {
    const until = memberships.find((each) => each.key === note.dataset.countdown)?.valid_until
    if (until) Object.assign(note.dataset, { until, text: ' for another %' })
    else {
      delete note.dataset.until
      note.textContent = ''
    }
  }
  tick()
}
