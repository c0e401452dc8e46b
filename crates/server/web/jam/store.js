// What is kept of a user in this browser: messages, the outbox, what was seen, friends, unread marks. Every key begins with the
// user id. It knows no connection.
//
// Invariants: a message and the key by which its repetition is known are kept together, so no crash parts them; a conversation
// stays within MAX_MESSAGES and MAX_BYTES, its oldest messages leave for the newest, but none that is still to be sent; the outbox
// stays within MAX_OUTBOX and MAX_OUTBOX_BYTES. A number is given to one message only, also after the browser has removed the rest.

import { openEntries } from './entries.js'

/**
 * A message as it is stored.
 *
 * @typedef {Omit<import('./jam.js').Message, 'content' | 'state'> & {
 *   state: import('./jam.js').Message['state'], content: string | Uint8Array<ArrayBuffer>, mime?: string,
 *   bytes: number, payload?: string, published?: boolean, mark?: string }} Row
 * `payload`: what goes out, until the server has it. `published`: it was sent, and what came of it is not known. `mark`: by what its
 * repetition is known, if not by `id`.
 */

/** @typedef {{ friend: string, count: number, bytes: number, unread: number, mark: number, last: number, name?: string }} Summary  Of a conversation. `name`: of a friend of old. */

/** @typedef {Pick<Row, 'id' | 'friend' | 'from' | 'kind' | 'content' | 'mime' | 'type' | 'timestamp'> & { mark?: string, dup: boolean }} Arrival */

/** @typedef {{ to: string, id: string }} Receipt */

/** @typedef {{ row: Row, fresh: boolean, unread?: number }} Kept  `fresh`: a new message. `unread`: how many there are now, if that has changed. */

/** Of one friend. More than the server has on its way to a client, or a friend's own outbox: what may be repeated is still known. */
export const MAX_MESSAGES = 10_000
export const MAX_BYTES = 64 * 1024 * 1024
export const MAX_OUTBOX = 1000
/** Of what goes out. */
export const MAX_OUTBOX_BYTES = 128 * 1024 * 1024
/** Numbers of messages that were told while an older one was not. */
const MAX_AHEAD = 1000
/** What may not have been told is read in parts of so many. */
export const TOLD_AT_ONCE = 50
/** What a message takes beside its content; of that, a character takes 2. */
const ROW_BYTES = 512

/** @param {{ user: string, store?: string | null }} options @param {import('./world.js').World} world */
export const openStore = async ({ user, store = 'jam' }, world) => new Store(user, await openEntries(store, world), world)

export class Store {
  #user
  #entries
  #world
  /** Of all messages up to this number it is known that they are there. */
  #told = 0
  /** Greater numbers. @type {Set<number>} */ #ahead = new Set()
  #newest = 0

  /** @param {string} user @param {import('./entries.js').Entries} entries @param {import('./world.js').World} world */
  constructor (user, entries, world) {
    this.#user = user
    this.#entries = entries
    this.#world = world
  }

  get persistent () { return this.#entries.persistent }

  /** Friends, and unread messages by friend. @returns {Promise<[import('./friends.js').Entry[], Map<string, number>]>} */
  begin () {
    return this.#entries.transact('read', async (t) => {
      const summaries = await t.list([this.#user, 'conversation'])
      this.#told = this.#newest = await t.get([this.#user, 'order']) ?? 0
      return [await t.get([this.#user, 'friends']) ?? [], new Map(summaries.flatMap(([, { friend, unread }]) => unread ? [[friend, unread]] : []))]
    })
  }

  /** The device id, the same in all tabs. @param {string} made  If there is none. @returns {Promise<string>} */
  device (made) {
    return this.#entries.transact('write', async (t) => {
      const key = [this.#user, 'device']
      const device = await t.get(key)
      if (!device) t.put(key, made)
      return device ?? made
    }).catch(() => made) // the disk is full: it works, until the next start
  }

  /** The list, and in the conversations of those who are not in it any more what they were called. @param {import('./friends.js').Entry[]} friends */
  keepFriends (friends) {
    return this.#entries.transact('write', async (t) => {
      const users = new Set(friends.map(({ user }) => user))
      for (const { user, name } of await t.get([this.#user, 'friends']) ?? []) {
        const summary = users.has(user) || await t.get([this.#user, 'conversation', user])
        if (summary?.friend) t.put([this.#user, 'conversation', user], { ...summary, name })
      }
      t.put([this.#user, 'friends'], friends)
    })
  }

  /**
   * An own message, into the outbox; as it is, if it was there before.
   *
   * @param {Pick<Row, 'friend' | 'kind' | 'content' | 'mime' | 'type' | 'timestamp'> & { id: string, payload: string }} message
   * @returns {Promise<Row>}
   */
  queue (message) {
    return this.#entries.transact('write', async (t) => {
      const known = await this.#own(t, message.id)
      if (known) return known
      const { row } = await this.#add(t, { ...message, from: this.#user, own: true, state: 'queued', reason: null, arrived: message.timestamp })
      await this.#waits(t, row)
      return row
    })
  }

  /** Order and friend of each message in the outbox. @returns {Promise<[number, string][]>} */
  outbox () {
    return this.#entries.transact('read', async (t) => (await t.list([this.#user, 'outbox'])).map(([key, friend]) => [Number(key[2]), friend]))
  }

  /**
   * Marks a message of the outbox as published, and gives it; null if it is none any more. An older one to the same friend goes first,
   * which a tab may have died over before it could tell of it, unless this one was published before.
   *
   * @param {number} order
   * @param {string} friend
   * @param {boolean} again
   * @returns {Promise<Row | null>}
   */
  claim (order, friend, again) {
    return this.#entries.transact('write', async (t) => {
      const older = again ? undefined : (await t.list([this.#user, 'outbox'], { before: order })).find(([, other]) => other === friend)
      const row = await t.get([this.#user, 'message', friend, older ? older[0][2] : order])
      if (row?.state !== 'queued') return null
      if (!row.published) t.put([this.#user, 'message', friend, row.order], { ...row, published: true })
      return row
    })
  }

  /**
   * Changes an own message, and gives it as it is now; null if there is none, or `change` does not want to.
   *
   * @param {string} id
   * @param {(row: Row) => Row | null} change
   * @returns {Promise<Row | null>}
   */
  change (id, change) { return this.#entries.transact('write', (t) => this.#change(t, id, change)) }

  /** Removes an own message that cannot have reached the server; null if it may have. @param {string} id @returns {Promise<Row | null>} */
  cancel (id) {
    return this.#entries.transact('write', async (t) => {
      const row = await this.#own(t, id)
      if (!row || row.published || !['queued', 'failed'].includes(row.state)) return null
      const summary = await this.#summary(t, row.friend)
      this.#remove(t, row, summary)
      t.put([this.#user, 'conversation', row.friend], summary)
      /** @type {Row} */ const cancelled = { ...row, state: 'cancelled' }
      await this.#waits(t, cancelled, row)
      return cancelled
    })
  }

  /**
   * What has arrived, all of it or nothing. A message that was here before gives null, and so does a receipt that tells nothing new.
   *
   * @param {(Arrival | Receipt)[]} items
   * @returns {Promise<(Kept | null)[]>}
   */
  receive (items) {
    return this.#entries.transact('write', async (t) => {
      /** @type {(Kept | null)[]} */ const kept = []
      for (const item of items) kept.push('to' in item ? await this.#deliver(t, item) : await this.#arrive(t, item))
      return kept
    })
  }

  /** The newest messages with a friend, or those before an order; the oldest first. @param {string} friend @param {number | undefined} before @param {number} limit @returns {Promise<Row[]>} */
  history (friend, before, limit) {
    return this.#entries.transact('read', async (t) =>
      (await t.list([this.#user, 'message', friend], { before, limit, newest: true })).map(([, row]) => row).reverse())
  }

  /** @returns {Promise<{ friend: string, last: Row | null, unread: number, mark: number, name?: string }[]>} */
  conversations () {
    return this.#entries.transact('read', async (t) => {
      const found = []
      for (const [, { friend, unread, mark, name }] of await t.list([this.#user, 'conversation'])) {
        const [newest] = await t.list([this.#user, 'message', friend], { limit: 1, newest: true })
        found.push({ friend, unread, mark, name, last: newest ? newest[1] : null })
      }
      return found.sort((a, b) => (b.last?.order ?? 0) - (a.last?.order ?? 0))
    })
  }

  /** Whether there was something to be read. @param {string} friend @returns {Promise<boolean>} */
  read (friend) {
    return this.#entries.transact('write', async (t) => {
      const summary = await this.#summary(t, friend)
      if (summary.mark === summary.last) return false
      t.put([this.#user, 'conversation', friend], { ...summary, unread: 0, mark: summary.last })
      return summary.unread > 0
    })
  }

  /** A message that another tab has stored, where tabs share no store. @param {Row} row */
  mirror (row) {
    return this.persistent ? null : this.#entries.transact('write', async (t) => {
      const summary = await this.#summary(t, row.friend)
      const known = await t.get([this.#user, 'message', row.friend, row.order])
      if (known) this.#remove(t, known, summary)
      else if (!row.own) summary.unread++
      if (row.state === 'cancelled') t.put([this.#user, 'conversation', row.friend], summary)
      else await this.#trim(t, this.#keep(t, row, summary))
      await this.#waits(t, row, known)
    }).catch(() => {}) // its outbox is full, as that of the other tab is
  }

  /** Whether a message is told for the first time in this tab. @param {number} order */
  isNews (order) {
    if (order <= this.#told || this.#ahead.has(order)) return false
    this.#newest = Math.max(this.#newest, order)
    this.#ahead.add(order)
    if (this.#ahead.size > MAX_AHEAD) this.#told = Math.min(...this.#ahead) // what is missing is gone, or comes by catchUp()
    this.#ahead.delete(this.#told)
    while (this.#ahead.delete(this.#told + 1)) this.#told++
    return true
  }

  /** Tells what is stored and may not have been told: the tab that stored it may have died. @param {(kept: Kept) => void} tell */
  async catchUp (tell) {
    /** @type {Kept[]} */ let found
    const end = () => found[TOLD_AT_ONCE - 1]?.row.order
    do {
      found = []
      const newest = await this.#entries.transact('read', async (t) => {
        for (const [, { friend, last, unread }] of await t.list([this.#user, 'conversation'])) {
          if (last <= this.#told) continue
          for (const [, row] of await t.list([this.#user, 'message', friend], { after: this.#told, before: end(), limit: TOLD_AT_ONCE })) found.push({ row, fresh: true, unread })
          found = found.sort((a, b) => a.row.order - b.row.order).slice(0, TOLD_AT_ONCE)
        }
        return await t.get([this.#user, 'order']) ?? 0
      })
      for (const kept of found) tell(kept)
      this.#told = Math.max(this.#told, end() ?? newest)
    } while (end())
    for (const order of this.#ahead) if (order <= this.#told) this.#ahead.delete(order)
  }

  /** Everything of this user. */
  clear () { return this.#entries.transact('write', async (t) => t.clear([this.#user])) }

  close () { this.#entries.close() }

  /** @param {import('./entries.js').Transaction} t @param {string} friend @returns {Promise<Summary>} */
  async #summary (t, friend) { return { ...await t.get([this.#user, 'conversation', friend]) ?? { friend, count: 0, bytes: 0, unread: 0, mark: 0, last: 0 } } }

  /** @param {import('./entries.js').Transaction} t @param {string} id @returns {Promise<Row | undefined>} */
  async #own (t, id) {
    const at = await t.get([this.#user, 'id', this.#user, id])
    return at && t.get([this.#user, 'message', ...at])
  }

  /** @param {import('./entries.js').Transaction} t @param {Omit<Row, 'order' | 'bytes'>} message @returns {Promise<Kept>} */
  async #add (t, message) {
    // Tabs that share no store number by themselves, and must not meet.
    const order = Math.floor(Math.max(this.#newest, await t.get([this.#user, 'order']) ?? 0)) + 1 + (this.persistent ? 0 : this.#world.random())
    const { content } = message
    const row = { ...message, order, bytes: ROW_BYTES + (typeof content === 'string' ? 2 : 1) * content.length }
    t.put([this.#user, 'order'], order)
    const summary = this.#keep(t, row, await this.#summary(t, row.friend))
    if (!row.own) {
      summary.unread++
      t.put([this.#user, 'conversation', row.friend], summary)
    }
    await this.#trim(t, summary)
    return { row, fresh: true, unread: row.own ? undefined : summary.unread }
  }

  /** @param {import('./entries.js').Transaction} t @param {Row} row @param {Summary} summary */
  #keep (t, row, { count, bytes, ...summary }) {
    const now = { ...summary, count: count + 1, bytes: bytes + row.bytes, last: Math.max(summary.last, row.order) }
    const mark = row.id ?? row.mark
    t.put([this.#user, 'message', row.friend, row.order], row)
    if (mark) t.put([this.#user, 'id', row.from, mark], [row.friend, row.order])
    t.put([this.#user, 'conversation', row.friend], now)
    return now
  }

  /** @param {import('./entries.js').Transaction} t @param {Row} row @param {Summary} summary  Is changed. */
  #remove (t, row, summary) {
    const mark = row.id ?? row.mark
    t.delete([this.#user, 'message', row.friend, row.order])
    if (mark) t.delete([this.#user, 'id', row.from, mark])
    summary.count--
    summary.bytes -= row.bytes
  }

  /** @param {import('./entries.js').Transaction} t @param {Summary} summary */
  async #trim (t, summary) {
    if (summary.count <= MAX_MESSAGES && summary.bytes <= MAX_BYTES) return
    // A tenth at once, so that it is not done for each message.
    for (const [, row] of await t.list([this.#user, 'message', summary.friend], { limit: MAX_OUTBOX + 16 })) {
      if (summary.count <= 0.9 * MAX_MESSAGES && summary.bytes <= 0.9 * MAX_BYTES) break
      if (row.state !== 'queued' && row.order !== summary.last) this.#remove(t, row, summary)
    }
    t.put([this.#user, 'conversation', summary.friend], { ...summary, unread: Math.min(summary.unread, summary.count) })
  }

  /** @param {import('./entries.js').Transaction} t @param {Arrival} arrival @returns {Promise<Kept | null>} */
  async #arrive (t, { dup, ...message }) {
    // Without an id, what looks the same is the same only if the server says that it may be.
    const known = message.id !== null ? message.id : dup ? message.mark : undefined
    if (known !== undefined && await t.get([this.#user, 'id', message.from, known])) return null
    return this.#add(t, { ...message, own: message.from === this.#user, arrived: this.#world.now(), state: 'received', reason: null })
  }

  /** @param {import('./entries.js').Transaction} t @param {Receipt} receipt @returns {Promise<Kept | null>} */
  async #deliver (t, { to, id }) {
    const row = await this.#change(t, id, (row) => row.friend === to && row.state !== 'delivered' ? { ...row, state: 'delivered', reason: null } : null)
    return row && { row, fresh: false }
  }

  /** @param {import('./entries.js').Transaction} t @param {string} id @param {(row: Row) => Row | null} change */
  async #change (t, id, change) {
    const row = await this.#own(t, id)
    const changed = row && change(row)
    if (!changed) return null
    const { friend, order, state } = changed
    await this.#waits(t, changed, row)
    if (state === 'sent' || state === 'delivered') delete changed.payload
    t.put([this.#user, 'message', friend, order], changed)
    return changed
  }

  /**
   * The outbox, after a change of an own message: what is `queued` is in it, and how many bytes that is.
   *
   * @param {import('./entries.js').Transaction} t
   * @param {Row} row  As it is now.
   * @param {Row} [before]
   */
  async #waits (t, row, before) {
    const outbox = [this.#user, 'outbox']
    const by = Number(row.state === 'queued') - Number(before?.state === 'queued')
    if (!by) return
    const count = await t.count(outbox)
    const bytes = (count ? await t.get(outbox) ?? 0 : 0) + by * 2 * (row.payload ?? before?.payload ?? '').length
    if (by > 0 && (count >= MAX_OUTBOX || bytes > MAX_OUTBOX_BYTES)) throw new Error('the outbox is full')
    t.put(outbox, Math.max(0, bytes))
    t[by > 0 ? 'put' : 'delete']([...outbox, row.order], row.friend)
  }
}
