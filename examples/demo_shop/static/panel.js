// The panel: stage and segments that the page reads from Segue, and explanations from the shop's server.
// Parts of the content come from visitors, so everything becomes text nodes (dom.js), never markup.

import { h, replace } from './dom.js'
import { evidence, ruleText } from './rule_text.js'

const TICK_MS = 250
const POLL_MS = 5_000 // finds what other systems reported, without a click
const SEND_MS = 250 // a call has usually been sent and answered by then
const PENDING_MS = 10_000
const TOUCHPOINTS_MAX = 4 // the latest ones of a rule

const byId = (id) => document.getElementById(id)
const clock = new Intl.DateTimeFormat('en-GB', { timeStyle: 'medium' })
const time = (instant) => clock.format(new Date(instant))

/** Difference between the clock of Segue and the clock of this machine, in ms. */
let clockOffset = 0
let context
let explanation = { known: false }
let lastDrawn = ''
let lastStage
let highlighted = ''
let timer = 0 // of the next request
let dueAt = 0 // time of the next request, in ms
let isLoading = false
/** Calls that the timeline does not show yet: message id -> time until which the panel polls for them. */
const pending = new Map()

/** Start the panel. `options` = {segue, definitions, request, startOver}. */
export function start(options) {
  context = options
  byId('panel-toggle').addEventListener('click', () => setOpen(!isOpen()))
  byId('start-over').addEventListener('click', context.startOver)
  setOpen(window.matchMedia('(min-width: 900px)').matches)
  context.segue.on('change', onChange)
  for (const call of ['page', 'track', 'identify']) context.segue.on(call, onCall)
  context.segue.ready(onChange)
  setInterval(tick, TICK_MS)
  load(0)
}

function isOpen() {
  return byId('panel-toggle').getAttribute('aria-expanded') === 'true'
}

function setOpen(open) {
  document.documentElement.dataset.panel = open ? 'open' : 'closed'
  byId('panel-toggle').setAttribute('aria-expanded', String(open))
  byId('panel-toggle').textContent = open ? 'Hide' : 'Show'
  byId('panel-body').hidden = !open
}

// ----------------------------------------------------------------------------------------------- data

function onChange() {
  const personalization = context.segue.personalization()
  if (personalization?.as_of) clockOffset = new Date(personalization.as_of) - Date.now()
  updateNotes(personalization?.segments ?? [])
  draw()
  load(0)
}

/** The page made a call: poll until the log contains it. */
function onCall({ messageId }) {
  pending.set(messageId, Date.now() + PENDING_MS)
  load(SEND_MS)
}

/** Request the explanation in `delay` ms, unless a request is due earlier. */
function load(delay) {
  const wantedAt = Date.now() + delay
  if (timer && dueAt <= wantedAt) return
  clearTimeout(timer)
  dueAt = wantedAt
  timer = setTimeout(loadNow, delay)
}

async function loadNow() {
  timer = 0
  if (isLoading) return load(SEND_MS) // one request at a time
  if (document.hidden) return load(POLL_MS)
  isLoading = true
  try {
    receive(await context.request('/api/explanation'))
  } catch {
    // The server is stopping or busy: keep what is shown and try again.
  }
  isLoading = false
  load(pending.size ? SEND_MS : POLL_MS)
}

function receive(response) {
  explanation = response
  if (explanation.as_of) clockOffset = new Date(explanation.as_of) - Date.now()
  for (const { message_id } of explanation.touchpoints ?? []) pending.delete(message_id)
  for (const [id, until] of pending) if (until < Date.now()) pending.delete(id)
  draw()
}

const now = () => Date.now() + clockOffset

// -------------------------------------------------------------------------------------------- drawing

function draw() {
  const personalization = context.segue.personalization() ?? {}
  const drawn = JSON.stringify([personalization, explanation], (name, value) => (name === 'as_of' ? undefined : value))
  if (drawn === lastDrawn) return
  lastDrawn = drawn
  drawStages(personalization.stages?.[context.definitions.journey.key] ?? {}, personalization.withheld)
  drawSegments(personalization.segments ?? [])
  drawTimeline()
  drawIdentities(personalization.withheld)
  tick()
}

function drawStages(current, isWithheld) {
  const { stages } = context.definitions.journey
  const name = stages.find(({ key }) => key === current.stage)?.name ?? 'No stage yet'
  byId('stage-note').textContent = isWithheld ? 'withheld: identity not verified' : current.since ? `since ${time(current.since)}` : ''
  const explanations = new Map((explanation.journey?.stages ?? []).map((stage) => [stage.stage, stage.explanation]))
  replace(byId('stages'), stages.map((stage) => stageItem(stage, stage.key === current.stage, explanations.get(stage.key))))
  byId('panel-brief').textContent = name
  if (lastStage !== undefined && lastStage !== name) byId('announcer').textContent = `Stage: ${name}`
  lastStage = name
}

function stageItem({ key, name }, isCurrent, reason) {
  const status = isCurrent ? 'current' : reason?.truth ? 'held' : 'open'
  return h(
    'li',
    { class: `stage ${status}`, 'data-stage': key, 'aria-current': isCurrent ? 'step' : null },
    h(
      'details',
      { id: `explanation-stage-${key}` },
      h('summary', {}, h('span', { class: 'dot', 'aria-hidden': 'true' }), name, h('span', { class: 'visually-hidden' }, isCurrent ? ', current stage' : '')),
      reason ? tree(reason) : h('p', { class: 'faint' }, 'No data yet. If this stays, the browser may block cookies.'),
    ),
  )
}

function drawSegments(memberships) {
  const membershipByKey = new Map(memberships.map((membership) => [membership.key, membership]))
  const reasonByKey = new Map((explanation.segments ?? []).map((segment) => [segment.segment, segment]))
  byId('segments-note').textContent = `member of ${memberships.length} of ${context.definitions.segments.length}`
  replace(
    byId('segments'),
    context.definitions.segments.map((segment) => segmentItem(segment, membershipByKey.get(segment.key), reasonByKey.get(segment.key))),
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
      { id: `explanation-segment-${key}` },
      h(
        'summary',
        {},
        h('span', { class: 'dot', 'aria-hidden': 'true' }),
        h('span', { class: 'segment-name' }, name),
        h('span', { class: 'state', ...countdown(until, membership ? 'member, % left' : 'joins in %') }, membership ? 'member' : 'not a member'),
      ),
      h('p', { class: 'until' }, h('span', { class: 'faint' }, `${description} `), intervalText(membership, since, until)),
      reason ? tree(reason.explanation) : null,
    ),
    until ? h('span', { class: 'bar', 'aria-hidden': 'true' }, h('span', { 'data-from': since, 'data-to': until })) : null,
  )
}

function intervalText(membership, since, until) {
  const status = membership ? 'Member' : 'Not a member'
  const from = since ? ` since ${time(since)}` : ''
  if (!until) return `${status}${from}.`
  return `${status}${from}. ${membership ? 'Leaves' : 'Joins'} at ${time(until)} unless a new event changes that.`
}

/** The explanation tree: the text of each rule, its counts, and the touchpoints that it is based on. */
function tree(node) {
  return h('ul', { class: 'explanation' }, branch(node))
}

function branch(node) {
  const negated = 'not' in node.rule && node.nodes?.length === 1 && !node.nodes[0].nodes?.length ? node.nodes[0] : null
  const measured = negated ?? node
  const count = evidence(measured, !negated)
  return h(
    'li',
    { class: node.truth ? 'yes' : 'no' },
    h('span', { class: 'mark' }, node.truth ? '✓' : '✗', h('span', { class: 'visually-hidden' }, node.truth ? ' true: ' : ' false: ')),
    h('span', { class: 'rule' }, negated ? `no ${ruleText(negated.rule)}` : ruleText(node.rule)),
    count ? [' ', h('span', { class: 'count' }, count)] : null,
    ' ',
    node.valid_until ? h('span', { class: 'clock', ...countdown(node.valid_until, 'changes in %') }) : null,
    ' ',
    measured.touchpoints?.length ? h('span', { class: 'evidence' }, measured.touchpoints.slice(-TOUCHPOINTS_MAX).map(touchpointButton)) : null,
    node.nodes?.length && !negated ? h('ul', {}, node.nodes.map(branch)) : null,
  )
}

/** A touchpoint that a rule is based on; a click highlights it in the timeline. */
function touchpointButton(messageId) {
  const touchpoint = explanation.touchpoints?.find(({ message_id }) => message_id === messageId)
  if (!touchpoint) return h('span', { class: 'touchpoint' }, 'earlier')
  const label = `${touchpoint.name} at ${time(touchpoint.occurred_at)}`
  return h('button', { type: 'button', class: 'touchpoint', title: label, 'aria-label': label, click: () => highlight(messageId) }, time(touchpoint.occurred_at))
}

function highlight(messageId) {
  highlighted = messageId
  for (const item of byId('timeline').children) {
    item.classList.toggle('highlighted', item.dataset.message === highlighted)
    if (item.dataset.message === highlighted) item.scrollIntoView({ block: 'nearest' })
  }
}

function drawTimeline() {
  const touchpoints = explanation.touchpoints ?? []
  byId('timeline-note').textContent = touchpoints.length ? 'newest first' : 'none yet'
  replace(byId('timeline'), touchpoints.map(timelineItem))
}

function timelineItem({ message_id, type, name, channel, occurred_at, properties, traits, context: { channel_rule: rule, acquisition } }) {
  return h(
    'li',
    { 'data-message': message_id, class: message_id === highlighted ? 'highlighted' : null },
    h('time', { datetime: occurred_at }, time(occurred_at)),
    h('span', { class: 'event' }, name ?? type),
    h('span', { class: 'detail' }, detail(properties, traits)),
    h('span', { class: 'channel', 'data-channel': channel }, channel),
    h('span', { class: 'channel-rule' }, [acquisition?.group, rule].filter(Boolean).join(' · ')),
  )
}

function detail(properties, traits) {
  const value = properties.query ?? properties.text ?? properties.path ?? properties.name ?? properties.order_id ?? properties.list ?? traits?.first_name
  return String(value ?? '')
}

function drawIdentities(isWithheld) {
  const ids = (explanation.identities ?? []).map(({ kind, value }) => `${kind} ${value.length > 24 ? `${value.slice(0, 8)}…` : value}`)
  byId('identities').textContent = ids.length ? `Your identities: ${ids.join(', ')}` : isWithheld ? '' : 'No identities yet.'
}

// ----------------------------------------------------------------------------------------------- time

/** Attributes of an element that shows the time left until `until`, in place of `%` in the text. */
function countdown(until, text) {
  return until ? { 'data-until': until, 'data-text': text } : {}
}

function tick() {
  for (const element of document.querySelectorAll('[data-until]')) {
    const left = Math.max(0, new Date(element.dataset.until) - now())
    element.textContent = element.dataset.text.replace('%', duration(left))
  }
  for (const bar of document.querySelectorAll('.bar > [data-to]')) {
    const [from, to] = [new Date(bar.dataset.from), new Date(bar.dataset.to)]
    bar.style.width = `${Math.min(100, Math.max(0, (100 * (to - now())) / (to - from)))}%`
  }
}

/** Format milliseconds as 1:05, or as days from two days on. */
function duration(ms) {
  const seconds = Math.ceil(ms / 1000)
  if (seconds >= 172_800) return `${Math.round(seconds / 86_400)} days`
  const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60]
  const [hours, minutes, rest] = parts.map((part) => String(part).padStart(2, '0'))
  return parts[0] ? `${parts[0]}:${minutes}:${rest}` : `${Number(minutes)}:${rest}`
}

/** Set the countdowns in the notes of the page. */
function updateNotes(memberships) {
  for (const note of document.querySelectorAll('[data-countdown]')) {
    const until = memberships.find(({ key }) => key === note.dataset.countdown)?.valid_until
    if (until) Object.assign(note.dataset, { until, text: ' for the next %' })
    else {
      delete note.dataset.until
      note.textContent = ''
    }
  }
  tick()
}
