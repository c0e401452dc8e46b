// What one user sees: friends, conversations, the open one. It is told by jam.js, and tells the view that something is new.
//
// Invariants: a message is in a conversation once, by its `order`; what is open and seen is read.

import { Jam } from '../jam.js'
import { readDraft, writeDraft } from './session.js'

const FIRST = 200
const NEXT = 200

/** So many are loaded by themselves, for searching in the page and for scrolling without a halt; what is older is asked for. */
const AT_EASE = 1200

const names = new Intl.Collator()

/** Lines that a screen reader may still be reading. */
const LINES = 100

export class Chat {
  state = { state: 'stopped', retryAt: null, reason: null }
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
  open = null
  lines = []
  trouble = null
  #drafts = new Map()
  #arrived = 0

  /**
   * @param {{ user: string, token: string }} login
   * @param {() => void} changed
   */
  constructor ({ user, token }, changed) {
    this.user = user
    this.changed = changed
    this.jam = new Jam({ user, token, url: address(), notify: (message) => this.#notification(message) })
    this.#listen()
  }

  async start () {
    await this.jam.start()
    this.#tell(this.jam.friends)
    this.isTold = this.friends.size > 0
    for (const conversation of await this.jam.conversations()) this.conversations.set(conversation.friend, conversation)
    this.isReady = true
    this.changed()
  }

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
      if (leader && this.isReady) this.#catchUp().catch(({ message }) => { this.trouble = { category: 'page', message }; this.changed() })
    })
  }

  /** The tab that led may have gone between storing a message and telling of it. */
  async #catchUp () {
    for (const conversation of await this.jam.conversations()) {
      const { friend, last, unread } = conversation
      const known = this.conversations.get(friend)?.last
      if (last && (!known || known.order <= last.order)) this.#change(friend, { last, unread }) // else a newer one came meanwhile
    }
    const { open } = this
    if (open?.isLoaded) {
      const newest = await this.jam.history(open.friend, { limit: FIRST })
      const orders = new Set(newest.map(({ order }) => order))
      open.messages = [...open.messages.filter(({ order }) => !orders.has(order)), ...newest].sort((one, other) => one.order - other.order)
      this.see()
    }
    this.changed()
  }

  #tell (friends) {
    const sorted = friends.toSorted((one, other) => names.compare(one.name, other.name))
    this.friends = new Map(sorted.map((friend) => [friend.user, friend]))
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
    return friend ? { ...friend, online: friend.online && !friend.blocked } : { user, name: user, blocked: false, online: false, isFormer: true }
  }

  draft (friend) {
    if (!this.#drafts.has(friend)) this.#drafts.set(friend, readDraft(this.user, friend))
    return this.#drafts.get(friend)
  }

  setDraft (friend, text) {
    this.#drafts.set(friend, text)
    writeDraft(this.user, friend, text)
  }

  /** Shows the conversation with a friend, or none. */
  async choose (friend) {
    if (friend === this.open?.friend) return
    if (friend === null) {
      this.open = null
      this.changed()
      return
    }
    const open = { friend, messages: [], isLoaded: false, hasEarlier: false, mark: null, missed: 0 }
    this.open = open
    this.changed()
    const { mark, unread } = this.conversations.get(friend) ?? { mark: -1, unread: 0 }
    if (unread > 0) open.mark = mark
    await this.#load(open, Math.max(FIRST, Math.min(unread + 10, AT_EASE)))
    open.isLoaded = true
    this.see()
    this.changed()
    while (open.hasEarlier && open.messages.length < AT_EASE && this.open === open) {
      await new Promise((resolve) => setTimeout(resolve, 50))
      await this.#load(open, NEXT)
    }
  }

  async earlier () {
    const { open } = this
    if (open?.hasEarlier) await this.#load(open, NEXT)
  }

  async #load (open, limit) {
    const before = open.messages[0]?.order
    const page = await this.jam.history(open.friend, { before, limit })
    const known = new Set(open.messages.map(({ order }) => order))
    open.messages = [...page.filter(({ order }) => !known.has(order)), ...open.messages].sort((one, other) => one.order - other.order)
    open.hasEarlier = page.length === limit
    this.changed()
  }

  /** What is open is before somebody's eyes: it is read. */
  see () {
    const { open } = this
    if (!open?.isLoaded || !isSeen() || open.missed > 0) return
    if (this.conversations.get(open.friend)?.unread) this.jam.read(open.friend)
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

  async send (friend, content) {
    if (this.open?.friend === friend) this.open.mark = null
    return await this.jam.send(friend, content)
  }

  #arrives (message) {
    const { friend, order, own } = message
    const before = this.conversations.get(friend)
    if (!before?.last || before.last.order < order) this.#change(friend, { last: message })
    const { open } = this
    if (open?.friend === friend && !open.messages.some((known) => known.order === order)) {
      if (!own && open.mark === null && !isSeen()) open.mark = order - 1
      if (!own && open.isAbove) open.missed++
      open.messages = [...open.messages, { ...message, isFresh: true }].sort((one, other) => one.order - other.order)
      this.see()
    }
    if (!own) this.lines = [...this.lines, { key: this.#arrived++, name: this.person(friend).name, message }].slice(-LINES)
  }

  #updates (message) {
    const { friend, order, state } = message
    const { open } = this
    if (open?.friend === friend) {
      const others = open.messages.filter((known) => known.order !== order)
      open.messages = state === 'cancelled' ? others : open.messages.map((known) => known.order === order ? { ...message, isFresh: true } : known)
    }
    const last = this.conversations.get(friend)?.last
    if (last?.order === order) {
      this.#change(friend, { last: message })
      if (state === 'cancelled') this.jam.history(friend, { limit: 1 }).then(([last = null]) => { this.#change(friend, { last }); this.changed() })
    }
  }

  #change (friend, change) {
    const before = this.conversations.get(friend) ?? { friend, last: null, unread: 0, mark: -1 }
    this.conversations.set(friend, { ...before, ...change })
  }

  #notification (message) {
    if (globalThis.Notification?.permission !== 'granted') return null
    const body = message.kind === 'text' ? message.content.slice(0, 200) : message.kind === 'picture' ? 'Picture' : 'Message'
    return { title: this.person(message.friend).name, body, icon: 'icon.svg' }
  }
}

export const isSeen = () => document.visibilityState === 'visible' && document.hasFocus()

/** Beside this page, also below a path of a proxy. */
function address () {
  const url = new URL('mqtt', document.baseURI)
  url.protocol = url.protocol.replace('http', 'ws')
  url.hash = ''
  return url.href
}
