// What happens, as it happens. The stream is closed while the page is hidden, and goes on where it stopped.

import { open } from './api.js'
import { empty, h, moment, number, replace, tag, userLink } from './dom.js'

const kept = 500
const retryMs = 2000

export const kinds = {
  connect: ['connected', 'good'],
  refused: ['refused', 'bad'],
  held_back: ['held back', 'warn'],
  logout: ['logged out', ''],
  kick: ['kicked', 'warn'],
  disconnect: ['disconnected', ''],
  lockout: ['locked out', 'bad'],
  push: ['push', ''],
  dropped: ['events are missing', 'warn']
}

export const eventColumns = [['Time', ''], ['Event', ''], ['User', ''], ['Device', ''], ['Address', ''], ['What', 'wide']]

const plain = (slug) => String(slug).replaceAll('_', ' ')

/** A sentence's worth of what an event says. */
export function eventText (event) {
  const parts = [
    event.packet && event.packet.toUpperCase(),
    event.reason && plain(event.reason),
    event.detail,
    event.sender && `from ${event.sender}`,
    event.count > 1 && `× ${number(event.count)}`,
    event.sum && '(more of this kind in a minute)'
  ]
  return parts.filter(Boolean).join(' · ')
}

export function eventRow (event, { withUser = true } = {}) {
  const [text, kind] = kinds[event.type] ?? [plain(event.type), '']
  return [moment(event.time), tag(text, kind), ...(withUser ? [event.user && userLink(event.user)] : []),
    event.client && h('span', { class: 'id' }, event.client), event.address, eventText(event)]
}

/** The events of a stream of server-sent events, with `id` and `event` as its lines have them. */
export async function * readStream (body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader()
  let rest = ''
  try {
    for (;;) {
      const { value, done } = await reader.read()
      if (done) return
      rest += value
      const blocks = rest.split(/\r?\n\r?\n/)
      rest = blocks.pop()
      for (const block of blocks) {
        const event = { id: null, event: 'message', data: '' }
        for (const line of block.split(/\r?\n/)) {
          const colon = line.indexOf(':')
          if (colon <= 0) continue
          const [field, text] = [line.slice(0, colon), line.slice(colon + 1).replace(/^ /, '')]
          if (field === 'data') event.data += (event.data && '\n') + text
          else if (field === 'id' || field === 'event') event[field] = text
        }
        if (event.data) yield event
      }
    }
  } finally {
    reader.cancel().catch(() => {})
  }
}

export function live (place) {
  const events = []
  const chosen = new Set()
  let paused = false
  let missed = 0
  let lastId = null
  let abort = null
  let timer = null
  let frame = null

  const state = h('p', { class: 'muted', role: 'status' }, 'Opening the stream …')
  const body = h('tbody', {})
  const nothing = empty('Nothing has happened yet. Clients that come and go, refusals and pushes show up here.')
  const scroll = h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Events', hidden: true },
    h('table', { class: 'events' }, h('caption', { class: 'hidden' }, 'Events, the newest first'),
      h('thead', {}, h('tr', {}, eventColumns.map(([title, kind]) => h('th', { scope: 'col', class: kind }, title)))), body))
  const pause = h('button', { type: 'button', 'aria-pressed': 'false', onclick: () => {
    paused = !paused
    pause.setAttribute('aria-pressed', String(paused))
    pause.textContent = paused ? 'Go on' : 'Pause'
    if (!paused) { missed = 0; draw() }
    tell()
  } }, 'Pause')
  const user = h('input', { id: 'live-user', autocomplete: 'off', spellcheck: 'false', onchange: () => again() })

  const tell = (text) => {
    if (text) state.textContent = text
    else if (paused) state.textContent = `Paused. ${missed ? `${number(missed)} since then.` : ''}`
    else state.textContent = `Following. ${number(events.length)} shown${events.length === kept ? ', the newest' : ''}.`
  }
  const draw = () => {
    frame = null
    nothing.hidden = events.length > 0
    scroll.hidden = events.length === 0
    replace(body, events.map((event) => h('tr', {}, eventRow(event).map((cell, index) => h('td', { class: eventColumns[index][1] }, cell || '')))))
    tell()
  }
  const take = ({ id, event, data }) => {
    if (id) lastId = id
    const read = JSON.parse(data)
    events.unshift({ time: new Date().toISOString(), type: event, ...read })
    if (events.length > kept) events.pop()
    if (paused) { missed += 1; tell() } else frame ??= requestAnimationFrame(draw)
  }

  const follow = async () => {
    abort = new AbortController()
    const { signal } = abort
    try {
      const query = { types: [...chosen].join(','), user: user.value.trim() }
      const stream = await open(['events'], query, { signal, headers: { 'last-event-id': lastId ?? '0' } })
      tell()
      for await (const event of readStream(stream)) take(event)
      if (!signal.aborted) throw new Error('The stream has ended.')
    } catch (error) {
      if (signal.aborted || error.name === 'AbortError') return
      tell(`${error.message} Trying again in ${retryMs / 1000} seconds.`)
      timer = setTimeout(follow, retryMs)
    }
  }
  const close = () => { abort?.abort(); clearTimeout(timer); abort = null }
  const again = () => { close(); lastId = null; events.length = 0; draw(); follow() }
  const visible = () => { if (document.hidden) close(); else if (!abort) follow() }

  replace(place,
    h('div', { class: 'bar' },
      h('fieldset', { class: 'checks' }, h('legend', { class: 'hidden' }, 'Kinds of events; none chosen means all'),
        Object.entries(kinds).filter(([kind]) => kind !== 'dropped').map(([kind, [text]]) => h('label', { class: 'check' },
          h('input', { type: 'checkbox', onchange: ({ target }) => { target.checked ? chosen.add(kind) : chosen.delete(kind); again() } }), text))),
      h('span', { class: 'field' }, h('label', { for: 'live-user' }, 'User'), user), pause),
    state, nothing, scroll)
  document.addEventListener('visibilitychange', visible)
  visible()
  return () => {
    document.removeEventListener('visibilitychange', visible)
    close()
    if (frame !== null) cancelAnimationFrame(frame)
  }
}
