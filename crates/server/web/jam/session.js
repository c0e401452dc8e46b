// The session with the server, over as many connections as it takes: when to connect, what to subscribe to, what comes by which
// topic, and what follows from an end. One tab of a user has it.
//
// Invariants (PROTOCOL.md, When to reconnect): between two attempts lies a random time, at most MAX_WAIT_MS, which doubles on
// average with each failure; a login that was refused, or taken over by another device, is never tried again by itself, but once
// with a new token. At most one connection and one timer at a time.

import { Connection } from './connection.js'
import { PACKET_SIZE, RECEIVE, subscribe } from './codec.js'
import { fingerprint, parse, textOf } from './content.js'
import { FriendList } from './friends.js'
import { Inbox } from './inbox.js'
import { Outbox, WINDOW } from './outbox.js'
import { ownReason, reasonOf, refusal } from './reason.js'
import { within } from './world.js'

const FIRST_WAIT_MS = 500
const MAX_WAIT_MS = 60_000
const SPAM_WAIT_MS = 10 * 60_000
/** A connection that has stood so long was no failure. */
const STABLE_MS = 30_000
/** What the server's trouble counts for: many come back at once. */
const TROUBLE = 4
const NUDGE_MS = 1000
/** An attempt that has no answer by then is given up for a new one, if the user wants one or the network is back. */
const HANG_MS = 3000
const LOAD_MS = 30_000
const TOKEN_MS = 30_000
const SUBSCRIBE_ID = 65_535

const LOGIN = 0x87
const ELSEWHERE = 0x8E
const SPAM = 0x9F
/** The same bytes would end the next connection too, or it is a mistake in the app. */
const MISTAKES = [0x81, 0x82, 0x84, 0x85, 0x86, 0x8C, 0x93, 0x94, 0x95]

/** @typedef {{ device: string, alone: boolean, store: import('./store.js').Store, tell: (told: import('./tabs.js').Told) => void, catchUp: () => Promise<void> }} Place  Where it is: `alone` if no other tab can have a session as well, `tell` for this tab and the others, `catchUp` tells what was stored and not told. */

export class Session {
  #options
  #world
  #clientId
  #alone
  #store
  #tell
  #catchUp
  #inbox
  #outbox
  #friends = new FriendList()
  /** @type {Set<string>} */ #online = new Set()
  /** @type {Connection | null} */ #connection = null
  /** @type {any} */ #timer
  /** @type {any} */ #loading
  #attempt = 0
  #failures = 0
  #triedAt = -Infinity
  #openedAt = Infinity
  #asked = false
  /** @type {import('./jam.js').Reason | null} */ #loggedOut = null
  /** Whether it waits for something that `online` and a visible page do not cut short. */
  #patient = true
  #isTrying = false
  /** Of the token that was used last. */
  #mark = ''
  /** @type {[EventTarget | undefined, string][]} */ #occasions
  /** @param {any} error */
  #unstored = (error) => this.#error('store', `not stored: ${error?.message || error?.name}`)
  #nudge = (/** @type {Event} */ { type }) => { if (type === 'online' || this.#world.document?.visibilityState !== 'hidden') this.#again() }

  /** @param {import('./jam.js').Options} options @param {import('./world.js').World} world @param {Place} place */
  constructor (options, world, { device, alone, store, tell, catchUp }) {
    this.#options = options
    this.#world = world
    this.#clientId = `${options.user}:${device}`
    this.#alone = alone
    this.#store = store
    this.#tell = tell
    this.#catchUp = catchUp
    this.#inbox = new Inbox(options, store, world, tell, this.#unstored)
    this.#outbox = new Outbox(store, world, (row) => tell({ row, fresh: false }), this.#unstored)
    this.#occasions = [[world.window, 'online'], [world.document, 'visibilitychange']]
    for (const [target, type] of this.#occasions) target?.addEventListener(type, this.#nudge)
  }

  /** Connects now, for the user wants it. */
  start () {
    this.#asked = false
    this.#failures = 0
    if (this.#isTrying || this.#connection) this.#again()
    else this.#connect(false)
  }

  /** @param {boolean} forget  The session ends as well. */
  stop (forget) {
    this.#attempt++
    this.#world.clearTimeout(this.#timer)
    for (const [target, type] of this.#occasions) target?.removeEventListener(type, this.#nudge)
    this.#connection?.end({ code: 0, sessionExpiry: forget ? 0 : undefined })
    this.#closed()
    this.#outbox.stop()
  }

  /** A message is in the outbox. @param {import('./store.js').Row} row */
  queued ({ friend, order }) { this.#outbox.add(friend, order) }

  /** The network is back, or the user looks. */
  #again () {
    if (this.#connection?.open) return this.#connection.ping()
    if (this.#patient && !this.#isTrying) return
    const wait = this.#triedAt + (this.#isTrying ? HANG_MS : NUDGE_MS) - this.#world.uptime()
    if (wait > 0) this.#later(wait)
    else this.#connect(false)
  }

  /** @param {boolean} refused */
  async #connect (refused) {
    const attempt = ++this.#attempt
    this.#connection?.end({ code: 0 })
    this.#connection = null
    this.#triedAt = this.#world.uptime()
    this.#openedAt = Infinity
    this.#patient = true
    this.#loggedOut = null
    this.#state('connecting', null)
    let category = 'token'
    try {
      const token = await this.#token(refused)
      if (attempt !== this.#attempt) return
      this.#mark = markOf(token)
      category = 'network'
      this.#open(token)
    } catch (error) {
      if (attempt !== this.#attempt) return
      const reason = ownReason(category, String(/** @type {any} */ (error)?.message ?? error))
      if (refused && category === 'token') this.#state('refused', reason)
      else this.#fail(reason)
    }
  }

  /** @param {string} token */
  #open (token) {
    const { user, url = defaultUrl() } = this.#options
    this.#connection = new Connection({ url, clientId: this.#clientId, user, token }, this.#world, {
      opened: (connack) => this.#opened(connack),
      received: (packet) => this.#received(packet),
      ended: (end) => this.#ended(end)
    })
  }

  /** @param {boolean} refused @returns {Promise<string>} */
  async #token (refused) {
    const { token } = this.#options
    return typeof token === 'string' ? token : within(this.#world, TOKEN_MS, token({ refused }))
  }

  /** @param {import('./codec.js').ConnAck} connack */
  #opened ({ sessionPresent, properties: { [RECEIVE]: receiveMaximum = 65_535, [PACKET_SIZE]: maximumPacketSize = Infinity } }) {
    const connection = /** @type {Connection} */ (this.#connection)
    const { user } = this.#options
    this.#openedAt = this.#world.uptime()
    connection.send(subscribe({ id: SUBSCRIBE_ID, filters: [[`/${user}/inbox`, 1], [`/${user}/receipts`, 1], [`/${user}/presence`, 0], [`/${user}/friends`, 0]] }))
    this.#state('connected', null)
    const link = { send: (/** @type {Uint8Array} */ bytes) => connection.send(bytes), window: Math.min(WINDOW, receiveMaximum), maximumPacketSize, sessionPresent }
    this.#send(connection, link)
  }

  /** What waits in the store, now and again: a tab may have died before it could tell of a message. @param {Connection} connection @param {import('./outbox.js').Link} link */
  async #send (connection, link) {
    await this.#catchUp().then(() => this.#outbox.load()).then(() => { if (connection.open) this.#outbox.connected(link) }, this.#unstored)
    if (connection.open) this.#loading = this.#world.setTimeout(() => this.#send(connection, link), LOAD_MS)
  }

  /** @param {import('./codec.js').Publish | import('./codec.js').PubAck | import('./codec.js').SubAck} packet */
  #received (packet) {
    if (packet.type === 'puback') this.#outbox.acknowledged(packet)
    else if (packet.type === 'publish') this.#published(packet)
    else if (packet.codes[0] >= 0x80) this.#error('server', 'no inbox', packet.codes[0])
  }

  /** @param {import('./codec.js').Publish} packet */
  #published (packet) {
    const { user } = this.#options
    const connection = /** @type {Connection} */ (this.#connection)
    const { topic, id } = packet
    if (topic === `/${user}/inbox`) return this.#inbox.message(packet, connection)
    if (topic === `/${user}/receipts`) return this.#inbox.receipt(packet, connection)
    const payload = parse(textOf(packet.payload))
    if (topic === `/${user}/presence`) this.#presence(payload?.user, payload?.online)
    else if (topic === `/${user}/friends`) this.#friendsTold(payload)
    else if (topic === `/${user}/devices/${this.#clientId}` && payload) this.#refusal(payload)
    connection.acknowledge(id)
  }

  /** @param {unknown} friend @param {unknown} online */
  #presence (friend, online) {
    if (typeof friend !== 'string') return
    if (online === true) this.#online.add(friend)
    else this.#online.delete(friend)
    this.#tell({ event: 'presence', detail: { user: friend, online: online === true } })
  }

  /** @param {import('./jam.js').Payload | null} payload */
  #friendsTold (payload) {
    const friends = this.#friends.take(payload)
    if (!friends) return
    this.#store.keepFriends(friends).catch(() => {}) // the server tells them again
    this.#tell({ event: 'friends', detail: { friends } })
  }

  /** What the device channel says. @param {{ [key: string]: unknown }} error */
  #refusal (error) {
    if (error.type !== 'error') return
    const reason = refusal(error)
    if (reason.category === 'logout') this.#loggedOut = reason
    else if (!this.#outbox.refused(error.messageId, reason)) this.#tell({ event: 'error', detail: reason })
  }

  /** @param {import('./connection.js').End} end */
  #ended (end) {
    const { how, code } = end
    const stood = this.#world.uptime() - this.#openedAt >= STABLE_MS
    if (stood) {
      this.#failures = 0
      this.#asked = false
    }
    this.#closed()
    const reason = reasonOf(end)
    if (this.#loggedOut) this.#elsewhere(reason)
    else if (how === 'malformed') {
      this.#tell({ event: 'error', detail: reason })
      this.#fail(reason, TROUBLE)
    } else if (code === null) this.#fail(reason)
    else if (code === LOGIN) this.#loginRefused(reason)
    else if (code === ELSEWHERE && this.#alone) this.#elsewhere(reason)
    else if (how === 'refused' && code === SPAM) this.#wait(SPAM_WAIT_MS, reason)
    else if (MISTAKES.includes(code)) this.#state('failed', reason)
    else this.#fail(reason, TROUBLE)
  }

  #closed () {
    this.#connection = null
    this.#world.clearTimeout(this.#loading)
    this.#inbox.disconnected()
    this.#outbox.disconnected()
    this.#friends = new FriendList()
    for (const friend of this.#online) this.#presence(friend, false)
  }

  /** @param {import('./jam.js').Reason} reason */
  #loginRefused (reason) {
    if (this.#asked || typeof this.#options.token === 'string') return this.#state('refused', reason)
    this.#asked = true
    this.#connect(true)
  }

  /** @param {import('./jam.js').Reason} reason */
  #elsewhere (reason) {
    const detail = this.#loggedOut ?? ownReason('takeover', 'connected elsewhere', reason.code)
    this.#state('logout', detail)
    this.#tell({ event: 'logout', detail })
  }

  /** @param {import('./jam.js').Reason} reason @param {number} least  How many failures it counts for at least. */
  #fail (reason, least = 0) {
    this.#failures = Math.max(this.#failures, least)
    const wait = this.#world.random() * Math.min(MAX_WAIT_MS, FIRST_WAIT_MS * 2 ** this.#failures++)
    this.#patient = false
    this.#wait(wait, reason)
  }

  /** @param {number} ms @param {import('./jam.js').Reason | null} reason */
  #wait (ms, reason) {
    this.#state('waiting', reason, this.#world.now() + Math.round(ms))
    this.#later(ms)
  }

  /** @param {number} ms */
  #later (ms) {
    this.#world.clearTimeout(this.#timer)
    this.#timer = this.#world.setTimeout(() => this.#connect(false), ms)
  }

  /** @param {import('./jam.js').State['state']} state @param {import('./jam.js').Reason | null} reason @param {number | null} retryAt */
  #state (state, reason, retryAt = null) {
    this.#world.clearTimeout(this.#timer)
    this.#isTrying = state === 'connecting'
    this.#tell({ event: 'state', detail: { state, retryAt, reason, own: true }, mark: this.#mark })
  }

  /** @param {string} category @param {string} message @param {number | null} code */
  #error (category, message, code = null) { this.#tell({ event: 'error', detail: ownReason(category, message, code) }) }
}

const defaultUrl = () => `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/mqtt`

/** By this, tabs know whether they have the same token, and do not tell each other what it is. @param {string} token */
export const markOf = (token) => fingerprint(new TextEncoder().encode(token))
