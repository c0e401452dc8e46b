// Is it ready, and how does it go?

import { chart } from './chart.js'
import { bytes, decimal, h, number, replace, seconds } from './dom.js'
import { ago, changes, history, latest, quantile, rate, seriesOf, sum, whyNotReady } from './numbers.js'

const rateSeconds = 2
const quantileSeconds = 15
const linesOfMany = 5

/** The value of each point, reckoned once: it is kept with the point. */
function over (key, reckon) {
  return history.map((point, index) => {
    point.reckoned ??= new Map()
    if (!point.reckoned.has(key)) point.reckoned.set(key, reckon(point, index))
    return { at: point.at, value: point.reckoned.get(key) }
  })
}

const level = (name, wanted) => over(`${name}${JSON.stringify(wanted)}`, (point) => sum(point, name, wanted))
const pace = (name, wanted) => over(`rate ${name}${JSON.stringify(wanted)}`, (point, index) => {
  const before = ago(rateSeconds, index) ?? history[index - 1]
  return before ? rate(before, point, name, wanted) : null
})
const share = (name, q) => over(`${q} ${name}`, (point, index) => {
  const before = ago(quantileSeconds, index) ?? history[0]
  return before === point ? null : quantile(before, point, name, q)
})

/** One line for each label that has counted most, the others together. */
function most (name, label) {
  const last = latest()
  const totals = new Map()
  for (const { labels, value } of seriesOf(last, name)) if (value > 0) totals.set(labels[label], (totals.get(labels[label]) ?? 0) + value)
  const names = [...totals].sort((a, b) => b[1] - a[1]).map(([value]) => value)
  const shown = names.slice(0, linesOfMany)
  const lines = shown.map((value) => ({ name: words(value), points: pace(name, { [label]: value }) }))
  if (names.length > shown.length) {
    const rest = names.slice(linesOfMany).map((value) => pace(name, { [label]: value }))
    lines.push({ name: 'others', points: history.map(({ at }, index) => ({ at, value: rest.reduce((total, points) => total + (points[index].value ?? 0), 0) })) })
  }
  return lines.length ? lines : [{ name: 'all', points: pace(name) }]
}

export const words = (slug) => String(slug ?? '').replaceAll('_', ' ')
const perSecond = (value) => `${value < 10 ? decimal(Math.round(value * 10) / 10) : number(value)}/s`

const charts = () => [
  [chart('Connections', { format: number, least: 10 }), () => [
    { name: 'connected', points: level('jam_connections') },
    { name: 'online', points: level('jam_users_online') }
  ]],
  [chart('Messages', { format: perSecond, least: 5 }), () => [
    { name: 'published', points: pace('jam_publishes_total', { outcome: 'accepted' }) },
    { name: 'delivered', points: pace('jam_deliveries_total') }
  ]],
  [chart('Time to deliver', { format: seconds, least: 0.005, none: 'No message was delivered live in these minutes.' }), () => [
    { name: 'p50', points: share('jam_delivery_seconds', 0.5) },
    { name: 'p99', points: share('jam_delivery_seconds', 0.99) }
  ]],
  [chart('Waiting in mailboxes', { format: number, least: 10 }), () => [
    { name: 'messages', points: level('jam_mailbox_messages') }
  ]],
  [chart('Refusals', { format: perSecond }), () => most('jam_refusals_total', 'reason')],
  [chart('Pushes', { format: perSecond }), () => most('jam_pushes_total', 'outcome')]
]

const tiles = [
  ['Connected', 'jam_connections', (point) => number(sum(point, 'jam_connections')), (point) => `of ${number(sum(point, 'jam_connections_max'))}`],
  ['Users online', 'jam_users_online', (point) => number(sum(point, 'jam_users_online'))],
  ['Messages waiting', 'jam_mailbox_messages', (point) => number(sum(point, 'jam_mailbox_messages')), (point) => bytes(sum(point, 'jam_mailbox_bytes'))],
  ['Oldest waits', 'jam_mailbox_oldest_timestamp_seconds', (point) => {
    const oldest = sum(point, 'jam_mailbox_oldest_timestamp_seconds')
    return oldest ? seconds(Math.max(0, Math.round(point.at / 1000 - oldest))) : '–'
  }],
  ['Commit, p99', 'jam_commit_seconds', (point) => seconds(quantile(ago(60) ?? history[0], point, 'jam_commit_seconds', 0.99)), () => 'in the last minute'],
  ['Disk free', 'jam_disk_available_bytes', (point) => {
    // A database elsewhere has none to tell.
    const known = seriesOf(point, 'jam_disk_available_bytes').map(({ value }) => value).filter((value) => value > 0)
    return known.length ? bytes(Math.min(...known)) : '–'
  }]
]

export function overview (place) {
  const status = h('div', { class: 'status', role: 'status' })
  const shown = tiles.map(([name, metric, value, more]) => {
    const [main, less] = [h('dd', { 'data-metric': metric }), more && h('dd', { class: 'muted' })]
    return { element: h('div', {}, h('dt', {}, name), main, less), draw: (point) => { main.textContent = value(point); if (less) less.textContent = more(point) } }
  })
  const drawn = charts()
  const waiting = h('p', { class: 'empty loading', role: 'status' }, 'Asking for the first numbers …')
  const body = h('div', { hidden: true }, h('dl', { class: 'tiles' }, shown.map(({ element }) => element)), h('div', { class: 'charts' }, drawn.map(([{ element }]) => element)))
  replace(place, status, waiting, body)
  let said = null
  const draw = () => {
    const point = latest()
    if (!point || document.hidden) return
    waiting.hidden = true
    body.hidden = false
    const why = whyNotReady(point)
    // A screen reader is told when it changes, not once a second.
    if (said !== JSON.stringify(why)) {
      said = JSON.stringify(why)
      status.className = `status ${why === null ? '' : why.length ? 'bad' : 'good'}`
      replace(status, why === null
        ? h('p', {}, 'The server answers. It does not say whether it is ready.')
        : why.length ? [h('h2', {}, 'Not ready'), why.map((sentence) => h('p', {}, sentence))] : [h('h2', {}, 'Ready'), h('p', {}, 'Accounts and mailbox answer, all listeners are up.')])
    }
    for (const tile of shown) tile.draw(point)
    for (const [{ draw: redraw }, lines] of drawn) redraw(lines())
  }
  changes.addEventListener('point', draw)
  document.addEventListener('visibilitychange', draw)
  draw()
  return () => {
    changes.removeEventListener('point', draw)
    document.removeEventListener('visibilitychange', draw)
  }
}
