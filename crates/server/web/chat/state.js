// What one user sees: friends, conversations, the open one. It is told by jam.js, and tells the view that something is new.
//
// Invariants: what is open and seen is read; nothing that fails is left untold (`#try`); of messages that are not open, what is shown
// of them is kept, and no more.

import { Jam } from '../jam.js'
import { forgetSending, noteSending, readDraft, readSending, uuid, writeDraft } from './session.js'
import { Window } from './window.js'
import { shortened, shownName } from './words.js'

const names = new Intl.Collator()

/** Lines that a screen reader may still be reading, and how much of each. */
const LINES = 100
const LINE = 1000

/** So much of a message is shown beside its conversation. */
const PREVIEW = 120

export class Chat {
  /** @type {import('../jam.js').State} */ state = { state: 'stopped', retryAt: null, reason: null, own: false }
  /** There was no connection lately, and there is none yet. */
  isLost = false
  /** By user id, in the order of their names. There may be thousands. */
  friends = new Map()
  isTold = false
  /** Another tab has removed everything of this user. */
  isEnded = false
  /** What the browser has kept is here. */
  isReady = false
  conversations = new Map()
  /** @type {Window | null} */ open = null
  /** @type {{ key: number, name: string, text: string }[]} */ lines = []
  /** What does not work, and is no matter of the connection: the category of jam.js's reason, or what was tried here. */
  /** @type {{ category: string, message: string } | null} */ trouble = null
  #drafts = new Map()
  #arrived = 0
  #isMarking = false

  /**
   * @param {{ user: string, token: string }} login
   * @param {() => void} changed
   */
  constructor ({ user, token }, changed) {
    this.user = user
    this.token = token
    this.changed = changed
    this.jam = new Jam({ user, token, url: address(), notify: (message) => this.#notification(message) })
    this.#listen()
  }

  async start () {
    await this.jam.start()
    this.#tell(this.jam.friends)
    this.isTold = this.friends.size > 0
    for (const { friend, last, ...more } of await this.jam.conversations()) this.conversations.set(friend, { ...more, friend, last: last && brief(last) })
    this.isReady = true
    for (const { id, friend, text } of readSending(this.user)) this.send(friend, text, id).catch(() => this.setDraft(friend, this.draft(friend) || text))
    this.changed()
  }

  /** Another tab is connected with another token. A user has one: it is not that of this tab. */
  get isForeign () { return this.state.state === 'connected' && !this.state.own }

  /** Now, whatever it waits for. */
  connect () { return this.#try('begin', () => this.jam.start()) }

  #listen () {
    const { jam } = this
    const on = (type, heard) => jam.on(type, ({ detail }) => { heard(detail); this.changed() })
    on('state', (state) => {
      this.state = state
      this.isEnded = state.state === 'stopped'
      if (state.state === 'connected') this.isLost = false
      if (state.state === 'waiting') this.isLost = true
    })
    on('friends', ({ friends }) => {
      this.#tell(friends)
      this.isTold = true
    })
    on('presence', ({ user, online }) => {
      const friend = this.friends.get(user)
      if (friend) this.friends.set(user, { ...friend, online })
    })
    on('unread', ({ friend, unread }) => {
      this.#change(friend, { unread })
      this.see()
    })
    on('message', (message) => this.#arrives(message))
    on('update', (message) => this.#updates(message))
    on('error', (reason) => { this.trouble = reason })
    on('leader', ({ leader }) => {
      if (leader && this.isReady) this.#try('read', () => this.#catchUp())
    })
  }

  /** What fails is told in words, with what can be done (`banner`). @param {'read' | 'mark' | 'change' | 'begin'} doing @param {() => unknown} work */
  async #try (doing, work) {
    try {
      return await work()
    } catch (error) {
      if (!this.isEnded) this.trouble = { category: doing, message: `${error?.message ?? error}` }
      this.changed()
    }
  }

  /** The tab that led may have gone between storing a message and telling of it. */
  async #catchUp () {
    for (const { friend, last, unread } of await this.jam.conversations()) {
      const known = this.conversations.get(friend)?.last
      if (last && (!known || known.order <= last.order)) this.#change(friend, { last: brief(last), unread }) // else a newer one came meanwhile
    }
    await this.open?.catchUp()
    this.see()
    this.changed()
  }

  #tell (friends) {
    const named = friends.map((friend) => ({ ...friend, name: shownName(friend.name, friend.user) }))
    const now = new Map(named.sort((one, other) => names.compare(one.name, other.name)).map((friend) => [friend.user, friend]))
    for (const [user, { name }] of this.friends) if (!now.has(user) && this.conversations.has(user)) this.#change(user, { name })
    this.friends = now
  }

  /** The friends and those who once were: the last conversation first, then by name. */
  get people () {
    const users = new Set([...this.friends.keys(), ...this.conversations.keys()])
    const people = Array.from(users, (user) => ({ ...this.person(user), conversation: this.conversations.get(user), draft: this.draft(user) }))
    const last = ({ conversation }) => conversation?.last?.order ?? -1
    return people.sort((one, other) => last(other) - last(one))
  }

  person (user) {
    const friend = this.friends.get(user)
    if (friend) return { ...friend, online: friend.online && !friend.blocked }
    return { user, name: shownName(this.conversations.get(user)?.name ?? '', user), blocked: false, online: false, isFormer: this.isTold }
  }

  knows (user) { return this.friends.has(user) || this.conversations.has(user) }

  draft (friend) {
    if (!this.#drafts.has(friend)) this.#drafts.set(friend, readDraft(this.user, friend))
    return this.#drafts.get(friend)
  }

  setDraft (friend, text) {
    if (this.isEnded) return // who has left leaves nothing behind, also what could not be stored
    this.#drafts.set(friend, text)
    writeDraft(this.user, friend, text)
  }

  /** Shows the conversation with a friend, or none. */
  async choose (friend) {
    if (friend === this.open?.friend) return
    this.open?.close()
    if (friend === null) {
      this.open = null
      this.changed()
      return
    }
    const open = new Window(this.jam, friend, () => this.changed())
    this.open = open
    const { mark, unread } = this.conversations.get(friend) ?? { mark: -1, unread: 0 }
    if (unread > 0) open.mark = mark
    this.changed()
    await this.#try('read', async () => {
      await open.open(unread)
      this.see()
      await open.ease()
    })
  }

  /** Again, after it has failed; or to the end from far above. */
  newest () {
    const { open } = this
    return this.#try('read', async () => {
      await open?.open()
      if (open) open.missed = 0
      this.see()
    })
  }

  earlier () { return this.#try('read', () => this.open?.earlier()) }

  later () { return this.#try('read', () => this.open?.later()) }

  /** What is open is before somebody's eyes: it is read. It is noted once at a time, however much comes. */
  async see () {
    const unread = () => (this.open?.isLoaded && isSeen() && this.open.missed === 0 && this.conversations.get(this.open.friend)?.unread) || 0
    const before = unread()
    if (this.#isMarking || !before) return
    this.#isMarking = true
    const isMarked = await this.#try('mark', () => this.jam.read(this.open?.friend ?? '').then(() => true))
    this.#isMarking = false
    // A count that stays has been read already, in another tab: the store says nothing more of it.
    if (isMarked && unread() !== before) this.see()
  }

  /** The end of the open conversation is in view, or not. */
  reach (isEnd) {
    const { open } = this
    if (!open || open.isAbove === !isEnd) return
    open.isAbove = !isEnd
    if (isEnd) {
      open.missed = 0
      this.see()
    }
    this.changed()
  }

  /** Rejects, with the reason, if it cannot be kept: who wrote it still has it. */
  async send (friend, content, id = uuid()) {
    if (this.open && this.open.friend === friend) this.open.mark = null
    if (typeof content === 'string') noteSending(this.user, { id, friend, text: content })
    try {
      return await this.jam.send(friend, content, { id })
    } finally {
      forgetSending(this.user, id)
    }
  }

  retry (id) { return this.#try('change', () => this.jam.retry(id)) }

  cancel (id) { return this.#try('change', () => this.jam.cancel(id)) }

  #arrives (message) {
    const { friend, order, own } = message
    const before = this.conversations.get(friend)
    if (!before?.last || before.last.order < order) this.#change(friend, { last: brief(message) })
    const { open } = this
    if (open && open.friend === friend && open.arrives({ ...message, isFresh: true })) {
      if (!own && open.mark === null && !isSeen()) open.mark = order - 1
      if (!own && open.isAbove) open.missed++
      if (own && open.hasLater) this.newest() // who writes wants to see it
      this.see()
    }
    if (!own) this.lines = [...this.lines, { key: this.#arrived++, name: this.person(friend).name, text: line(message) }].slice(-LINES)
  }

  #updates (message) {
    const { friend, order, state } = message
    if (this.open && this.open.friend === friend) this.open.updates({ ...message, isFresh: true })
    if (this.conversations.get(friend)?.last?.order !== order) return
    if (state !== 'cancelled') this.#change(friend, { last: brief(message) })
    else this.#try('read', async () => {
      const [last] = await this.jam.history(friend, { limit: 1 })
      this.#change(friend, { last: last ? brief(last) : null })
      this.changed()
    })
  }

  #change (friend, change) {
    const before = this.conversations.get(friend) ?? { friend, last: null, unread: 0, mark: -1 }
    this.conversations.set(friend, { ...before, ...change })
  }

  #notification (message) {
    if (globalThis.Notification?.permission !== 'granted') return null
    return { title: this.person(message.friend).name, body: brief(message).text, icon: 'icon.svg' }
  }
}

/** What is shown of a message beside its conversation. */
function brief ({ order, own, state, kind, content, timestamp, arrived }) {
  const text = kind === 'text' ? shortened(content, PREVIEW) : kind === 'picture' ? 'Picture' : 'A message of another kind'
  return { order, own, state, timestamp, arrived, text }
}

/** A message as it is read aloud. */
const line = ({ kind, content }) => kind === 'text' ? content.slice(0, LINE) : kind === 'picture' ? 'a picture' : 'a message of another kind'

export const isSeen = () => document.visibilityState === 'visible' && document.hasFocus()

/** Beside this page, also below a path of a proxy. */
function address () {
  const url = new URL('mqtt', document.baseURI)
  url.protocol = url.protocol.replace('http', 'ws')
  url.hash = ''
  return url.href
}
