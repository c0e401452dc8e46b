// Jam: private messages between friends, for a page. What a page calls and hears is here, and nothing of how it is done:
// `store` keeps, `tabs` says which tab has the connection, `session` has it.
//
// Invariants: every tab of a user shows the same, told by the store and the channel between them; a listener that throws harms
// nothing (EventTarget reports it). Checked by tests/jamjs.

import { Attention } from './attention.js'
import { pictureOf, wireContent } from './content.js'
import { markOf, Session } from './session.js'
import { openStore } from './store.js'
import { Tabs } from './tabs.js'
import { browser, hex, uuid, within } from './world.js'

const ENCODE_MS = 30_000

/**
 * A message, sent or received. Times are milliseconds since 1970.
 *
 * @typedef {object} Message
 * @property {number} order  Unique and ascending in this browser: the key of a list, and what `history` pages by. It does not depend on a clock.
 * @property {string | null} id  The sender's id of the message; what `retry` and `cancel` take. Always there in own messages.
 * @property {string} friend  Whose conversation it belongs to: a user id.
 * @property {string} from  The sender's user id.
 * @property {boolean} own  Whether this user has written it.
 * @property {'text' | 'picture' | 'other'} kind  `other` is content of a shape that is neither: its JSON.
 * @property {string | Blob} content  A Blob if it is a picture (its `type` is `image/jpeg`, `image/png`, `image/webp` or `image/gif`), else text. Show it as text: a friend may write anything.
 * @property {string | number | null} type  The message's own `type`, 0 as a rule.
 * @property {number} timestamp  When the sender has written it, by the sender's clock, which may be wrong; when it arrived if the message does not say.
 * @property {number} arrived  When this browser has stored it, by its clock.
 * @property {'received' | 'queued' | 'sent' | 'delivered' | 'failed' | 'cancelled'} state  Own messages: `queued` in the outbox, `sent` the server has it (✓), `delivered` a device of the friend has it (✓✓), `failed` refused for good, see `reason`; `retry` queues it again. `cancelled` only in an `update`: it is gone.
 * @property {Reason | null} reason  Why it is `failed`; or, while it is `queued`, why the last try did not succeed. It is tried again by itself then.
 */

/**
 * Why something was refused, or did not work.
 *
 * @typedef {object} Reason
 * @property {string | null} handler  `authorizePublish` and the like, as PROTOCOL.md has them; null if it was not the server.
 * @property {string} category  The server's: `friends`, `quota`, `rate`, `mailbox`, `payload`, `topic` …, `api_token`, `spam`, `id`. Own ones: `size` (larger than the server takes), `network`, `store`, `protocol`, `token`, `server`, `stopped`, `takeover`, `logout`.
 * @property {string} message  One line of English.
 * @property {number | null} code  MQTT 5's reason code, if there was one.
 */

/**
 * What becomes of the connection.
 *
 * @typedef {object} State
 * @property {'stopped' | 'connecting' | 'connected' | 'waiting' | 'logout' | 'refused' | 'failed'} state  `waiting` tries again by itself at `retryAt`. The last three only after `start()`: `logout` another device has taken over, `refused` the login is wrong, `failed` trying again would not help.
 * @property {number | null} retryAt  When the next try is, in milliseconds since 1970; only in `waiting`.
 * @property {Reason | null} reason  Why it is not connected; null if nothing is wrong.
 * @property {boolean} own  Whether it is about this tab's own token. false where another tab has connected with another token: it says nothing of the one that was given here.
 */

/**
 * @typedef {object} Friend
 * @property {string} user  The user id.
 * @property {string} name  The name, or the user id where there is none.
 * @property {boolean} blocked  Whether this user has blocked them.
 * @property {string | null} publicKey
 * @property {boolean} online  false also while this tab does not know.
 */

/**
 * A conversation, for a list of them.
 *
 * @typedef {object} Conversation
 * @property {string} friend  A user id. It may be of somebody who is no friend any more.
 * @property {string} [name]  Of somebody who is no friend any more: what they were called when they still were.
 * @property {Message | null} last  The newest message.
 * @property {number} unread  How many messages of the friend are not read.
 * @property {number} mark  `order` of the newest message when `read` was called last: what is greater, and not own, is new.
 */

/**
 * What is encoded: the JSON object that friends get.
 *
 * @typedef {{ from: string, id?: unknown, timestamp?: unknown, content?: unknown, type?: unknown, [more: string]: unknown }} Payload
 */

/**
 * @typedef {object} Options
 * @property {string} [url]  `wss://host/mqtt`. By default `/mqtt` of the page's own host.
 * @property {string} user  The user id.
 * @property {string | ((why: { refused: boolean }) => string | Promise<string>)} token  The API token, or what gives it: asked before each connection; with `refused: true` once after the server has refused the last one.
 * @property {string} [device]  The device id. By default `web-` and 16 hexadecimal digits, kept for this user in this browser.
 * @property {string | null} [store]  Name of the IndexedDB database, `jam` by default. null keeps all in this page's memory.
 * @property {(payload: Payload, friend: string) => Payload | Promise<Payload>} [encode]  Called once for each message, before it is queued. `from` and `id` stay as they are. When it throws, or has no answer in 30 s, `send` rejects.
 * @property {(payload: Payload, friend: string) => Payload | Promise<Payload>} [decode]  Called for each message that arrives, before it is stored. One that it throws at, or has no answer to in 10 s, is stored as it came.
 * @property {(message: Message) => { title: string, body?: string, icon?: string } | null} [notify]  Opt in: what to show of a message that arrives while the page is hidden. The page asks for the permission.
 * @property {boolean} [badge]  Unread messages in `document.title`, as `(3) …`, and on the app's icon; true by default.
 */

/**
 * The events, each a CustomEvent with this `detail`.
 *
 * @typedef {object} Events
 * @property {State} state
 * @property {{ friends: Friend[] }} friends  The whole list, each time.
 * @property {Message} message  A new message, own or received, in whatever tab. Each once.
 * @property {Message} update  An own message whose `state` or `reason` has changed.
 * @property {{ user: string, online: boolean }} presence
 * @property {{ friend: string, unread: number }} unread
 * @property {Reason} error  Something that the user should know and that belongs to no own message, such as `store`: a message has arrived and cannot be stored. It is not acknowledged, so the server keeps it.
 * @property {Reason} logout  Another device of this user has connected (`logout`), or the same device elsewhere (`takeover`). `start()` takes it back.
 * @property {{ leader: boolean }} leader  Whether this tab has the connection.
 */

/** A user, in this browser. */
export class Jam extends EventTarget {
  #options
  #world
  /** @type {import('./store.js').Store | undefined} */ #store
  /** @type {Tabs | undefined} */ #tabs
  /** @type {Session | undefined} */ #session
  /** @type {Attention} */ #attention
  /** @type {Promise<void> | undefined} */ #starting
  /** As it was told last. @type {{ event: 'state', detail: State, mark: string }} */ #said = stopped
  /** @type {import('./friends.js').Entry[]} */ #friends = []
  /** @type {Set<string>} */ #online = new Set()
  /** @type {Map<string, number>} */ #unread = new Map()
  /** The last call for each friend. @type {Map<string, Promise<void>>} */ #sending = new Map()

  /**
   * @param {Options} options
   * @param {object} [world]  For tests: what stands for the browser's clock, sockets and the like.
   */
  constructor (options, world) {
    super()
    this.#world = /** @type {import('./world.js').World} */ (world ?? browser())
    this.#options = options
    this.#attention = new Attention(options, this.#world)
  }

  /** @returns {State} */
  get state () { return this.#said.detail }

  /** Whether this tab has the connection. */
  get leader () { return this.#session !== undefined }

  /** Whether messages survive a reload: false where IndexedDB is denied. Known once `start()` is done. */
  get persistent () { return this.#store?.persistent ?? false }

  /** The friends as last told; before a connection, as they were kept. @returns {Friend[]} */
  get friends () { return this.#friends.map((friend) => ({ ...friend, online: this.#online.has(friend.user) })) }

  /** How many messages of a friend are not read; friends without any are missing. @returns {Map<string, number>} */
  get unread () { return new Map(this.#unread) }

  /**
   * @template {keyof Events} T
   * @param {T} type
   * @param {(event: CustomEvent<Events[T]>) => void} listener
   * @returns {() => void}  Ends it.
   */
  on (type, listener) {
    const heard = /** @type {EventListener} */ (listener)
    this.addEventListener(type, heard)
    return () => this.removeEventListener(type, heard)
  }

  /** Connects. Called again: connects now, whatever it is waiting for, also after `logout` and `refused`. Resolves when the store is open. */
  start () {
    if (!this.#starting) {
      this.#starting = this.#open().catch((error) => {
        this.#leave(false)
        throw error
      })
    } else if (this.#session) this.#session.start()
    else {
      this.#tabs?.join()
      this.#tabs?.post({ start: true })
    }
    return this.#starting
  }

  /**
   * Puts a message into the outbox. Resolves when it is stored: it goes out now or later, also after a reload.
   *
   * @param {string} friend  A user id.
   * @param {unknown} content  Text; a Blob or Uint8Array with a picture, which goes as an array of byte values; or any other JSON.
   * @param {{ type?: string | number, id?: string }} [more]  The message's `type`, 0 by default; and an `id` of your own, at most 256 bytes, by default a UUID. What was queued with it before is not queued again.
   * @returns {Promise<Message>}
   */
  send (friend, content, { type = 0, id = uuid(this.#world) } = {}) {
    // In the order of the calls, though an earlier one may take longer to be encoded.
    const now = this.#world.now()
    const sent = (this.#sending.get(friend) ?? Promise.resolve()).then(() => this.#send(friend, content, type, id, now))
    const settled = sent.catch(() => {}).then(() => { if (this.#sending.get(friend) === settled) this.#sending.delete(friend) })
    this.#sending.set(friend, settled)
    return sent
  }

  /** @param {string} friend @param {unknown} content @param {string | number} type @param {string} id @param {number} now @returns {Promise<Message>} */
  async #send (friend, content, type, id, now) {
    const store = this.#opened()
    if (!isUserId(friend)) throw new TypeError('no user id')
    const { user } = this.#options
    const plain = { from: user, id, timestamp: new Date(now).toISOString(), content: await wireContent(content), type }
    if (JSON.stringify(plain.content) === undefined) throw new TypeError('no JSON')
    const encoded = this.#options.encode ? await within(this.#world, ENCODE_MS, this.#options.encode({ ...plain }, friend)) : plain
    const payload = JSON.stringify({ ...encoded, from: user, id })
    const row = await store.queue({ friend, id, payload, timestamp: now, type, ...pictureOf(plain.content) })
    this.#tell({ row, fresh: true })
    return present(row)
  }

  /** Queues a message again that has `failed`; of one that waits for its next try, makes it now. @param {string} id */
  async retry (id) {
    const row = await this.#opened().change(id, (own) => own.state === 'failed' || own.state === 'queued' ? { ...own, state: 'queued', reason: null } : null)
    if (row) this.#tell({ row, fresh: false })
    return row !== null
  }

  /**
   * Removes a message that is `queued` or `failed`. It stays, and the answer is false, when it may have reached the server already.
   *
   * @param {string} id
   */
  async cancel (id) {
    const row = await this.#opened().cancel(id)
    if (row) this.#tell({ row, fresh: false })
    return row !== null
  }

  /**
   * Messages with a friend, the oldest first: the newest `limit` of them, or those right before the `order` that is `before`.
   *
   * @param {string} friend
   * @param {{ before?: number, limit?: number }} [page]
   * @returns {Promise<Message[]>}
   */
  async history (friend, { before, limit = 50 } = {}) {
    return (await this.#opened().history(friend, before, limit)).map(present)
  }

  /** All conversations, that with the newest message first. @returns {Promise<Conversation[]>} */
  async conversations () {
    return (await this.#opened().conversations()).map(({ last, ...more }) => ({ ...more, last: last && present(last) }))
  }

  /** All messages of a friend are read. @param {string} friend */
  async read (friend) {
    if (await this.#opened().read(friend)) this.#tell({ event: 'unread', detail: { friend, unread: 0 } })
  }

  /** Ends the connection of this tab; another tab takes it. `start()` may follow. */
  async stop () { await this.#close(false) }

  /** Removes everything of this user from this browser, in all tabs, and ends the session with the server. */
  async forget () {
    await this.#starting
    this.#tabs?.post({ forget: true })
    await this.#close(true)
  }

  async #open () {
    const store = await openStore(this.#options, this.#world)
    this.#store = store
    const device = this.#options.device ?? await store.device(`web-${hex(this.#world.randomBytes(8))}`)
    this.#tabs = new Tabs(`jam:${this.#options.user}`, this.#world, { // before it is read what there is, so that nothing lies between
      lead: (alone) => this.#lead(device, alone),
      follow: () => this.#follow(),
      hear: (told) => this.#hear(told),
      back: () => this.#catchUp()
    })
    const [friends, unread] = await store.begin()
    this.#friends = friends
    this.#unread = unread
    this.#attention.show(unread)
    this.#tabs.join()
  }

  /** @param {string} device @param {boolean} alone */
  #lead (device, alone) {
    const store = this.#opened()
    for (const user of this.#online) this.#tell({ event: 'presence', detail: { user, online: false } }) // the one that led told so
    this.#session = new Session(this.#options, this.#world, { device, alone, store, tell: (told) => this.#tell(told), catchUp: () => this.#catchUp() })
    this.#dispatch('leader', { leader: true })
    this.#catchUp()
    this.#session.start()
  }

  /** What another tab has stored, and may have died over before it could tell. */
  async #catchUp () { await this.#store?.catchUp((kept) => this.#tell(kept)).catch(() => {}) } // it is tried again

  #follow () {
    if (!this.#session) return
    this.#session.stop(false)
    this.#session = undefined
    this.#dispatch('leader', { leader: false })
  }

  /** @param {boolean} forget */
  async #close (forget) {
    await this.#starting?.catch(() => {})
    this.#leave(forget)
    if (forget) {
      const store = await openStore(this.#options, this.#world)
      await store.clear()
      store.close()
      this.#friends = []
      this.#unread.clear()
    }
    this.#attention.show(new Map())
    this.#happen(stopped)
  }

  /** @param {boolean} forget  The session with the server ends as well. */
  #leave (forget) {
    const [store, tabs, session] = [this.#store, this.#tabs, this.#session]
    this.#starting = this.#store = this.#tabs = this.#session = undefined
    session?.stop(forget)
    tabs?.leave()
    store?.close()
  }

  /** For this tab and the others. @param {import('./tabs.js').Told} told */
  #tell (told) {
    this.#happen(told)
    this.#tabs?.post(told)
  }

  /** From another tab. @param {import('./tabs.js').Told} told */
  #hear (told) {
    if ('start' in told) this.#session?.start()
    else if ('aside' in told) {
      if (this.#said.detail.state === 'refused') this.#tabs?.aside()
    } else if ('forget' in told) this.#close(true).catch(() => {}) // the tab in which it was wanted says so
    else if ('hello' in told) {
      if (!this.#session) return
      for (const user of this.#online) this.#tabs?.post({ event: 'presence', detail: { user, online: true } })
      this.#tabs?.post({ event: 'friends', detail: { friends: this.#friends } })
      this.#tabs?.post(this.#said)
    } else if ('mark' in told) {
      const { token } = this.#options
      const own = typeof token !== 'string' || markOf(token) === told.mark
      if (!own && told.detail.state === 'refused') this.#tabs?.post({ aside: true })
      else this.#happen({ ...told, detail: { ...told.detail, own } })
    } else {
      if ('row' in told) this.#store?.mirror(told.row)
      this.#happen(told)
    }
  }

  /** @param {import('./tabs.js').Told} told */
  #happen (told) {
    if ('row' in told) {
      const { row, fresh, unread } = told
      if (fresh && !this.#store?.isNews(row.order)) return
      const message = present(row)
      if (row.state === 'queued') this.#session?.queued(row)
      this.#dispatch(fresh ? 'message' : 'update', message)
      if (fresh && !row.own && this.#session) this.#attention.notify(message)
      if (unread !== undefined) this.#happen({ event: 'unread', detail: { friend: row.friend, unread } })
      return
    }
    if ('mark' in told) this.#said = told
    if (!('event' in told)) return
    const { event, detail } = told
    if (event === 'friends') {
      this.#friends = detail.friends
      return this.#dispatch('friends', { friends: this.friends })
    }
    if (event === 'presence') this.#online[detail.online ? 'add' : 'delete'](detail.user)
    if (event === 'unread') {
      if (detail.unread) this.#unread.set(detail.friend, detail.unread)
      else this.#unread.delete(detail.friend)
      this.#attention.show(this.#unread)
    }
    this.#dispatch(event, detail)
  }

  /**
   * @template {keyof Events} T
   * @param {T} type
   * @param {Events[T]} detail
   */
  #dispatch (type, detail) { this.dispatchEvent(new CustomEvent(type, { detail })) }

  #opened () {
    if (!this.#store) throw new Error('start() first')
    return this.#store
  }
}

/** @type {{ event: 'state', detail: State, mark: string }} */
const stopped = { event: 'state', detail: { state: 'stopped', retryAt: null, reason: null, own: true }, mark: '' }

/** PROTOCOL.md, section 1. @param {unknown} id */
const isUserId = (id) => typeof id === 'string' && /^[^/+#$:\0]+$/.test(id) && new TextEncoder().encode(id).length <= 64

/**
 * A stored message as pages see it.
 *
 * @param {import('./store.js').Row} row
 * @returns {Message}
 */
function present ({ content, mime, payload, published, mark, bytes, ...message }) {
  return { ...message, content: typeof content === 'string' ? content : new Blob([content], { type: mime }) }
}
