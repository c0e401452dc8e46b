// The page as a whole: the door, or the conversations of who is inside. It decides when to draw, what the address says, and
// where the focus goes.

import { html, render } from '../vendor/preact.js'
import { Banner } from './banner.js'
import { Conversation, Nothing } from './conversation.js'
import { Door } from './door.js'
import { People } from './people.js'
import { current, forget, forgetDrafts, remember, takeFragment } from './session.js'
import { Chat } from './state.js'
import { ANOTHER_TOKEN, refusedLogin, shownName, trouble } from './words.js'

/** A thousand messages at once are not drawn one by one; and where drawing takes long, most of the time is for what is drawn. */
const DRAW_MS = 50
const REST = 3
const MAX_REST_MS = 500

const wide = matchMedia('(width >= 40rem)')

export class Page {
  /** @type {Chat | null} */ chat = null
  /** Of somebody at the door whose login has not been answered. */
  /** @type {Chat | null} */ knocks = null
  /** @type {string | null} */ wrong = null
  /** Who has just left, and whose conversations are still here. */
  /** @type {Chat | null} */ left = null
  user = ''
  /** @type {HTMLElement} */ #root
  #next = 0
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer

  constructor (root) {
    this.#root = root
  }

  begin () {
    addEventListener('popstate', () => this.#addressed())
    addEventListener('focus', () => this.#looks())
    for (const type of ['online', 'offline']) addEventListener(type, () => this.draw())
    document.addEventListener('visibilitychange', () => this.#looks())
    wide.addEventListener('change', () => this.draw())
    const login = current()
    if (login) this.enter(login)
    this.draw()
  }

  /** Shows the conversations at once, connected or not. */
  async enter (login) {
    await this.#leave()
    this.left = this.wrong = null
    const chat = this.#chatOf(login)
    this.chat = chat
    this.draw()
    try {
      await chat.start()
    } catch ({ message }) { chat.trouble = { category: 'begin', message } }
    this.#settle(chat)
    this.draw()
  }

  /** Logs in, and stays at the door until the server has agreed. */
  async knock (login, stays) {
    this.wrong = this.left = null
    this.user = login.user
    const chat = this.#chatOf(login)
    this.knocks = chat
    this.draw()
    const state = await new Promise((resolve) => {
      chat.jam.on('state', ({ detail }) => {
        if (['connected', 'refused', 'failed', 'stopped'].includes(detail.state)) resolve(detail.state)
        if (detail.state === 'logout') chat.connect() // another tab is logged out by another device: who logs in wants it here
      })
      chat.start().catch(({ message }) => {
        if (this.knocks !== chat) return resolve('failed')
        this.wrong = trouble({ category: 'begin', message })
        this.knocks = null
        this.draw()
        resolve('failed')
      })
    })
    if (this.knocks !== chat || state !== 'connected') return
    this.knocks = null
    remember(login, { stays })
    this.chat = chat
    this.draw()
    this.#settle(chat)
  }

  /** Whoever waits at the door may want to be somebody else. */
  async turnBack () {
    const { knocks } = this
    this.knocks = null
    this.#drawNow()
    this.#find('[name=user]')?.focus()
    await knocks?.jam.stop().catch(() => {}) // what it has kept is closed with the page
  }

  #chatOf (login) {
    const chat = new Chat(login, () => this.#changed(chat))
    return chat
  }

  #changed (chat) {
    const { state, reason } = chat.state
    const isOut = (state === 'refused' && chat === this.chat) || (['refused', 'failed'].includes(state) && chat === this.knocks)
    const isHere = [this.chat, this.knocks].includes(chat)
    if (chat.isForeign && isHere) this.#refused(chat, ANOTHER_TOKEN)
    else if (isOut) this.#refused(chat, refusedLogin(reason ?? {}))
    else if (chat.isEnded && isHere) this.#removed(chat)
    else if (chat === this.chat) this.#settle(chat)
    this.draw()
  }

  /** @param {Chat} chat @param {string} wrong  In words. */
  async #refused (chat, wrong) {
    this.wrong = wrong
    this.user = chat.user
    this.chat = this.knocks = null
    forget(chat)
    this.#drawNow()
    this.#find('[name=token]')?.focus()
    await chat.jam.stop()
  }

  /** Another tab has removed all that there was of this user. What this tab has of them goes as well. */
  #removed (chat) {
    this.wrong = `The conversations of ${shownName('', chat.user)} were removed from this browser in another tab.`
    this.user = ''
    this.chat = this.knocks = null
    forget(chat)
    forgetDrafts(chat.user)
    history.replaceState(null, '', location.pathname + location.search)
  }

  /** On a wide window there is always something to write to. */
  #settle (chat) {
    if (chat !== this.chat || chat.open || !chat.isReady) return
    const asked = this.#asked()
    const people = chat.people
    const known = people.find(({ user }) => user === asked)
    if (location.hash && !known && chat.isTold) history.replaceState(null, '', location.pathname + location.search)
    const first = known ?? (wide.matches ? people[0] : undefined)
    if (first) chat.choose(first.user)
  }

  async #leave () {
    const chat = this.chat ?? this.knocks
    this.chat = this.knocks = null
    await chat?.jam.stop()
    return chat
  }

  async logOut () {
    const chat = await this.#leave()
    if (!chat) return
    forget(chat)
    forgetDrafts(chat.user)
    this.left = chat
    this.user = ''
    history.replaceState(null, '', location.pathname + location.search)
    this.draw()
  }

  /** Nothing of who has left stays in this browser. */
  async wipe () {
    const { left } = this
    if (!left) return
    this.left = this.wrong = null
    this.draw()
    try {
      await left.jam.start() // or the other tabs would not hear of it
      await left.jam.forget()
    } catch ({ message }) {
      this.left = left
      this.wrong = trouble({ category: 'remove', message })
      this.draw()
    }
  }

  #asked () {
    try {
      return decodeURIComponent(location.hash.match(/^#\/(.+)$/)?.[1] ?? '')
    } catch { return '' }
  }

  #addressed () {
    const login = takeFragment()
    if (login) {
      remember(login)
      this.enter(login)
    } else if (this.chat) {
      const asked = this.#asked()
      const isKnown = this.chat.knows(asked)
      this.chat.choose(isKnown ? asked : null)
      if (!isKnown) this.#settle(this.chat)
    }
  }

  #looks () {
    this.chat?.see()
    this.draw()
  }

  choose (user) {
    const { chat } = this
    if (!chat) return
    const address = `#/${encodeURIComponent(user)}`
    if (wide.matches || chat.open) history.replaceState(null, '', address)
    else history.pushState({ fromList: true }, '', address)
    chat.choose(user)
    this.#drawNow()
    const isTouched = matchMedia('(pointer: coarse)').matches
    const field = isTouched ? null : this.#find('.composer textarea')
    const target = field ?? this.#find('.conversation h2')
    target?.focus()
  }

  back () {
    const { chat } = this
    if (!chat?.open) return
    const { friend } = chat.open
    if (history.state?.fromList) history.back()
    else history.replaceState(null, '', location.pathname + location.search)
    chat.choose(null)
    this.#drawNow()
    this.#find(`[data-user="${CSS.escape(friend)}"]`)?.focus()
  }

  /** @param {string} selector @returns {HTMLElement | null} */
  #find (selector) { return this.#root.querySelector(selector) }

  /** To where one writes, or to those to whom one could. */
  skip (event) {
    event.preventDefault()
    const field = this.#find('.composer textarea')
    const target = field?.offsetParent ? field : this.#find('.friend')
    target?.focus()
  }

  draw () {
    if (this.#timer) return
    this.#timer = setTimeout(() => this.#drawNow(), Math.max(0, this.#next - performance.now()))
  }

  #drawNow () {
    clearTimeout(this.#timer)
    this.#timer = undefined
    const began = performance.now()
    render(html`<${View} page=${this} />`, this.#root)
    const ended = performance.now()
    this.#next = ended + Math.min(MAX_REST_MS, Math.max(DRAW_MS, REST * (ended - began)))
  }
}

function View ({ page }) {
  const { chat } = page
  if (!chat) return html`<${Door} page=${page} />`
  const { open } = chat
  return html`
    <div class="frame">
      <header>
        <a class="skip unseen" href="#/" onClick=${(event) => page.skip(event)}>Skip to writing</a>
        <h1 class="unseen">Chat</h1>
        <${Banner} chat=${chat} />
      </header>
      <main class=${open ? 'columns open' : 'columns'}>
        <${People} page=${page} chat=${chat} />
        ${open ? html`<${Conversation} key=${open.friend} page=${page} chat=${chat} open=${open} />` : html`<${Nothing} chat=${chat} />`}
      </main>
      <div class="unseen" role="log" aria-label="New messages">
        ${chat.lines.map(({ key, name, text }) => html`<p key=${key}><bdi>${name}</bdi>: ${text}</p>`)}
      </div>
    </div>`
}
