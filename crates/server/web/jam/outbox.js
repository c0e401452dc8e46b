// What goes out: the messages that wait in the store, published in the order in which each friend is to get them.
//
// Invariants: a friend has one message on its way at a time, so no refusal lets a later one pass; at most WINDOW are on their way,
// or what the server's Receive Maximum allows; a message is out of the outbox when the server has acknowledged it, and no sooner.
// A refusal names a packet id: it belongs to the PUBLISH that has it now.

import { publish, REASON } from './codec.js'
import { ownReason } from './reason.js'

export const WINDOW = 16
const MAX_RETRY_MS = 60_000

/** Refusals that pass: what is refused with these is tried again (PROTOCOL.md, section 4). */
const PASSING = ['quota', 'mailbox', 'rate']
const PASSING_CODES = [0x80, 0x83, 0x91, 0x97]

/** @typedef {{ friend: string, order: number, packetId: number, id: string | null, link: Link | null, published: boolean, refusal: import('./jam.js').Reason | null }} Flight */

/** A connection, for as long as it stands. @typedef {{ send: (bytes: Uint8Array) => void, window: number, maximumPacketSize: number, sessionPresent: boolean }} Link */

/** `orders`: what waits; the store says which of it is next. @typedef {{ orders: number[], flight: Flight | null, failures: number, timer: any }} Queue  Of one friend. */

export class Outbox {
  #store
  #world
  #changed
  #failed
  /** @type {Map<string, Queue>} */ #queues = new Map()
  /** @type {Map<number, Flight>} */ #flights = new Map()
  /** @type {Link | null} */ #link = null
  #lastId = 0

  /**
   * @param {import('./store.js').Store} store
   * @param {import('./world.js').World} world
   * @param {(row: import('./store.js').Row) => void} changed
   * @param {(error: unknown) => void} failed  The store has.
   */
  constructor (store, world, changed, failed) {
    this.#store = store
    this.#world = world
    this.#changed = changed
    this.#failed = failed
  }

  /** What waits in the store, also from before, and from tabs that were not heard. */
  async load () { for (const [order, friend] of await this.#store.outbox()) this.add(friend, order) }

  /** A message is in the outbox. Told again, it is tried now. @param {string} friend @param {number} order */
  add (friend, order) {
    const queue = this.#queue(friend)
    if (queue.flight?.order !== order && !queue.orders.includes(order)) queue.orders.push(order)
    else this.#release(queue)
    this.#pump()
  }

  /** @param {Link} link */
  connected (link) {
    this.#link = link
    for (const queue of this.#queues.values()) this.#release(queue)
    this.#pump()
  }

  disconnected () {
    this.#link = null
    for (const flight of this.#flights.values()) {
      flight.link = null
      flight.refusal = null
    }
  }

  stop () {
    this.disconnected()
    for (const queue of this.#queues.values()) this.#release(queue)
  }

  /** The server has refused a PUBLISH; its acknowledgement follows. @param {unknown} packetId @param {import('./jam.js').Reason} refusal @returns {boolean}  Whether it is one of these. */
  refused (packetId, refusal) {
    const flight = typeof packetId === 'number' && this.#flights.get(packetId)
    if (!flight || flight.link === null) return false
    flight.refusal = refusal
    return true
  }

  /** @param {import('./codec.js').PubAck} puback */
  async acknowledged ({ id, code, properties }) {
    const flight = this.#flights.get(id)
    if (!flight?.link) return
    const refusal = flight.refusal ?? (code < 0x80 ? null : ownReason('server', properties[REASON] ?? 'refused by the server', code))
    if (refusal) await this.#refuse(flight, { ...refusal, code: code || refusal.code })
    else await this.#settle(flight, (row) => row.state === 'queued' ? { ...row, state: 'sent', reason: null, published: false } : null)
  }

  /** @param {Flight} flight @param {import('./jam.js').Reason} reason */
  async #refuse (flight, reason) {
    const passes = PASSING.includes(reason.category) || reason.message === 'fatal database error' || (reason.category === 'server' && PASSING_CODES.includes(reason.code ?? 0))
    await this.#settle(flight, (row) => row.state === 'queued' ? { ...row, state: passes ? 'queued' : 'failed', reason, published: false } : null, passes)
  }

  /**
   * What came of a message is known.
   *
   * @param {Flight} flight
   * @param {(row: import('./store.js').Row) => import('./store.js').Row | null} change
   * @param {boolean} [again]  It goes out later, under the same id. So it does if the store cannot keep what came of it.
   */
  async #settle (flight, change, again = false) {
    this.#flights.delete(flight.packetId)
    try {
      const row = flight.id && await this.#store.change(flight.id, change)
      if (row) this.#changed(row)
    } catch (error) {
      again = true
      this.#failed(error)
    }
    const queue = this.#queue(flight.friend)
    queue.flight = null
    if (again) { // after it was told that it waits, which by itself is a wish to try it now
      queue.orders.unshift(flight.order)
      this.#hold(queue)
    } else queue.failures = 0
    this.#pump()
  }

  #pump () {
    const link = this.#link
    if (!link) return
    let open = 0
    for (const flight of this.#flights.values()) open += flight.link === link ? 1 : 0
    // What was on its way when a connection broke comes first, under its packet id (MQTT 5, section 4.4).
    for (const flight of this.#flights.values()) {
      if (flight.link || open >= link.window) continue
      open++
      this.#publish(flight, link)
    }
    for (const [friend, queue] of this.#queues) {
      if (open >= link.window) return
      if (queue.flight || queue.timer) continue
      const order = queue.orders.shift()
      if (order === undefined) this.#queues.delete(friend)
      else {
        open++
        const flight = { friend, order, packetId: this.#freeId(), id: null, link: null, published: false, refusal: null }
        queue.flight = flight
        this.#flights.set(flight.packetId, flight)
        this.#publish(flight, link)
      }
    }
  }

  /** @param {Flight} flight @param {Link} link */
  async #publish (flight, link) {
    flight.link = link
    try {
      const row = await this.#store.claim(flight.order, flight.friend, flight.id !== null)
      if (row && row.order !== flight.order) {
        this.#queue(flight.friend).orders.unshift(flight.order)
        flight.order = row.order
      }
      if (flight.link !== link) return
      if (!row?.payload) return await this.#settle(flight, () => null)
      flight.id = row.id
      const bytes = publish({ topic: `/${flight.friend}/inbox`, id: flight.packetId, dup: flight.published && link.sessionPresent, payload: new TextEncoder().encode(row.payload) })
      if (bytes.length > link.maximumPacketSize) {
        return await this.#refuse(flight, ownReason('size', 'too large for the server', 0x95))
      }
      flight.published = true
      link.send(bytes)
    } catch (error) {
      if (flight.link !== link) return
      this.#failed(error)
      await this.#settle(flight, () => null, true)
    }
  }

  /** @param {string} friend */
  #queue (friend) {
    const queue = this.#queues.get(friend) ?? { orders: [], flight: null, failures: 0, timer: null }
    this.#queues.set(friend, queue)
    return queue
  }

  /** Nothing more goes to a friend for a while. @param {Queue} queue */
  #hold (queue) {
    if (queue.timer) return
    const most = Math.min(MAX_RETRY_MS, 1000 * 2 ** queue.failures++)
    queue.timer = this.#world.setTimeout(() => {
      queue.timer = null
      this.#pump()
    }, most * (1 + this.#world.random()) / 2)
  }

  /** @param {Queue} queue */
  #release (queue) {
    this.#world.clearTimeout(queue.timer)
    queue.timer = null
  }

  #freeId () {
    do this.#lastId = this.#lastId % 65_535 + 1
    while (this.#flights.has(this.#lastId))
    return this.#lastId
  }
}
