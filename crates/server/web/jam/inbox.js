// What arrives at QoS 1: messages and receipts, to the store, then acknowledged.
//
// Invariants: a packet is acknowledged when the transaction that keeps it is complete, on the connection on which it came, and
// otherwise never. Those of one friend are stored in the order in which they came. What is slow to be decoded, or cannot be stored,
// holds up nothing but its own friend's later messages; what is larger than the room that is left, not even those. It is tried again,
// and the page is told. At most what the connection's Receive
// Maximum allows is held here, and MAX_WAITING_BYTES of QoS 0, one friend's being at most half of it.

import { MAX_PACKET, RECEIVE_MAXIMUM } from './connection.js'
import { contentOf, fingerprint, idOf, parse, textOf, timeOf, typeOf } from './content.js'
import { UNSURE } from './entries.js'
import { within } from './world.js'

const DECODE_MS = 10_000
/** For a friend whose last message was not decoded in time: else their messages would take all places of the Receive Maximum. */
const DECODE_AGAIN_MS = 2000
const MAX_RETRY_MS = 60_000
/** What a message counts for beside its payload. */
const ENTRY_BYTES = 16_384
/** Messages of QoS 0, which the server does not hold back, are dropped beyond that. Half of it is as much as one may have. */
const MAX_WAITING_BYTES = 2 * (MAX_PACKET + ENTRY_BYTES)

/**
 * @typedef {object} Entry
 * @property {import('./codec.js').Publish} packet
 * @property {import('./connection.js').Connection} connection
 * @property {string} from  Who is held up by it.
 * @property {'decoding' | 'ready' | 'held' | 'large'} state  `held` could not be stored; `large` for want of room: what is smaller may pass it.
 * @property {import('./store.js').Arrival | import('./store.js').Receipt | null} item  null is nothing to keep.
 */

export class Inbox {
  #decode
  #store
  #world
  #kept
  #failed
  /** In the order in which they came. @type {Entry[]} */ #entries = []
  /** Friends whose last message was not decoded in time. @type {Set<string>} */ #slow = new Set()
  #running = false
  #failures = 0
  /** @type {any} */ #timer

  /**
   * @param {Pick<import('./jam.js').Options, 'decode'>} options
   * @param {import('./store.js').Store} store
   * @param {import('./world.js').World} world
   * @param {(kept: import('./store.js').Kept) => void} kept
   * @param {(error: unknown) => void} failed  Something could not be stored.
   */
  constructor ({ decode }, store, world, kept, failed) {
    this.#decode = decode
    this.#store = store
    this.#world = world
    this.#kept = kept
    this.#failed = failed
  }

  /** @param {import('./codec.js').Publish} packet @param {import('./connection.js').Connection} connection */
  async message (packet, connection) {
    const text = textOf(packet.payload)
    const payload = parse(text)
    const from = packet.properties.from ?? (typeof payload?.from === 'string' ? payload.from : '')
    const entry = this.#enter(packet, connection, from)
    if (!entry) return
    entry.item = this.#arrival(packet, from, payload && this.#decode ? await this.#decoded(payload, from) : payload, text)
    this.#ready(entry)
  }

  /** @param {import('./codec.js').Publish} packet @param {import('./connection.js').Connection} connection */
  receipt (packet, connection) {
    const { status, to, id } = /** @type {{ [key: string]: unknown }} */ (parse(textOf(packet.payload)) ?? {})
    const entry = this.#enter(packet, connection, '')
    if (!entry) return
    if (status === 'delivered' && typeof to === 'string' && typeof id === 'string') entry.item = { to, id }
    this.#ready(entry)
  }

  /** The server sends again what was not acknowledged. */
  disconnected () {
    this.#world.clearTimeout(this.#timer)
    this.#timer = undefined
    this.#entries = []
    this.#failures = 0
  }

  /** @param {import('./codec.js').Publish} packet @param {import('./connection.js').Connection} connection @param {string} from @returns {Entry | null} */
  #enter (packet, connection, from) {
    /** @type {Entry} */ const entry = { packet, connection, from, state: 'decoding', item: null }
    let [all, own] = [0, 0]
    for (const other of [...this.#entries, entry]) {
      if (other.packet.id) continue
      const bytes = ENTRY_BYTES + other.packet.payload.length
      all += bytes
      if (other.from === from) own += bytes
    }
    if (!packet.id && Math.max(all, 2 * own) > MAX_WAITING_BYTES) return null
    this.#entries.push(entry)
    return entry
  }

  /** @param {Entry} entry */
  #ready (entry) {
    entry.state = 'ready'
    this.#run()
  }

  /** @param {import('./codec.js').Publish} packet @param {string} from @param {import('./jam.js').Payload | null} payload @param {string} text @returns {import('./store.js').Arrival} */
  #arrival ({ payload: bytes, dup }, from, payload, text) {
    const id = idOf(payload?.id)
    return {
      id,
      friend: from,
      from,
      ...contentOf(payload, text),
      type: typeOf(payload?.type),
      timestamp: timeOf(payload?.timestamp, this.#world.now()),
      mark: id === null ? fingerprint(bytes) : undefined,
      dup
    }
  }

  /** By the page, which may throw, answer nonsense or never. @param {import('./jam.js').Payload} payload @param {string} from */
  async #decoded (payload, from) {
    try {
      const decoded = await within(this.#world, this.#slow.has(from) ? DECODE_AGAIN_MS : DECODE_MS, this.#decode?.({ ...payload }, from))
      this.#slow.delete(from)
      return typeof decoded === 'object' && decoded ? { ...decoded, id: payload.id } : payload
    } catch (error) {
      if (/** @type {any} */ (error)?.name === 'TimeoutError') this.#slow.add(from)
      return payload
    }
  }

  async #run () {
    if (this.#running) return
    this.#running = true
    for (let batch = this.#next(); batch.length; batch = this.#next()) await this.#keep(batch)
    this.#running = false
  }

  /** What may be stored now. */
  #next () {
    const behind = new Set()
    const batch = []
    for (const entry of this.#entries) {
      if (entry.state === 'large') continue
      if (entry.state !== 'ready') behind.add(entry.from)
      else if (!behind.has(entry.from) && batch.length < RECEIVE_MAXIMUM) batch.push(entry)
    }
    return batch
  }

  /** Together, which is one write to the disk; if that does not succeed, each by itself. @param {Entry[]} batch */
  async #keep (batch) {
    if (batch.length > 1 && await this.#stored(batch)) return
    const behind = new Set()
    for (const entry of batch) {
      if (behind.has(entry.from) || await this.#stored([entry])) continue
      if (entry.state === 'held') behind.add(entry.from)
      this.#hold(entry)
    }
  }

  /** @param {Entry[]} batch @returns {Promise<boolean>} */
  async #stored (batch) {
    try {
      const kept = await this.#store.receive(batch.flatMap(({ item }) => item ?? []))
      this.#entries = this.#entries.filter((entry) => !batch.includes(entry))
      for (const { packet, connection } of batch) connection.acknowledge(packet.id)
      for (const one of kept) if (one) this.#kept(one)
      if (!this.#timer) this.#failures = 0
      return true
    } catch (error) {
      if (/** @type {any} */ (error)?.message === UNSURE) for (const { item } of batch) if (item) Object.assign(item, { dup: true }) // it may be there
      if (batch.length === 1) {
        batch[0].state = /** @type {any} */ (error)?.name === 'QuotaExceededError' ? 'large' : 'held'
        this.#failed(error)
      }
      return false
    }
  }

  /** @param {Entry} entry */
  #hold (entry) {
    if (entry.packet.id === null || !this.#entries.includes(entry)) { // QoS 0, which was for now; or it will come again
      this.#entries = this.#entries.filter((other) => other !== entry)
      return
    }
    this.#timer ??= this.#world.setTimeout(() => {
      this.#timer = undefined
      for (const entry of this.#entries) if (entry.state !== 'decoding') entry.state = 'ready'
      this.#run()
    }, Math.min(MAX_RETRY_MS, 1000 * 2 ** this.#failures++))
  }
}
