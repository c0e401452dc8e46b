// What arrives at QoS 1: messages and receipts, to the store, then acknowledged.
//
// Invariants: a packet is acknowledged when the transaction that keeps it is complete, on the connection on which it came, and
// otherwise never. What cannot be stored is tried again, holds up nothing but its own friend's later messages, and the page is told.
// At most what the connection's Receive Maximum allows is held here.

import { RECEIVE_MAXIMUM } from './connection.js'
import { contentOf, fingerprint, idOf, parse, timeOf, typeOf } from './content.js'

const DECODE_MS = 10_000
const MAX_RETRY_MS = 60_000
/** Messages of QoS 0, which the server does not hold back, are dropped beyond that. */
const MAX_WAITING = 1024

/** @typedef {{ packet: import('./codec.js').Publish, connection: import('./connection.js').Connection, receipt: boolean }} Arrived */
/** @typedef {{ arrived: Arrived, item: import('./store.js').Arrival | import('./store.js').Receipt | null }} Read  `item`: null is nothing to keep. */

export class Inbox {
  #decode
  #store
  #world
  #kept
  #failed
  /** @type {Arrived[]} */ #waiting = []
  /** @type {Read[]} */ #unstored = []
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

  /** @param {Arrived} arrived */
  take (arrived) {
    if (arrived.packet.id === null && this.#waiting.length >= MAX_WAITING) return
    this.#waiting.push(arrived)
    this.#run()
  }

  /** The server sends again what was not acknowledged. */
  disconnected () {
    this.#world.clearTimeout(this.#timer)
    this.#waiting = []
    this.#unstored = []
    this.#failures = 0
  }

  async #run () {
    if (this.#running) return
    this.#running = true
    while (this.#waiting.length) await this.#keep(await Promise.all(this.#waiting.splice(0, RECEIVE_MAXIMUM).map((arrived) => this.#read(arrived))))
    this.#running = false
  }

  /** @param {Arrived} arrived @returns {Promise<Read>} */
  async #read (arrived) {
    const { packet: { payload: bytes, properties, dup }, receipt } = arrived
    let { text, payload } = parse(bytes)
    if (receipt) return { arrived, item: payload && payload.status === 'delivered' && typeof payload.to === 'string' && typeof payload.id === 'string' ? { to: payload.to, id: payload.id } : null }
    const from = properties.from ?? (typeof payload?.from === 'string' ? payload.from : '')
    if (payload && this.#decode) payload = await this.#decoded(payload, from)
    const id = idOf(payload?.id)
    return {
      arrived,
      item: {
        id,
        friend: from,
        from,
        ...contentOf(payload, text),
        type: typeOf(payload?.type),
        timestamp: timeOf(payload?.timestamp, this.#world.now()),
        bytes: bytes.length,
        mark: id === null ? fingerprint(bytes) : undefined,
        dup
      }
    }
  }

  /** By the page, which may throw, answer nonsense or never. @param {import('./jam.js').Payload} payload @param {string} from */
  async #decoded (payload, from) {
    /** @type {any} */ let timer
    try {
      const late = new Promise((_, reject) => { timer = this.#world.setTimeout(() => reject(new Error('late')), DECODE_MS) })
      const decoded = await Promise.race([this.#decode?.({ ...payload }, from), late])
      return typeof decoded === 'object' && decoded ? { ...decoded, id: payload.id } : payload
    } catch {
      return payload
    } finally {
      this.#world.clearTimeout(timer)
    }
  }

  /** Together, which is one write to the disk; if that does not succeed, each by itself. @param {Read[]} read */
  async #keep (read) {
    const current = read.filter(({ arrived }) => arrived.connection.open)
    const free = current.filter((one) => !this.#hold(one))
    if (await this.#stored(free)) return
    for (const one of free) if (!this.#hold(one) && !await this.#stored([one])) this.#retry(one)
  }

  /** Whether it has to wait for an earlier message of the same friend. @param {Read} one */
  #hold (one) {
    const behind = this.#unstored.some(({ item }) => one.item && 'from' in one.item && item && 'from' in item && one.item.from === item.from)
    if (behind) this.#unstored.push(one)
    return behind
  }

  /** @param {Read[]} read @returns {Promise<boolean>} */
  async #stored (read) {
    if (!read.length) return true
    try {
      const kept = await this.#store.receive(read.flatMap(({ item }) => item ?? []))
      if (!this.#unstored.length) this.#failures = 0
      for (const { arrived: { packet, connection } } of read) connection.acknowledge(packet.id)
      for (const one of kept) if (one) this.#kept(one)
      return true
    } catch (error) {
      if (read.length === 1) this.#failed(error)
      return false
    }
  }

  /** @param {Read} one */
  #retry (one) {
    if (one.arrived.packet.id === null) return // QoS 0: it was for now
    this.#unstored.push(one)
    if (this.#unstored.length > 1) return
    this.#timer = this.#world.setTimeout(() => {
      this.#waiting.unshift(...this.#unstored.map(({ arrived }) => arrived))
      this.#unstored = []
      this.#run()
    }, Math.min(MAX_RETRY_MS, 1000 * 2 ** this.#failures++))
  }
}
