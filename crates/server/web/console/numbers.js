// The server's numbers, once a second, and what this browser remembers of them. The server keeps no history: a page that
// was closed begins anew.

import { signals } from './api.js'

export const secondsKept = 15 * 60
const everyMs = 1000
const patienceMs = 5000

/** Points `{at, values}`: `at` in milliseconds, `values` from the name of a metric to its series. */
export const history = []
export const changes = new EventTarget()

/** The metrics that this console draws; the rest of a snapshot is not remembered. */
const drawn = new Set([
  'jam_ready', 'jam_connections', 'jam_connections_max', 'jam_users_online', 'jam_publishes_total', 'jam_deliveries_total',
  'jam_delivery_seconds', 'jam_mailbox_messages', 'jam_mailbox_bytes', 'jam_mailbox_oldest_timestamp_seconds', 'jam_refusals_total',
  'jam_pushes_total', 'jam_commit_seconds', 'jam_disk_available_bytes', 'jam_tls_certificate_expiry_timestamp_seconds'
])

/** A text in Prometheus' format, as `{name: series}` with the series of `seriesOf`. */
export function parse (text) {
  const all = {}
  const histograms = new Map()
  const labelsOf = (written) => Object.fromEntries([...(written ?? '').matchAll(/(\w+)="([^"]*)"/g)].map(([, label, value]) => [label, value]))
  for (const line of text.split('\n')) {
    const [, name, written, number] = line.match(/^(\w+)(?:\{(.*)\})? (\S+)$/) ?? []
    if (!name) continue
    const value = Number(number)
    const part = name.match(/^(jam_\w+_(?:seconds|changes))_(bucket|sum|count)$/)
    const { le, ...labels } = labelsOf(written)
    if (!part) { (all[name] ??= []).push({ labels, value }); continue }
    const key = `${part[1]} ${JSON.stringify(labels)}`
    if (!histograms.has(key)) {
      histograms.set(key, { labels, count: 0, sum: 0, buckets: [] })
      ;(all[part[1]] ??= []).push(histograms.get(key))
    }
    if (part[2] !== 'bucket') histograms.get(key)[part[2]] = value
    else if (le !== '+Inf') histograms.get(key).buckets.push([Number(le), value])
  }
  return all
}

/** All series of a metric at one point: `{labels, value}`, of histograms `{labels, count, sum, buckets}`. */
export const seriesOf = (point, name) => point?.values[name] ?? []

const matches = (of, wanted) => Object.entries(wanted).every(([label, value]) => of[label] === value)

/** The sum of a metric's series with these labels; `null` if there are none. */
export function sum (point, name, wanted = {}) {
  const found = seriesOf(point, name).filter(({ labels }) => matches(labels, wanted))
  return found.length ? found.reduce((total, { value }) => total + value, 0) : null
}

/** How fast a counter grew between two points, in a second; `null` where that cannot be said. */
export function rate (before, after, name, wanted) {
  const [first, last] = [sum(before, name, wanted), sum(after, name, wanted)]
  if (first === null || last === null || last < first) return null
  return (last - first) * 1000 / (after.at - before.at)
}

/** A quantile of what a histogram has seen between two points, as Prometheus reckons it; `null` if it has seen nothing. */
export function quantile (before, after, name, q) {
  const add = (point) => {
    const total = new Map()
    for (const { buckets, count } of seriesOf(point, name)) {
      for (const [bound, below] of [...buckets, [Infinity, count]]) total.set(bound, (total.get(bound) ?? 0) + below)
    }
    return total
  }
  const first = add(before)
  const buckets = [...add(after)].map(([bound, count]) => [bound, count - (first.get(bound) ?? 0)]).sort((a, b) => a[0] - b[0])
  const all = buckets.at(-1)?.[1] ?? 0
  if (all <= 0) return null
  let [lower, below] = [0, 0]
  for (const [upper, count] of buckets) {
    if (count >= q * all) {
      if (upper === Infinity) return lower
      return lower + (upper - lower) * (q * all - below) / (count - below || 1)
    }
    [lower, below] = [upper, count]
  }
  return lower
}

/** What is wrong, in sentences; empty when the server is ready; `null` when it does not say. */
export function whyNotReady (point) {
  const parts = seriesOf(point, 'jam_ready')
  if (!parts.length) return null
  const sentences = {
    directory: 'The accounts database does not answer: new clients cannot log in.',
    mailbox: 'The mailbox cannot be written: messages that have to be kept are refused.',
    running: 'The server is starting or stopping, or one of its threads hangs.'
  }
  return parts.filter(({ value }) => value !== 1).map(({ labels }) => sentences[labels.part] ?? `Not ready: ${labels.part}.`)
}

let asking = null

async function look (source) {
  const abort = new AbortController()
  const late = setTimeout(() => abort.abort(), patienceMs)
  try {
    const all = await source(abort.signal)
    if (asking !== source) return
    const at = Date.now()
    history.push({ at, values: Object.fromEntries(Object.entries(all).filter(([name]) => drawn.has(name))) })
    while (history[0].at < at - secondsKept * 1000) history.shift()
    changes.dispatchEvent(new CustomEvent('point'))
  } catch {
    if (abort.signal.aborted) signals.dispatchEvent(new CustomEvent('lost', { detail: `The server has not answered for ${patienceMs / 1000} seconds.` }))
  } finally {
    clearTimeout(late)
  }
}

/** Asks `source` once a second, one question at a time, until another one is given; `null` asks nobody. */
export function start (source) {
  asking = source
  const turn = async () => {
    if (asking !== source || source === null) return
    const begun = Date.now()
    await look(source)
    setTimeout(turn, Math.max(50, everyMs - (Date.now() - begun)))
  }
  turn()
}

export const stop = () => start(null)

export const latest = () => history.at(-1) ?? null

/** The point so many seconds before the last one; `null` if this browser did not look then. */
export function ago (seconds, from = history.length - 1) {
  const wanted = (history[from]?.at ?? 0) - seconds * 1000 + everyMs / 4
  for (let index = from - 1; index >= 0; index--) if (history[index].at <= wanted) return history[index]
  return null
}
